"""Secrets at rest: encrypted when there is a key, and what of a subscription's is good now."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from consumer import header_rules
from consumer.secret import SigningKey, parse_signing_key

ENCRYPTED = "fernet:"
CACHED = 65_536  # opened secrets kept: a token takes 60 µs, and each look-up of subscriptions asks for all of them


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


class Stored(NamedTuple):
    """A row of `webhook_secrets`: `kind` says what `secret`, encrypted or not, is for."""

    kind: str
    secret: str
    expires_at: datetime | None


class Credentials(NamedTuple):
    """`keys` sign, newest first. `headers` hold what must not be shown."""

    keys: tuple[SigningKey, ...]
    auth: AuthBase | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Vault:
    """`keys`: Fernet keys, newest first, separated by spaces (WEBHOOK_ENCRYPTION_KEY); without, none is encrypted."""

    def __init__(self, keys: str = "") -> None:
        """ValueError for a key that is none; its text does not hold the key."""
        try:
            fernets = [Fernet(key) for key in keys.split()]
        except ValueError:
            raise ValueError("expected Fernet keys: 32 bytes each, base64 with - and _") from None
        self._newest = fernets[0] if fernets else None
        self._fernet = MultiFernet(fernets) if fernets else None
        self.decrypt = lru_cache(CACHED)(self._decrypt)

    @property
    def encrypts(self) -> bool:
        """There is a key."""
        return self._fernet is not None

    def encrypt(self, secret: str) -> str:
        """The text to store."""
        return ENCRYPTED + self._fernet.encrypt(secret.encode()).decode() if self._fernet else secret

    def is_current(self, stored: str) -> bool:
        """Whether it is stored as `encrypt` would store it now: with the newest key, or in the clear without one."""
        if self._newest is None or not stored.startswith(ENCRYPTED):
            return self._newest is None and not stored.startswith(ENCRYPTED)
        try:
            self._newest.decrypt(stored.removeprefix(ENCRYPTED))
        except InvalidToken:
            return False
        return True

    def _decrypt(self, stored: str) -> str:
        """The text of a stored secret, encrypted or not. ValueError says why there is none."""
        if not stored.startswith(ENCRYPTED):
            return stored
        if self._fernet is None:
            raise ValueError("its secret is encrypted and WEBHOOK_ENCRYPTION_KEY is not set")
        try:
            return self._fernet.decrypt(stored.removeprefix(ENCRYPTED)).decode()
        except (InvalidToken, UnicodeDecodeError):
            raise ValueError("no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret") from None


_parse = lru_cache(CACHED)(parse_signing_key)


def credentials_of(
    stored: Sequence[Stored], default: tuple[SigningKey, ...], decrypt: Callable[[str], str], now: datetime
) -> Credentials:
    """What of `stored` (newest first) is good at `now`; `default` signs where no signing secret is stored.

    ValueError if one cannot be used or all of a kind have expired: no other may stand in, the receiver would not know
    it. The newest of `basic` and `bearer` counts, and of headers the newest of each name.
    """
    keys = tuple(_parse(text) for _, text in _good(stored, {"signing"}, decrypt, now))
    auths = [_AUTHS[kind](text) for kind, text in _good(stored, set(_AUTHS), decrypt, now)[:1]]
    headers: dict[str, tuple[str, str]] = {}
    for _, text in _good(stored, {"header"}, decrypt, now):
        name, value = parse_header(text)
        headers.setdefault(name.lower(), (name, value))
    own = any(each.kind == "signing" for each in stored)
    return Credentials(keys if own else default, auths[0] if auths else None, tuple(headers.values()))


def parse_basic(text: str) -> HTTPBasicAuth:
    """`user:password` (RFC 7617: no colon in the user). ValueError; its text holds no part of it."""
    user, colon, password = text.partition(":")
    if not colon:
        raise ValueError("basic authentication is written user:password")
    return HTTPBasicAuth(user.encode(), password.encode())  # as UTF-8; requests would take Latin-1


def parse_bearer(text: str) -> BearerAuth:
    """A token. ValueError; its text holds no part of it."""
    if not text.strip() or not header_rules.is_value(text):
        raise ValueError("a bearer token is visible ASCII")
    return BearerAuth(text.strip())


def parse_header(text: str) -> tuple[str, str]:
    """`name: value`. ValueError; its text does not hold the value."""
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("a header is written name: value")
    header_rules.check(name.strip(), value.strip())
    return name.strip(), value.strip()


_AUTHS: dict[str, Callable[[str], AuthBase]] = {"basic": parse_basic, "bearer": parse_bearer}
_KINDS: dict[str, Callable[[str], object]] = {"signing": parse_signing_key, "header": parse_header, **_AUTHS}


def check_secret(kind: str, text: str) -> None:
    """ValueError for a secret that is none of its kind; its text holds no part of it."""
    _KINDS[kind](text)


def _good(
    stored: Sequence[Stored], kinds: Collection[str], decrypt: Callable[[str], str], now: datetime
) -> list[tuple[str, str]]:
    mine = [each for each in stored if each.kind in kinds]
    good = [(each.kind, decrypt(each.secret)) for each in mine if each.expires_at is None or each.expires_at > now]
    if mine and not good:
        raise ValueError(f"all of its secrets have expired ({', '.join(sorted({each.kind for each in mine}))})")
    return good
