"""The event types of a subscription: the first one is a column of its row, and the others are `webhook_event_types`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from consumer.database.statements import any_of
from consumer.errors import InvalidSubscription
from consumer.subscriptions.options import OPTIONS, Effect, OptionProblem
from models import Subscription, SubscriptionType

MOST = 20  # event types of a subscription, the first one included
# The number of further types, as a column of `endpoint_rows`.
FURTHER = (
    select(func.count()).where(SubscriptionType.subscription_id == Subscription.id).scalar_subquery().label("further")
)


def stored(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> Mapping[int, tuple[str, ...]]:
    """The further types of the subscriptions in `rows`, which have the column FURTHER; queries only if it is not 0."""
    ids = list(dict.fromkeys(row.subscription_id for row in rows if row.further))
    return of(connection, ids) if ids else {}


def of(connection: Connection, ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    """The further types, sorted, of these subscriptions (one or more)."""
    kind = SubscriptionType
    wanted = select(kind.subscription_id, kind.event_type).where(any_of(kind.subscription_id.expression, ids))
    found: dict[int, tuple[str, ...]] = {}
    for row in connection.execute(wanted.order_by(kind.event_type)):
        found[row.subscription_id] = (*found.get(row.subscription_id, ()), row.event_type)
    return found


def write(connection: Connection, subscription_id: int, tenant: str, further: Sequence[str]) -> None:
    """Store the further types of a subscription that has none."""
    if further:
        mine = {"subscription_id": subscription_id, "tenant": tenant}
        connection.execute(insert(SubscriptionType), [{**mine, "event_type": each} for each in further])


def clear(connection: Connection, subscription_id: int) -> None:
    """Remove the further types of a subscription."""
    connection.execute(delete(SubscriptionType).where(SubscriptionType.subscription_id == subscription_id))


def checked(event_types: Sequence[str]) -> tuple[str, ...]:
    """The types in the order given, each once. Raises InvalidSubscription if they cannot be those of a subscription."""
    if not 1 <= len(event_types) <= MOST:
        raise InvalidSubscription(f"has {len(event_types)} types; 1 to {MOST} are kept", "event_types")
    for problem in problems(event_types):
        raise InvalidSubscription(problem.why, problem.option)
    return tuple(dict.fromkeys(event_types))


def problems(event_types: Sequence[str]) -> Iterator[OptionProblem]:
    """The types that match no event, and why."""
    for each in event_types:
        if (why := refusal(each)) is not None:
            yield OptionProblem("event_types", f"{each!r:.60} {why}", Effect.UNNAMED)


def refusal(event_type: str) -> str | None:
    """Why a type or pattern cannot be one of a subscription, or None."""
    try:
        OPTIONS["event_type"].parse(event_type)
    except ValueError as error:
        return str(error)
    return None
