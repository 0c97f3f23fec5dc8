"""Notes failing subscriptions, updates rows after subscriptions change, and deletes rows that are no longer needed."""

from collections.abc import Collection, Iterable, Iterator, Sequence, Sized
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Update,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from consumer.database.engine import reading
from consumer.database.errors import is_outage, translated
from consumer.database.statements import AnyRow, AnySelect, any_of, in_pieces, leaps
from consumer.errors import RowsRefused
from consumer.events.event import RecordId
from consumer.ledger import backlogs, marks, outbox
from consumer.ledger.ordering import put_in_order
from consumer.ledger.rows import (
    BATCH,
    OPEN,
    PAYLOAD_RECORD,
    RECORD,
    OperationalEvent,
    cut,
    in_transaction,
    is_bound,
    record_binds,
    record_of,
    time_of,
)
from models import ParkedDelivery, Payload, Status, StoredCursor, StoredReplay, Subscription
from models.base import BEFORE_IDS, utc_now
from models.subscription import REASON_LENGTH

CHANGED_AT_ONCE = 1000  # rows changed in one transaction after a change of their subscription
SEEKS = 200  # subscriptions of one step: 5 ms on SQLite, a tenth of a second over a network
FIRST = BEFORE_IDS
REMOVED = "the subscription was removed"

_YES: ColumnElement[int] = literal_column("1")

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
# Binds the state and the time too: a row that was made open again, or given up anew, after it was read stays.
_DELETE_ENDED = delete(ParkedDelivery).where(
    is_bound(ParkedDelivery.status),
    ParkedDelivery.id == bindparam("b_id"),
    ParkedDelivery.updated_at < bindparam("b_before", type_=ParkedDelivery.updated_at.type),
)


class Purged(NamedTuple):
    """How many deliveries and payloads a step of `purge` has deleted."""

    deliveries: int
    payloads: int


class Reconciled(NamedTuple):
    """How many rows were changed, and the subscription to go on after; None after the last one."""

    held: int
    resumed: int
    exhausted: int
    end: int | None


def disable(
    engine: Engine,
    group: str,
    subscription_id: int,
    reason: str,
    operation: OperationalEvent | None = None,
    *,
    url: str | None = None,
) -> bool:
    """Disable a subscription and hold its parked rows. Returns whether it was enabled until now.

    Its cursors end at the live stream: their owners are asked to look. With `url`, only if it still points there. The
    operational event is written with the change, so that only one of many workers reports it. A repetition after a lost
    answer holds the rows and returns False.
    """

    def change(connection: Connection) -> bool:
        statement = update(Subscription).where(Subscription.id == subscription_id, Subscription.enabled == 1)
        if url is not None:
            statement = statement.where(Subscription.url == in_pieces(Subscription.url, url))
        changed = connection.execute(
            statement.values(enabled=0, disabled_reason=cut(reason, REASON_LENGTH), failing_since=None)
        ).rowcount
        if changed and operation is not None:
            outbox.add(connection, group, [operation])
        if changed:
            backlogs.look_at(connection, subscription_id)
        return changed == 1

    changed = in_transaction(engine, change)
    follow(engine, subscription_id)
    return changed


def failing(engine: Engine, subscription_id: int, since: float) -> None:
    """Note since when (unix seconds) all attempts of a subscription have failed; an earlier noted time stands."""
    statement = update(Subscription).where(
        Subscription.id == subscription_id,
        Subscription.enabled == 1,
        Subscription.paused_at.is_(None),
        Subscription.failing_since.is_(None),
    )
    with engine.begin() as connection:
        connection.execute(statement.values(failing_since=time_of(since)))


def recovered(engine: Engine, group: str, subscription_id: int, operation: OperationalEvent | None = None) -> bool:
    """Note a successful attempt. True if the subscription was noted as failing; only then `operation` is written."""

    def change(connection: Connection) -> bool:
        statement = update(Subscription).where(
            Subscription.id == subscription_id, Subscription.failing_since.is_not(None)
        )
        changed = connection.execute(statement.values(failing_since=None)).rowcount
        if changed and operation is not None:
            outbox.add(connection, group, [operation])
        return changed == 1

    return in_transaction(engine, change)


def follow(engine: Engine, subscription_id: int, now: float | None = None) -> None:
    """Hold the parked rows of a disabled or paused subscription; at `now` (unix seconds), resume those of another one.

    If there are many rows, `reconcile` does the rest, because other work of the database thread waits for this.
    """
    with reading(engine) as connection:
        sends = _enabled(connection, [subscription_id]).get(subscription_id)
    if sends == 0:
        _follow(engine, [subscription_id], (Status.PARKED,), _HOLD)
    elif sends == 1 and now is not None:
        _follow(engine, [subscription_id], (Status.HELD,), _RESUME, now)


def reconcile(engine: Engine, now: float, after: int = FIRST, without: Collection[int] = ()) -> Reconciled:
    """Update rows after any change of their subscriptions: disabled or paused holds, else resumes; removed exhausts.

    A step covers the next SEEKS subscriptions that have rows, and at most CHANGED_AT_ONCE rows of each kind. Call it
    again with the `end` of the last step until that is None, and start over every minute or so. Sending does not depend
    on it: `due.fetch` reads the subscription itself. After RowsRefused, call it again `without` that subscription.
    """
    with reading(engine) as connection:  # a write would block other writers; most steps write nothing
        seen = leaps(connection, ParkedDelivery.subscription_id, after, SEEKS)
        enabled = _enabled(connection, seen)
    wanted = [each for each in seen if each not in without]
    held = _follow(engine, [each for each in wanted if enabled.get(each) == 0], (Status.PARKED,), _HOLD)
    resumed = _follow(engine, [each for each in wanted if enabled.get(each) == 1], (Status.HELD,), _RESUME, now)
    exhausted = _follow(engine, [each for each in wanted if each not in enabled], OPEN, _EXHAUST)
    if CHANGED_AT_ONCE in (held, resumed, exhausted):
        return Reconciled(held, resumed, exhausted, after)
    return Reconciled(held, resumed, exhausted, seen[-1] if len(seen) == SEEKS else None)


def prune(engine: Engine, group: str, topic: str, partition: int, committed: int, limit: int = BATCH) -> int:
    """Delete delivered rows below the committed offset, and payloads left unused. Returns the number of rows.

    Delivered rows tell a restarted worker that their deliveries are settled. It reads none below the committed offset,
    and none of replays.
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
            connection.execute(_DELETE_DELIVERED, [{"b_id": each} for each in sorted(row.id for row in rows)])
            drop_payloads(connection, group, {record_of(row) for row in rows})
        return len(rows)

    return in_transaction(engine, work)  # another process may have just stored a delivery of an unused payload


def drop_payloads(connection: Connection, group: str, records: Collection[RecordId]) -> int:
    """Delete the payloads of these records that no delivery refers to. Returns their number."""
    return connection.execute(_DELETE_PAYLOAD, [record_binds(group, record) for record in sorted(records)]).rowcount


def by_id(engine: Engine, rows: AnySelect, *which: ColumnElement[bool]) -> Iterator[list[AnyRow]]:
    """Run a statement on the rows that exist now and meet all of `which`, in steps, lower ids first.

    A step covers at most BATCH ids and may be empty. It finds its rows by the primary key alone, so that no statement
    takes long, however many rows there are and however few match, and no caller holds them all. Even the first and last
    ids are found without the conditions: with them, that query alone could exceed the time limit of a call.
    """
    with reading(engine) as connection:
        last = connection.scalar(select(func.max(ParkedDelivery.id)))
    meant = rows.where(*map(by_no_index, which))
    after = BEFORE_IDS
    while last is not None and after < last:
        with reading(engine) as connection:
            between = (ParkedDelivery.id > after, ParkedDelivery.id <= last)
            begin = connection.scalar(select(func.min(ParkedDelivery.id)).where(*between))
            if begin is None:
                return
            after = min(begin + BATCH - 1, last)
            found = list(connection.execute(meant.where(ParkedDelivery.id.between(begin, after))))
        yield found


def counted(steps: Iterable[Sized], most: int) -> int:
    """The number of rows in the steps of `by_id`: exact up to `most`; counting stops soon after."""
    total = 0
    for rows in steps:
        total += len(rows)
        if total > most:
            break
    return total


def by_no_index(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Wrap a condition on rows selected by id, so that no database uses another index for it.

    In that index the condition may match a million rows, which each step would read.
    """
    return case((condition, _YES)) == _YES


def next_exhausted(engine: Engine, after: int) -> tuple[int, int] | None:
    """The first and the last of the next BATCH ids, from the first exhausted row above `after`; None: there is none.

    A seek in the index of states passes all other rows, however many wait.
    """
    exhausted = ParkedDelivery.status == Status.EXHAUSTED, ParkedDelivery.id > after
    with reading(engine) as connection:
        begin = connection.scalar(select(func.min(ParkedDelivery.id)).where(*exhausted))
    return None if begin is None else (begin, begin + BATCH - 1)


def ended_before(engine: Engine, statuses: Collection[Status], before: float) -> Iterator[list[AnyRow]]:
    """All groups' rows in these states that last changed before a time (unix seconds), in steps of `by_id`."""
    return by_id(
        engine,
        select(ParkedDelivery.id, ParkedDelivery.status, *RECORD).order_by(ParkedDelivery.id),
        ParkedDelivery.status.in_(sorted(statuses)),
        ParkedDelivery.updated_at < time_of(before),
    )


def purge(engine: Engine, statuses: Collection[Status], before: float) -> Iterator[Purged]:
    """Delete deliveries that ended before a time (unix seconds), and payloads left unused; as in `ended_before`.

    `statuses` are EXHAUSTED, DELIVERED, or both; an open status raises ValueError. Yields after each transaction; an
    interrupted purge has deleted whole steps, and another call goes on. The rows also tell a restarted worker which
    deliveries are settled: `before` must be older than the oldest offset that is not committed.
    """
    if owed := set(statuses) & set(OPEN):
        raise ValueError(f"open deliveries cannot be purged: {', '.join(sorted(owed))}")
    for rows in ended_before(engine, statuses, before):
        yield in_transaction(engine, partial(_purge, rows=rows, before=before)) if rows else Purged(0, 0)


def purge_replays(engine: Engine, before: float) -> int:
    """Delete replays that finished or were cancelled before a time (unix seconds). Returns their number."""
    orphans = StoredCursor.replay != 0, ~exists().where(StoredReplay.id == StoredCursor.replay)
    with engine.begin() as connection:
        deleted = connection.execute(delete(StoredReplay).where(_ended(before))).rowcount
        connection.execute(delete(StoredCursor).where(*orphans))  # afterwards: one resumed meanwhile keeps its cursors
        return deleted


def replays_ended_before(engine: Engine, before: float) -> int:
    """The number of replays that `purge_replays` would delete."""
    with reading(engine) as connection:
        return connection.scalar(select(func.count()).select_from(StoredReplay).where(_ended(before))) or 0


def waiting(engine: Engine, group: str, topic: str, partition: int) -> int:
    """How many rows of a partition are parked or blocked."""
    statement = (
        select(func.count())
        .select_from(ParkedDelivery)
        .where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.status.in_((Status.PARKED, Status.BLOCKED)),
            ParkedDelivery.topic == topic,
            ParkedDelivery.partition_no == partition,
        )
    )
    with reading(engine) as connection:
        return connection.execute(statement).scalar_one()


def _purge(connection: Connection, *, rows: Sequence[AnyRow], before: float) -> Purged:
    binds = [{"b_id": row.id, "b_status": row.status, "b_before": time_of(before)} for row in rows]
    deleted = connection.execute(_DELETE_ENDED, binds).rowcount
    groups = {row.group_id for row in rows}
    payloads = sum(
        drop_payloads(connection, group, {record_of(row) for row in rows if row.group_id == group})
        for group in sorted(groups)
    )
    return Purged(deleted, payloads)


def _ended(before: float) -> ColumnElement[bool]:
    return or_(*(at < time_of(before) for at in (StoredReplay.finished_at, StoredReplay.cancelled_at)))


def _changed(*states: Status, **values: object) -> Update:
    """An update of one row, provided that it is still in one of these states."""
    still = or_(*(ParkedDelivery.status == state for state in states))  # executemany cannot bind IN
    changed = update(ParkedDelivery).where(ParkedDelivery.id == bindparam("b_id"), still)
    return changed.values(updated_at=utc_now(), **values)


_HOLD = _changed(Status.PARKED, status=Status.HELD)
_RESUME = _changed(
    Status.HELD,
    status=Status.PARKED,
    next_attempt_at=bindparam("b_now", type_=ParkedDelivery.next_attempt_at.type),
)
_EXHAUST = _changed(
    *OPEN,
    status=Status.EXHAUSTED,
    last_error=REMOVED,
    next_attempt_at=None,
    unpublished_by=ParkedDelivery.group_id,
)


def _enabled(connection: Connection, subscriptions: Sequence[int]) -> dict[int, int]:
    """Whether deliveries may be sent, by subscription, for the ones that exist: it is enabled, and not paused."""
    if not subscriptions:
        return {}
    mine = any_of(Subscription.id.expression, subscriptions)
    rows = connection.execute(select(Subscription.id, Subscription.enabled, Subscription.paused_at).where(mine))
    return {row.id: int(row.enabled == 1 and row.paused_at is None) for row in rows}


def _follow(
    engine: Engine,
    subscriptions: Sequence[int],
    states: Collection[Status],
    change: Update,
    now: float | None = None,
) -> int:
    """Apply a change to rows of these subscriptions in these states, at most CHANGED_AT_ONCE; `now`: they become due.

    Returns how many rows were found: each is changed, unless another process has just done so. Each subscription has
    its own transaction; if one cannot be committed, RowsRefused names it, and the ones before it are done.
    """
    if not subscriptions:
        return 0
    theirs = any_of(ParkedDelivery.subscription_id.expression, subscriptions)
    rows = select(ParkedDelivery.id, *_PAIR).where(theirs, ParkedDelivery.status.in_(states)).limit(CHANGED_AT_ONCE)
    with reading(engine) as connection:
        found = connection.execute(rows).all()
    moment = {} if now is None else {"b_now": time_of(now)}

    def follow(connection: Connection, *, rows: Sequence[AnyRow]) -> None:
        connection.execute(change, [{"b_id": row.id} | moment for row in rows])
        if now is not None:
            put_in_order(connection, rows, now)
            marks.look_for(connection, rows)

    in_order = sorted(found, key=attrgetter("subscription_id", "id"))
    for subscription_id, group in groupby(in_order, attrgetter("subscription_id")):
        try:
            in_transaction(engine, partial(follow, rows=list(group)))
        except Exception as error:
            cause = translated(error)
            if is_outage(cause):
                raise
            raise RowsRefused(subscription_id, str(cause)) from error
    return len(found)
