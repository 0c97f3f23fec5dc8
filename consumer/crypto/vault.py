"""Encrypts secrets at rest if there is a key, and selects the valid ones of a subscription.

A token names the owner of its secret. Otherwise a person without the key, but with read and write access to the table,
could copy another subscription's token into a row of their own and have a worker send them the secret.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from consumer.crypto.keys import SigningKey, parse_signing_key
from consumer.http import header_rules

ENCRYPTED = "fernet:"
CACHED = 65_536  # decrypted secrets: a token takes 60 µs, and each look-up of subscriptions needs all of its secrets


class BearerAuth(AuthBase):
    """`Authorization: Bearer …` (RFC 6750, section 2.1)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the header."""
        r.headers["Authorization"] = f"Bearer {self._token}"
        return r

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BearerAuth) and other._token == self._token

    def __hash__(self) -> int:
        return hash(self._token)


class Owner(NamedTuple):
    """The subscription that a secret belongs to, and its `kind` as in `webhook_secrets`."""

    subscription_id: int
    kind: str

    def __str__(self) -> str:
        return f"{self.subscription_id}:{self.kind}:"


Decrypt = Callable[[str, Owner], str]  # raises ValueError if the secret cannot be decrypted


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A row of `webhook_secrets`: `kind` is the purpose of `secret`, which may be encrypted."""

    kind: str
    secret: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The usable secrets of a subscription: signing `keys`, newest first, `auth`, and confidential `headers`."""

    keys: tuple[SigningKey, ...] = field(repr=False)
    auth: AuthBase | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


class Vault:
    """Encrypts and decrypts secrets with `keys`; without keys it leaves them unencrypted.

    `keys`: Fernet keys, newest first, separated by spaces (WEBHOOK_ENCRYPTION_KEY).
    """

    def __init__(self, keys: str = "") -> None:
        """Raises ValueError for an invalid key; its text does not quote the key."""
        try:
            fernets = [Fernet(key) for key in keys.split()]
        except ValueError:
            raise ValueError("expected Fernet keys: 32 bytes each, base64 with - and _") from None
        self._newest = fernets[0] if fernets else None
        self._fernet = MultiFernet(fernets) if fernets else None
        self.decrypt = lru_cache(CACHED)(self._decrypt)

    @property
    def encrypts(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def encrypt(self, secret: str, owner: Owner) -> str:
        """The text to store for the owner's `secret`, which `check_secret` has accepted."""
        return ENCRYPTED + self._fernet.encrypt(f"{owner}{secret}".encode()).decode() if self._fernet else secret

    def is_current(self, stored: str, owner: Owner) -> bool:
        """Whether `stored` is up to date: encrypted with the newest key, or unencrypted if there is no key."""
        if not isinstance(stored, str):  # SQLite keeps bytes in any column
            return False
        if self._newest is None or not stored.startswith(ENCRYPTED):
            return self._newest is None and not stored.startswith(ENCRYPTED)
        return (_open(self._newest, stored) or "").startswith(str(owner))

    def _decrypt(self, stored: str, owner: Owner) -> str:
        """The text of a stored secret, encrypted or not. Raises ValueError with the reason if that is impossible."""
        if not isinstance(stored, str):
            raise ValueError("its secret is not text")  # noqa: TRY004 (the caller's one error)
        if not stored.startswith(ENCRYPTED):
            return stored
        if self._fernet is None:
            raise ValueError("its secret is encrypted and WEBHOOK_ENCRYPTION_KEY is not set")
        text = _open(self._fernet, stored)
        if text is None:
            raise ValueError("no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret")
        if not text.startswith(str(owner)):
            raise ValueError("its secret was encrypted for another subscription, or for another purpose")
        return text.removeprefix(str(owner))


def _open(fernet: Fernet | MultiFernet, stored: str) -> str | None:
    try:
        return fernet.decrypt(stored.removeprefix(ENCRYPTED)).decode()
    except (InvalidToken, ValueError):  # ValueError: the token is not ASCII, or its text not UTF-8
        return None


_parse = lru_cache(CACHED)(parse_signing_key)


def credentials_of(
    subscription_id: int,
    stored: Sequence[StoredSecret],
    default: tuple[SigningKey, ...],
    decrypt: Decrypt,
    now: datetime,
) -> Credentials:
    """The secrets of a subscription that are valid at `now`; `default` signs if it has no signing secrets.

    `stored` is newest first. Raises ValueError if a valid secret is unusable or all of a kind have expired: another
    secret must not stand in, because the receiver does not know it. The newest of `basic` and `bearer` is used, and the
    newest header of each name.
    """
    keys = tuple(_parse(text) for _, text in _good(subscription_id, stored, {"signing"}, decrypt, now))
    auths = [_AUTHS[kind](text) for kind, text in _good(subscription_id, stored, set(_AUTHS), decrypt, now)[:1]]
    headers: dict[str, tuple[str, str]] = {}
    for _, text in _good(subscription_id, stored, {"header"}, decrypt, now):
        name, value = parse_header(text)
        headers.setdefault(name.lower(), (name, value))
    return Credentials(keys or default, auths[0] if auths else None, tuple(headers.values()))


def parse_basic(text: str) -> HTTPBasicAuth:
    """Parse `user:password` (RFC 7617: no colon in the user). Raises ValueError; its text quotes no part of it."""
    user, colon, password = text.partition(":")
    if not colon or not text.isprintable():
        raise ValueError("basic authentication is written user:password, without control characters")
    return HTTPBasicAuth(user.encode(), password.encode())  # as UTF-8; requests would encode it as Latin-1


def parse_bearer(text: str) -> BearerAuth:
    """Parse a bearer token. Raises ValueError; its text quotes no part of it."""
    token = text.strip()
    if not token or " " in token or not header_rules.is_value(token):
        raise ValueError("a bearer token must be visible ASCII without spaces")
    return BearerAuth(token)


def parse_header(text: str) -> tuple[str, str]:
    """Parse `name: value`. Raises ValueError; its text quotes no part of it, except for a reserved name."""
    name, _, value = map(str.strip, text.partition(":"))
    if not header_rules.is_name(name) or not value or not header_rules.is_value(value):
        raise ValueError("a header is written name: value, in visible ASCII")
    header_rules.check_name(name)
    return name, value


_AUTHS: dict[str, Callable[[str], AuthBase]] = {"basic": parse_basic, "bearer": parse_bearer}
_KINDS: dict[str, Callable[[str], object]] = {"signing": parse_signing_key, "header": parse_header, **_AUTHS}


def check_secret(kind: str, text: str) -> None:
    """Raise ValueError for a text that cannot be stored as a secret of its kind; the error quotes no part of it."""
    if text.startswith(ENCRYPTED):
        raise ValueError(f"a secret cannot begin with {ENCRYPTED}, which says that it is encrypted")
    _KINDS[kind](text)


def _good(
    subscription_id: int, stored: Sequence[StoredSecret], kinds: Collection[str], decrypt: Decrypt, now: datetime
) -> list[tuple[str, str]]:
    mine = [each for each in stored if each.kind in kinds]
    good = [
        (each.kind, decrypt(each.secret, Owner(subscription_id, each.kind)))
        for each in mine
        if each.expires_at is None or each.expires_at > now
    ]
    if mine and not good:
        raise ValueError(f"all of its secrets have expired ({', '.join(sorted({each.kind for each in mine}))})")
    return good
