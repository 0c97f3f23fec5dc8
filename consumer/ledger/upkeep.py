"""Subscriptions that fail, are disabled, enabled or removed, and their rows follow; what nobody needs any more goes."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Update, bindparam, delete, exists, func, or_, select, update

from consumer.database import reading
from consumer.event import RecordId
from consumer.ledger import operations
from consumer.ledger.columns import (
    BATCH,
    OPEN,
    PAYLOAD_RECORD,
    RECORD,
    AnyRow,
    AnySelect,
    cut,
    in_transaction,
    is_bound,
    record_binds,
    record_of,
    time_of,
)
from consumer.ledger.ordering import put_in_order
from consumer.ledger.rows import Operation
from models import ParkedDelivery, Payload, Status, StoredReplay, Subscription
from models.base import in_utc
from models.subscription import REASON_LENGTH

CHANGED_AT_ONCE = 1000  # rows of one transaction when many follow their subscription
REMOVED = "the subscription was removed"

_PAIR = (
    ParkedDelivery.group_id,
    ParkedDelivery.subscription_id,
    ParkedDelivery.topic,
    ParkedDelivery.partition_no,
    ParkedDelivery.order_key,
)
_DELETE_DELIVERED = delete(ParkedDelivery).where(
    ParkedDelivery.id == bindparam("b_id"), ParkedDelivery.status == Status.DELIVERED
)
_DELETE_PAYLOAD = delete(Payload).where(is_bound(*PAYLOAD_RECORD), ~exists().where(is_bound(*RECORD)).correlate(None))
# A bind of its own for the state: a row that is owed again since it was read stays.
_DELETE_ENDED = delete(ParkedDelivery).where(is_bound(ParkedDelivery.status), ParkedDelivery.id == bindparam("b_id"))


class Purged(NamedTuple):
    """How many rows a step of `purge` has deleted."""

    deliveries: int
    payloads: int


class Reconciled(NamedTuple):
    """How many rows followed their subscriptions."""

    held: int
    resumed: int
    exhausted: int


def disable(
    engine: Engine,
    group: str,
    subscription_id: int,
    reason: str,
    operation: Operation | None = None,
    *,
    failing_before: float | None = None,
    url: str | None = None,
) -> bool:
    """Disable a subscription and hold what is parked for it. Whether it was enabled until now.

    With `failing_before` (unix seconds) only if it has failed since then or longer, with `url` only if it still points
    there. The operation is written with the change, so that of many workers one tells. A repetition after a lost answer
    holds the rows and returns False. Of many rows `reconcile` holds the rest: this is called between two batches of
    deliveries, which wait for it.
    """

    def change(connection: Connection) -> bool:
        statement = update(Subscription).where(Subscription.id == subscription_id, Subscription.enabled == 1)
        if url is not None:
            statement = statement.where(Subscription.url == url)
        if failing_before is not None:
            statement = statement.where(in_utc(Subscription.failing_since) <= time_of(failing_before))
        changed = connection.execute(
            statement.values(enabled=0, disabled_reason=cut(reason, REASON_LENGTH), failing_since=None)
        ).rowcount
        if changed and operation is not None:
            operations.add(connection, group, [operation])
        return changed == 1

    changed = in_transaction(engine, change)
    _in_batches(engine, _parked_of(subscription_id), _HOLD, until=0.0)
    return changed


def failing(engine: Engine, subscription_id: int, since: float) -> None:
    """Nothing but failures since then (unix seconds); an earlier time that is noted stands."""
    statement = update(Subscription).where(
        Subscription.id == subscription_id, Subscription.enabled == 1, Subscription.failing_since.is_(None)
    )
    with engine.begin() as connection:
        connection.execute(statement.values(failing_since=time_of(since)))


def recovered(engine: Engine, group: str, subscription_id: int, operation: Operation | None = None) -> bool:
    """An attempt has succeeded. Whether the subscription was noted as failing; then the operation is written."""

    def change(connection: Connection) -> bool:
        statement = update(Subscription).where(
            Subscription.id == subscription_id, Subscription.failing_since.is_not(None)
        )
        changed = connection.execute(statement.values(failing_since=None)).rowcount
        if changed and operation is not None:
            operations.add(connection, group, [operation])
        return changed == 1

    return in_transaction(engine, change)


def reconcile(engine: Engine, now: float, until: float = inf) -> Reconciled:
    """Let rows follow their subscriptions, however changed: disabled holds, enabled resumes, removed exhausts.

    Sending does not depend on this (`heads` looks at the subscription itself); call it every minute or so. `until`
    (monotonic seconds) ends it after the batch that is under way: if anything was changed, call it again.
    """
    return Reconciled(
        held=_in_batches(engine, _of_subscriptions(Status.PARKED, 0), _HOLD, until=until),
        resumed=_in_batches(engine, _of_subscriptions(Status.HELD, 1), _RESUME, now, until=until),
        exhausted=exhaust_for_removed(engine, until),
    )


def exhaust_for_removed(engine: Engine, until: float = inf) -> int:
    """Give up what is owed to subscriptions that are no more. The number of rows."""
    return _in_batches(engine, _OWED_TO_REMOVED, _EXHAUST, until=until)


def prune(engine: Engine, group: str, topic: str, partition: int, committed: int, limit: int = BATCH) -> int:
    """Delete delivered rows below the committed offset, and the payloads they leave unused. The number of rows.

    They were kept so that a restart finds them settled; below the committed offset nobody asks any more. Nobody asks
    for those of a replay, wherever they are.
    """
    statement = (
        select(ParkedDelivery.id, *RECORD[1:])
        .where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.status == Status.DELIVERED,
            ParkedDelivery.topic == topic,
            ParkedDelivery.partition_no == partition,
            or_(ParkedDelivery.record_offset < committed, ParkedDelivery.replay != 0),
        )
        .limit(limit)
    )

    def work(connection: Connection) -> int:
        rows = connection.execute(statement).all()
        if rows:
            connection.execute(_DELETE_DELIVERED, [{"b_id": row.id} for row in rows])
            drop_payloads(connection, group, {record_of(row) for row in rows})
        return len(rows)

    return in_transaction(engine, work)  # a rival may just have stored a delivery of a payload that nobody needed


def drop_payloads(connection: Connection, group: str, records: Collection[RecordId]) -> int:
    """Delete the payloads of these records that no delivery refers to. How many there were."""
    return connection.execute(_DELETE_PAYLOAD, [record_binds(group, record) for record in sorted(records)]).rowcount


def ended_before(engine: Engine, statuses: Collection[Status], before: float) -> Iterator[list[AnyRow]]:
    """The rows of all groups in these states that were changed last before then (unix seconds), by id.

    In steps of at most BATCH ids, empty ones too: each finds its rows by the primary key alone, so that no statement
    takes long however many rows there are and however few of them are old.
    """
    after, last = 0, None
    while True:
        with reading(engine) as connection:
            if last is None:
                last = connection.scalar(select(func.max(ParkedDelivery.id)))
            between = (ParkedDelivery.id > after, ParkedDelivery.id <= (last or 0))
            first = connection.scalar(select(func.min(ParkedDelivery.id)).where(*between))
            if first is None:
                return
            after = first + BATCH - 1
            statement = select(ParkedDelivery.id, ParkedDelivery.status, *RECORD).where(
                ParkedDelivery.id.between(first, after),
                ParkedDelivery.status.in_(sorted(statuses)),
                in_utc(ParkedDelivery.updated_at) < time_of(before),
            )
            found = list(connection.execute(statement).all())
        yield found


def purge(engine: Engine, statuses: Collection[Status], before: float) -> Iterator[Purged]:
    """Delete deliveries that ended before a time (unix seconds), and the payloads that they leave unused.

    `statuses` are EXHAUSTED, DELIVERED, or both: what is owed is nobody's to delete (ValueError). Yields after each
    transaction; what is interrupted has deleted whole steps, and goes on when it is called again. The rows also tell a
    restarted worker what is settled: `before` must be older than the oldest offset that is not committed.
    """
    if owed := set(statuses) & set(OPEN):
        raise ValueError(f"these are owed: {', '.join(sorted(owed))}")
    for rows in ended_before(engine, statuses, before):
        yield in_transaction(engine, partial(_purge, rows=rows)) if rows else Purged(0, 0)


def purge_replays(engine: Engine, before: float) -> int:
    """Delete replays that have stored all they found before a time (unix seconds). How many there were."""
    with engine.begin() as connection:
        return connection.execute(delete(StoredReplay).where(_finished(before))).rowcount


def replays_finished_before(engine: Engine, before: float) -> int:
    """How many `purge_replays` would delete."""
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(StoredReplay).where(_finished(before))) or 0


def counts(engine: Engine, group: str) -> dict[str, int]:
    """Rows of the group by status; every status is a key."""
    statement = (
        select(ParkedDelivery.status, func.count().label("number"))
        .where(ParkedDelivery.group_id == group)
        .group_by(ParkedDelivery.status)
    )
    with reading(engine) as connection:
        found = Counter({row.status: row.number for row in connection.execute(statement)})
    return {status.value: found[status.value] for status in Status}


def _purge(connection: Connection, *, rows: Sequence[AnyRow]) -> Purged:
    deleted = connection.execute(_DELETE_ENDED, [{"b_id": row.id, "b_status": row.status} for row in rows]).rowcount
    groups = {row.group_id for row in rows}
    payloads = sum(
        drop_payloads(connection, group, {record_of(row) for row in rows if row.group_id == group})
        for group in sorted(groups)
    )
    return Purged(deleted, payloads)


def _finished(before: float) -> ColumnElement[bool]:
    return in_utc(StoredReplay.finished_at) < time_of(before)


def _changed(*states: Status, **values: object) -> Update:
    """The change of one row that is still in one of these states."""
    still = or_(*(ParkedDelivery.status == state for state in states))  # IN cannot be bound many times over
    changed = update(ParkedDelivery).where(ParkedDelivery.id == bindparam("b_id"), still)
    return changed.values(updated_at=func.current_timestamp(), **values)


_HOLD = _changed(Status.PARKED, status=Status.HELD)
_RESUME = _changed(
    Status.HELD,
    status=Status.PARKED,
    next_attempt_at=bindparam("b_now", type_=ParkedDelivery.next_attempt_at.type),
)
_EXHAUST = _changed(*OPEN, status=Status.EXHAUSTED, last_error=REMOVED, next_attempt_at=None)
_ROW = (ParkedDelivery.id, *_PAIR)
_seen = select(ParkedDelivery.subscription_id).distinct().subquery("seen")
_OWED_TO_REMOVED = select(*_ROW).where(
    ParkedDelivery.subscription_id.in_(
        select(_seen.c.subscription_id).where(~exists().where(Subscription.id == _seen.c.subscription_id))
    ),
    ParkedDelivery.status.in_(OPEN),
)


def _of_subscriptions(status: Status, enabled: int) -> AnySelect:
    """Rows of this state whose subscriptions are enabled, or are not.

    From the rows to their subscriptions: of these there may be a million, and most have nothing stored.
    """
    seen = select(ParkedDelivery.subscription_id).where(ParkedDelivery.status == status).distinct().subquery("seen")
    theirs = exists().where(Subscription.id == seen.c.subscription_id, Subscription.enabled == enabled)
    return select(*_ROW).where(
        ParkedDelivery.subscription_id.in_(select(seen.c.subscription_id).where(theirs)),
        ParkedDelivery.status == status,
    )


def _parked_of(subscription_id: int) -> AnySelect:
    """Of a subscription, if it is disabled."""
    disabled = select(Subscription.id).where(Subscription.id == subscription_id, Subscription.enabled == 0)
    return select(*_ROW).where(ParkedDelivery.subscription_id.in_(disabled), ParkedDelivery.status == Status.PARKED)


def _in_batches(
    engine: Engine, rows: AnySelect, change: Update, now: float | None = None, *, until: float = inf
) -> int:
    """Apply a change to all rows that call for it, some thousand in each transaction; at `now` they become due.

    No further transaction begins after `until`.
    """
    changed = 0
    while True:
        with engine.begin() as connection:
            found = connection.execute(rows.limit(CHANGED_AT_ONCE)).all()
            if found:
                moment = {} if now is None else {"b_now": time_of(now)}
                changed += connection.execute(change, [{"b_id": row.id} | moment for row in found]).rowcount
            if now is not None:
                put_in_order(connection, found, now)
        if len(found) < CHANGED_AT_ONCE or time.monotonic() >= until:
            return changed
