"""How many stored deliveries are in each state, and when the next of them is due: for people who wait or look on."""

from collections import Counter
from collections.abc import Collection

from sqlalchemy import ColumnElement, Engine, func, select

from consumer.database import any_of, reading
from consumer.ledger.columns import BATCH, unix
from models import ParkedDelivery, Status
from models.base import in_utc


def of_subscription(engine: Engine, subscription_id: int) -> Counter[str]:
    """A subscription's rows by state, of all groups."""
    return _by_state(engine, ParkedDelivery.subscription_id == subscription_id)


def of_replay(engine: Engine, subscription_id: int, replay_id: int, matched: int) -> Counter[str]:
    """A replay's deliveries by state; of its `matched` ones those that are gone were delivered."""
    states = _by_state(engine, *_of_replay(subscription_id, replay_id))
    states[Status.DELIVERED.value] += max(0, matched - states.total())
    return +states


def next_of_replay(engine: Engine, subscription_id: int, replay_id: int) -> float | None:
    """When the first of a replay's parked rows is due (unix seconds), or None if none is parked."""
    return _next(engine, *_of_replay(subscription_id, replay_id))


def next_of(engine: Engine, ids: Collection[int]) -> float | None:
    """When the first of these rows that is parked is due (unix seconds), or None if none is."""
    ordered = sorted(ids)
    parts = (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))
    found = (_next(engine, any_of(ParkedDelivery.id.expression, part)) for part in parts)
    return min((moment for moment in found if moment is not None), default=None)


def _of_replay(subscription_id: int, replay_id: int) -> tuple[ColumnElement[bool], ...]:
    # By the subscription, whose rows an index finds.
    return ParkedDelivery.subscription_id == subscription_id, ParkedDelivery.replay == replay_id


def _by_state(engine: Engine, *chosen: ColumnElement[bool]) -> Counter[str]:
    statement = select(ParkedDelivery.status, func.count().label("number")).where(*chosen)
    with reading(engine) as connection:
        rows = connection.execute(statement.group_by(ParkedDelivery.status))
        return Counter({row.status: row.number for row in rows})


def _next(engine: Engine, *chosen: ColumnElement[bool]) -> float | None:
    statement = (
        select(ParkedDelivery.next_attempt_at)
        .where(*chosen, ParkedDelivery.status == Status.PARKED)
        .order_by(in_utc(ParkedDelivery.next_attempt_at))
        .limit(1)
    )
    with reading(engine) as connection:
        return unix(connection.scalar(statement))
