"""The place of a record in Kafka, the event that it carries, and their times; all packages use these. Pure.

Times may be outside of the calendar: producers set the timestamps of records, and people write times into rows.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

TopicPartition = tuple[str, int]  # topic and partition number
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = -62135596800.0  # unix seconds of 0001-01-01T00:00:00Z
LAST = 253402300799.9999  # of 9999-12-31T23:59:59.9999Z: a float rounds the last microsecond up to the year 10000


class RecordId(NamedTuple):
    """A record's place in Kafka. The timestamp (ms) tells a re-created topic, with offsets from 0, from the old one."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    @property
    def topic_partition(self) -> TopicPartition:
        """Topic and partition number."""
        return self[:2]


class Event(NamedTuple):
    """A decoded record.

    `webhook_id` is the same on every retry, redelivery and replay. `body` is the record's value byte for byte, or the
    JSON of a value that has a schema, or the body that the topic's mapping selects. `content_type` and `traceparent`
    are safe to put in a header (visible ASCII). `headers` are the record's headers by name, and the `ce_` headers of
    attributes that a mapping adds. `extra` is the size of the key and the headers, in bytes.
    """

    record: RecordId
    type: str
    webhook_id: str
    body: bytes
    content_type: str
    key: bytes | None
    traceparent: str | None
    headers: Mapping[str, bytes | None] | None = None
    tenant: str | None = None
    extra: int = 0

    @property
    def size(self) -> int:
        """The approximate bytes in memory, which all memory limits count."""
        return len(self.body) + self.extra


_TRACEPARENT = Event._fields.index("traceparent")


def in_trace(event: Event, traceparent: str) -> Event:
    """The event with this `traceparent`; `_replace` takes three times as long."""
    return tuple.__new__(Event, (*event[:_TRACEPARENT], traceparent, *event[_TRACEPARENT + 1 :]))


def extra_of(key: bytes | None, headers: Mapping[str, bytes | None] | None) -> int:
    """The `extra` of an event with this key and these headers."""
    named = sum([len(name) + len(value or b"") for name, value in headers.items()]) if headers else 0
    return named + len(key or b"")


def in_calendar(seconds: float) -> float:
    """The nearest time (unix seconds) in the years 1 to 9999."""
    return min(max(seconds, FIRST), LAST)


def utc(at: float) -> datetime:
    """Unix seconds as a datetime. The epoch for a time before it, and for one after the year 9999.

    The first is that of a record without a timestamp, the second that of one with microseconds, for example.
    """
    try:
        return datetime.fromtimestamp(max(0, at), UTC)
    except (ValueError, OverflowError, OSError):
        return EPOCH
