"""Searches stored deliveries, newest first, a page at a time: for the API and the console.

A page begins with a seek in an index for each state, or in the primary key, and takes the ids from the index alone, in
its order. A tenant's deliveries are those of its subscriptions: a seek finds the newest of each, and the page takes the
subscriptions with the newest ones. Conditions without an index are then evaluated on at most EXAMINED rows, so that a
page's time does not depend on the table's size. The page's position is where the search goes on.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, func, select, union_all

from consumer.database.engine import IN_LIST, any_of, padded, reading
from consumer.errors import InvalidPosition
from consumer.ledger.admin import STORED, StoredDelivery, delivery_of, of_tenant
from consumer.ledger.columns import OF_PAYLOAD, time_of
from consumer.ledger.upkeep import by_no_index
from models import ParkedDelivery, Payload, Status, Subscription
from models.base import BEFORE_IDS

MOST = 200  # deliveries of a page
EXAMINED = IN_LIST  # rows of a page on which conditions without an index are evaluated: one list of ids, some 5 ms
RECEIVERS = 1_000  # subscriptions of a tenant whose newest deliveries are sought: 5 seeks each, 10 ms on SQLite
ARMS = 32  # of these, with a state each, the ones that a page takes: a power of two, so that few statements differ
_PROBES = 15  # times read in one statement: three statements find a moment among two million ids
_SLACK = 600.0  # seconds by which ids may be out of the order of time: clocks differ, and sequences are cached
_LARGEST_ID = 2**63 - 1


class Query(NamedTuple):
    """Conditions that deliveries must all meet; empty or None: any.

    `statuses` and `subscription` use an index. `since` (inclusive) and `until`, in unix seconds, limit the time when a
    delivery was stored, and become a range of ids. The others are evaluated row by row. `tenant` is as in
    `admin.of_tenant`: a removed subscription has none.
    """

    statuses: Collection[Status] = ()
    subscription: int | None = None
    tenant: str | None = None
    event_type: str | None = None
    topic: str | None = None
    since: float | None = None
    until: float | None = None


class Page(NamedTuple):
    """Deliveries, newest first, and the position after them; None at the end.

    A page may have fewer deliveries than asked for, even none, and still a position: it has examined EXAMINED rows.
    """

    deliveries: tuple[StoredDelivery, ...]
    position: str | None


def search(engine: Engine, query: Query, limit: int = 50, position: str | None = None) -> Page:
    """A page of at most `limit` (1 to MOST) deliveries, after the `position` that an earlier page of this query gave.

    ValueError for a limit outside that range, InvalidPosition for a text that is not a position.
    """
    if not 1 <= limit <= MOST:
        raise ValueError(f"a page has 1 to {MOST} deliveries, not {limit}")
    conditions = list(_conditions(query))
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


class _Arm(NamedTuple):
    """The rows of a subscription in a state, which an index has in the order of their ids; None: of any."""

    subscription: int | None
    status: Status | None


def _arms(connection: Connection, query: Query, lowest: int, below: int) -> tuple[Sequence[_Arm], int]:
    """The arms of a page, and the id from which on, up to before `below`, they have all rows."""
    if query.tenant is not None and query.subscription is None:
        newest = _newest_of_tenant(connection, query.tenant, _states(query), lowest, below)
        if newest is not None:
            arms = [arm for _, arm in newest[:ARMS]]
            arms += [_Arm(BEFORE_IDS, Status.PARKED)] * (padded(len(arms)) - len(arms) if arms else 0)
            return arms, newest[ARMS][0] + 1 if len(newest) > ARMS else lowest
    states = [None] if query.subscription is None and not query.statuses else _states(query)
    return [_Arm(query.subscription, state) for state in states], lowest


def _states(query: Query) -> Sequence[Status]:
    return sorted(set(query.statuses or Status))


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


def _conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    """The conditions that no index serves."""
    if query.tenant is not None:
        yield from of_tenant(query.tenant)
    if query.event_type is not None:
        yield Payload.event_type == query.event_type
    if query.topic is not None:
        yield ParkedDelivery.topic == query.topic
    if query.since is not None:
        yield ParkedDelivery.created_at >= time_of(query.since)
    if query.until is not None:
        yield ParkedDelivery.created_at < time_of(query.until)


def _range(connection: Connection, query: Query) -> tuple[int, int]:
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
