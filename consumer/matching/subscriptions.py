"""Adding, listing, disabling and removing subscriptions: what the command line and the API share."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Engine, Row, Select, delete, func, insert, select, update

from consumer.database import reading
from consumer.errors import InvalidSubscription
from consumer.sending.egress import EgressPolicy, parse_target
from consumer.setting_types import final_statuses as parse_statuses
from consumer.setting_types import waits
from consumer.vault import Vault
from models import Subscription, SubscriptionSecret
from models.subscription import (
    EVENT_TYPE_LENGTH,
    REASON_LENGTH,
    SCHEDULE_LENGTH,
    SECRET_LENGTH,
    STATUSES_LENGTH,
    URL_LENGTH,
)

Ordering = Literal["none", "key"]
MOST_IN_FLIGHT = 1_000_000
LEAST_RATE, MOST_RATE = 0.001, 100_000.0  # deliveries per second; a thousandth is what the column keeps


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription as people see it. `secrets`: how many of its own it has."""

    id: int
    url: str
    event_type: str
    enabled: bool
    disabled_reason: str | None
    created_at: datetime | None
    secrets: int
    ordering: str
    max_in_flight: int | None
    rate_limit: float | None
    retry_schedule: str | None
    final_statuses: str | None
    failing_since: datetime | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a subscription has in its own way; None: as the deployment has it.

    `ordering` `key`: the events of a record's key go one at a time, in order. `max_in_flight` requests open at once and
    `rate_limit` deliveries per second are those of all workers together. `retry_schedule`: `5s,5m,1h`.
    `final_statuses`, after which there is no further attempt: `400,422,4xx`.
    """

    ordering: Ordering = "none"
    max_in_flight: int | None = None
    rate_limit: float | None = None
    retry_schedule: str | None = None
    final_statuses: str | None = None


def validate(url: str, event_type: str, policy: EgressPolicy | None = None) -> None:
    """InvalidSubscription, with a text that says what would work, for a url or an event type that cannot.

    `policy` also refuses what it can tell from the url alone.
    """
    if len(url) > URL_LENGTH:
        raise InvalidSubscription(f"the URL has {len(url)} characters; at most {URL_LENGTH} are kept")
    try:
        parse_target(url)
    except ValueError as error:
        raise InvalidSubscription(str(error)) from None
    if policy and (refusal := policy.url_refusal(url)):
        raise InvalidSubscription(refusal)
    if not event_type:
        raise InvalidSubscription("the event type is empty")
    if not all("!" <= character <= "~" for character in event_type):
        raise InvalidSubscription("the event type must be visible ASCII without spaces, such as user.created")
    if len(event_type) > EVENT_TYPE_LENGTH:
        raise InvalidSubscription(
            f"the event type has {len(event_type)} characters; at most {EVENT_TYPE_LENGTH} are kept"
        )


def validate_limits(limits: Limits) -> None:
    """InvalidSubscription, with a text that says what would work, for a limit that cannot be kept."""
    if limits.ordering not in ("none", "key"):
        raise InvalidSubscription(f"ordering is {limits.ordering!r}; it must be none or key")
    if limits.max_in_flight is not None and not 1 <= limits.max_in_flight <= MOST_IN_FLIGHT:
        raise InvalidSubscription(f"max_in_flight is {limits.max_in_flight}; it must be from 1 to {MOST_IN_FLIGHT}")
    if limits.rate_limit is not None and not LEAST_RATE <= limits.rate_limit <= MOST_RATE:
        raise InvalidSubscription(
            f"rate_limit is {limits.rate_limit:g}; it must be from {LEAST_RATE:g} to {MOST_RATE:g} a second"
        )
    _check_text("retry_schedule", limits.retry_schedule, waits, SCHEDULE_LENGTH, "5s,5m,1h")
    _check_text("final_statuses", limits.final_statuses, parse_statuses, STATUSES_LENGTH, "400,422,4xx")


def add(
    engine: Engine,
    url: str,
    event_type: str,
    secret: str | None = None,
    *,
    ordering: Ordering = "none",
    max_in_flight: int | None = None,
    rate_limit: float | None = None,
    retry_schedule: str | None = None,
    final_statuses: str | None = None,
    vault: Vault | None = None,
    policy: EgressPolicy | None = None,
) -> int:
    """Add a subscription, with a signing secret of its own if one is given, and return its id.

    The limits are those of Limits. InvalidSubscription if it cannot work. The secret is stored as `vault` encrypts it.
    """
    validate(url, event_type, policy)
    limits = Limits(ordering, max_in_flight, rate_limit, retry_schedule, final_statuses)
    validate_limits(limits)
    stored = _stored(secret, vault or Vault()) if secret is not None else None
    with engine.begin() as connection:
        added = insert(Subscription).values(url=url, event_type=event_type, **asdict(limits)).returning(Subscription.id)
        subscription_id = connection.execute(added).scalar_one()
        if stored is not None:
            connection.execute(insert(SubscriptionSecret).values(subscription_id=subscription_id, secret=stored))
    return subscription_id


def list_all(engine: Engine) -> tuple[Subscribed, ...]:
    """Every subscription, by id."""
    with reading(engine) as connection:
        return tuple(map(_subscribed, connection.execute(_listing().order_by(Subscription.id))))


def get(engine: Engine, subscription_id: int) -> Subscribed | None:
    """One subscription, or None if there is none of that id."""
    with reading(engine) as connection:
        row = connection.execute(_listing().where(Subscription.id == subscription_id)).first()
    return None if row is None else _subscribed(row)


def set_enabled(engine: Engine, subscription_id: int, enabled: bool, reason: str | None = None) -> bool:  # noqa: FBT001 (reads as what it sets)
    """Enable or disable a subscription, `reason` saying why it is disabled. False if there is none of that id.

    Enabling forgets the reason and since when it was failing. The workers hold or resume what is stored for it, within
    a minute. InvalidSubscription for a reason that is too long.
    """
    if reason is not None and len(reason) > REASON_LENGTH:
        raise InvalidSubscription(f"the reason has {len(reason)} characters; at most {REASON_LENGTH} are kept")
    changes: dict[str, object] = {"enabled": int(enabled), "disabled_reason": None if enabled else reason}
    if enabled:
        changes["failing_since"] = None
    with engine.begin() as connection:
        changed = connection.execute(update(Subscription).where(Subscription.id == subscription_id).values(changes))
        return changed.rowcount == 1


def _listing() -> Select[*tuple[Any, ...]]:
    owned = (
        select(SubscriptionSecret.subscription_id, func.count().label("number"))
        .group_by(SubscriptionSecret.subscription_id)
        .subquery("owned")
    )
    return select(
        Subscription.id,
        Subscription.url,
        Subscription.event_type,
        Subscription.enabled,
        Subscription.disabled_reason,
        Subscription.created_at,
        Subscription.ordering,
        Subscription.max_in_flight,
        Subscription.rate_limit,
        Subscription.retry_schedule,
        Subscription.final_statuses,
        Subscription.failing_since,
        owned.c.number,
    ).outerjoin(owned, owned.c.subscription_id == Subscription.id)


def _subscribed(row: Row[*tuple[Any, ...]]) -> Subscribed:
    return Subscribed(
        row.id,
        row.url,
        row.event_type,
        bool(row.enabled),
        row.disabled_reason,
        row.created_at and row.created_at.replace(tzinfo=UTC),
        row.number or 0,
        row.ordering,
        row.max_in_flight,
        row.rate_limit,
        row.retry_schedule,
        row.final_statuses,
        row.failing_since,
    )


def remove(engine: Engine, subscription_id: int) -> bool:
    """Remove a subscription and its secrets. False if there is none.

    What is stored for it is given up by the workers, or at once by `ledger.exhaust_for_removed`.
    """
    with engine.begin() as connection:
        return connection.execute(delete(Subscription).where(Subscription.id == subscription_id)).rowcount == 1


def _check_text(name: str, text: str | None, parse: Callable[[str], object], length: int, example: str) -> None:
    if text is None:
        return
    if not text.strip():
        raise InvalidSubscription(f"{name} is empty; leave it out, or write for example {example}")
    if len(text) > length:
        raise InvalidSubscription(f"{name} has {len(text)} characters; at most {length} are kept")
    try:
        parse(text)
    except ValueError as error:
        raise InvalidSubscription(f"{name}: {error}; for example {example}") from None


def _stored(secret: str, vault: Vault) -> str:
    try:
        stored = vault.encrypt(secret)
    except ValueError as error:
        raise InvalidSubscription(str(error)) from None
    if len(stored) > SECRET_LENGTH:
        raise InvalidSubscription("the secret is too long; 32 random bytes are enough")
    return stored
