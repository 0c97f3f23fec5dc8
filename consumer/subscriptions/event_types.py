"""The event types and patterns that subscriptions name."""

from typing import NamedTuple

from sqlalchemy import Engine, func, select

from consumer.database.engine import reading
from models import Subscription


class NamedType(NamedTuple):
    """An event type or pattern, and how many subscriptions name it."""

    event_type: str
    subscriptions: int


def named_types(engine: Engine, limit: int, most: int, after: str | None = None) -> list[NamedType]:
    """At most `limit` types above `after`, by their bytes: two seeks each. A count is exact up to `most`.

    `most` + 1 means more.
    """
    found: list[NamedType] = []
    with reading(engine) as connection:
        while len(found) < limit:
            leap = select(func.min(Subscription.event_type))
            after = connection.scalar(leap if after is None else leap.where(Subscription.event_type > after))
            if after is None:
                break
            same = select(Subscription.event_type).where(Subscription.event_type == after).limit(most + 1)
            number = connection.execute(select(func.count()).select_from(same.subquery("counted"))).scalar_one()
            found.append(NamedType(after, number))
    return found
