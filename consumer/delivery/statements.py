"""The ledger's SQL: every statement on `webhook_deliveries` and `webhook_payloads`, for Oracle and SQLite alike.

Binds are called `b_…`: a column's own name is taken in INSERT and UPDATE, and some are reserved words as Oracle binds.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from consumer.database import any_of
from models import ParkedDelivery, Payload, Status, Subscription, SubscriptionSecret
from models.base import in_utc

T = TypeVar("T")
Owned = Mapping[str, Sequence[int]]  # topic to partition numbers
CHANGED_AT_ONCE = 5000  # rows of one transaction when many follow their subscription

_RECORD = (
    ParkedDelivery.group_id,
    ParkedDelivery.topic,
    ParkedDelivery.partition_no,
    ParkedDelivery.record_offset,
    ParkedDelivery.record_ts,
)
_PAYLOAD_RECORD = (
    Payload.group_id,
    Payload.topic,
    Payload.partition_no,
    Payload.record_offset,
    Payload.record_ts,
)
_DELIVERY = (
    *_RECORD,
    ParkedDelivery.subscription_id,
    ParkedDelivery.url,
    ParkedDelivery.status,
    ParkedDelivery.attempt,
    ParkedDelivery.next_attempt_at,
    ParkedDelivery.first_attempt_at,
    ParkedDelivery.last_error,
    ParkedDelivery.last_status,
)
_PAYLOAD = (
    *_PAYLOAD_RECORD,
    Payload.event_type,
    Payload.webhook_id,
    Payload.content_type,
    Payload.traceparent,
    Payload.has_key,
    Payload.body_size,
    Payload.record_key,
    Payload.body,  # last: Oracle takes no other value behind one that is bound as LONG (ORA-24816)
)


def _bind(column: InstrumentedAttribute[T]) -> BindParameter[T]:
    return bindparam(f"b_{column.key}", type_=column.type)


def _is_bound(*columns: InstrumentedAttribute[Any]) -> ColumnElement[bool]:
    return and_(*(column == _bind(column) for column in columns))


# VALUES, not SELECT: Oracle binds a body over 32,767 bytes as LONG, which it takes in VALUES only (ORA-01461).
INSERT_PAYLOAD = insert(Payload).values({column.key: _bind(column) for column in _PAYLOAD})
INSERT_DELIVERY = insert(ParkedDelivery).from_select(
    [column.key for column in _DELIVERY],
    select(*map(_bind, _DELIVERY)).where(
        ~exists().where(_is_bound(*_RECORD, ParkedDelivery.subscription_id), ParkedDelivery.replay == 0)
    ),
    include_defaults=False,
)

_SEEN = (ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.attempt == bindparam("b_attempt"))
# A statement of its own: in COALESCE Oracle refuses to mix the column's type with the bind's (ORA-00932).
FIRST = (
    update(ParkedDelivery)
    .where(*_SEEN)
    .values(first_attempt_at=bindparam("b_at", type_=ParkedDelivery.created_at.type))
)
_MADE = {
    "attempt": bindparam("b_made", type_=ParkedDelivery.attempt.type),
    "next_attempt_at": _bind(ParkedDelivery.next_attempt_at),
    "last_error": _bind(ParkedDelivery.last_error),
    "last_status": _bind(ParkedDelivery.last_status),
    "updated_at": bindparam("b_at", type_=ParkedDelivery.updated_at.type),
}
RESCHEDULE = update(ParkedDelivery).where(*_SEEN).values(_MADE)
END = update(ParkedDelivery).where(*_SEEN).values(_MADE | {"status": _bind(ParkedDelivery.status)})
POSTPONE = (
    update(ParkedDelivery)
    .where(ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.status == Status.PARKED)
    .values(next_attempt_at=_bind(ParkedDelivery.next_attempt_at))
)
DELETE_DELIVERED = delete(ParkedDelivery).where(
    ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.status == Status.DELIVERED
)
DELETE_PAYLOAD = delete(Payload).where(
    _is_bound(*_PAYLOAD_RECORD), ~exists().where(_is_bound(*_RECORD)).correlate(None)
)


class Change(NamedTuple):
    """A change of state: `rows` selects some ids that call for it, `update` makes it for one."""

    rows: Select[int]
    update: Update


def due(group: str, owned: Owned, now: datetime, limit: int, full: Collection[int]) -> Select[Any]:
    """Rows to send, oldest due first."""
    statement = (
        select(
            ParkedDelivery.id,
            *_RECORD[1:],
            ParkedDelivery.subscription_id,
            ParkedDelivery.attempt,
            ParkedDelivery.first_attempt_at,
            Subscription.url,
            Payload.body_size,
        )
        .join(Subscription, Subscription.id == ParkedDelivery.subscription_id)
        .join(Payload, and_(*(mine == its for mine, its in zip(_PAYLOAD_RECORD, _RECORD, strict=True))))
        .where(*_waiting(group, owned), in_utc(ParkedDelivery.next_attempt_at) <= now)
    )
    if full:
        statement = statement.where(not_(any_of(ParkedDelivery.subscription_id.expression, sorted(full))))
    return statement.order_by(in_utc(ParkedDelivery.next_attempt_at), ParkedDelivery.id).limit(limit)


def next_due(group: str, owned: Owned, after: datetime | None) -> Select[datetime | None]:
    """The earliest time at which a row is due."""
    statement = (
        select(ParkedDelivery.next_attempt_at)
        .join(Subscription, Subscription.id == ParkedDelivery.subscription_id)
        .where(*_waiting(group, owned))
    )
    if after is not None:
        statement = statement.where(in_utc(ParkedDelivery.next_attempt_at) > after)
    return statement.order_by(in_utc(ParkedDelivery.next_attempt_at)).limit(1)


def payload_keys(group: str, topic: str, partition: int, offsets: Sequence[int]) -> Select[int, int]:
    """Which of a partition's records have their payload stored."""
    return select(Payload.record_offset, Payload.record_ts).where(
        Payload.group_id == group,
        Payload.topic == topic,
        Payload.partition_no == partition,
        any_of(Payload.record_offset.expression, offsets),
    )


def payloads(deliveries: Sequence[int]) -> Select[Any]:
    """The payloads of some deliveries."""
    return (
        select(*_PAYLOAD[1:])
        .join(ParkedDelivery, and_(*(mine == its for mine, its in zip(_PAYLOAD_RECORD, _RECORD, strict=True))))
        .where(any_of(ParkedDelivery.id.expression, deliveries))
    )


def secrets(subscriptions: Sequence[int]) -> Select[int, str, datetime | None]:
    """The secrets of some subscriptions, newest first."""
    secret = SubscriptionSecret
    return (
        select(secret.subscription_id, secret.secret, secret.expires_at)
        .where(any_of(secret.subscription_id.expression, subscriptions))
        .order_by(secret.created_at.desc(), secret.id.desc())
    )


def settled(group: str, topic: str, partition: int, from_offset: int) -> Select[int, int, int]:
    """The keys of a partition's rows at or above an offset."""
    return select(ParkedDelivery.record_offset, ParkedDelivery.record_ts, ParkedDelivery.subscription_id).where(
        ParkedDelivery.group_id == group,
        ParkedDelivery.topic == topic,
        ParkedDelivery.partition_no == partition,
        ParkedDelivery.record_offset >= from_offset,
        ParkedDelivery.replay == 0,
    )


def disable(subscription_id: int, reason: str | None) -> Update:
    """Disable a subscription; one that is disabled keeps its first reason."""
    return (
        update(Subscription)
        .where(Subscription.id == subscription_id, Subscription.enabled == 1)
        .values(enabled=0, disabled_reason=reason)
    )


def hold(subscription_id: int | None) -> Change:
    """Parked rows of a disabled subscription, or of all that are disabled, become held."""
    disabled = select(Subscription.id).where(Subscription.enabled == 0)
    if subscription_id is not None:
        disabled = disabled.where(Subscription.id == subscription_id)
    rows = select(ParkedDelivery.id).where(
        ParkedDelivery.subscription_id.in_(disabled), ParkedDelivery.status == Status.PARKED
    )
    return _change(rows, (Status.PARKED,), status=Status.HELD)


def resume(now: datetime) -> Change:
    """Held rows of enabled subscriptions are due at once."""
    enabled = select(Subscription.id).where(Subscription.enabled == 1)
    rows = select(ParkedDelivery.id).where(
        ParkedDelivery.subscription_id.in_(enabled), ParkedDelivery.status == Status.HELD
    )
    return _change(rows, (Status.HELD,), status=Status.PARKED, next_attempt_at=now)


def exhaust_removed(reason: str) -> Change:
    """Rows that wait for a subscription which is no more are given up."""
    rows = select(ParkedDelivery.id).where(
        ~exists().where(Subscription.id == ParkedDelivery.subscription_id),
        ParkedDelivery.status.in_((Status.PARKED, Status.HELD)),
    )
    states = (Status.PARKED, Status.HELD)
    return _change(rows, states, status=Status.EXHAUSTED, last_error=reason, next_attempt_at=None)


def prunable(group: str, topic: str, partition: int, committed: int, limit: int) -> Select[Any]:
    """Delivered rows below the committed offset."""
    return (
        select(ParkedDelivery.id, *_RECORD[1:])
        .where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.topic == topic,
            ParkedDelivery.partition_no == partition,
            ParkedDelivery.record_offset < committed,
            ParkedDelivery.status == Status.DELIVERED,
        )
        .limit(limit)
    )


def counts(group: str) -> Select[str, int]:
    """Rows by status."""
    return (
        select(ParkedDelivery.status, func.count().label("number"))
        .where(ParkedDelivery.group_id == group)
        .group_by(ParkedDelivery.status)
    )


def _change(rows: Select[int], states: Sequence[Status], **values: object) -> Change:
    still = or_(*(ParkedDelivery.status == state for state in states))  # IN cannot be bound many times over
    changed = update(ParkedDelivery).where(ParkedDelivery.id == bindparam("b_id"), still)
    return Change(rows.limit(CHANGED_AT_ONCE), changed.values(updated_at=func.current_timestamp(), **values))


def _waiting(group: str, owned: Owned) -> tuple[ColumnElement[bool], ...]:
    """Parked rows of owned partitions whose subscription is enabled."""
    return (
        ParkedDelivery.group_id == group,
        ParkedDelivery.status == Status.PARKED,
        or_(
            *(
                and_(ParkedDelivery.topic == topic, any_of(ParkedDelivery.partition_no.expression, sorted(partitions)))
                for topic, partitions in sorted(owned.items())
                if partitions
            )
        ),
        Subscription.enabled == 1,
    )
