"""Records as a consumer reads them, and the reason why one is not an event."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from consumer.errors import Undecodable
from consumer.intake.record import AssignedPartition, Headers, Record, Unreadable


def record(
    value: object = b"{}",
    headers: Headers | Unreadable | None = None,
    *,
    key: bytes | None = b"k",
    topic: str = "orders",
    offset: int = 7,
) -> Record:
    """A record of partition 2. A value that is neither bytes nor null is written as JSON."""
    body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    return Record(AssignedPartition(topic, 2), offset, 1_700_000_000_000, key, body, headers)


def refusal(decode: Callable[..., object], *given: Any) -> Undecodable:
    """Why `decode` makes no event of what is given."""
    with pytest.raises(Undecodable) as refused:
        decode(*given)
    return refused.value


def in_front(schema: int, payload: bytes) -> bytes:
    """A value in Confluent's wire format."""
    return struct.pack(">bI", 0, schema) + payload
