"""What every room passes along: where a record stands in Kafka, and the event it carries."""

from collections.abc import Mapping
from typing import NamedTuple

TopicPartition = tuple[str, int]  # topic and partition number


class RecordId(NamedTuple):
    """A record's place in Kafka. The timestamp (ms) tells a topic made anew, with offsets from 0, from the old."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class Event(NamedTuple):
    """A decoded record.

    `webhook_id` is the same on every retry, redelivery and replay. `body` is the record's value, byte for byte;
    `content_type` and `traceparent` are safe to put in a header (visible ASCII). `headers` are the record's, by name;
    of a stored record those that are UTF-8. `extra` is what the key and they take, in bytes.
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
        """What it takes in memory, in bytes, about: what all bounds on memory count."""
        return len(self.body) + self.extra


def extra_of(key: bytes | None, headers: Mapping[str, bytes | None] | None) -> int:
    """The `extra` of an event with this key and these headers."""
    named = sum([len(name) + len(value or b"") for name, value in headers.items()]) if headers else 0
    return named + len(key or b"")
