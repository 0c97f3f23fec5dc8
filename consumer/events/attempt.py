"""An attempt at a delivery as a record of the attempts topic: a structured CloudEvent in JSON. Pure."""

from datetime import UTC, datetime
from typing import NamedTuple, TypeGuard

import orjson

from consumer.events.event import Event

ATTEMPTED = "delivery.attempted"  # the CloudEvents type
DELIVERED = "delivered"  # the outcome of an attempt that has not failed
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


def key_of(subscription_id: int) -> bytes:
    """The key of a record: the attempts of one subscription stay in order."""
    return b"%d" % subscription_id


def render(
    source: str,
    identity: str,
    event: Event,
    subscription_id: int,
    attempt: int,
    outcome: str,
    at: float,
    seconds: float,
    status: int | None,
    error: str | None = None,
    response: str | None = None,
) -> bytes:
    """The record of an attempt; the arguments as in `Attempt`. `identity` is the CloudEvents id."""
    record = event.record
    data: dict[str, object] = {
        "subscription_id": subscription_id,
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "attempt": attempt,
        "outcome": outcome,
        "status": status,
        "seconds": round(seconds, 4),
    }
    if event.tenant is not None:
        data["tenant"] = event.tenant
    if error is not None:
        data["error"] = error
    if response is not None:
        data["response"] = response
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": ATTEMPTED,
            "time": datetime.fromtimestamp(at, UTC),
            "subject": f"subscriptions/{subscription_id}",
            "datacontenttype": "application/json",
            "data": data,
        },
        option=orjson.OPT_UTC_Z,
    )


def parse(value: bytes | None, source: str) -> Attempt | None:
    """The attempt in a record; None if there is none, or if it is of another `source`."""
    if value is None or len(value) > LARGEST:
        return None
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    match found:
        case {
            "source": its_source,
            "type": its_type,
            "time": str(moment),
            "data": {
                "subscription_id": int(subscription_id),
                "webhook_id": str(webhook_id),
                "event_type": str(event_type),
                "topic": str(topic),
                "partition": int(partition),
                "offset": int(offset),
                "attempt": int(attempt),
                "outcome": str(outcome),
                "status": int() | None as status,
                "seconds": int() | float() as seconds,
                **rest,
            },
        } if (its_source, its_type) == (source, ATTEMPTED):
            tenant, error, response = rest.get("tenant"), rest.get("error"), rest.get("response")
        case _:
            return None
    if not (_is_text(tenant) and _is_text(error) and _is_text(response)):
        return None
    try:
        at = datetime.fromisoformat(moment).timestamp()
    except (ValueError, OverflowError):
        return None
    return Attempt(
        at,
        subscription_id,
        webhook_id,
        event_type,
        tenant,
        topic,
        partition,
        offset,
        attempt,
        outcome,
        status,
        error,
        seconds,
        response,
    )


def _is_text(value: object) -> TypeGuard[str | None]:
    return value is None or isinstance(value, str)
