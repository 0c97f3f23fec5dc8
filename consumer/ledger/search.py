"""Searches stored deliveries, newest first, a page at a time: for the API and the console.

A page begins with a seek in an index for each state, or in the primary key, and takes the ids from the index alone, in
its order. Conditions without an index are then evaluated on at most EXAMINED rows, so that a page's time does not
depend on the table's size. The page's position is where the search goes on.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, func, select

from consumer.database.engine import IN_LIST, any_of, reading
from consumer.errors import InvalidPosition
from consumer.ledger.admin import STORED, StoredDelivery, delivery_of, of_tenant
from consumer.ledger.columns import OF_PAYLOAD, time_of
from consumer.ledger.upkeep import by_no_index
from models import ParkedDelivery, Payload, Status
from models.base import BEFORE_IDS, in_utc

MOST = 200  # deliveries of a page
EXAMINED = IN_LIST  # rows of a page on which conditions without an index are evaluated: one list of ids, some 5 ms
RECENT = IN_LIST  # deliveries whose event types are counted
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


class TypeCount(NamedTuple):
    """The number of examined rows that have this event type."""

    event_type: str
    number: int


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
        branches = [_ids(connection, state, query, lowest, below, window + 1) for state in _states(query)]
        ids = list(islice(merge(*branches, reverse=True), window + 1))
        if not ids:
            return Page((), None)
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
    return Page(found, _position(lowest, ids[window - 1]) if len(ids) > window else None)


def recent_types(engine: Engine) -> list[TypeCount]:
    """The event types of the RECENT deliveries stored last, the most frequent first."""
    with reading(engine) as connection:
        ids = _ids(connection, None, Query(), BEFORE_IDS, _LARGEST_ID, RECENT)
        if not ids:
            return []
        theirs = any_of(ParkedDelivery.id.expression, ids)
        rows = connection.execute(select(Payload.event_type).join(ParkedDelivery, OF_PAYLOAD).where(theirs))
        counted = Counter(rows.scalars())
    return [TypeCount(*pair) for pair in counted.most_common()]


def _states(query: Query) -> Collection[Status | None]:
    """The states to seek, each in its index; None: in the primary key."""
    if query.statuses:
        return sorted(set(query.statuses))
    return [None] if query.subscription is None else sorted(Status)


def _ids(
    connection: Connection, state: Status | None, query: Query, lowest: int, below: int, most: int
) -> Sequence[int]:
    """Ids from `lowest` to before `below`, in falling order."""
    statement = select(ParkedDelivery.id).where(ParkedDelivery.id >= lowest, ParkedDelivery.id < below)
    if query.subscription is not None:
        statement = statement.where(ParkedDelivery.subscription_id == query.subscription)
    if state is not None:
        statement = statement.where(ParkedDelivery.status == state)
    return connection.execute(statement.order_by(ParkedDelivery.id.desc()).limit(most)).scalars().all()


def _conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    """The conditions that no index serves."""
    if query.tenant is not None:
        yield from of_tenant(query.tenant)
    if query.event_type is not None:
        yield Payload.event_type == query.event_type
    if query.topic is not None:
        yield ParkedDelivery.topic == query.topic
    if query.since is not None:
        yield in_utc(ParkedDelivery.created_at) >= time_of(query.since)
    if query.until is not None:
        yield in_utc(ParkedDelivery.created_at) < time_of(query.until)


def _range(connection: Connection, query: Query) -> tuple[int, int]:
    """The range of ids (from, to before) of rows that may have been stored in the query's time."""
    lowest, below = BEFORE_IDS, _LARGEST_ID
    if query.since is not None or query.until is not None:
        first = connection.scalar(select(func.min(ParkedDelivery.id)))
        last = connection.scalar(select(func.max(ParkedDelivery.id)))
        if first is None or last is None:
            return lowest, below
        if query.since is not None:
            lowest = _first_since(connection, query.since - _SLACK, first, last + 1)
        if query.until is not None:
            below = _first_since(connection, query.until + _SLACK, first, last + 1)
    return lowest, below


def _first_since(connection: Connection, moment: float, low: int, high: int) -> int:
    """The first id from `low` on, or `high`, whose row was stored at `moment` or later: a seek for each bisection."""
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            select(ParkedDelivery.id, ParkedDelivery.created_at)
            .where(ParkedDelivery.id >= middle, ParkedDelivery.id < high)
            .order_by(ParkedDelivery.id)
            .limit(1)
        ).first()
        if row is None or row.created_at.timestamp() >= moment:
            high = middle
        else:
            low = row.id + 1
    return low


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
