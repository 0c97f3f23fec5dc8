"""Pauses of subscriptions whose every attempt fails, and probes that find out whether they work again.

Such a subscription has `probed_at`, at or after `paused_at`; one that a person has paused has not. A probe is one owed
event. The worker that is to send it first moves `probed_at`, so that a group makes one attempt in each interval.
"""

from collections.abc import Collection
from datetime import datetime
from itertools import chain
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, exists, func, or_, select, update

from consumer.database.engine import reading
from consumer.database.statements import AnySelect, any_of, in_pieces, of_each
from consumer.events.event import TopicPartition
from consumer.ledger import backlogs, outbox, upkeep
from consumer.ledger.ordering import is_first
from consumer.ledger.rows import DUE_KEY, DueKey, OperationalEvent, cut, due_key_of_row, in_transaction, time_of
from models import ParkedDelivery, Status, StoredCursor, Subscription
from models.base import BEFORE_IDS
from models.cursor import UNFINISHED
from models.subscription import REASON_LENGTH

LOOKED_AT = 16  # subscriptions of one look: a seek for each and each partition, twice
FIRST = BEFORE_IDS

# `paused_at` may be cleared or set by plain SQL that leaves `probed_at` as it was.
_PAUSED_BY_FAILURE = Subscription.probed_at >= Subscription.paused_at


class Probe(NamedTuple):
    """A probe that this process is to make: of a subscription that is paused since `paused_at`.

    It sends the stored delivery `row`, or, if that is None, the first event of the due key's cursor.
    """

    paused_at: datetime
    due_key: DueKey
    row: int | None


class Claimed(NamedTuple):
    """Probes to make, and the subscription to go on after; None after the last one."""

    probes: tuple[Probe, ...]
    end: int | None


def pause(
    engine: Engine,
    group: str,
    subscription_id: int,
    reason: str,
    now: float,
    operation: OperationalEvent | None = None,
    *,
    failing_before: float,
    url: str,
) -> bool:
    """Pause a subscription that has been failing since `failing_before` (unix seconds) or longer, and hold its rows.

    Only if it is enabled, not paused, and still points to `url`. Returns whether it is paused by this call. The
    operational event is written with the change, so that only one of many workers reports it. A repetition after a lost
    answer holds the rows and returns False.
    """

    def change(connection: Connection) -> bool:
        statement = update(Subscription).where(
            Subscription.id == subscription_id,
            Subscription.enabled == 1,
            Subscription.paused_at.is_(None),
            Subscription.failing_since <= time_of(failing_before),
            Subscription.url == in_pieces(Subscription.url, url),
        )
        since = {"paused_at": time_of(now), "probed_at": time_of(now), "failing_since": None}
        changed = connection.execute(statement.values(paused_reason=cut(reason, REASON_LENGTH), **since)).rowcount
        if changed and operation is not None:
            outbox.add(connection, group, [operation])
        return changed == 1

    changed = in_transaction(engine, change)
    upkeep.follow(engine, subscription_id)
    return changed


def resume(
    engine: Engine,
    group: str,
    subscription_id: int,
    paused_at: datetime,
    now: float,
    operation: OperationalEvent | None = None,
) -> bool:
    """Resume a subscription, of which a probe has succeeded, unless somebody has paused it anew since `paused_at`.

    Its held rows become due at `now` (unix seconds), and its cursors are looked at. Returns whether it is resumed by
    this call. The operational event is written with the change.
    """

    def change(connection: Connection) -> bool:
        mine = (Subscription.id == subscription_id, Subscription.paused_at == paused_at, _PAUSED_BY_FAILURE)
        nothing = dict.fromkeys(("paused_at", "paused_reason", "probed_at", "failing_since"))
        changed = connection.execute(update(Subscription).where(*mine).values(nothing)).rowcount
        if changed:
            if operation is not None:
                outbox.add(connection, group, [operation])
            backlogs.look_at(connection, subscription_id)
        return changed == 1

    changed = in_transaction(engine, change)
    upkeep.follow(engine, subscription_id, now)
    return changed


def claim(
    engine: Engine, group: str, partitions: Collection[TopicPartition], now: float, every: float, after: int = FIRST
) -> Claimed:
    """Claim probes of subscriptions that were paused or probed `every` seconds ago, and are owed something here.

    At most one for each subscription; none of a subscription that another worker has just claimed. Due keys take turns,
    so that one that cannot be sent does not prevent all probes. One statement if no probe is due. A step covers
    LOOKED_AT subscriptions; call it again with the `end` of the last one.
    """
    number = Subscription.id + 0  # by the index of few rows, and not by that of all ids
    due = select(Subscription.id, Subscription.paused_at, Subscription.probed_at).where(
        Subscription.probed_at <= time_of(now - every), _PAUSED_BY_FAILURE, Subscription.enabled == 1, number > after
    )
    with reading(engine) as connection:
        found = connection.execute(due.order_by(number).limit(LOOKED_AT + 1)).all()
        some = found[:LOOKED_AT]
        owed = _owed(connection, group, partitions, [row.id for row in some]) if some else {}
    turn = int(now // every)
    probes: list[Probe] = []
    for row in some:
        if row.id not in owed:
            continue
        mine = (
            Subscription.id == row.id,
            Subscription.paused_at == row.paused_at,
            Subscription.probed_at == row.probed_at,
        )
        with engine.begin() as connection:
            if connection.execute(update(Subscription).where(*mine).values(probed_at=time_of(now))).rowcount:
                probes.append(Probe(row.paused_at, *owed[row.id][turn % len(owed[row.id])]))
    return Claimed(tuple(probes), some[-1].id if len(found) > len(some) else None)


def count(engine: Engine) -> int:
    """The number of enabled subscriptions that failures have paused."""
    # True of each: an index serves a range better than IS NOT NULL.
    paused = select(func.count()).where(
        Subscription.probed_at >= time_of(0.0), _PAUSED_BY_FAILURE, Subscription.enabled == 1
    )
    with reading(engine) as connection:
        return connection.scalar(paused) or 0


def _owed(
    connection: Connection, group: str, partitions: Collection[TopicPartition], subscriptions: list[int]
) -> dict[int, list[tuple[DueKey, int | None]]]:
    """By subscription, due keys in these partitions with their first owed row. Row None: that of a cursor.

    Those of cursors only if the subscription has no row that may go: each of their events becomes another row.
    """
    with_rows = connection.scalars(
        select(Subscription.id).where(any_of(Subscription.id.expression, subscriptions), or_(*map(_has, _MAY_GO)))
    ).all()
    due_keys = [(group, *partition, each) for partition in sorted(partitions) for each in with_rows]
    rows = chain(*(of_each(connection, part, DUE_KEY, due_keys, 1) for part in (_first_held, _first_parked)))
    owing = select(*_CURSOR).where(
        StoredCursor.group_id == group,
        StoredCursor.replay == 0,
        any_of(StoredCursor.subscription_id.expression, subscriptions),
        UNFINISHED,
    )
    at: dict[DueKey, int] = {}
    for cursor in connection.execute(owing):
        due_key = due_key_of_row(cursor)
        if due_key[:2] in partitions:
            at[due_key] = min(cursor.next_offset, at.get(due_key, cursor.next_offset))
    found: dict[int, list[tuple[DueKey, int | None]]] = {}
    for row in sorted(rows, key=lambda row: row.id):
        due_key = due_key_of_row(row)
        if row.record_offset < at.get(due_key, row.record_offset + 1):  # else the cursor's event goes first
            found.setdefault(due_key[2], []).append((due_key, row.id))
    of_cursors: dict[int, list[tuple[DueKey, int | None]]] = {}
    for due_key in sorted(at):
        of_cursors.setdefault(due_key[2], []).append((due_key, None))
    return of_cursors | found


_CURSOR = (StoredCursor.topic, StoredCursor.partition_no, StoredCursor.subscription_id, StoredCursor.next_offset)


_MAY_GO = Status.HELD, Status.PARKED


def _has(status: Status) -> ColumnElement[bool]:
    """A subscription has rows in this state, of any group: a seek, however many there are."""
    return exists().where(ParkedDelivery.subscription_id == Subscription.id, ParkedDelivery.status == status)


def _first_of(status: Status, values: tuple[object, ...]) -> AnySelect:
    mine: list[ColumnElement[bool]] = [column == value for column, value in zip(DUE_KEY, values, strict=True)]
    return (
        select(*DUE_KEY[1:], ParkedDelivery.record_offset, ParkedDelivery.id)
        .where(*mine, ParkedDelivery.status == status, is_first())
        .order_by(ParkedDelivery.next_attempt_at, ParkedDelivery.id)
    )


def _first_held(*due_key: object) -> AnySelect:
    return _first_of(Status.HELD, due_key)


def _first_parked(*due_key: object) -> AnySelect:
    return _first_of(Status.PARKED, due_key)
