"""Finds subscriptions that need attention: failing, disabled, or with a value that does not work."""

import time
from collections.abc import Callable, Collection
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from sqlalchemy import Engine, select

from consumer.crypto.vault import Vault
from consumer.database.engine import any_of, reading
from consumer.http.urls import redact_url
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.repository import Subscribed, walk
from models import Subscription
from models.base import UNREADABLE


class Named(NamedTuple):
    """A subscription as a list names it; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    enabled: bool


class Failing(NamedTuple):
    """A subscription without a successful attempt since then; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    since: datetime


class Disabled(NamedTuple):
    """A disabled subscription and the reason; the URL is without a password."""

    subscription_id: int
    url: str
    event_type: str
    tenant: str
    reason: str | None


class Problematic(NamedTuple):
    """Enabled subscriptions with problems, among the `looked_at` ones with the lowest ids."""

    subscriptions: tuple[Subscribed, ...]
    looked_at: int


_SHOWN = (Subscription.id, Subscription.url, Subscription.event_type, Subscription.tenant)


def named(engine: Engine, ids: Collection[int]) -> dict[int, Named]:
    """The subscriptions of these ids that exist, by id."""
    if not ids:
        return {}
    statement = select(*_SHOWN, Subscription.enabled).where(any_of(Subscription.id.expression, [*ids]))
    with reading(engine) as connection:
        return {
            row.id: Named(row.id, redact_url(str(row.url)), row.event_type, row.tenant, bool(row.enabled))
            for row in connection.execute(statement)
        }


def failing(engine: Engine, most: int) -> list[Failing]:
    """At most `most` failing subscriptions, in the order in which they began to fail."""
    since = Subscription.failing_since
    statement = select(*_SHOWN, since).where(since.is_not(None)).order_by(since).limit(most)
    with reading(engine) as connection:
        return [
            Failing(row.id, redact_url(str(row.url)), row.event_type, row.tenant, row.failing_since)
            for row in connection.execute(statement)
            if row.failing_since != UNREADABLE
        ]


def disabled(engine: Engine, most: int) -> list[Disabled]:
    """At most `most` disabled subscriptions, the newest first.

    Reads the table from its end until it has found as many: an index of (enabled, id) would serve this alone, and
    SQLite would take it for the look-ups of events.
    """
    statement = (
        select(*_SHOWN, Subscription.disabled_reason)
        .where(Subscription.enabled == 0)
        .order_by(Subscription.id.desc())
        .limit(most)
    )
    with reading(engine) as connection:
        return [
            Disabled(row.id, redact_url(str(row.url)), row.event_type, row.tenant, row.disabled_reason)
            for row in connection.execute(statement)
        ]


def problematic(
    engine: Engine,
    most: int,
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> Problematic:
    """The subscriptions with problems among the first `most` enabled ones. Each one examined takes 40 µs."""
    found = list(islice(walk(engine, vault, enabled=True, rules=rules, clock=clock), most))
    return Problematic(tuple(each for each in found if each.problems), len(found))
