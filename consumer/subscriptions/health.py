"""Lists of subscriptions in brief, of those that need attention; and the types that subscriptions name."""

import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Row, exists, func, select, union_all

from consumer.crypto.vault import Vault
from consumer.database.engine import reading
from consumer.database.statements import any_of
from consumer.http.urls import redact_url
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.repository import page
from consumer.subscriptions.subscribed import Mode, Subscribed, mode_of
from models import ParkedDelivery, Status, StoredCursor, Subscription, SubscriptionType
from models.base import UNREADABLE
from models.cursor import UNFINISHED

EXPIRES_SOON = 6 * 3600.0  # seconds: time for an operator to do something


class ListedSubscription(NamedTuple):
    """A subscription as a list names it; the URL is without a password. `reason`: why it is disabled or else paused."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    mode: Mode
    reason: str | None
    paused_at: datetime | None


class FailingSubscription(NamedTuple):
    """A subscription without a successful attempt since then; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    since: datetime


class ProblematicSubscriptions(NamedTuple):
    """Enabled subscriptions with problems, among the `looked_at` ones with the lowest ids."""

    subscriptions: tuple[Subscribed, ...]
    looked_at: int


class ExpiringBacklog(NamedTuple):
    """A subscription whose next event in Kafka is removed then; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    expires: datetime


class NamedType(NamedTuple):
    """An event type or pattern, and how many subscriptions name it."""

    event_type: str
    subscriptions: int


_SHOWN = (Subscription.id, Subscription.url, Subscription.event_type, Subscription.tenant)
_LISTED = (
    *_SHOWN,
    Subscription.enabled,
    Subscription.disabled_reason,
    Subscription.paused_at,
    Subscription.paused_reason,
)


def named(engine: Engine, ids: Collection[int]) -> dict[int, ListedSubscription]:
    """The subscriptions of these ids that exist, by id."""
    if not ids:
        return {}
    with reading(engine) as connection:
        rows = connection.execute(select(*_LISTED).where(any_of(Subscription.id.expression, [*ids])))
        return {row.id: _listed(row) for row in rows}


def storing(engine: Engine, most: int, tenant: str, states: Collection[Status]) -> dict[int, ListedSubscription]:
    """The first `most` subscriptions of a tenant that have stored deliveries in these states, by id."""
    stored = exists().where(
        ParkedDelivery.subscription_id == Subscription.id, any_of(ParkedDelivery.status.expression, [*states])
    )
    found = select(*_LISTED).where(Subscription.tenant == tenant, stored).order_by(Subscription.id).limit(most)
    with reading(engine) as connection:
        return {row.id: _listed(row) for row in connection.execute(found)}


def _of(tenant: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant is None else [Subscription.tenant == tenant]


def failing(engine: Engine, most: int, tenant: str | None = None) -> list[FailingSubscription]:
    """At most `most` failing subscriptions (of a tenant), in the order in which they began to fail."""
    since = Subscription.failing_since
    statement = select(*_SHOWN, since).where(since.is_not(None), *_of(tenant)).order_by(since).limit(most)
    with reading(engine) as connection:
        return [
            FailingSubscription(row.id, redact_url(str(row.url)), row.event_type, row.tenant, row.failing_since)
            for row in connection.execute(statement)
            if row.failing_since != UNREADABLE
        ]


def disabled(engine: Engine, most: int, tenant: str | None = None) -> list[ListedSubscription]:
    """At most `most` disabled subscriptions (of a tenant), the newest first.

    Reads the table from its end until it has found as many: an index of (enabled, id) would serve this alone, and
    SQLite would take it for the look-ups of events.
    """
    newest = select(*_LISTED).where(Subscription.enabled == 0, *_of(tenant)).order_by(Subscription.id.desc())
    with reading(engine) as connection:
        return [_listed(row) for row in connection.execute(newest.limit(most))]


def paused(engine: Engine, most: int, tenant: str | None = None) -> list[ListedSubscription]:
    """At most `most` paused subscriptions (of a tenant) that are not disabled, the longest paused first."""
    since = Subscription.paused_at
    waiting = select(*_LISTED).where(since.is_not(None), Subscription.enabled == 1, *_of(tenant)).order_by(since)
    with reading(engine) as connection:
        return [_listed(row) for row in connection.execute(waiting.limit(most))]


def expiring(engine: Engine, before: datetime, most: int) -> list[ExpiringBacklog]:
    """At most `most` subscriptions that are not disabled and have events that retention removes before then.

    The most urgent come first. Replays do not count.
    """
    cursor = StoredCursor
    urgent = (
        select(*_SHOWN, cursor.expires_at)
        .join(cursor, cursor.subscription_id == Subscription.id)
        .where(cursor.expires_at < before, cursor.replay == 0, Subscription.enabled == 1, UNFINISHED)
        .order_by(cursor.expires_at)
    )
    found: dict[int, ExpiringBacklog] = {}
    with reading(engine) as connection:
        for row in connection.execute(urgent):  # a cursor for each partition
            if row.id not in found:
                found[row.id] = ExpiringBacklog(
                    row.id, redact_url(str(row.url)), row.event_type, row.tenant, row.expires_at
                )
                if len(found) == most:
                    break
    return [*found.values()]


def untimed(engine: Engine, topics: Collection[str] | None, most: int) -> list[int]:
    """At most `most` ids of subscriptions that are not disabled, and are owed events that are not known to expire.

    Of these topics; None: of all.
    """
    cursor = StoredCursor
    if topics is not None and not topics:
        return []
    owed = (
        select(Subscription.id)
        .join(cursor, cursor.subscription_id == Subscription.id)
        .where(cursor.expires_at.is_(None), cursor.replay == 0, Subscription.enabled == 1, UNFINISHED)
    )
    if topics is not None:
        owed = owed.where(any_of(cursor.topic.expression, sorted(topics)))
    with reading(engine) as connection:
        return list(connection.scalars(owed.distinct().order_by(Subscription.id).limit(most)))


def time_left(seconds: float) -> str:
    """For how long events are still kept: `2 d 4 h`, `5 h 20 min` or `12 min`."""
    minutes = max(0, int(seconds // 60))
    days, hours = divmod(minutes // 60, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def problematic(
    engine: Engine,
    most: int,
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
    tenant: str | None = None,
) -> ProblematicSubscriptions:
    """The subscriptions with problems among the first `most` enabled ones (of a tenant). Each takes 40 µs."""
    found = page(engine, vault, after=None, limit=most, tenant=tenant, state="enabled", rules=rules, clock=clock)
    return ProblematicSubscriptions(tuple(each for each in found if each.problems), len(found))


def named_types(engine: Engine, limit: int, after: str | None = None) -> list[NamedType]:
    """At most `limit` types above `after`, by their bytes. Reads two indexes up to the last of them: 0.1 µs a row."""
    parts = []
    for column in (Subscription.event_type, SubscriptionType.event_type):
        part = select(column.label("event_type"), func.count().label("subscriptions"))
        part = part if after is None else part.where(column > after)
        parts.append(select(part.group_by(column).order_by(column).limit(limit).subquery()))
    both = union_all(*parts).subquery()
    total = select(both.c.event_type, func.sum(both.c.subscriptions)).group_by(both.c.event_type)
    with reading(engine) as connection:
        return [NamedType(*row) for row in connection.execute(total.order_by(both.c.event_type).limit(limit))]


def _listed(row: Row[*tuple[Any, ...]]) -> ListedSubscription:
    mode, reason = mode_of(bool(row.enabled), row.paused_at), row.paused_reason if row.enabled else row.disabled_reason
    return ListedSubscription(row.id, redact_url(str(row.url)), row.event_type, row.tenant, mode, reason, row.paused_at)
