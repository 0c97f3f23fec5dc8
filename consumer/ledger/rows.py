"""The values that the ledger takes and returns, and how rows hold them. Times are unix seconds.

Binds are named `b_…`: INSERT and UPDATE already use a column's own name, and some names are reserved as Oracle binds.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeVar, overload

import orjson
from sqlalchemy import BindParameter, ColumnElement, Connection, Engine, and_, bindparam
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from consumer.database.statements import AnyRow
from consumer.events.cloud_event import texts
from consumer.events.event import Event, RecordId, extra_of, in_calendar
from consumer.subscriptions.endpoint import Endpoint
from models import ParkedDelivery, Payload, Status

T = TypeVar("T")
DueKey = tuple[str, int, int]  # topic, partition, subscription: a range of stored deliveries
DUE_KEY = (
    ParkedDelivery.group_id,
    ParkedDelivery.topic,
    ParkedDelivery.partition_no,
    ParkedDelivery.subscription_id,
)


def due_key_of(event: Event, subscription_id: int) -> DueKey:
    """The due key of a subscription's stored delivery of this event."""
    return (*event.record.topic_partition, subscription_id)


def due_key_of_row(row: AnyRow) -> DueKey:
    """The due key of a delivery's row, or of a cursor's."""
    return row.topic, row.partition_no, row.subscription_id


class OrderingKey(NamedTuple):
    """A key of an ordered subscription in a partition: one delivery of it is under way at a time."""

    subscription_id: int
    topic: str
    partition: int
    key: str


def order_key(key: bytes, replay: int = 0) -> str:
    """The `key` of an OrderingKey: a digest that fits an index however long the record's key is.

    A replay keeps an order of its own, so that neither it nor the live stream waits for the other.
    """
    return blake2b(key, digest_size=16, person=replay.to_bytes(8) if replay else b"").hexdigest()


class AttemptFailure(NamedTuple):
    """An attempt that failed at `at`. `response` is the start of the answer's body, stored escaped to ASCII."""

    error: str
    status: int | None
    response: str | None
    at: float


class OperationalEvent(NamedTuple):
    """An operational event to publish. `event_id` is the same for each repeated write; `data` becomes JSON."""

    type: str
    event_id: str
    data: Mapping[str, object]


class NewDelivery(NamedTuple):
    """A delivery to store.

    `attempt` counts the attempts made, `schedule_start` of them before its retry schedule began; `next_attempt_at` is
    for `parked`. With an `ordering_key`, the delivery waits behind the open rows of that key. `filter_pending`: the
    subscription's filter has to be evaluated before sending.
    """

    event: Event
    subscription_id: int
    url: str
    attempt: int
    status: Literal["parked", "exhausted"]
    next_attempt_at: float | None
    first: AttemptFailure | None = None
    last: AttemptFailure | None = None
    ordering_key: OrderingKey | None = None
    operation: OperationalEvent | None = None
    replay: int = 0
    schedule_start: int = 0
    filter_pending: bool = False


class AttemptResult(NamedTuple):
    """The result of one more attempt, which ended at `at`, of the row `id` after `attempt_before` earlier ones.

    The attempt belongs to the retry schedule that began after `schedule_start` attempts. `unwanted`: no attempt was
    made, because the event does not pass the subscription's filter.
    """

    id: int
    attempt_before: int
    status: Literal["delivered", "parked", "exhausted", "unwanted"]
    next_attempt_at: float | None
    status_code: int | None
    failure: AttemptFailure | None
    at: float
    ordering_key: OrderingKey | None = None
    operation: OperationalEvent | None = None
    schedule_start: int = 0


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A stored delivery to send now. Of the `attempt` attempts made, `schedule_start` were on an older schedule."""

    id: int
    event: Event
    endpoint: Endpoint
    attempt: int
    schedule_start: int
    first: AttemptFailure | None
    last: AttemptFailure | None
    ordering_key: OrderingKey | None
    replay: int
    filter_pending: bool


BATCH = 1000  # rows of a transaction: an array bind of this size takes some 30 ms
RIVALS = 10  # tries of a transaction that conflicts with another process
OPEN = (Status.PARKED, Status.HELD, Status.BLOCKED)  # still to be sent

RECORD = (
    ParkedDelivery.group_id,
    ParkedDelivery.topic,
    ParkedDelivery.partition_no,
    ParkedDelivery.record_offset,
    ParkedDelivery.record_ts,
)
PAYLOAD_RECORD = (
    Payload.group_id,
    Payload.topic,
    Payload.partition_no,
    Payload.record_offset,
    Payload.record_ts,
)
PAYLOAD = (
    *PAYLOAD_RECORD,
    Payload.event_type,
    Payload.webhook_id,
    Payload.content_type,
    Payload.traceparent,
    Payload.has_key,
    Payload.body_size,
    Payload.tenant,
    Payload.record_key,
    Payload.record_headers,
    Payload.body,
)
ATTEMPTS = (
    ParkedDelivery.attempt,
    ParkedDelivery.schedule_start,
    ParkedDelivery.first_attempt_at,
    ParkedDelivery.first_error,
    ParkedDelivery.first_status,
    ParkedDelivery.last_attempt_at,
    ParkedDelivery.last_error,
    ParkedDelivery.last_status,
    ParkedDelivery.last_response,
)
OF_PAYLOAD = and_(*(mine == its for mine, its in zip(PAYLOAD_RECORD, RECORD, strict=True)))


def bind(column: InstrumentedAttribute[T]) -> BindParameter[T]:
    """A bind with the type of its column."""
    return bindparam(f"b_{column.key}", type_=column.type)


def is_bound(*columns: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    """The condition that each column equals the value bound for it."""
    return and_(*(column == bind(column) for column in columns))


def in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Run `work` and commit; begin again if a unique or foreign key shows a conflict with another process."""
    rivals = 0
    while True:
        try:
            with engine.begin() as connection:
                return work(connection)
        except IntegrityError:
            rivals += 1
            if rivals == RIVALS:
                raise


def in_batches(ids: Iterable[int]) -> Iterator[list[int]]:
    """Each id once, in rising order, BATCH at a time."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def record_binds(group: str, record: RecordId) -> dict[str, object]:
    """The binds for the key of a record's rows."""
    return {
        "b_group_id": group,
        "b_topic": record.topic,
        "b_partition_no": record.partition,
        "b_record_offset": record.offset,
        "b_record_ts": record.timestamp,
    }


def record_of(row: AnyRow) -> RecordId:
    """The record of a row."""
    return RecordId(row.topic, row.partition_no, row.record_offset, row.record_ts)


def event_of(row: AnyRow) -> Event:
    """The event of a payload's row. Oracle stores empty values as NULL."""
    headers = _headers(row.record_headers) if row.record_headers else None
    key = (row.record_key or b"") if row.has_key else None
    return Event(
        record_of(row),
        row.event_type,
        row.webhook_id,
        row.body or b"",
        row.content_type or "",
        key,
        row.traceparent,
        headers,
        row.tenant,
        extra_of(key, headers),
    )


def _headers(text: str) -> dict[str, bytes | None] | None:
    """The headers; None if an edit by hand has broken the JSON object: one bad row must not hide the others."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict):
        return None
    headers: dict[str, bytes | None] = {}
    for name, value in found.items():
        if value is None:
            headers[name] = None
        elif isinstance(value, str):
            headers[name] = value.encode()
        elif isinstance(value, dict) and isinstance(octets := value.get("base64"), str):
            with suppress(ValueError):  # edited by hand
                headers[name] = b64decode(octets, validate=True)
    return headers


def stored_headers(headers: Mapping[str, bytes | None]) -> str:
    """The headers as a JSON object, as `event_of` reads it: texts, nulls, and `base64` of other bytes."""
    octets = {name: each and {"base64": b64encode(each).decode()} for name, each in headers.items()}
    return json.dumps({**octets, **texts(headers)})  # in their order; an empty value is a text


def pair_of(row: AnyRow) -> OrderingKey | None:
    """The ordering key of a delivery's row."""
    return OrderingKey(row.subscription_id, row.topic, row.partition_no, row.order_key) if row.order_key else None


def first_of(row: AnyRow) -> AttemptFailure | None:
    """The first attempt of a delivery's row, if it failed."""
    if row.first_error is None or row.first_attempt_at is None:
        return None
    return AttemptFailure(row.first_error, row.first_status, None, unix(row.first_attempt_at))


def last_of(row: AnyRow) -> AttemptFailure | None:
    """The last attempt of a delivery's row, if it failed, or the reason why it was given up without an attempt."""
    if row.last_error is None:
        return None
    at = row.last_attempt_at or row.updated_at
    return AttemptFailure(row.last_error, row.last_status, row.last_response, unix(at))


def cut(text: str | None, length: int) -> str | None:
    """A text that fits its column, escaped to ASCII so that the database's character set does not matter."""
    return None if text is None else text.encode("ascii", "backslashreplace").decode()[:length]


def escaped(text: str | None, length: int) -> str | None:
    """A receiver's text, cut and with control characters escaped, because terminals show it."""
    return text[:length].encode("unicode_escape").decode()[:length] if text else None


def time_of(seconds: float) -> datetime:
    """Unix seconds as a datetime for a column; the nearest one if they are outside the calendar."""
    return datetime.fromtimestamp(in_calendar(seconds), UTC)


def time_or_none(seconds: float | None) -> datetime | None:
    """The same, where None stays None."""
    return None if seconds is None else time_of(seconds)


@overload
def unix(moment: datetime) -> float: ...
@overload
def unix(moment: None) -> None: ...
def unix(moment: datetime | None) -> float | None:
    """A datetime from a column as unix seconds, from which `time_of` and formatters can make a datetime again."""
    return None if moment is None else in_calendar(moment.timestamp())
