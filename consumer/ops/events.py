"""Reads records of the log and the events that they carry, for display: in no group, and without a commit."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from heapq import merge
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

import orjson

from consumer.config.settings import KafkaSettings, SchemaSettings
from consumer.errors import KafkaUnavailable
from consumer.events.event import Event
from consumer.intake.decode import decode, decoded
from consumer.intake.log_reader import FOREVER, LogReader
from consumer.intake.mapping_file import mappings_of
from consumer.intake.record import Record
from consumer.ledger.replays import Span

SECONDS = 5.0  # of one reading
MOST_BYTES = 16 * 2**20  # of the records
SEARCHED = 2_000  # of the newest operational events, if only some are wanted
_AT_ONCE = 500  # records

ReadEvent = Callable[[Record], Event]  # raises Tombstone, Undecodable and RegistryUnavailable
TailPosition = Sequence[tuple[int, int]]  # partitions that have older records, and the offset above each one's newest
T = TypeVar("T")


class Tail(NamedTuple, Generic[T]):
    """What was found in the newest records of a topic, newest first, and the position before it; None at the beginning.

    It may have less than was asked for, even nothing, and still a position.
    """

    found: list[T]
    position: TailPosition | None


class AuditEntry(NamedTuple):
    """An operational event, which happened `at` (unix seconds). `actor` None: the service itself."""

    at: float
    type: str
    subscription_id: int | None
    actor: str | None
    data: dict[str, object]

    @property
    def via(self) -> str:
        """The way by which it was changed: `api`, `cli`, `console`, or `service` if nobody did it."""
        return (self.actor or "service").partition(":")[0]


class AuditQuery(NamedTuple):
    """Conditions on an operational event; empty or None: any.

    `type` is all of its type, or the part before the dot. `actor` is all of its actor, the name alone, or the way
    alone; `service`: the service itself.
    """

    type: str = ""
    actor: str = ""
    subscription: int | None = None

    def chooses(self, entry: AuditEntry) -> bool:
        """Whether the event meets the conditions."""
        actor, theirs = entry.actor or "service", entry.data.get("subscription_ids")
        subscriptions = [entry.subscription_id, *(theirs if isinstance(theirs, list) else ())]
        return (
            self.type in {"", entry.type, entry.type.partition(".")[0]}
            and self.actor in {"", actor, *actor.split(":", 1)}
            and (self.subscription is None or self.subscription in subscriptions)
        )


def newest(kafka: KafkaSettings, topic: str, limit: int, partition: int | None = None) -> list[Record]:
    """At most `limit` records of a topic, or of one `partition`, newest first. Raises as `tail` does."""
    ends = None if partition is None else [(partition, FOREVER)]
    return tail(kafka, topic, limit, lambda record: record, ends).found


def tail(
    kafka: KafkaSettings,
    topic: str,
    limit: int,
    choose: Callable[[Record], T | None],
    position: TailPosition | None = None,
    looked_at: int | None = None,
) -> Tail[T]:
    """At most `limit` things that `choose` makes of a topic's newest records, of those before the `position`.

    Looks at the `looked_at` newest ones of each partition (None: `limit`), without the oldest ones if all together have
    more than 16 MiB. Raises KafkaUnavailable, also if they do not arrive within 5 s, WebhooksError if the topic may not
    be read, and SettingsError if librdkafka refuses a setting. A topic that does not exist has no records.
    """
    with LogReader(kafka, name="tail") as reader:
        there = {span.number: span for span in reader.spans(reader.partitions_of(topic), 0.0, None)}
        if position is not None:
            there = {n: there[n]._replace(end=min(end, there[n].end)) for n, end in position if n in there}
        left = {number: max(span.begin, span.end - (looked_at or limit)) for number, span in there.items()}
        reader.start([span._replace(begin=left[number]) for number, span in there.items()])
        records = {number: deque[Record]() for number in there}
        for oldest in _read(reader, records):
            left[oldest.partition.number] = oldest.offset + 1
    if not reader.done:
        raise KafkaUnavailable(f"the newest records of {topic} did not arrive within {SECONDS:g} s; ask for fewer")
    found: list[T] = []
    # Each partition's own order is kept: what a page shows of it is all that there is above its position.
    for record in merge(*map(reversed, records.values()), key=attrgetter("timestamp", "offset"), reverse=True):
        number = record.partition.number
        if len(found) == limit:
            left[number] = max(left[number], record.offset + 1)
        elif (chosen := choose(record)) is not None:
            found.append(chosen)
    older = [(number, end) for number, end in left.items() if end > there[number].begin]
    return Tail(found, older or None)


def record_at(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> Record | None:
    """The record at an offset, or None if the log does not have it. Raises as `newest` does."""
    with LogReader(kafka, name="tail") as reader:
        wanted = [each for each in reader.partitions_of(topic) if each[1] == partition]
        if not any(span.begin <= offset < span.end for span in reader.spans(wanted, 0.0, None)):
            return None
        reader.start([Span(topic, partition, offset, offset + 1)])
        found = deque[Record]()
        deque(_read(reader, {partition: found}))  # reads it
        return next((record for record in found if record.offset == offset), None)


def audit(
    kafka: KafkaSettings,
    limit: int,
    query: AuditQuery = AuditQuery(),  # noqa: B008 (immutable)
    position: TailPosition | None = None,
) -> Tail[AuditEntry]:
    """The newest operational events of this group: what people changed, and what the service did by itself.

    With a `query`, those among the newest SEARCHED that it chooses. Reads and raises as `tail` does.
    """

    def chosen(record: Record) -> AuditEntry | None:
        entry = _entry_of(record, kafka.event_source)
        return entry if entry is not None and query.chooses(entry) else None

    return tail(kafka, kafka.operations_topic, limit, chosen, position, None if query == AuditQuery() else SEARCHED)


def event_reader(kafka: KafkaSettings, schemas: SchemaSettings) -> ReadEvent:
    """A function that reads records by the workers' settings: with other settings the ids of events would differ.

    It queries the schema registry if there is one. A bug of a decoder makes the record Undecodable, as for workers.
    Raises SettingsError if the file of KAFKA_MAPPINGS_FILE cannot be used.
    """
    read, json_of = partial(decode, tenant_name=kafka.tenant, mapped=mappings_of(kafka)), json_reader(schemas)
    return partial(decoded, lambda record: read(json_of(record)))


def json_reader(schemas: SchemaSettings) -> Callable[[Record], Record]:
    """A function that converts a record's value to JSON by its schema; without SCHEMA_REGISTRY_URL it changes nothing.

    It raises Undecodable and RegistryUnavailable.
    """
    if schemas.url is None:
        return lambda record: record
    from consumer.schemas.registry import Registry  # noqa: PLC0415 (an extra)
    from consumer.schemas.translation import translator  # noqa: PLC0415 (only with a registry)

    return translator(Registry(schemas).decoder)


def _read(reader: LogReader, records: Mapping[int, deque[Record]]) -> Iterator[Record]:
    """Add what is read to the records of its partition. Yields the oldest ones that have to go: all are too large."""
    end, size = time.monotonic() + SECONDS, 0
    while not reader.done and time.monotonic() < end:
        for record in reader.read(_AT_ONCE, 0.1):
            records[record.partition.number].append(record)
            size += record.size
        while size > MOST_BYTES and sum(map(len, records.values())) > 1:
            oldest = min(filter(None, records.values()), key=lambda each: each[0].timestamp).popleft()
            size -= oldest.size
            yield oldest


def _entry_of(record: Record, source: str) -> AuditEntry | None:
    """None for a record that is not an operational event of this group."""
    try:
        event = orjson.loads(record.value or b"")
        match event:
            case {"source": its, "type": str(kind), "time": str(moment), "data": dict(data)} if its == source:
                at = datetime.fromisoformat(moment).timestamp()
            case _:
                return None
    except (ValueError, OverflowError):
        return None
    subscription, actor = data.get("subscription_id"), data.get("actor")
    return AuditEntry(
        at,
        kind,
        subscription if isinstance(subscription, int) else None,
        actor if isinstance(actor, str) else None,
        data,
    )
