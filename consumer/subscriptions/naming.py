"""The subscriptions that a text names, by one of their types or by a part of their url or name."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Engine,
    String,
    and_,
    case,
    or_,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.orm import InstrumentedAttribute

from consumer.database.engine import reading
from consumer.database.statements import any_of
from models import Subscription, SubscriptionType
from models.base import BEFORE_IDS


def known_by(
    engine: Engine, text: str, limit: int, *, number: int | None = None, tenant: str | None = None
) -> set[int]:
    """The ids of the subscriptions, of a tenant or of all, that a text names: at most `limit` in each way.

    It is one of their types, their `external_id`, their tenant (of all), or a part of their url or name; or their id is
    the `number`. The statement takes as long as that of `page` with a url.
    """
    in_name = and_(Subscription.name.is_not(None), has(Subscription.name, text))
    names_first = case((in_name, 0), else_=1)  # a name may come behind many URLs
    ways: list[tuple[ColumnElement[Any], ...]] = [
        (Subscription.id == (BEFORE_IDS if number is None else number),),
        (Subscription.id.in_(of_type(text)),),
        (Subscription.external_id == text,),
        (or_(in_url(text), in_name), names_first),
    ]
    if tenant is None:
        ways.append((Subscription.tenant == text,))
    mine = [] if tenant is None else [Subscription.tenant == tenant]
    arms = (
        select(Subscription.id).where(way, *mine).order_by(*order, Subscription.id).limit(limit) for way, *order in ways
    )
    ids = union_all(*(select(arm.subquery()) for arm in arms))
    with reading(engine) as connection:
        return {*connection.execute(ids).scalars()}


def in_url(text: str) -> ColumnElement[bool]:
    """Whether a URL has a text, in any case, before its query: that may hold a token, which nobody shall guess."""
    url, escaped = type_coerce(Subscription.url, String), re.sub("([/%_])", r"/\1", text)
    return or_(url.ilike(f"%{escaped}%?%", escape="/"), and_(has(Subscription.url, text), url.not_like("%?%")))


def has(column: InstrumentedAttribute[Any], text: str | None) -> ColumnElement[bool]:
    """Whether a column has a text in it, in any case, as the database knows upper and lower: SQLite for ASCII alone."""
    return type_coerce(column, String).icontains(text or "", autoescape=True)  # a long column's bind could be LONG


def of_type(event_type: str | Sequence[str] | None) -> CompoundSelect[int]:
    """The ids of the subscriptions that name a type, or one of several; each is found by an index."""
    further = SubscriptionType
    return union_all(
        select(Subscription.id).where(same(Subscription.event_type, event_type)),
        select(further.subscription_id).where(same(further.event_type, event_type)),
    )


def same(column: InstrumentedAttribute[Any], text: str | Sequence[str] | None) -> ColumnElement[bool]:
    """Whether a column has a text, or one of several."""
    return column == text if text is None or isinstance(text, str) else any_of(column.expression, text)
