"""Adds, changes, lists, disables, pauses and removes subscriptions, for the command line and the API.

A function that takes an engine or a connection has a transaction of its own on an engine, and takes part in the
caller's on a connection.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from consumer.crypto.keys import SigningKey
from consumer.crypto.vault import Owner, Vault
from consumer.database.engine import reading, writing
from consumer.database.statements import any_of, in_pieces
from consumer.errors import Conflict, InvalidSubscription
from consumer.subscriptions import event_types as types
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import NEEDS_ITS_OWN, Rules
from consumer.subscriptions.naming import has, in_url, of_type, same
from consumer.subscriptions.options import OPTIONS, completed
from consumer.subscriptions.secrets import check_headers, insert_secrets, stored_of
from consumer.subscriptions.subscribed import Subscribed
from consumer.subscriptions.subscribed_rows import found_rows, subscribed_of
from models import StoredCursor, Subscription, SubscriptionSecret
from models.base import BEFORE_IDS, utc_now
from models.subscription import EVERY_TENANT, REASON_LENGTH

State = Literal["enabled", "paused", "disabled", "failing"]
AWAITS_VERIFICATION = "not verified yet"  # the reason of a disabled subscription that its verification will enable

_COLUMNS = Subscription.__table__.columns
_DELETE_CURSOR = delete(StoredCursor).where(StoredCursor.id == bindparam("b_id"))
_PAGE = 500  # subscriptions read in one statement
_LARGEST_ID = 2**63 - 1  # encrypted secrets of this id are the longest


def add(
    bind: Engine | Connection,
    url: str,
    event_type: str,
    secret: str | None = None,
    *,
    secrets: Sequence[tuple[str, str]] = (),
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
    disabled: str | None = None,
    further_types: Sequence[str] = (),
    **options: Any,
) -> int:
    """Add a subscription, with its own signing `secret` if one is given, and these `options` by column; return its id.

    `disabled` is the reason why it begins disabled; None: it is enabled. `secrets` holds the kind and text of further
    secrets. All are stored as `vault` encrypts them. Raises InvalidSubscription, before any access to the database, if
    the subscription cannot work or the `rules` forbid it, and Conflict if the tenant has its `external_id` already.
    """
    values = completed({"url": url, "event_type": event_type, **options})
    _, *further = types.checked((event_type, *further_types))
    if secret is not None:
        secrets = [("signing", secret), *secrets]
    _check_url(rules, url)
    if rules.own_secret and all(kind != "signing" for kind, _ in secrets):
        raise InvalidSubscription(f"secret: {NEEDS_ITS_OWN}: --generate-secret hmac makes one")
    vault = vault or Vault()
    check_headers(kind for kind, _ in secrets)
    for kind, text in secrets:
        stored_of(text, Owner(_LARGEST_ID, kind), vault)
    with writing(bind) as connection:
        state = {"enabled": int(disabled is None), "disabled_reason": disabled}
        added = insert(Subscription).values(**values, **state).returning(Subscription.id)
        with _known_by(values["external_id"]):
            subscription_id = connection.execute(added).scalar_one()
        types.write(connection, subscription_id, values["tenant"], further)
        if secrets:
            insert_secrets(connection, subscription_id, secrets, vault, datetime.fromtimestamp(clock(), UTC))
    return subscription_id


def note_start(connection: Connection, subscription_id: int) -> None:
    """Note that cursors cover a subscription's events from the past, so that workers look for them."""
    connection.execute(update(Subscription).where(Subscription.id == subscription_id).values(starts=1))


def edit(
    bind: Engine | Connection,
    subscription_id: int,
    changes: Mapping[str, Any],
    rules: Rules = Rules(),  # noqa: B008 (immutable)
) -> bool:
    """Apply `changes` (by column of OPTIONS); None sets the column's default. False if there is no such subscription.

    `event_types`, if it is among them, has all types; `event_type` alone replaces the first one. Raises
    InvalidSubscription and changes nothing if the result cannot work, even if a value stored before is the cause, or if
    the `rules` forbid it; and Conflict if another subscription of the tenant has its `external_id`.
    """
    columns = [_COLUMNS[column] for column in OPTIONS]
    mine = Subscription.id == subscription_id
    changed = dict(changes)
    wanted = types.checked(changed.pop("event_types") or ()) if "event_types" in changed else None
    if wanted is not None:
        changed["event_type"] = wanted[0]
    with writing(bind) as connection:
        before = connection.execute(select(*columns).where(mine).with_for_update()).first()
        if before is None:
            return False
        further = types.of(connection, [subscription_id]).get(subscription_id, ())
        values = completed(before._asdict() | changed)
        kept = tuple(sorted({*(further if wanted is None else wanted)} - {values["event_type"]}))
        _check_url(rules, values["url"])
        secret = SubscriptionSecret
        own = select(secret.id).where(secret.subscription_id == subscription_id, secret.kind == "signing").limit(1)
        if rules.own_secret and connection.execute(own).first() is None:
            raise InvalidSubscription(f"secret: {NEEDS_ITS_OWN}: subscriptions rotate-secret gives it one")
        rewritten = kept != further or (further and values["tenant"] != before.tenant)
        if rewritten:  # a type refers to the tenant that its subscription has
            types.clear(connection, subscription_id)
        with _known_by(values["external_id"]):
            connection.execute(update(Subscription).where(mine).values(_set(values)))
        if rewritten:
            types.write(connection, subscription_id, values["tenant"], kept)
    return True


@contextmanager
def _known_by(external_id: str | None) -> Iterator[None]:
    """Translate the database's refusal of an external id. On Oracle it comes after a rival transaction's end."""
    try:
        yield
    except IntegrityError as error:
        if "EXTERNAL" not in str(error.orig).upper():  # Oracle names the index, SQLite the columns
            raise
        why = f"another subscription of this tenant has the external_id {external_id!r}; give this one another"
        raise Conflict(why) from None


def find(engine: Engine, url: str, event_types: Sequence[str], tenant: str = EVERY_TENANT) -> int | None:
    """The id of the first subscription with this url, these types, in any order, and this tenant, or None."""
    same = (
        Subscription.event_type == event_types[0],
        Subscription.tenant == tenant,
        Subscription.url == in_pieces(Subscription.url, url),
    )
    ids = select(Subscription.id.label("subscription_id"), types.FURTHER).where(*same).order_by(Subscription.id)
    with reading(engine) as connection:
        rows = connection.execute(ids).all()
        further = types.stored(connection, rows)
    mine = {*event_types[1:]} - {event_types[0]}
    return next((row.subscription_id for row in rows if {*further.get(row.subscription_id, ())} == mine), None)


def walk(
    engine: Engine,
    vault: Vault | None = None,
    *,
    event_type: str | None = None,
    name: str | None = None,
    tenant: str | None = None,
    state: State | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> Iterator[Subscribed]:
    """Iterate over subscriptions by id, filtered as by `page`, which is read one at a time: a million may take 40 s.

    Problems are those under the `rules`, and include secrets that `vault` cannot decrypt.
    """
    some = partial(page, engine, vault, event_type=event_type, name=name, tenant=tenant, state=state)
    last = None
    while found := some(after=last, limit=_PAGE, rules=rules, clock=clock):
        yield from found
        last = found[-1].id


def page(
    engine: Engine,
    vault: Vault | None = None,
    *,
    after: int | None,
    limit: int,
    event_type: str | Sequence[str] | None = None,
    tenant: str | Sequence[str] | None = None,
    state: State | None = None,
    url: str | None = None,
    name: str | None = None,
    external_id: str | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> tuple[Subscribed, ...]:
    """Up to `limit` subscriptions with ids above `after` (None: from the first), by id.

    Filtered by any of their types (`event_type`: one, or any of several), by `tenant` (the same) and `external_id`
    (all as written), by state, and by a part of the `url` or the `name` in any case, if given. The statement reads all
    subscriptions, or all of the tenant, if few have that url or name: 0.6 µs each.
    """
    wanted = [
        condition
        for value, condition in (
            (event_type, Subscription.id.in_(of_type(event_type))),
            (tenant, same(Subscription.tenant, tenant)),
            (url, in_url(url or "")),
            (name, has(Subscription.name, name)),
            (external_id, Subscription.external_id == external_id),
        )
        if value is not None
    ]
    wanted += _in_state(state)
    first = BEFORE_IDS if after is None else after
    ids = select(Subscription.id).where(Subscription.id > first, *wanted).order_by(Subscription.id).limit(limit)
    with reading(engine) as connection:
        found = connection.execute(ids).scalars().all()
        return tuple(several(connection, found, vault, rules, clock))


def count_enabled(engine: Engine) -> int:
    """The number of enabled subscriptions that are not paused."""
    with reading(engine) as connection:
        enabled = select(func.count()).select_from(Subscription).where(*_in_state("enabled"))
        return connection.execute(enabled).scalar_one()


def count_others(engine: Engine, event_type: Sequence[str], tenants: Sequence[str]) -> int:
    """The number of subscriptions with one of these types or patterns that are for none of the tenants."""
    others = [Subscription.id.in_(of_type(event_type)), *(Subscription.tenant != each for each in tenants)]
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(Subscription).where(*others)).scalar_one()


def get(
    bind: Engine | Connection,
    subscription_id: int,
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> Subscribed | None:
    """The subscription of this id, or None."""
    with reading(bind) as connection:
        found = found_rows(connection, Subscription.id == subscription_id)
    return next((item for item, _ in subscribed_of(found, vault, rules, clock)), None)


def several(
    bind: Engine | Connection,
    ids: Collection[int],
    vault: Vault | None = None,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> list[Subscribed]:
    """The subscriptions of these ids that exist, by id; ask for a page of them at most."""
    if not ids:
        return []
    with reading(bind) as connection:
        found = found_rows(connection, any_of(Subscription.id.expression, sorted(ids)))
    return [item for item, _ in subscribed_of(found, vault, rules, clock)]


def get_endpoint(
    engine: Engine,
    subscription_id: int,
    default: tuple[SigningKey, ...],
    vault: Vault,
    rules: Rules = Rules(),  # noqa: B008 (immutable)
    clock: Callable[[], float] = time.time,
) -> tuple[Subscribed, Endpoint] | None:
    """A subscription and its Endpoint, or None. `default` signs if it has no signing secret of its own."""
    with reading(engine) as connection:
        found = found_rows(connection, Subscription.id == subscription_id)
    return next(subscribed_of(found, vault, rules, clock, default), None)


def set_enabled(bind: Engine | Connection, subscription_id: int, enabled: bool, reason: str | None = None) -> bool:  # noqa: FBT001 (reads as what it sets)
    """Enable or disable a subscription, with the `reason` why it is disabled. False if there is none of that id.

    A subscription that is already disabled keeps its reason unless a new one is given: people and workers disable
    subscriptions, and the first to do so knew why. Enabling clears the reason and `failing_since`; a pause stays, as
    somebody else may have asked for it. Workers hold or resume its stored deliveries within a minute. Raises
    InvalidSubscription for a reason that is too long.
    """
    changes: dict[str, object]
    if enabled:
        changes = {"enabled": 1, "disabled_reason": None, "failing_since": None}
    else:
        before = case((Subscription.enabled == 0, Subscription.disabled_reason))  # else null
        changes = {"enabled": 0, "disabled_reason": _checked(reason) or before}
    return _switch(bind, subscription_id, changes)


def pause(bind: Engine | Connection, subscription_id: int, reason: str | None = None) -> bool:
    """Pause a subscription, with the `reason`: nothing is sent, and its events are owed. False: none has that id.

    One that is paused stays paused since then; a new reason replaces the old one, and ends the probes of one that
    failures had paused. A disabled one stays disabled, and is owed no events until somebody enables it. Clears
    `failing_since`. Raises InvalidSubscription for a reason that is too long.
    """
    again = Subscription.paused_at.is_not(None)
    changes = {
        "paused_at": func.coalesce(Subscription.paused_at, utc_now()),
        "paused_reason": _checked(reason) or case((again, Subscription.paused_reason)),
        "probed_at": None if reason else case((again, Subscription.probed_at)),
        "failing_since": None,
    }
    return _switch(bind, subscription_id, changes)


def resume(bind: Engine | Connection, subscription_id: int) -> bool:
    """End a pause, and clear its reason and `failing_since`. False: none has that id.

    Workers send what it is owed within seconds if they are asked to look (`ledger.backlogs.look_at`).
    """
    cleared = "paused_at", "paused_reason", "probed_at", "failing_since"
    return _switch(bind, subscription_id, dict.fromkeys(cleared))


def _switch(bind: Engine | Connection, subscription_id: int, changes: Mapping[str, object]) -> bool:
    with writing(bind) as connection:
        changed = connection.execute(update(Subscription).where(Subscription.id == subscription_id).values(changes))
        return changed.rowcount == 1


def _checked(reason: str | None) -> str | None:
    if reason is not None and len(reason) > REASON_LENGTH:
        raise InvalidSubscription(f"the reason has {len(reason)} characters; at most {REASON_LENGTH} are kept")
    return reason


def set_verified(connection: Connection, subscription_id: int, url: str, rate_limit: float | None) -> None:
    """Note that the receiver at `url` has given permission, and set the rate limit that follows from its answer."""
    changes = {"verified_url": url, "rate_limit": rate_limit}
    connection.execute(update(Subscription).where(Subscription.id == subscription_id).values(_set(changes)))


def _set(changes: Mapping[str, object]) -> dict[str, object]:
    return {name: in_pieces(_COLUMNS[name], value) for name, value in changes.items()}


def remove(bind: Engine | Connection, subscription_id: int) -> bool:
    """Remove a subscription and its secrets. False if there is none of that id.

    Workers give up its stored deliveries within a minute.
    """
    cursors = select(StoredCursor.id).where(StoredCursor.subscription_id == subscription_id)
    with writing(bind) as connection:
        if ids := sorted(connection.scalars(cursors)):  # by id, as workers change them: a cascade has no order
            connection.execute(_DELETE_CURSOR, [{"b_id": each} for each in ids])
        return connection.execute(delete(Subscription).where(Subscription.id == subscription_id)).rowcount == 1


def _in_state(state: State | None) -> list[ColumnElement[bool]]:
    match state:
        case None:
            return []
        case "enabled":
            return [Subscription.enabled == 1, Subscription.paused_at.is_(None)]
        case "paused":
            return [Subscription.enabled == 1, Subscription.paused_at.is_not(None)]
        case "disabled":
            return [Subscription.enabled == 0]
        case "failing":
            return [Subscription.enabled == 1, Subscription.failing_since.is_not(None)]


def _check_url(rules: Rules, url: str) -> None:
    if (refusal := rules.refusal(url)) is not None:
        raise InvalidSubscription(refusal, "url")
