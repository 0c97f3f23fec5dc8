"""Adding, listing and removing subscriptions: what the command line and the API share."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, delete, func, insert, select

from consumer.database import reading
from consumer.errors import InvalidSubscription
from consumer.sending.egress import EgressPolicy, parse_target
from consumer.vault import Vault
from models import Subscription, SubscriptionSecret
from models.subscription import EVENT_TYPE_LENGTH, SECRET_LENGTH, URL_LENGTH


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


def add(
    engine: Engine,
    url: str,
    event_type: str,
    secret: str | None = None,
    *,
    vault: Vault | None = None,
    policy: EgressPolicy | None = None,
) -> int:
    """Add a subscription, with a signing secret of its own if one is given, and return its id.

    InvalidSubscription if it cannot work. The secret is stored as `vault` encrypts it.
    """
    validate(url, event_type, policy)
    stored = _stored(secret, vault or Vault()) if secret is not None else None
    with engine.begin() as connection:
        added = insert(Subscription).values(url=url, event_type=event_type).returning(Subscription.id)
        subscription_id = connection.execute(added).scalar_one()
        if stored is not None:
            connection.execute(insert(SubscriptionSecret).values(subscription_id=subscription_id, secret=stored))
    return subscription_id


def list_all(engine: Engine) -> tuple[Subscribed, ...]:
    """Every subscription, by id."""
    owned = (
        select(SubscriptionSecret.subscription_id, func.count().label("number"))
        .group_by(SubscriptionSecret.subscription_id)
        .subquery("owned")
    )
    statement = (
        select(
            Subscription.id,
            Subscription.url,
            Subscription.event_type,
            Subscription.enabled,
            Subscription.disabled_reason,
            Subscription.created_at,
            owned.c.number,
        )
        .outerjoin(owned, owned.c.subscription_id == Subscription.id)
        .order_by(Subscription.id)
    )
    with reading(engine) as connection:
        return tuple(
            Subscribed(
                row.id,
                row.url,
                row.event_type,
                bool(row.enabled),
                row.disabled_reason,
                row.created_at and row.created_at.replace(tzinfo=UTC),
                row.number or 0,
            )
            for row in connection.execute(statement)
        )


def remove(engine: Engine, subscription_id: int) -> bool:
    """Remove a subscription and its secrets. False if there is none.

    What is stored for it is given up by the workers, or at once by `ledger.exhaust_for_removed`.
    """
    with engine.begin() as connection:
        return connection.execute(delete(Subscription).where(Subscription.id == subscription_id)).rowcount == 1


def _stored(secret: str, vault: Vault) -> str:
    try:
        stored = vault.encrypt(secret)
    except ValueError as error:
        raise InvalidSubscription(str(error)) from None
    if len(stored) > SECRET_LENGTH:
        raise InvalidSubscription("the secret is too long; 32 random bytes are enough")
    return stored
