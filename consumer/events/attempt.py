"""An attempt at a delivery as a record of the attempts topic: a structured CloudEvent in JSON. Pure."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import UnionType
from typing import NamedTuple

import orjson

from consumer.events.event import Event

ATTEMPTED = "delivery.attempted"  # the CloudEvents type
ANSWERED = "delivery.answered"  # of an answer that a subscription has reported, whole
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

    @property
    def place(self) -> tuple[str, int, int]:
        """The place of the event's record."""
        return self.topic, self.partition, self.offset


class ReportedAnswer(NamedTuple):
    """The answer to the attempt number `attempt`, as for Attempt. `headers` have names in lower case.

    `body` has at most 64 KiB: text, or bytes if it is not UTF-8. It is untrusted.
    """

    at: float
    subscription_id: int
    attempt: int
    status: int
    seconds: float
    headers: Mapping[str, str]
    body: str | bytes


# The fields of a record's `data` and their types; those that may be None are left out then, but for `status`.
# They are not taken from `__annotations__`, because mypyc keeps no unions there.
_TYPES = (int, str, str, str | None, str, int, int, int, str, int | None, str | None, float, str | None)
_DATA: dict[str, type | UnionType] = dict(zip(Attempt._fields[1:], _TYPES, strict=True))


def key_of(subscription_id: int) -> bytes:
    """The key of a record: the attempts of one subscription stay in order."""
    return b"%d" % subscription_id


def render(attempt: Attempt, source: str, identity: str) -> bytes:
    """The record of an attempt. `identity` is the CloudEvents id, of letters, digits and dashes.

    Most of the text is that of other attempts: it takes half of the time in which a library writes the whole record.
    """
    at, number, webhook_id, type_, tenant, topic, partition, offset, made, outcome, status, error, took, said = attempt
    start, subject, event = _alike(source, number, type_, tenant, topic, partition)
    fraction = f"{at % 1:.6f}"
    second = int(at) + (fraction[0] == "1")
    failed = "" if error is None else f'"error":{_json(error)},'
    end = "}}" if said is None else f',"response":{_json(said)}}}}}'
    return (
        f'{{"specversion":"1.0","id":"{identity}{start}{_second(second)}{fraction[1:]}Z{subject}{_json(webhook_id)}'
        f'{event}{offset},"attempt":{made}{_result(outcome, status)}{failed}"seconds":{took:.4f}{end}'
    ).encode()


@lru_cache(4096)
def _alike(
    source: str, number: int, event_type: str, tenant: str | None, topic: str, partition: int
) -> tuple[str, str, str]:
    """The texts before the time, the webhook id and the offset in the records of a subscription's attempts."""
    subject = f'","subject":"subscriptions/{number}","datacontenttype":"application/json"'
    of_tenant = "" if tenant is None else f'"tenant":{_json(tenant)},'
    return (
        f'","source":{_json(source)},"type":"{ATTEMPTED}","time":"',
        f'{subject},"data":{{"subscription_id":{number},"webhook_id":',
        f',"event_type":{_json(event_type)},{of_tenant}"topic":{_json(topic)},"partition":{partition},"offset":',
    )


@lru_cache(1024)
def _result(outcome: str, status: int | None) -> str:
    return f',"outcome":{_json(outcome)},"status":{"null" if status is None else status},'


def _json(text: str) -> str:
    return orjson.dumps(text).decode()


@lru_cache(16)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def render_answer(answer: ReportedAnswer, event: Event, source: str, identity: str) -> bytes:
    """The record of an answer to an attempt with this event; `identity` as for `render`."""
    body = answer.body
    data = {
        "subscription_id": answer.subscription_id,
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        **({} if event.tenant is None else {"tenant": event.tenant}),
        **event.record._asdict(),
        "attempt": answer.attempt,
        "status": answer.status,
        "headers": answer.headers,
        **({"body": body} if isinstance(body, str) else {"body_base64": b64encode(body).decode("ascii")}),
    }
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": identity,
            "source": source,
            "type": ANSWERED,
            "time": datetime.fromtimestamp(answer.at, UTC),
            "subject": f"subscriptions/{answer.subscription_id}",
            "datacontenttype": "application/json",
            "data": {**data, "seconds": round(answer.seconds, 4)},
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
