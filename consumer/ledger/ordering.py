"""Keeps the order of ordering keys: only the first open row of a key, in the order of the log, may be due.

A transaction that stores or ends a row of an ordering key also restores this order. That takes single seeks in
ix_webhook_deliveries_order, however many rows wait behind the first one. After a crash, `delivery.recall` sends such a
row only once the records before it were read again.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import groupby, takewhile
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import aliased

from consumer.database.engine import reading
from consumer.database.statements import AnyRow, AnySelect, any_of, of_each, padded
from consumer.ledger import marks
from consumer.ledger.rows import BATCH, OPEN, OrderingKey, bind, in_transaction, is_bound, pair_of, time_of, unix
from models import ParkedDelivery, Status

_PAIR = (
    ParkedDelivery.group_id,
    ParkedDelivery.topic,
    ParkedDelivery.partition_no,
    ParkedDelivery.order_key,
    ParkedDelivery.subscription_id,
)
_NOW = bindparam("b_now", type_=ParkedDelivery.updated_at.type)
FIRST, LAST = "/", "~"  # before and behind every digest of a key
RUN = 50  # rows fetched behind the first of their ordering key, since a fetch for each would be slow
_other = aliased(ParkedDelivery)


class Mended(NamedTuple):
    """The number of ordering keys put in order, and the key to go on behind; None after the last."""

    ordering_keys: int
    end: str | None


def _of_the_pair(status: Status) -> ColumnElement[bool]:
    mine = (getattr(_other, column.key) == bind(column) for column in _PAIR)
    return and_(*mine, _other.status == status)


def _earlier(status: Status) -> ColumnElement[bool]:
    return exists().where(_of_the_pair(status), _other.record_offset < ParkedDelivery.record_offset)


_first_blocked = select(func.min(_other.record_offset)).where(_of_the_pair(Status.BLOCKED)).scalar_subquery()
_UNBLOCK = (
    update(ParkedDelivery)
    .where(
        is_bound(*_PAIR),
        ParkedDelivery.status == Status.BLOCKED,
        ParkedDelivery.record_offset == _first_blocked,
        ~_earlier(Status.PARKED),
        ~_earlier(Status.HELD),
    )
    .values(
        status=Status.PARKED,
        # Keep the due time, which has passed unless the row was tried and has to wait. Null: blocked by hand.
        # Column and bind are TIMESTAMP: COALESCE of two types may be ORA-00932.
        next_attempt_at=func.coalesce(ParkedDelivery.next_attempt_at, _NOW),
        updated_at=_NOW,
    )
)
_BLOCK = (
    update(ParkedDelivery)
    .where(
        is_bound(*_PAIR),
        ParkedDelivery.status == Status.PARKED,
        or_(_earlier(Status.PARKED), _earlier(Status.HELD), _earlier(Status.BLOCKED)),
    )
    .values(status=Status.BLOCKED, updated_at=_NOW)
)


def normalise(connection: Connection, group: str, ordering_keys: Collection[OrderingKey], now: float) -> None:
    """Unblock the first open row of each ordering key, in the order of the log, and block later parked ones."""
    if not ordering_keys:
        return
    binds = [
        {
            "b_group_id": group,
            "b_topic": ordering_key.topic,
            "b_partition_no": ordering_key.partition,
            "b_order_key": ordering_key.key,
            "b_subscription_id": ordering_key.subscription_id,
            "b_now": time_of(now),
        }
        for ordering_key in sorted(ordering_keys)
    ]
    connection.execute(_UNBLOCK, binds)
    connection.execute(_BLOCK, binds)


def behind(
    connection: Connection, group: str, first: Sequence[tuple[OrderingKey, int]], most: int, now: float
) -> dict[OrderingKey, list[int]]:
    """For each ordering key, whose first row is at this offset: ids of rows that may go right after it, RUN at most.

    Some more than `most` may be read.
    """
    keys = [(group, each.topic, each.partition, each.key, each.subscription_id, offset) for each, offset in first]
    found: dict[OrderingKey, list[AnyRow]] = {ordering_key: [] for ordering_key, _ in first}
    for row in of_each(connection, _blocked, (*_PAIR, ParkedDelivery.record_offset), keys, min(RUN, padded(most or 1))):
        found[OrderingKey(row.subscription_id, row.topic, row.partition_no, row.order_key)].append(row)
    return {
        ordering_key: [
            row.id for row in takewhile(lambda row: (unix(row.next_attempt_at) or now) <= now, sorted(rows, key=_place))
        ]
        for ordering_key, rows in found.items()
    }


def ahead(engine: Engine, delivery_id: int) -> int | None:
    """The id of the first open row of a delivery's ordering key, if that precedes it; else None."""
    first = (
        select(_other.id)
        .join(ParkedDelivery, and_(*(getattr(_other, column.key) == column for column in _PAIR)))
        .where(
            ParkedDelivery.id == delivery_id,
            _other.status.in_((Status.PARKED, Status.HELD)),
            _other.record_offset < ParkedDelivery.record_offset,
        )
        .order_by(_other.record_offset)
        .limit(1)
    )
    with reading(engine) as connection:
        return connection.scalar(first)


def _place(row: AnyRow) -> tuple[bool, Any]:
    """The row's place in its key's order; SQLite keeps a text in any column, behind all numbers."""
    return isinstance(row.record_offset, str), row.record_offset


def _blocked(*values: object) -> AnySelect:
    """Select the blocked rows of an ordering key behind an offset, in order."""
    *pair, offset = values
    return (
        select(*_PAIR[1:], ParkedDelivery.record_offset, ParkedDelivery.next_attempt_at, ParkedDelivery.id)
        .where(
            *(column == value for column, value in zip(_PAIR, pair, strict=True)),
            ParkedDelivery.status == Status.BLOCKED,
            ParkedDelivery.record_offset > offset,
            ~_any_before(Status.HELD),
        )
        .order_by(ParkedDelivery.record_offset)
    )


def put_in_order(connection: Connection, rows: Iterable[AnyRow], now: float) -> None:
    """Normalise the ordering keys of these rows, of any groups."""
    by_group: dict[str, set[OrderingKey]] = {}
    for row in rows:
        ordering_key = pair_of(row)
        if ordering_key is not None:
            by_group.setdefault(row.group_id, set()).add(ordering_key)
    for group, ordering_keys in sorted(by_group.items()):
        normalise(connection, group, ordering_keys, now)


def repair(engine: Engine, group: str, topic: str, partition: int, now: float, after: str = FIRST) -> Mended:
    """Restore the order of a partition's ordering keys where edits by hand have broken it.

    A step covers the keys behind `after` with some thousand rows, or one key that has more. Call it again with the
    `end` of the last step until that is None.
    """
    here = (
        ParkedDelivery.group_id == group,
        ParkedDelivery.topic == topic,
        ParkedDelivery.partition_no == partition,
        ParkedDelivery.order_key > after,
    )
    with reading(engine) as connection:
        end = min(
            filter(None, (_thousandth(connection, here, each) for each in (Status.PARKED, Status.BLOCKED))),
            default=None,
        )
    some = (*here, ParkedDelivery.order_key <= (end or LAST))
    mended = 0
    for astray in (_stuck(some), _unordered(some)):
        while True:
            with reading(engine) as connection:  # a write would block other writers; most steps write nothing
                found = connection.execute(astray.limit(BATCH)).all()
            if found:
                in_transaction(engine, partial(_mend, rows=found, now=now))
            mended += len(found)
            if len(found) < BATCH:
                break
    return Mended(mended, end)


def _mend(connection: Connection, *, rows: Sequence[AnyRow], now: float) -> None:
    put_in_order(connection, rows, now)
    marks.look_for(connection, rows)


def open_ones(connection: Connection, group: str, ordering_keys: Collection[OrderingKey]) -> frozenset[OrderingKey]:
    """The `ordering_keys` that have open rows. They must be normalised: then the first open row is parked or held."""
    found: set[OrderingKey] = set()
    for partition, here in groupby(sorted(ordering_keys, key=_partition_of), _partition_of):
        keys = sorted({ordering_key.key for ordering_key in here})
        rows = connection.execute(standing(group, *partition).where(any_of(ParkedDelivery.order_key.expression, keys)))
        found.update(OrderingKey(row.subscription_id, *partition, row.order_key) for row in rows)
    return frozenset(found.intersection(ordering_keys))


def standing(group: str, topic: str, partition: int) -> Select[str | None, int]:
    """Select the key and subscription of each ordering key of a partition that has open rows."""
    return (
        select(ParkedDelivery.order_key, ParkedDelivery.subscription_id)
        .where(
            ParkedDelivery.group_id == group,
            ParkedDelivery.status.in_((Status.PARKED, Status.HELD)),
            ParkedDelivery.topic == topic,
            ParkedDelivery.partition_no == partition,
            ParkedDelivery.order_key >= "0",  # true of every digest; an index serves a range better than IS NOT NULL
        )
        .distinct()
    )


def _partition_of(ordering_key: OrderingKey) -> tuple[str, int]:
    return ordering_key.topic, ordering_key.partition


def _thousandth(connection: Connection, here: Sequence[ColumnElement[bool]], status: Status) -> str | None:
    """The order key of row number BATCH of this status, by order key; None if there are fewer rows."""
    keys = select(ParkedDelivery.order_key).where(*here, ParkedDelivery.status == status)
    found = connection.execute(keys.order_by(ParkedDelivery.order_key).limit(BATCH)).scalars().all()
    return found[-1] if len(found) == BATCH else None


def _stuck(here: Sequence[ColumnElement[bool]]) -> AnySelect:
    """Select ordering keys that have a blocked row and no parked or held row before it."""
    first = (
        select(*_PAIR, func.min(ParkedDelivery.record_offset).label("record_offset"))
        .where(*here, ParkedDelivery.status == Status.BLOCKED)
        .group_by(*_PAIR)
        .subquery("first_blocked")
    )
    before = (
        exists().where(
            *(getattr(_other, column.key) == first.c[column.key] for column in _PAIR),
            _other.status == status,
            _other.record_offset < first.c.record_offset,
        )
        for status in (Status.PARKED, Status.HELD)
    )
    return select(first).where(*(~each for each in before))


def _unordered(here: Sequence[ColumnElement[bool]]) -> AnySelect:
    """Select ordering keys that have a parked row and an open row before it."""
    return (
        select(*_PAIR)
        .where(
            *here,
            ParkedDelivery.status == Status.PARKED,
            or_(*(_any_before(status) for status in OPEN)),
        )
        .distinct()
    )


def is_first() -> ColumnElement[bool]:
    """The condition that no earlier row of the same ordering key is open."""
    return and_(*(~_any_before(status) for status in OPEN))


def _any_before(status: Status) -> ColumnElement[bool]:
    """The condition that an earlier row of the same ordering key has this status."""
    return exists().where(
        *(getattr(_other, column.key) == column for column in _PAIR),
        _other.status == status,
        _other.record_offset < ParkedDelivery.record_offset,
    )
