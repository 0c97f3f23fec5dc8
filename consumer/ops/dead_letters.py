"""Lists dead letters, and publishes one again once its cause is removed."""

from typing import NamedTuple

from consumer.config.settings import KafkaSettings
from consumer.errors import WebhooksError
from consumer.intake.dead_letters import OURS
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record, Unreadable
from consumer.kafka.publishing import Published, publish
from consumer.ledger import marks, outbox
from consumer.ops.changes import Registry
from consumer.ops.tail import newest, record_at

HOUR = 3600.0  # seconds for which commands count dead letters
PUBLISHED = "dead_letter.published"
SHOWN = 2000  # bytes of a value
_MOST_DIGITS = 19  # of a size
_PRODUCER = "its producer has to publish it again"
_CUT = f"only a part of this record was kept, because it was too large; {_PRODUCER}"
# By reason: dead letters without a part of their record.
_LACKING = {
    "unreadable": f"the content of this record was not kept, because it could not be read; {_PRODUCER}",
    "bad_headers": f"the headers of this record were not kept, because they could not be read; {_PRODUCER}",
}


class DeadLetter(NamedTuple):
    """A dead letter at `partition` and `offset` of the dead-letter topic; `at` (unix seconds) is when it was written.

    `origin` is the position of the record in its own `topic`; `reason` and `detail` say why it is not an event. `value`
    is its beginning, `size` its full length in bytes. `lacking`: why it cannot be published again, because the topic
    does not hold the whole record; None if it can.
    """

    partition: int
    offset: int
    at: float
    topic: str
    origin: str
    reason: str
    detail: str
    key: bytes | None
    value: bytes
    size: int
    lacking: str | None


def written(kafka: KafkaSettings, since: float) -> int:
    """How many dead letters were written since then (unix seconds). Raises as `tail.newest` does."""
    with LogReader(kafka, name="tail") as reader:
        spans = reader.spans(reader.partitions_of(kafka.dead_letter_topic), since, None, quietly=True)
    return sum(span.end - span.begin for span in spans)


def recent(kafka: KafkaSettings, limit: int) -> list[DeadLetter]:
    """The newest dead letters. Raises as `tail.newest` does."""
    found = (_letter_of(record) for record in newest(kafka, kafka.dead_letter_topic, limit))
    return [letter for letter in found if letter is not None]


def publish_again(kafka: KafkaSettings, partition: int, offset: int) -> tuple[str, Published]:
    """Publish the record of a dead letter to its own topic, unchanged; returns that topic and the new position.

    Raises WebhooksError if the topic does not hold the whole record, or not any more, and KafkaUnavailable.
    """
    record = record_at(kafka, kafka.dead_letter_topic, partition, offset)
    letter = None if record is None else _letter_of(record)
    if record is None or letter is None:
        raise WebhooksError(f"{kafka.dead_letter_topic}[{partition}] has no dead letter at offset {offset} any more")
    if letter.lacking is not None:
        raise WebhooksError(letter.lacking)
    headers = [] if record.headers is None or isinstance(record.headers, Unreadable) else record.headers
    own = [(name, value) for name, value in headers if not name.startswith(OURS)]
    (published,) = publish(kafka, letter.topic, [record.value], key=record.key, headers=own)
    return letter.topic, published


def note_published(registry: Registry, actor: str, kafka: KafkaSettings, letter: tuple[int, int], topic: str) -> None:
    """Mark the dead letter at this partition and offset as published again, to `topic`, and write an event of it."""
    partition, offset = letter
    place = {"topic": kafka.dead_letter_topic, "partition": partition, "offset": offset}
    with registry.engine.begin() as connection:
        outbox.tell(connection, registry.group, PUBLISHED, {"actor": actor, "published_to": topic, **place})
        marks.note_published(connection, registry.group, kafka.dead_letter_topic, partition, offset)


def _letter_of(record: Record) -> DeadLetter | None:
    """None for a record that no worker has written."""
    if record.headers is None or isinstance(record.headers, Unreadable):
        return None
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers if name.startswith(OURS)}
    try:
        topic, number, offset, reason = (headers[OURS + name] for name in ("topic", "partition", "offset", "reason"))
    except KeyError:
        return None
    value, size = record.value or b"", headers.get(f"{OURS}size", "")
    # Earlier releases kept a producer's header of this name; a worker's own comes with the digest.
    cut = f"{OURS}sha256" in headers and size.isdecimal() and len(size) <= _MOST_DIGITS
    return DeadLetter(
        record.partition.number,
        record.offset,
        record.timestamp / 1000,
        topic,
        f"{topic}[{number}] @ {offset}",
        reason,
        headers.get(f"{OURS}detail", ""),
        record.key,
        value[:SHOWN],
        int(size) if cut else len(value),
        _CUT if cut else _LACKING.get(reason),
    )
