"""Searches stored deliveries, newest first, a page at a time, and counts them: for commands, the API and the console.

A page begins with a seek in an index for each state, or in the primary key, and takes the ids from the index alone, in
its order. A tenant's deliveries are those of its subscriptions: a seek finds the newest of each, and the page takes the
subscriptions with the newest ones. Conditions without an index are then evaluated on at most EXAMINED rows, so that a
page's time does not depend on the table's size. The page's position is where the search goes on.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
    CompoundSelect,
    Connection,
    Engine,
    Integer,
    Select,
    bindparam,
    func,
    select,
    union_all,
)

from consumer.database.engine import reading
from consumer.database.statements import IN_LIST, AnySelect, any_of, padded
from consumer.errors import InvalidPosition
from consumer.ledger.admin import STORED, DeliveryQuery, StoredDelivery, delivery_of, unindexed
from consumer.ledger.replays import Span
from consumer.ledger.rows import ATTEMPTS, OF_PAYLOAD, OPEN, AttemptFailure, in_batches, last_of, unix
from consumer.ledger.upkeep import by_id, by_no_index
from models import ParkedDelivery, Payload, Status, Subscription
from models.base import BEFORE_IDS

MOST = 200  # deliveries of a page
EXAMINED = IN_LIST  # rows of a page on which conditions without an index are evaluated: one list of ids, some 5 ms
RECEIVERS = 1_000  # subscriptions of a tenant whose newest deliveries are sought: 5 seeks each, 10 ms on SQLite
STEP = 1_000  # offsets whose rows are read at once: a span may have millions
ARMS = 32  # of these, with a state each, the ones that a page takes: a power of two, so that few statements differ
_PROBES = 15  # times read in one statement: three statements find a moment among two million ids
_SLACK = 600.0  # seconds by which ids may be out of the order of time: clocks differ, and sequences are cached
_LARGEST_ID = 2**63 - 1
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


class Page(NamedTuple):
    """Deliveries, newest first, and the position after them; None at the end.

    A page may have fewer deliveries than asked for, even none, and still a position: it has examined EXAMINED rows.
    """

    deliveries: tuple[StoredDelivery, ...]
    position: str | None


def search(engine: Engine, query: DeliveryQuery, limit: int = 50, position: str | None = None) -> Page:
    """A page of at most `limit` (1 to MOST) deliveries, after the `position` that an earlier page of this query gave.

    `statuses` and `subscription` use an index, a time becomes a range of ids; the other conditions are evaluated row by
    row. `ids` and `group` do not count.

    ValueError for a limit outside that range, InvalidPosition for a text that is not a position.
    """
    if not 1 <= limit <= MOST:
        raise ValueError(f"a page has 1 to {MOST} deliveries, not {limit}")
    conditions = list(unindexed(query, ParkedDelivery.created_at))
    window = EXAMINED if conditions else limit
    with reading(engine) as connection:
        lowest, below = _range(connection, query) if position is None else _parsed(position)
        arms, floor = _arms(connection, query, lowest, below)
        ids = _ids(connection, arms, floor, below, window + 1)
        beyond = _position(lowest, floor) if floor > lowest else None
        if not ids:
            return Page((), beyond)
        statement = (
            select(*STORED)
            .join(Payload, OF_PAYLOAD)
            .where(any_of(ParkedDelivery.id.expression, ids[:window]), *map(by_no_index, conditions))
            .order_by(ParkedDelivery.id.desc())
            .limit(limit)
        )
        found = tuple(delivery_of(row) for row in connection.execute(statement))
    if len(found) == limit and found[-1].id != ids[-1]:
        return Page(found, _position(lowest, found[-1].id))
    return Page(found, _position(lowest, ids[window - 1]) if len(ids) > window else beyond)


class StoredStatus(NamedTuple):
    """A stored delivery: the offset and the timestamp (milliseconds) of its record, and its state."""

    subscription_id: int
    offset: int
    timestamp: int
    status: Status


def statuses(engine: Engine, group: str, span: Span) -> Iterator[StoredStatus]:
    """The stored deliveries of a span of the log, but those of replays."""
    row = ParkedDelivery
    here = row.group_id == group, row.topic == span.topic, row.partition_no == span.number, row.replay == 0
    chosen = select(row.subscription_id, row.record_offset, row.record_ts, row.status).where(*here)
    for begin in range(span.begin, span.end, STEP):
        step = row.record_offset >= begin, row.record_offset < min(span.end, begin + STEP)
        with reading(engine) as connection:
            found = connection.execute(chosen.where(*step)).all()
        yield from (StoredStatus(*each[:3], Status(each.status)) for each in found)


class _Arm(NamedTuple):
    """The rows of a subscription in a state, which an index has in the order of their ids; None: of any."""

    subscription: int | None
    status: Status | None


def _arms(connection: Connection, query: DeliveryQuery, lowest: int, below: int) -> tuple[Sequence[_Arm], int]:
    """The arms of a page, and the id from which on, up to before `below`, they have all rows."""
    if query.tenant is not None and query.subscription is None:
        newest = _newest_of_tenant(connection, query.tenant, _states(query), lowest, below)
        if newest is not None:
            arms = [arm for _, arm in newest[:ARMS]]
            arms += [_Arm(BEFORE_IDS, Status.PARKED)] * (padded(len(arms)) - len(arms) if arms else 0)
            return arms, newest[ARMS][0] + 1 if len(newest) > ARMS else lowest
    states = [None] if query.subscription is None and not query.statuses else _states(query)
    return [_Arm(query.subscription, state) for state in states], lowest


def _states(query: DeliveryQuery) -> Sequence[Status]:
    return sorted({Status(each) for each in query.statuses or Status})


def _newest_of_tenant(
    connection: Connection, tenant: str, states: Sequence[Status], lowest: int, below: int
) -> list[tuple[int, _Arm]] | None:
    """The newest id of each arm of the tenant's subscriptions, in falling order; None if it has too many of them."""
    theirs = (
        ParkedDelivery.subscription_id == Subscription.id,
        ParkedDelivery.id >= lowest,
        ParkedDelivery.id < below,
    )
    newest = (
        select(func.max(ParkedDelivery.id)).where(*theirs, ParkedDelivery.status == state).scalar_subquery()
        for state in Status
    )
    statement = select(Subscription.id, *newest).where(Subscription.tenant == tenant).limit(RECEIVERS + 1)
    rows = connection.execute(statement).all()
    if len(rows) > RECEIVERS:
        return None
    found = ((last, _Arm(row[0], state)) for row in rows for state, last in zip(Status, row[1:], strict=True))
    return sorted((each for each in found if each[0] is not None and each[1].status in states), reverse=True)


def _ids(connection: Connection, arms: Sequence[_Arm], lowest: int, below: int, most: int) -> Sequence[int]:
    """At most `most` ids from `lowest` to before `below`, in falling order."""
    parts = []
    for arm in arms:
        statement = select(ParkedDelivery.id).where(ParkedDelivery.id >= lowest, ParkedDelivery.id < below)
        if arm.subscription is not None:
            statement = statement.where(ParkedDelivery.subscription_id == arm.subscription)
        if arm.status is not None:
            statement = statement.where(ParkedDelivery.status == arm.status)
        parts.append(select(statement.order_by(ParkedDelivery.id.desc()).limit(most).subquery()))
    return sorted(connection.execute(union_all(*parts)).scalars(), reverse=True)[:most] if parts else []


def _range(connection: Connection, query: DeliveryQuery) -> tuple[int, int]:
    """A range of ids (from, to before) that has all rows stored in the query's time."""
    lowest, below = BEFORE_IDS, _LARGEST_ID
    if query.since is not None or query.until is not None:
        ends = (select(end(ParkedDelivery.id)).scalar_subquery() for end in (func.min, func.max))
        first, last = connection.execute(select(*ends)).one()
        if first is None:
            return lowest, below
        if query.since is not None:
            lowest, _ = _around(connection, query.since - _SLACK, first, last + 1)
        if query.until is not None:
            _, below = _around(connection, query.until + _SLACK, first, last + 1)
    return lowest, below


def _around(connection: Connection, moment: float, low: int, high: int) -> tuple[int, int]:
    """Two ids at most EXAMINED apart: rows below the first were stored before `moment`, rows from the second on not."""
    while high - low > EXAMINED:
        points = [low + (high - low) * number // (_PROBES + 1) for number in range(1, _PROBES + 1)]
        after = select(ParkedDelivery.created_at).order_by(ParkedDelivery.id).limit(1)
        times = connection.execute(
            select(*(after.where(ParkedDelivery.id >= point).scalar_subquery() for point in points))
        ).one()
        for point, stored_at in zip(points, times, strict=True):
            if stored_at is None or stored_at.timestamp() >= moment:
                high = point
                break
            low = point
    return low, high


def _position(lowest: int, below: int) -> str:
    return f"{below}.{lowest}"


def _parsed(position: str) -> tuple[int, int]:
    below, _, lowest = position.partition(".")
    try:
        parsed = int(lowest), int(below)
    except ValueError:
        raise InvalidPosition("the position is none that a page has given; begin without one") from None
    if not all(BEFORE_IDS <= each <= _LARGEST_ID for each in parsed):
        raise InvalidPosition("the position is none that a page has given; begin without one")
    return parsed


def by_state(engine: Engine, most: int, tenant: str | None = None) -> Mapping[str, int]:
    """All rows (to a tenant's subscriptions) by state, of all groups: exact up to `most`; `most` + 1 means more."""
    theirs = ParkedDelivery.subscription_id.in_(select(Subscription.id).where(Subscription.tenant == tenant))
    rows = select(ParkedDelivery.id).where(*(() if tenant is None else (theirs,))).limit(most + 1)
    counted = (
        select(func.count()).select_from(rows.where(ParkedDelivery.status == state).subquery()).scalar_subquery()
        for state in Status
    )
    with reading(engine) as connection:
        return dict(zip(map(str, Status), connection.execute(select(*counted)).one(), strict=True))


def most_loaded(engine: Engine, number: int) -> list[int]:
    """The subscriptions, at most `number`, that occur most often among the rows stored first and last.

    Reads the SAMPLE rows at each end of each open state. An exact answer would have to read every open row.
    """
    with reading(engine) as connection:
        return list(connection.execute(_most_loaded(number)).scalars())


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
    states: Counter[str] = Counter()
    with reading(engine) as connection:
        for part in in_batches(ids):
            found = connection.execute(select(ParkedDelivery.status).where(any_of(ParkedDelivery.id.expression, part)))
            states.update(found.scalars())
    states[Status.DELIVERED.value] += len(set(ids)) - states.total()
    return +states


def of_replay(engine: Engine, replay_id: int, stored: int) -> Counter[str]:
    """A replay's stored deliveries by state; of `stored` ones, those without a row were delivered."""
    states: Counter[str] = Counter()
    for rows in by_id(engine, _BY_STATE, ParkedDelivery.replay == replay_id):
        states.update({row.status: row.number for row in rows})
    states[Status.DELIVERED.value] += max(0, stored - states.total())
    return +states


def next_of_replay(engine: Engine, replay_id: int) -> float | None:
    """The due time (unix seconds) of the first parked row of a replay; None if none is parked."""
    which = ParkedDelivery.replay == replay_id, ParkedDelivery.status == Status.PARKED
    found = by_id(engine, select(ParkedDelivery.next_attempt_at), *which)
    return min((unix(row.next_attempt_at) for rows in found for row in rows), default=None)


def next_of(engine: Engine, ids: Collection[int]) -> float | None:
    """The earliest due time (unix seconds) among the parked ones of these rows; None if none is parked."""
    due_at, found = ParkedDelivery.next_attempt_at, []
    with reading(engine) as connection:
        for part in in_batches(ids):
            parked = any_of(ParkedDelivery.id.expression, part), ParkedDelivery.status == Status.PARKED
            found.append(connection.scalar(select(due_at).where(*parked).order_by(due_at).limit(1)))
    return min((unix(moment) for moment in found if moment is not None), default=None)


def _binds(subscriptions: Collection[int]) -> dict[str, int]:
    """The binds of `_of_each`; the ones that are left keep an id that no subscription has."""
    return {f"b_{place}": each for place, each in enumerate(subscriptions)}


@cache
def _most_loaded(number: int) -> Select[Any]:
    ends = [
        select(ParkedDelivery.subscription_id).where(ParkedDelivery.status == state).order_by(order).limit(SAMPLE)
        for state in OPEN
        for order in (ParkedDelivery.id.asc(), ParkedDelivery.id.desc())
    ]
    rows = union_all(*(select(end.subquery()) for end in ends)).subquery()
    each = rows.c.subscription_id
    return select(each).group_by(each).order_by(func.count().desc(), each).limit(number)


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
