"""Lists dead letters, and publishes them again once their cause is removed."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from consumer.config.settings import KafkaSettings
from consumer.errors import Conflict, KafkaUnavailable, NotFound, WebhooksError
from consumer.intake.dead_letters import OURS
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record, Unreadable
from consumer.kafka.producer import Outgoing, Published, Publisher
from consumer.ledger import marks, outbox
from consumer.ledger.replays import Span
from consumer.ops.changes import Changes, Deployment
from consumer.ops.events import Tail, TailPosition, record_at, tail

HOUR = 3600.0  # seconds for which commands count dead letters
PUBLISHED = "dead_letter.published"
_BATCH = 500  # records; the reader's prefetch bounds their bytes
SHOWN = 2000  # bytes of a value
_MOST_DIGITS = 19  # of a size
_PRODUCER = "its producer has to publish it again"
_CUT = f"only a part of this record was kept, because it was too large; {_PRODUCER}"
# By reason: dead letters without a part of their record.
_LACKING = {
    "unreadable": f"the content of this record was not kept, because it could not be read; {_PRODUCER}",
    "bad_headers": f"the headers of this record were not kept, because they could not be read; {_PRODUCER}",
}

Place = tuple[int, int]  # partition and offset in the dead-letter topic


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


class Found(NamedTuple):
    """Dead letters that can be published again, and their numbers by topic and reason.

    Besides, the numbers of those that cannot be, because they are not whole, and of those that were published before.
    """

    places: Sequence[Place]
    kinds: Mapping[tuple[str, str], int]
    lacking: int
    published: int
    more: bool


def written(kafka: KafkaSettings, since: float) -> int:
    """How many dead letters were written since then (unix seconds). Raises as `events.newest` does."""
    with LogReader(kafka, name="tail") as reader:
        spans = reader.spans(reader.partitions_of(kafka.dead_letter_topic), since, None)
    return sum(span.end - span.begin for span in spans)


def recent(kafka: KafkaSettings, limit: int, position: TailPosition | None = None) -> Tail[DeadLetter]:
    """The newest dead letters. Reads and raises as `events.tail` does."""
    return tail(kafka, kafka.dead_letter_topic, limit, _letter_of, position)


def letter_at(kafka: KafkaSettings, partition: int, offset: int) -> DeadLetter:
    """The dead letter at this place. Raises NotFound, and as `events.tail` does."""
    record = record_at(kafka, kafka.dead_letter_topic, partition, offset)
    letter = None if record is None else _letter_of(record)
    if letter is None:
        raise NotFound(
            "dead letter", offset, f"{kafka.dead_letter_topic}[{partition}] has none at this offset any more"
        )
    return letter


def publish_again(changes: Changes, kafka: KafkaSettings, partition: int, offset: int) -> None:
    """Publish a dead letter as `publish_many` does.

    Raises NotFound, and Conflict if the topic does not hold the whole record.
    """
    letter = letter_at(kafka, partition, offset)
    if letter.lacking is not None:
        raise Conflict(letter.lacking)
    for _ in publish_many(changes, kafka, [(partition, offset)]):
        pass


def published(deployment: Deployment, kafka: KafkaSettings, letters: Sequence[DeadLetter]) -> Mapping[Place, float]:
    """When those of the `letters` that were published again were."""
    if not letters:
        return {}
    first = min(letter.offset for letter in letters)
    return marks.published(deployment.engine, deployment.group, kafka.dead_letter_topic, first)


def search(
    kafka: KafkaSettings,
    deployment: Deployment,
    limit: int,
    since: float,
    until: float | None,
    wanted: Callable[[DeadLetter], bool],
) -> Found:
    """At most `limit` wanted dead letters that were written between two times (unix seconds; None: until now).

    Raises as `events.newest` does. Those that were published again in the last KEPT seconds are left out.
    """
    places: list[Place] = []
    kinds: Counter[tuple[str, str]] = Counter()
    lacking = again = 0
    with LogReader(kafka, name="tail") as reader:
        spans = reader.spans(reader.partitions_of(kafka.dead_letter_topic), since, until)
        first = min((span.begin for span in spans), default=0)
        marked = marks.published(deployment.engine, deployment.group, kafka.dead_letter_topic, first)
        for record in chain.from_iterable(read(reader, spans)):
            letter = _letter_of(record)
            if letter is None or not wanted(letter):
                continue
            if (place := (letter.partition, letter.offset)) in marked:
                again += 1
            elif letter.lacking is not None:
                lacking += 1
            elif len(places) == limit:
                return Found(places, kinds, lacking, again, more=True)
            else:
                places.append(place)
                kinds[letter.topic, letter.reason] += 1
    return Found(places, kinds, lacking, again, more=False)


def publish_many(changes: Changes, kafka: KafkaSettings, places: Sequence[Place]) -> Iterator[int]:
    """Publish these dead letters, each to its own topic, unchanged; yields the number of a batch once it is marked.

    Raises WebhooksError for a refused record, and KafkaUnavailable, after the published letters of the batch are
    marked. Another run leaves those out.
    """
    chosen = set(places)
    offsets: dict[int, list[int]] = {}
    for partition, offset in places:
        offsets.setdefault(partition, []).append(offset)
    topic, where = kafka.dead_letter_topic, changes.deployment
    spans = [Span(topic, partition, min(found), max(found) + 1) for partition, found in offsets.items()]
    publisher = Publisher(kafka)
    with LogReader(kafka, name="tail") as reader:
        for records in read(reader, spans):
            found = [(record, letter) for record in records if (letter := _letter_of(record)) is not None]
            wanted = [each for each in found if (each[1].partition, each[1].offset) in chosen]
            answers = publisher.publish([_original(*each) for each in wanted])
            done = [
                letter for (_, letter), answer in zip(wanted, answers, strict=True) if isinstance(answer, Published)
            ]
            if done:
                marked = [(each.partition, each.offset) for each in done]
                told = {"topic": topic, "places": marked, "published_to": sorted({each.topic for each in done})}
                with where.engine.begin() as connection:
                    outbox.tell(connection, where.group, PUBLISHED, {"actor": changes.actor, **told})
                    marks.note_published(connection, where.group, topic, marked)
                yield len(done)
            for answer in answers:
                if isinstance(answer, WebhooksError):
                    raise answer


def read(reader: LogReader, spans: Sequence[Span]) -> Iterator[list[Record]]:
    """The records of the spans, in batches that fit into memory. KafkaUnavailable if no broker can be reached."""
    reader.start(spans)
    while not reader.done:
        yield reader.read(_BATCH, 0.1)
        if reader.fault is not None:
            raise KafkaUnavailable(reader.fault)


def _original(record: Record, letter: DeadLetter) -> Outgoing:
    """The record of a dead letter."""
    headers = [] if record.headers is None or isinstance(record.headers, Unreadable) else record.headers
    own = [(name, value) for name, value in headers if not name.startswith(OURS)]
    return Outgoing(letter.topic, record.value, record.key, own)


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
