"""Reads and writes `webhook_tls`: subscriptions' client certificates with their keys, and their authorities."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from consumer.crypto.certificates import CertificateInfo, TlsIdentity, certificate_infos, usable, validity
from consumer.crypto.vault import ENCRYPTED, Decrypt, Owner, Vault
from consumer.database.engine import reading, writing
from consumer.database.statements import any_of
from consumer.errors import InvalidSubscription
from consumer.subscriptions.secrets import Reencrypted, Unopened, pages
from models import SubscriptionTls
from models.base import BEFORE_IDS

_KIND = "tls"  # in the token of an encrypted key, beside the id of its subscription
_BATCH = 100
FIRST = BEFORE_IDS  # where `expiries_after` begins


@dataclass(frozen=True, slots=True)
class StoredTls:
    """A row of `webhook_tls`; the `private_key` may be encrypted."""

    subscription_id: int
    certificate: str | None
    private_key: str | None = field(repr=False)
    authorities: str | None


class Expiry(NamedTuple):
    """When the certificate that a subscription shows, or the soonest of its authorities, expires."""

    subscription_id: int
    part: str
    subject: str
    not_after: datetime


_COLUMNS = (
    SubscriptionTls.subscription_id,
    SubscriptionTls.certificate,
    SubscriptionTls.private_key,
    SubscriptionTls.authorities,
)


def stored(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> Mapping[int, StoredTls]:
    """The rows of the subscriptions in `rows`, which `endpoint_rows` selects; queries only if one has any."""
    ids = list(dict.fromkeys(row.tls_of for row in rows if row.tls_of is not None))
    if not ids:
        return {}
    statement = select(*_COLUMNS).where(any_of(SubscriptionTls.subscription_id.expression, ids))
    return {row.subscription_id: StoredTls(*row) for row in connection.execute(statement)}


def identity_of(row: StoredTls, decrypt: Decrypt) -> TlsIdentity:
    """The identity of a row. Raises ValueError, which quotes no part of it, if it cannot be used."""
    parts = (row.certificate, row.private_key, row.authorities)
    if not all(part is None or isinstance(part, str) for part in parts):  # SQLite keeps bytes in any column
        raise ValueError("is not text")
    certificate, private_key, authorities = (part or None for part in parts)
    if private_key is not None:
        private_key = decrypt(private_key, Owner(row.subscription_id, _KIND))
    return usable(TlsIdentity(certificate, private_key, authorities))


class TlsSummary(NamedTuple):
    """The certificates of a row; None or empty where the column is, or where its text cannot be read."""

    certificate: CertificateInfo | None
    authorities: tuple[CertificateInfo, ...]

    def as_json(self) -> dict[str, object]:
        """The certificates as JSON: none is confidential."""
        own = self.certificate
        return {
            "certificate": None if own is None else own.as_json(),
            "authorities": [each.as_json() for each in self.authorities],
        }


def summary_of(row: StoredTls) -> TlsSummary:
    """The certificates of a row, for display."""
    chain = _readable(row.certificate)
    return TlsSummary(chain[0] if chain else None, _readable(row.authorities))


def set_tls(bind: Engine | Connection, subscription_id: int, given: TlsIdentity, vault: Vault, now: datetime) -> None:
    """Use these certificates from now on; a part that is None stays as it is.

    The caller's transaction holds the subscription's row. Raises InvalidSubscription for an identity that cannot be
    used, or whose certificate is not valid at `now`.
    """
    mine = SubscriptionTls.subscription_id == subscription_id
    with writing(bind) as connection:
        row = connection.execute(select(*_COLUMNS).where(mine)).first()
        try:
            merged = given if row is None else _merged(StoredTls(*row), given, vault)
            usable(merged)
        except ValueError as error:
            raise InvalidSubscription(f"tls: {error}") from None
        if (why := validity(merged, now)) is not None:
            raise InvalidSubscription(f"tls: {why}")
        key = merged.private_key
        values = {
            "certificate": merged.certificate,
            "private_key": None if key is None else vault.encrypt(key, Owner(subscription_id, _KIND)),
            "authorities": merged.authorities,
            "created_at": now,
        }
        if row is None:
            connection.execute(insert(SubscriptionTls), [{"subscription_id": subscription_id, **values}])
        else:
            connection.execute(update(SubscriptionTls).where(mine).values(values))


def _merged(row: StoredTls, given: TlsIdentity, vault: Vault) -> TlsIdentity:
    """The given parts, and those of a row that stay; a part that is replaced need not be usable."""
    if given.certificate or given.private_key:  # a certificate comes with its key
        row = replace(row, certificate=None, private_key=None)
    if given.authorities:
        row = replace(row, authorities=None)
    kept = identity_of(row, vault.decrypt)
    return TlsIdentity(
        given.certificate or kept.certificate,
        given.private_key or kept.private_key,
        given.authorities or kept.authorities,
    )


def remove_tls(bind: Engine | Connection, subscription_id: int) -> bool:
    """Remove the identity. False if the subscription has none."""
    mine = SubscriptionTls.subscription_id == subscription_id
    with writing(bind) as connection:
        return connection.execute(delete(SubscriptionTls).where(mine)).rowcount == 1


def expiries(engine: Engine) -> list[Expiry]:
    """The certificates that expire first, for each subscription with an identity: its own, and its authorities'."""
    found = [each for page in pages(engine, _COLUMNS, _BATCH) for each in _expiries_of(page)]
    return sorted(found, key=lambda expiry: expiry.not_after)


def expiries_after(engine: Engine, after: int) -> tuple[list[Expiry], int | None]:
    """The same for a page of subscriptions with ids above `after`; and the next page's `after`, None at the end."""
    rows = next(pages(engine, _COLUMNS, _BATCH, after), ())
    return list(_expiries_of(rows)), rows[-1].subscription_id if len(rows) == _BATCH else None


def _expiries_of(rows: Sequence[Row[*tuple[Any, ...]]]) -> Iterator[Expiry]:
    for row in rows:
        for part, infos in (("certificate", _readable(row.certificate)), ("authorities", _readable(row.authorities))):
            if infos:
                first = min(infos, key=lambda info: info.not_after)
                yield Expiry(row.subscription_id, part, first.subject, first.not_after)


def count(engine: Engine) -> int:
    """The number of stored identities."""
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(SubscriptionTls)).scalar_one()


def in_the_clear(engine: Engine) -> list[int]:
    """The subscriptions whose private key is not encrypted."""
    return [
        row.subscription_id
        for page in pages(engine, _COLUMNS, _BATCH)
        for row in page
        if isinstance(row.private_key, str) and not row.private_key.startswith(ENCRYPTED)
    ]


def reencrypt(engine: Engine, vault: Vault) -> Iterator[Reencrypted]:
    """Re-encrypt private keys that `vault` would store differently now, as `secrets.reencrypt` does for secrets."""
    for page in pages(engine, _COLUMNS, _BATCH):
        encrypted, unopened = 0, []
        for row in page:
            owner = Owner(row.subscription_id, _KIND)
            if row.private_key is None or vault.is_current(row.private_key, owner):
                continue
            try:
                anew = vault.encrypt(vault.decrypt(row.private_key, owner), owner)
            except ValueError as error:
                unopened.append(Unopened("private key", row.subscription_id, str(error)))
            else:
                encrypted += _replace_key(engine, row, anew)
        yield Reencrypted(len(page), encrypted, tuple(unopened))


def _replace_key(engine: Engine, row: Row[*tuple[Any, ...]], anew: str) -> int:
    """Store a key, unless it has changed since it was read. SQL cannot compare a LOB."""
    mine = SubscriptionTls.subscription_id == row.subscription_id
    with engine.begin() as connection:
        now = connection.execute(select(SubscriptionTls.private_key).where(mine).with_for_update()).scalar()
        if now != row.private_key:
            return 0
        return connection.execute(update(SubscriptionTls).where(mine).values(private_key=anew)).rowcount


def _readable(pem: str | None) -> tuple[CertificateInfo, ...]:
    try:
        return certificate_infos(pem) if pem else ()
    except (ValueError, TypeError, AttributeError):  # plain SQL can store anything; the problem is reported elsewhere
        return ()
