"""Sends deliveries that were given up again, from the exhausted topic: also those whose rows are deleted."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

from sqlalchemy import Connection

from consumer.config.settings import KafkaSettings
from consumer.database.statements import AnyRow
from consumer.errors import SettingsError
from consumer.intake.exhausted import parse
from consumer.intake.log_reader import LogReader
from consumer.ledger import given_up, marks
from consumer.ledger.admin import DeliveryQuery, RedeliveryStep
from consumer.ledger.rows import NewDelivery
from consumer.ledger.store import key_of
from consumer.ops.changes import Changes, Deployment
from consumer.ops.dead_letters import Place, read
from models import Status

Batch = Mapping[Place, NewDelivery]  # by partition and offset in the topic
Places = Mapping[int | None, Sequence[Place]]  # by the row of their delivery


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

    A record is marked in the transaction that makes its delivery due: an interruption repeats none. Those that are left
    alone are marked afterwards. A delivery with two records is sent again for the second one once its row is gone.
    """
    where, topic = changes.deployment, kafka.exhausted_topic or ""
    for batch in filter(None, batches):
        ids = given_up.restore(where.engine, where.group, list(batch.values()), where.clock())
        places: dict[int | None, list[Place]] = defaultdict(list)
        for place, row in batch.items():
            places[ids.get(key_of(row))].append(place)

        def note(connection: Connection, rows: Sequence[AnyRow], places: Places = places) -> None:
            marks.note_published(connection, where.group, topic, chain.from_iterable(places[row.id] for row in rows))

        if ids:
            yield from changes.redeliver(DeliveryQuery(ids=ids.values(), statuses=[Status.EXHAUSTED]), note)
        if alone := places[None]:
            with where.engine.begin() as connection:
                marks.note_published(connection, where.group, topic, alone)
