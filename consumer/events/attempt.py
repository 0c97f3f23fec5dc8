"""An attempt at a delivery as a record of the attempts topic: a structured CloudEvent in JSON. Pure."""

from datetime import UTC, datetime
from types import UnionType
from typing import NamedTuple

import orjson

ATTEMPTED = "delivery.attempted"  # the CloudEvents type
DELIVERED = "delivered"  # the outcome of an attempt that has not failed
EXHAUSTED = "exhausted"  # of one after which its delivery was given up
WRITTEN_WITHIN = 60.0  # seconds after an attempt until its record is written, or its worker gives it up
LARGEST = 2**15  # bytes of a record that is parsed; one with the longest type, tenant and error is smaller


class Attempt(NamedTuple):
    """One attempt, which ended `at` (unix seconds) and took `seconds`.

    `attempt` counts the attempts at this delivery, from 1. `outcome` is `delivered`, `retried`, `parked` or
    `exhausted`, as in the metrics. `status` is None without an answer. `response` is the start of the answer to a
    failed attempt, escaped to ASCII: it is untrusted.
    """

    at: float
    subscription_id: int
    webhook_id: str
    event_type: str
    tenant: str | None
    topic: str
    partition: int
    offset: int
    attempt: int
    outcome: str
    status: int | None
    error: str | None
    seconds: float
    response: str | None


# The fields of a record's `data` and their types; those that may be None are left out then, but for `status`.
_DATA: dict[str, type | UnionType] = {**Attempt.__annotations__}
del _DATA["at"]


def key_of(subscription_id: int) -> bytes:
    """The key of a record: the attempts of one subscription stay in order."""
    return b"%d" % subscription_id


def render(attempt: Attempt, source: str, identity: str) -> bytes:
    """The record of an attempt. `identity` is the CloudEvents id."""
    data = {name: each for name, each in zip(_DATA, attempt[1:], strict=True) if each is not None or name == "status"}
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": ATTEMPTED,
            "time": datetime.fromtimestamp(attempt.at, UTC),
            "subject": f"subscriptions/{attempt.subscription_id}",
            "datacontenttype": "application/json",
            "data": {**data, "seconds": round(attempt.seconds, 4)},
        },
        option=orjson.OPT_UTC_Z,
    )


def parse(value: bytes | None, source: str) -> Attempt | None:
    """The attempt in a record; None if there is none, or if it is of another `source`."""
    if value is None or len(value) > LARGEST:
        return None
    try:
        found = orjson.loads(value)
        if (found["source"], found["type"]) != (source, ATTEMPTED):
            return None
        at = datetime.fromisoformat(found["time"]).timestamp()
        values = [found["data"].get(name) for name in _DATA]
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError):  # other JSON, or none
        return None
    if not all(isinstance(each, kind) for each, kind in zip(values, _DATA.values(), strict=True)):
        return None
    return Attempt(at, *values)
