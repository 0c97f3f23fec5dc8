"""Counts stored deliveries by state, and reads when the next one is due: for commands and the console."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import ColumnElement, Engine, func, select

from consumer.database.engine import any_of, reading
from consumer.ledger.admin import owed
from consumer.ledger.columns import ATTEMPTS, BATCH, OPEN, last_of, unix
from consumer.ledger.rows import Failure
from consumer.ledger.upkeep import by_id
from models import ParkedDelivery, Status
from models.base import in_utc

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


class Load(NamedTuple):
    """How many open deliveries a subscription has."""

    subscription_id: int
    number: int


def by_state(engine: Engine, most: int) -> Mapping[str, int]:
    """All rows by state, of all groups: exact up to `most`; `most` + 1 means more."""
    found: dict[str, int] = {}
    with reading(engine) as connection:
        for state in Status:
            first = select(ParkedDelivery.id).where(ParkedDelivery.status == state).limit(most + 1).subquery("counted")
            found[state.value] = connection.execute(select(func.count()).select_from(first)).scalar_one()
    return found


def most_loaded(engine: Engine, number: int, most: int) -> list[Load]:
    """The subscriptions with the most open rows, at most `number` of them; each count stops at `most`.

    Reads the SAMPLE rows stored first and the SAMPLE rows stored last of each open state, and counts the rows of the
    subscriptions that occur most often among them. An exact answer would have to read every open row.
    """
    sample: Counter[int] = Counter()
    with reading(engine) as connection:
        for state in OPEN:
            rows = select(ParkedDelivery.subscription_id).where(ParkedDelivery.status == state).limit(SAMPLE)
            for order in (ParkedDelivery.id.asc(), ParkedDelivery.id.desc()):
                sample.update(connection.execute(rows.order_by(order)).scalars())
    loads = [Load(each, owed(engine, each, most)) for each, _ in sample.most_common(number)]
    return sorted(loads, key=lambda load: (-load.number, load.subscription_id))


def last_failure(engine: Engine, subscription_id: int) -> Failure | None:
    """The latest failed attempt among a subscription's newest and oldest rows; None if none of these has failed."""
    found: list[Failure] = []
    with reading(engine) as connection:
        for state, order in _SEARCHED:
            rows = (
                select(ParkedDelivery.updated_at, *ATTEMPTS)
                .where(ParkedDelivery.subscription_id == subscription_id, ParkedDelivery.status == state)
                .order_by(order)
                .limit(_MOST)
            )
            found += [failure for row in connection.execute(rows) if (failure := last_of(row)) is not None]
    return max(found, key=lambda failure: failure.at, default=None)


def of_subscription(engine: Engine, subscription_id: int) -> Counter[str]:
    """A subscription's rows by state, of all groups."""
    with reading(engine) as connection:
        rows = connection.execute(_BY_STATE.where(ParkedDelivery.subscription_id == subscription_id))
        return Counter({row.status: row.number for row in rows})


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
        .order_by(in_utc(ParkedDelivery.next_attempt_at))
        .limit(1)
    )
    with reading(engine) as connection:
        return unix(connection.scalar(statement))
