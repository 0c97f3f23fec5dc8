"""Secrets at rest: encrypted when there is a key, and which of a subscription's secrets sign now."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from consumer.secret import parse_secret

ENCRYPTED = "fernet:"
CACHED = 65_536  # opened secrets kept: a token takes 60 µs, and each look-up of subscriptions asks for all of them


class Vault:
    """`keys`: Fernet keys, newest first, separated by spaces (WEBHOOK_ENCRYPTION_KEY); without, none is encrypted."""

    def __init__(self, keys: str = "") -> None:
        """ValueError for a key that is none; its text does not hold the key."""
        try:
            fernets = [Fernet(key) for key in keys.split()]
        except ValueError:
            raise ValueError("expected Fernet keys: 32 bytes each, base64 with - and _") from None
        self._fernet = MultiFernet(fernets) if fernets else None
        self.decrypt = lru_cache(CACHED)(self._decrypt)

    def encrypt(self, secret: str) -> str:
        """The text to store. ValueError for a secret that cannot sign."""
        parse_secret(secret)
        return ENCRYPTED + self._fernet.encrypt(secret.encode()).decode() if self._fernet else secret

    def _decrypt(self, stored: str) -> bytes:
        """The signing key of a stored secret, encrypted or not. ValueError says why there is none."""
        if not stored.startswith(ENCRYPTED):
            return parse_secret(stored)
        if self._fernet is None:
            raise ValueError("its secret is encrypted and WEBHOOK_ENCRYPTION_KEY is not set")
        try:
            secret = self._fernet.decrypt(stored.removeprefix(ENCRYPTED)).decode()
        except (InvalidToken, UnicodeDecodeError):
            raise ValueError("no key in WEBHOOK_ENCRYPTION_KEY decrypts its secret") from None
        return parse_secret(secret)


def signing_keys(
    stored: Sequence[tuple[str, datetime | None]],
    default: tuple[bytes, ...],
    decrypt: Callable[[str], bytes],
    now: datetime,
) -> tuple[bytes, ...]:
    """The keys that sign at `now`, newest first: those of `stored` (text and expiry), or `default` where nothing is.

    ValueError if a secret cannot be used or all have expired: no other may stand in, the receiver would not know it.
    """
    if not stored:
        return default
    keys = tuple(decrypt(text) for text, expires_at in stored if expires_at is None or expires_at > now)
    if not keys:
        raise ValueError("all of its secrets have expired")
    return keys
