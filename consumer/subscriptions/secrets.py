"""Reads and writes `webhook_secrets`: signing secrets and credentials, stored as the vault encrypts them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from consumer.crypto.credentials import MOST_HEADERS, TOO_MANY_HEADERS, check_secret, parse_header
from consumer.crypto.keys import MOST_SIGNING, Algorithm, algorithm_of, generate, receiver_key, weakness
from consumer.crypto.vault import ENCRYPTED, Owner, Vault
from consumer.database.engine import reading, writing
from consumer.database.statements import any_of, pieces, pieces_of
from consumer.errors import InvalidSubscription, SettingsError
from models import Subscription, SubscriptionSecret
from models.base import BEFORE_IDS
from models.subscription import SECRET_LENGTH

Credential = Literal["basic", "bearer", "header", "oauth2", "plugin"]
CREDENTIALS = get_args(Credential)
_BATCH = 200  # rows read in one statement and changed in one transaction
_FORGOTTEN = timedelta(days=1)  # a secret is deleted so long after its expiry, because a worker's clock may be behind
_TICK = timedelta(microseconds=1)  # the resolution of the column
_LAST = datetime.max.replace(tzinfo=UTC)

_TOO_MANY_SECRETS = (
    f"at most {MOST_SIGNING} secrets sign at a time: wait until a previous one ends, remove one (HTTP API), "
    "or rotate with an overlap of 0, which ends all others"
)
_COLUMNS = (
    SubscriptionSecret.id,
    SubscriptionSecret.subscription_id,
    SubscriptionSecret.kind,
    SubscriptionSecret.secret,
    SubscriptionSecret.expires_at,
)
_ENCRYPT = (
    update(SubscriptionSecret)
    .where(
        SubscriptionSecret.id == bindparam("b_id"), SubscriptionSecret.secret == pieces_of("b_before", SECRET_LENGTH)
    )
    .values(secret=pieces_of("b_secret", SECRET_LENGTH))
)


@dataclass(frozen=True, slots=True)
class Rotation:
    """`secret` signs from now on. Previous secrets sign until `previous_until` at the latest; None: no more."""

    secret: str = field(repr=False)
    previous_until: datetime | None


class PublicKey(NamedTuple):
    """The public half of a stored ed25519 key, as `keys.receiver_key` writes it."""

    secret_id: int
    subscription_id: int
    text: str


class SecretEntry(NamedTuple):
    """A stored secret without its text. `signs`: it is one of the newest signing secrets that are valid now."""

    id: int
    kind: str
    created_at: datetime
    expires_at: datetime | None
    signs: bool


class Unopened(NamedTuple):
    """A secret (by its number) or a private key that could not be re-encrypted, and why."""

    what: str
    subscription_id: int
    why: str


class Reencrypted(NamedTuple):
    """The result of a batch: secrets looked at, secrets encrypted, and secrets that could not be."""

    looked_at: int
    encrypted: int
    unopened: tuple[Unopened, ...]


class SecretsReport(NamedTuple):
    """Subscriptions with unencrypted, unreadable or weak secrets among the first `looked_at` valid ones.

    A signing secret is weak if it does not meet the length that Standard Webhooks requires.
    """

    looked_at: int
    in_the_clear: tuple[int, ...]
    unopened: tuple[int, ...]
    weak: tuple[int, ...]


def stored_of(text: str, owner: Owner, vault: Vault) -> str:
    """The stored form of a secret. InvalidSubscription, which does not quote it, if it is too long or invalid."""
    try:
        check_secret(owner.kind, text)
    except ValueError as error:
        raise InvalidSubscription(str(error)) from None
    stored = vault.encrypt(text, owner)
    if len(stored) > SECRET_LENGTH:
        raise InvalidSubscription(
            f"the secret is too long: it is stored in {len(stored)} characters, and {SECRET_LENGTH} are kept"
        )
    return stored


def check_headers(kinds: Iterable[str]) -> None:
    """InvalidSubscription if secrets of these kinds have more headers than a subscription may have."""
    if sum(kind == "header" for kind in kinds) > MOST_HEADERS:
        raise InvalidSubscription(TOO_MANY_HEADERS)


def insert_secrets(
    connection: Connection, subscription_id: int, secrets: Sequence[tuple[str, str]], vault: Vault, now: datetime
) -> None:
    """Give a new subscription one or more secrets (kind and text). Raises InvalidSubscription as `stored_of` does."""
    rows = [
        {
            "subscription_id": subscription_id,
            "kind": kind,
            "secret": stored_of(text, Owner(subscription_id, kind), vault),
            "created_at": now,
        }
        for kind, text in secrets
    ]
    connection.execute(insert(SubscriptionSecret), rows)


def rotate(
    bind: Engine | Connection,
    subscription_id: int,
    *,
    vault: Vault,
    default: Sequence[str],
    overlap: timedelta,
    now: datetime,
    secret: str | None = None,
    algorithm: Algorithm | None = None,
) -> Rotation:
    """Sign with `secret`, or a new random one, from now on. Previous secrets keep signing for `overlap`.

    The caller's transaction holds the subscription's row. A subscription without signing secrets of its own gets copies
    of `default`, the deployment's secrets (newest first), which keep signing for `overlap`; SettingsError if that
    overlap is wanted and `default` is empty. `algorithm` is that of a random secret; None: that of the newest secret.
    InvalidSubscription for an invalid `secret`, and if more than MOST_SIGNING secrets would sign.
    """
    until, owner = now + overlap, Owner(subscription_id, "signing")
    mine = (SubscriptionSecret.subscription_id == subscription_id, SubscriptionSecret.kind == "signing")
    with writing(bind) as connection:
        before = connection.execute(
            select(SubscriptionSecret.secret, SubscriptionSecret.created_at, SubscriptionSecret.expires_at)
            .where(*mine)
            .order_by(SubscriptionSecret.created_at.desc(), SubscriptionSecret.id.desc())
        ).all()
        text = secret
        if text is None:
            text = generate(algorithm or _algorithm([row.secret for row in before] or default, owner, vault))
        # Of secrets with the calendar's last time, the one with the highest id is the newest.
        created_at = max([now, *(min(row.created_at, _LAST - _TICK) + _TICK for row in before)])
        rows: list[tuple[str, datetime, datetime | None]] = [(stored_of(text, owner, vault), created_at, None)]
        if before:
            ended = SubscriptionSecret.expires_at <= now - _FORGOTTEN
            connection.execute(delete(SubscriptionSecret).where(*mine, ended))
            later = or_(SubscriptionSecret.expires_at.is_(None), SubscriptionSecret.expires_at > until)
            connection.execute(update(SubscriptionSecret).where(*mine, later).values(expires_at=until))
        elif overlap:
            if not default:
                raise SettingsError(
                    f"WEBHOOK_SECRET is not set, and signs for subscription {subscription_id}, which has no secret of "
                    "its own. Set it to the workers' value, so that it keeps signing until the overlap ends, or use "
                    "--overlap 0"
                )
            copies = enumerate(default, 1)
            rows += [(stored_of(each, owner, vault), created_at - place * _TICK, until) for place, each in copies]
        if overlap and len(rows) + sum(row.expires_at is None or row.expires_at > now for row in before) > MOST_SIGNING:
            raise InvalidSubscription(_TOO_MANY_SECRETS)
        new = [
            {"subscription_id": subscription_id, "secret": stored, "created_at": at, "expires_at": end}
            for stored, at, end in rows
        ]
        connection.execute(insert(SubscriptionSecret), new)
    ends = [min(row.expires_at or until, until) for row in before] or [until]
    return Rotation(text, max(ends) if max(ends) > now else None)


def set_credential(
    bind: Engine | Connection, subscription_id: int, kind: Credential, text: str, vault: Vault, now: datetime
) -> None:
    """Send the credential `text` to the receiver from now on; the caller's transaction holds the subscription's row.

    A header replaces one of its name; the other kinds replace each other.
    InvalidSubscription for a text that is not valid for its kind, and for a header too many.
    """
    stored = stored_of(text, Owner(subscription_id, kind), vault)
    name = parse_header(text)[0].lower() if kind == "header" else None
    with writing(bind) as connection:
        before = _credentials(connection, subscription_id)
        replaced = [
            row.id
            for row in before
            if (name is None and row.kind != "header")
            or (name and row.kind == "header" and _is_of(name, subscription_id, row, vault))
        ]
        check_headers([kind, *(row.kind for row in before if row.id not in replaced)])
        _delete(connection, replaced)
        row = {"subscription_id": subscription_id, "kind": kind, "secret": stored, "created_at": now}
        connection.execute(insert(SubscriptionSecret), [row])


def remove_credentials(bind: Engine | Connection, subscription_id: int) -> int:
    """Remove all credentials. Returns their number."""
    with writing(bind) as connection:
        found = [row.id for row in _credentials(connection, subscription_id)]
        _delete(connection, found)
    return len(found)


def entries(bind: Engine | Connection, subscription_id: int, now: datetime) -> tuple[SecretEntry, ...]:
    """A subscription's secrets without their texts, newest first."""
    secret = SubscriptionSecret
    statement = (
        select(secret.id, secret.kind, secret.created_at, secret.expires_at)
        .where(secret.subscription_id == subscription_id)
        .order_by(secret.created_at.desc(), secret.id.desc())
    )
    with reading(bind) as connection:
        rows = connection.execute(statement).all()
    valid = [row.id for row in rows if row.kind == "signing" and (row.expires_at is None or row.expires_at > now)]
    return tuple(SecretEntry(*row, signs=row.id in valid[:MOST_SIGNING]) for row in rows)


def made_at(bind: Engine | Connection, subscription_id: int, at: datetime, vault: Vault) -> tuple[str, ...]:
    """The texts of a subscription's signing secrets made at exactly `at` that sign without an end.

    A rotation ends them, and makes later ones. Those that `vault` cannot decrypt are left out.
    """
    secret, owner = SubscriptionSecret, Owner(subscription_id, "signing")
    mine = (secret.subscription_id == subscription_id, secret.kind == "signing", secret.expires_at.is_(None))
    with reading(bind) as connection:
        rows = connection.execute(select(secret.secret, secret.created_at).where(*mine)).all()
    found = []
    for row in rows:
        if row.created_at == at:
            with suppress(ValueError):  # left out: its key is not here
                found.append(vault.decrypt(row.secret, owner))
    return tuple(found)


def public_keys(
    engine: Engine,
    vault: Vault,
    now: datetime,
    after: int | None,
    limit: int,
    tenant: str | None,
    subscription_id: int | None = None,
) -> tuple[list[PublicKey], int | None]:
    """The public keys among the next `limit` signing secrets valid at `now`, of all, a tenant's or one subscription.

    Also the id of the last secret that was read, if there may be more. Keys that `vault` cannot decrypt are left out.
    """
    secret, first = SubscriptionSecret, BEFORE_IDS if after is None else after
    statement = select(secret.id, secret.subscription_id, secret.secret).where(
        secret.id > first, secret.kind == "signing", or_(secret.expires_at.is_(None), secret.expires_at > now)
    )
    if tenant is not None:
        statement = statement.join(Subscription).where(Subscription.tenant == tenant)
    if subscription_id is not None:
        statement = statement.where(secret.subscription_id == subscription_id)
    with reading(engine) as connection:
        rows = connection.execute(statement.order_by(secret.id).limit(limit)).all()
    found = []
    for row in rows:
        with suppress(ValueError):
            text = vault.decrypt(row.secret, Owner(row.subscription_id, "signing"))
            if algorithm_of(text) == "ed25519":
                found.append(PublicKey(row.id, row.subscription_id, receiver_key(text)))
    return found, rows[-1].id if len(rows) == limit else None


def remove_secret(connection: Connection, subscription_id: int, secret_id: int) -> bool:
    """Remove one secret of a subscription. False if it has none of that id."""
    secret = SubscriptionSecret
    mine = (secret.id == secret_id, secret.subscription_id == subscription_id)
    return connection.execute(delete(secret).where(*mine)).rowcount == 1


def count(engine: Engine) -> int:
    """The number of stored secrets."""
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(SubscriptionSecret)).scalar_one()


def reencrypt(engine: Engine, vault: Vault) -> Iterator[Reencrypted]:
    """Re-encrypt secrets that `vault` would store differently now, batch by batch; the caller may stop after any.

    Concurrent changes of a secret are kept. The run may be repeated.
    """
    for page in pages(engine, _COLUMNS, _BATCH):
        changes: list[dict[str, Any]] = []
        unopened = []
        for row in page:
            owner = Owner(row.subscription_id, row.kind)
            if vault.is_current(row.secret, owner):
                continue
            try:
                anew = stored_of(vault.decrypt(row.secret, owner), owner, vault)
            except (ValueError, InvalidSubscription) as error:
                unopened.append(Unopened(f"secret {row.id}", row.subscription_id, str(error)))
            else:
                texts = pieces("b_before", SECRET_LENGTH, row.secret) | pieces("b_secret", SECRET_LENGTH, anew)
                changes.append({"b_id": row.id, **texts})
        encrypted = 0
        if changes:
            with engine.begin() as connection:
                encrypted = connection.execute(_ENCRYPT, changes).rowcount
        yield Reencrypted(len(page), encrypted, tuple(unopened))


def survey(engine: Engine, vault: Vault, now: datetime, most: int) -> SecretsReport:
    """Check the secrets valid at `now`, up to `most` of them and at most a page more, at 60 µs each."""
    looked_at = 0
    in_the_clear, unopened, weak = dict[int, None](), dict[int, None](), dict[int, None]()  # sets that keep their order
    for page in pages(engine, _COLUMNS, _BATCH):
        for row in page:
            if row.expires_at is not None and row.expires_at <= now:
                continue
            looked_at += 1
            if isinstance(row.secret, str) and not row.secret.startswith(ENCRYPTED):
                in_the_clear[row.subscription_id] = None
            try:
                text = vault.decrypt(row.secret, Owner(row.subscription_id, row.kind))
            except ValueError:
                unopened[row.subscription_id] = None
                continue
            if row.kind == "signing" and _is_weak(text):
                weak[row.subscription_id] = None
        if looked_at >= most:
            break
    return SecretsReport(looked_at, tuple(in_the_clear), tuple(unopened), tuple(weak))


def _is_weak(text: str) -> bool:
    try:
        return weakness(text) is not None
    except ValueError:  # the secret cannot sign at all, which is reported as a problem of its subscription
        return False


def pages(
    engine: Engine, columns: Sequence[InstrumentedAttribute[Any]], size: int, after: int = BEFORE_IDS
) -> Iterator[Sequence[Row[*tuple[Any, ...]]]]:
    """All rows of a table, `size` at a time, in the order of the first of its `columns`, an id above `after`."""
    key = columns[0]
    while True:
        with reading(engine) as connection:
            page = connection.execute(select(*columns).where(key > after).order_by(key).limit(size)).all()
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1][0]


def lock(connection: Connection, subscription_id: int) -> bool:
    """Lock the subscription's secrets until the transaction ends. False if there is no such subscription."""
    found = select(Subscription.id).where(Subscription.id == subscription_id).with_for_update()
    return connection.execute(found).first() is not None


def _algorithm(newest_first: Sequence[str], owner: Owner, vault: Vault) -> Algorithm:
    """The algorithm of the newest secret, encrypted or not."""
    try:
        return algorithm_of(vault.decrypt(newest_first[0], owner)) if newest_first else "hmac"
    except ValueError as error:
        raise InvalidSubscription(f"{error}: choose the new secret's algorithm with --algorithm") from None


def _credentials(connection: Connection, subscription_id: int) -> Sequence[Row[*tuple[Any, ...]]]:
    return connection.execute(
        select(SubscriptionSecret.id, SubscriptionSecret.kind, SubscriptionSecret.secret).where(
            SubscriptionSecret.subscription_id == subscription_id, SubscriptionSecret.kind.in_(CREDENTIALS)
        )
    ).all()


def _is_of(name: str, subscription_id: int, row: Row[*tuple[Any, ...]], vault: Vault) -> bool:
    try:
        return parse_header(vault.decrypt(row.secret, Owner(subscription_id, row.kind)))[0].lower() == name
    except ValueError:  # its name is unknown: the row stays, and is reported as unusable
        return False


def _delete(connection: Connection, ids: Sequence[int]) -> None:
    if ids:
        connection.execute(delete(SubscriptionSecret).where(any_of(SubscriptionSecret.id.expression, ids)))
