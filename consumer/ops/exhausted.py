"""Sends deliveries that were given up again, from the exhausted topic: also those whose rows are deleted."""

from collections.abc import Callable, Iterator, Mapping

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.intake.exhausted import parse
from consumer.intake.log_reader import LogReader
from consumer.ledger import given_up, marks
from consumer.ledger.admin import DeliveryQuery, RedeliveryStep
from consumer.ledger.rows import NewDelivery
from consumer.ops.changes import Changes, Deployment
from consumer.ops.dead_letters import Place, read
from models import Status

Batch = Mapping[Place, NewDelivery]  # by partition and offset in the topic


def search(
    kafka: KafkaSettings, where: Deployment, since: float, until: float, wanted: Callable[[NewDelivery], bool]
) -> Iterator[Batch]:
    """This group's deliveries whose records were written between two times (unix seconds), in batches.

    Those that `redeliver` has sent in the last week are left out. Raises SettingsError without a topic,
    KafkaUnavailable, and WebhooksError if the topic may not be read.
    """
    topic = kafka.exhausted_topic
    if topic is None:
        raise SettingsError("KAFKA_EXHAUSTED_TOPIC is not set: name the topic to read")
    with LogReader(kafka, name="tail") as reader:
        spans = reader.spans(reader.partitions_of(topic), since, until)
        sent = marks.published(where.engine, where.group, topic, min((span.begin for span in spans), default=0))
        for records in read(reader, spans):
            found = {(each.partition.number, each.offset): parse(each, where.group) for each in records}
            yield {at: each for at, each in found.items() if each and at not in sent and wanted(each)}


def redeliver(changes: Changes, kafka: KafkaSettings, batches: Iterator[Batch]) -> Iterator[RedeliveryStep]:
    """Send those that neither wait nor were delivered again, on a new schedule.

    A batch is marked afterwards: after an interruption its deliveries are waiting, and so they are left alone.
    """
    where = changes.deployment
    for batch in filter(None, batches):
        if ids := given_up.restore(where.engine, where.group, list(batch.values()), where.clock()):
            yield from changes.redeliver(DeliveryQuery(ids=ids, statuses=[Status.EXHAUSTED]))
        with where.engine.begin() as connection:
            marks.note_published(connection, where.group, kafka.exhausted_topic or "", batch)
