"""Counts stored deliveries by state, and reads when the next one is due: for commands and the console."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Engine,
    Integer,
    bindparam,
    func,
    select,
    union_all,
)

from consumer.database.engine import any_of, padded, reading
from consumer.ledger.columns import ATTEMPTS, BATCH, OPEN, AnySelect, last_of, unix
from consumer.ledger.rows import AttemptFailure
from consumer.ledger.upkeep import by_id
from models import ParkedDelivery, Status
from models.base import BEFORE_IDS

SAMPLE = 1000  # rows at each end of an open state, read from an index alone
_MOST = 10  # rows at an end of a subscription's rows that are searched for a failure
# In an outage, later rows are stored without an attempt: the first ones have failed.
_SEARCHED = (
    (Status.PARKED, ParkedDelivery.id.desc()),
    (Status.PARKED, ParkedDelivery.id.asc()),
    (Status.EXHAUSTED, ParkedDelivery.id.desc()),
)
# A replay may have millions of rows, and no index finds them: they are read by id.
_BY_STATE = select(ParkedDelivery.status, func.count().label("number")).group_by(ParkedDelivery.status)


def by_state(engine: Engine, most: int) -> Mapping[str, int]:
    """All rows by state, of all groups: exact up to `most`; `most` + 1 means more."""
    counted = (
        select(func.count())
        .select_from(select(ParkedDelivery.id).where(ParkedDelivery.status == state).limit(most + 1).subquery())
        .scalar_subquery()
        for state in Status
    )
    with reading(engine) as connection:
        return dict(zip(map(str, Status), connection.execute(select(*counted)).one(), strict=True))


def most_loaded(engine: Engine, number: int) -> list[int]:
    """The subscriptions, at most `number`, that occur most often among the rows stored first and last.

    Reads the SAMPLE rows at each end of each open state. An exact answer would have to read every open row.
    """
    ends = [
        select(ParkedDelivery.subscription_id).where(ParkedDelivery.status == state).order_by(order).limit(SAMPLE)
        for state in OPEN
        for order in (ParkedDelivery.id.asc(), ParkedDelivery.id.desc())
    ]
    with reading(engine) as connection:
        rows = connection.execute(union_all(*(select(end.subquery()) for end in ends)))
        return [each for each, _ in Counter(rows.scalars()).most_common(number)]


def loads(bind: Engine | Connection, subscriptions: Collection[int], most: int) -> Mapping[int, int]:
    """How many open rows each of these subscriptions has; each count stops at `most`."""
    found = dict.fromkeys(subscriptions, 0)
    if found:
        with reading(bind) as connection:
            rows = connection.execute(_of_each(_open_rows, len(found)), _binds(found) | {"b_most": most})
            found |= {row.subscription_id: row.number for row in rows if row.number}
    return found


def last_failures(engine: Engine, subscriptions: Collection[int]) -> Mapping[int, AttemptFailure]:
    """The latest failed attempt among each subscription's newest and oldest rows, if one of these has failed."""
    found: dict[int, AttemptFailure] = {}
    if subscriptions:
        with reading(engine) as connection:
            for row in connection.execute(_of_each(_attempts_at_the_ends, len(subscriptions)), _binds(subscriptions)):
                failure, before = last_of(row), found.get(row.subscription_id)
                if failure is not None and (before is None or failure.at > before.at):
                    found[row.subscription_id] = failure
    return found


def of_subscription(engine: Engine, subscription_id: int) -> Counter[str]:
    """A subscription's rows by state, of all groups."""
    with reading(engine) as connection:
        rows = connection.execute(_BY_STATE.where(ParkedDelivery.subscription_id == subscription_id))
        return Counter({row.status: row.number for row in rows})


def progress(engine: Engine, ids: Collection[int]) -> Counter[str]:
    """How many of these rows are in each state; a row that is gone was delivered."""
    ordered = sorted(ids)
    states: Counter[str] = Counter()
    with reading(engine) as connection:
        for part in (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)):
            found = connection.execute(select(ParkedDelivery.status).where(any_of(ParkedDelivery.id.expression, part)))
            states.update(found.scalars())
    states[Status.DELIVERED.value] += len(ordered) - states.total()
    return +states


def of_replay(engine: Engine, replay_id: int, matched: int) -> Counter[str]:
    """A replay's deliveries by state; of its `matched` deliveries, the ones without a row were delivered."""
    states: Counter[str] = Counter()
    for rows in by_id(engine, _BY_STATE, ParkedDelivery.replay == replay_id):
        states.update({row.status: row.number for row in rows})
    states[Status.DELIVERED.value] += max(0, matched - states.total())
    return +states


def next_of_replay(engine: Engine, replay_id: int) -> float | None:
    """The due time (unix seconds) of the first parked row of a replay; None if none is parked."""
    return min(_due(engine, replay_id), default=None)


def last_of_replay(engine: Engine, replay_id: int) -> float | None:
    """The latest due time (unix seconds) among a replay's parked rows without an attempt, or None."""
    return max(_due(engine, replay_id, ParkedDelivery.attempt == 0), default=None)


def next_of(engine: Engine, ids: Collection[int]) -> float | None:
    """The earliest due time (unix seconds) among the parked ones of these rows; None if none is parked."""
    ordered = sorted(ids)
    parts = (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))
    found = (_next(engine, part) for part in parts)
    return min((moment for moment in found if moment is not None), default=None)


def _binds(subscriptions: Collection[int]) -> dict[str, int]:
    """The binds of `_of_each`; the ones that are left keep an id that no subscription has."""
    return {f"b_{place}": each for place, each in enumerate(subscriptions)}


@cache  # one with 64 subscriptions takes 20 ms to build and 200 ms to compile
def _of_each(parts: Callable[[BindParameter[int]], Iterable[AnySelect]], number: int) -> CompoundSelect[Any]:
    """Select the `parts` of `number` subscriptions, up to a power of two: Oracle then sees few different statements."""
    binds = (
        bindparam(f"b_{place}", BEFORE_IDS, ParkedDelivery.subscription_id.type) for place in range(padded(number))
    )
    return union_all(*(part for each in binds for part in parts(each)))


def _open_rows(subscription: BindParameter[int]) -> Iterator[AnySelect]:
    its = ParkedDelivery.subscription_id == subscription
    rows = select(ParkedDelivery.subscription_id).where(its, ParkedDelivery.status.in_(OPEN))
    first = rows.limit(bindparam("b_most", 0, Integer())).subquery()
    yield select(func.max(first.c.subscription_id).label("subscription_id"), func.count().label("number"))


def _attempts_at_the_ends(subscription: BindParameter[int]) -> Iterator[AnySelect]:
    for state, order in _SEARCHED:
        rows = select(ParkedDelivery.subscription_id, ParkedDelivery.updated_at, *ATTEMPTS).where(
            ParkedDelivery.subscription_id == subscription, ParkedDelivery.status == state
        )
        yield select(rows.order_by(order).limit(_MOST).subquery())


def _due(engine: Engine, replay_id: int, *which: ColumnElement[bool]) -> Iterator[float]:
    parked = ParkedDelivery.status == Status.PARKED
    for rows in by_id(
        engine, select(ParkedDelivery.next_attempt_at), ParkedDelivery.replay == replay_id, parked, *which
    ):
        yield from (unix(row.next_attempt_at) for row in rows)


def _next(engine: Engine, ids: Collection[int]) -> float | None:
    statement = (
        select(ParkedDelivery.next_attempt_at)
        .where(any_of(ParkedDelivery.id.expression, sorted(ids)), ParkedDelivery.status == Status.PARKED)
        .order_by(ParkedDelivery.next_attempt_at)
        .limit(1)
    )
    with reading(engine) as connection:
        return unix(connection.scalar(statement))
