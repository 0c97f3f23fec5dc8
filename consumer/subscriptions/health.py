"""Lists of subscriptions in brief, of those that need attention; and the types that subscriptions name."""

import time
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Row, exists, func, literal_column, select, union_all

from consumer.crypto.vault import Vault
from consumer.database.engine import reading
from consumer.database.statements import any_of
from consumer.http.urls import redact_url
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.subscribed import Mode, Subscribed, mode_of
from consumer.subscriptions.subscribed_rows import found_rows, subscribed_of
from models import ParkedDelivery, Status, StoredCursor, Subscription, SubscriptionType
from models.base import BEFORE_IDS, UNREADABLE
from models.cursor import UNFINISHED

EXPIRES_SOON = 6 * 3600.0  # seconds: time for an operator to do something


class ListedSubscription(NamedTuple):
    """A subscription as a list names it; the URL is without a password. `reason`: why it is disabled or else paused."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    name: str | None
    mode: Mode
    reason: str | None
    paused_at: datetime | None


class FailingSubscription(NamedTuple):
    """A subscription without a successful attempt since then; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    name: str | None
    since: datetime


class NoticedSubscriptions(NamedTuple):
    """Subscriptions by id, and failing, disabled and paused ones, in the orders of `failing` and `paused`.

    The newest disabled ones come first.
    """

    named: dict[int, ListedSubscription]
    failing: list[FailingSubscription]
    disabled: list[ListedSubscription]
    paused: list[ListedSubscription]


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
    name: str | None
    expires: datetime


class NamedType(NamedTuple):
    """An event type or pattern, and how many subscriptions name it."""

    event_type: str
    subscriptions: int


_SHOWN = (Subscription.id, Subscription.url, Subscription.event_type, Subscription.tenant, Subscription.name)
_LISTED = (
    *_SHOWN,
    Subscription.enabled,
    Subscription.disabled_reason,
    Subscription.paused_at,
    Subscription.paused_reason,
    Subscription.failing_since,
)
_CHOSEN = select(*_LISTED)
_FAILING = _CHOSEN.where(Subscription.failing_since.is_not(None)).order_by(Subscription.failing_since)
_DISABLED = _CHOSEN.where(Subscription.enabled == 0).order_by(Subscription.id.desc())
_PAUSED = _CHOSEN.where(Subscription.paused_at.is_not(None), Subscription.enabled == 1).order_by(Subscription.paused_at)


def named(engine: Engine, ids: Collection[int]) -> dict[int, ListedSubscription]:
    """The subscriptions of these ids that exist, by id."""
    if not ids:
        return {}
    with reading(engine) as connection:
        rows = connection.execute(select(*_LISTED).where(any_of(Subscription.id.expression, [*ids])))
        return {row.id: _listed(row) for row in rows}


def storing(engine: Engine, most: int, tenant: str, states: Collection[Status]) -> list[int]:
    """The ids of the first `most` subscriptions of a tenant that have stored deliveries in these states."""
    stored = exists().where(
        ParkedDelivery.subscription_id == Subscription.id, any_of(ParkedDelivery.status.expression, [*states])
    )
    found = select(Subscription.id).where(Subscription.tenant == tenant, stored).order_by(Subscription.id).limit(most)
    with reading(engine) as connection:
        return list(connection.execute(found).scalars())


def failing(engine: Engine, most: int) -> list[FailingSubscription]:
    """At most `most` failing subscriptions, in the order in which they began to fail."""
    with reading(engine) as connection:
        return _failing(connection.execute(_FAILING.limit(most)))


def paused(engine: Engine, most: int) -> list[ListedSubscription]:
    """At most `most` paused subscriptions that are not disabled, the longest paused first."""
    with reading(engine) as connection:
        return [_listed(row) for row in connection.execute(_PAUSED.limit(most))]


def noticed(engine: Engine, ids: Collection[int], most: int, tenant: str | None = None) -> NoticedSubscriptions:
    """The subscriptions that an overview (of a tenant) names: those of these ids, and at most `most` of each kind.

    Reads the table from its end until it has found as many disabled ones: an index of (enabled, id) would serve this
    alone, and SQLite would take it for the look-ups of events.
    """
    theirs = _CHOSEN.where(any_of(Subscription.id.expression, [*ids] or [BEFORE_IDS]))
    kinds = (each.where(*_of(tenant)) for each in (_FAILING, _DISABLED, _PAUSED))
    parts = (each.subquery() for each in (theirs, *(kind.limit(most) for kind in kinds)))
    numbered = union_all(*(select(literal_column(str(n)).label("part"), part) for n, part in enumerate(parts)))
    found: dict[int, list[Any]] = {number: [] for number in range(4)}
    with reading(engine) as connection:
        for row in connection.execute(numbered):
            found[row.part].append(row)
    failing_ones = sorted(found[1], key=attrgetter("failing_since"))
    listed = {part: [_listed(row) for row in rows] for part, rows in found.items()}
    return NoticedSubscriptions(
        {each.subscription_id: each for each in listed[0]},
        _failing(failing_ones),
        sorted(listed[2], key=attrgetter("subscription_id"), reverse=True),
        sorted(listed[3], key=attrgetter("paused_at")),
    )


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
                found[row.id] = ExpiringBacklog(*_named(row), row.expires_at)
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
    enabled = Subscription.enabled == 1, Subscription.paused_at.is_(None), *_of(tenant)
    first = select(Subscription.id).where(*enabled).order_by(Subscription.id).limit(most)
    with reading(engine) as connection:
        rows = found_rows(connection, Subscription.id.in_(first))
    found = [item for item, _ in subscribed_of(rows, vault, rules, clock)]
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


def _of(tenant: str | None) -> list[ColumnElement[bool]]:
    return [] if tenant is None else [Subscription.tenant == tenant]


def _failing(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[FailingSubscription]:
    return [FailingSubscription(*_named(row), row.failing_since) for row in rows if row.failing_since != UNREADABLE]


def _listed(row: Row[*tuple[Any, ...]]) -> ListedSubscription:
    mode, reason = mode_of(bool(row.enabled), row.paused_at), row.paused_reason if row.enabled else row.disabled_reason
    return ListedSubscription(*_named(row), mode, reason, row.paused_at)


def _named(row: Row[*tuple[Any, ...]]) -> tuple[int, str, str, str, str | None]:
    return row.id, redact_url(str(row.url)), row.event_type, row.tenant, row.name
