"""Reads records of the log and the events that they carry, for display: in no group, and without a commit."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from heapq import heappop, heappush
from typing import NamedTuple

import orjson

from consumer.config.settings import KafkaSettings, SchemaSettings
from consumer.events.event import Event
from consumer.intake.decode import decode, decoded
from consumer.intake.log_reader import LogReader
from consumer.intake.mapping_file import mappings_of
from consumer.intake.record import Record
from consumer.ledger.replays import Span

SECONDS = 5.0  # of one reading
MOST_BYTES = 16 * 2**20  # of the records
SEARCHED = 2_000  # of the newest operational events, if only some are wanted

ReadEvent = Callable[[Record], Event]  # raises Tombstone, Undecodable and RegistryUnavailable


class AuditEntry(NamedTuple):
    """An operational event, which happened `at` (unix seconds). `actor` None: the service itself."""

    at: float
    type: str
    subscription_id: int | None
    actor: str | None
    data: dict[str, object]


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
    """At most `limit` records of a topic, or of one `partition`, newest first.

    Fewer if they do not arrive within 5 s, and without the oldest ones if all together have more than 16 MiB. Raises
    KafkaUnavailable, WebhooksError if the topic may not be read, and SettingsError if librdkafka refuses a setting. A
    topic that does not exist has no records.
    """
    with LogReader(kafka, name="tail") as reader:
        wanted = [each for each in reader.partitions_of(topic) if partition in {None, each[1]}]
        spans = reader.spans(wanted, 0.0, None)
        reader.start([span._replace(begin=max(span.begin, span.end - limit)) for span in spans])
        records = _read(reader, limit)
    return sorted(records, key=lambda record: (record.timestamp, record.offset), reverse=True)[:limit]


def record_at(kafka: KafkaSettings, topic: str, partition: int, offset: int) -> Record | None:
    """The record at an offset, or None if the log does not have it. Raises as `newest` does."""
    with LogReader(kafka, name="tail") as reader:
        wanted = [each for each in reader.partitions_of(topic) if each[1] == partition]
        if not any(span.begin <= offset < span.end for span in reader.spans(wanted, 0.0, None)):
            return None
        reader.start([Span(topic, partition, offset, offset + 1)])
        return next((record for record in _read(reader, 1) if record.offset == offset), None)


def audit(kafka: KafkaSettings, limit: int, query: AuditQuery = AuditQuery()) -> list[AuditEntry]:  # noqa: B008 (immutable)
    """The newest operational events of this group: what people changed, and what the service did by itself.

    With a `query`, those among the newest SEARCHED that it chooses. Raises as `newest` does.
    """
    read = limit if query == AuditQuery() else SEARCHED
    found = (_entry_of(record, kafka.event_source) for record in newest(kafka, kafka.operations_topic, read))
    return [entry for entry in found if entry is not None and query.chooses(entry)][:limit]


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


def _read(reader: LogReader, at_once: int) -> list[Record]:
    """The records, without the oldest ones if all together are too large."""
    records: list[tuple[int, int, int, Record]] = []
    end, size = time.monotonic() + SECONDS, 0
    while not reader.done and time.monotonic() < end:
        for record in reader.read(max(1, at_once), 0.1):
            heappush(records, (record.timestamp, record.offset, record.partition.number, record))
            size += record.size
        while size > MOST_BYTES and len(records) > 1:
            size -= heappop(records)[3].size
    return [record for *_, record in records]


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
