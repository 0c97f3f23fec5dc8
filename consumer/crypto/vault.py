"""Encrypts secrets at rest if there is a key.

A token names the owner of its secret. Otherwise a person without the key, but with read and write access to the table,
could copy another subscription's token into a row of their own and have a worker send them the secret.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

ENCRYPTED = "fernet:"
CACHED = 65_536  # decrypted secrets: a token takes 60 µs, and each look-up of subscriptions needs all of its secrets


class Owner(NamedTuple):
    """The subscription that a secret belongs to, and its `kind` as in `webhook_secrets`."""

    subscription_id: int
    kind: str

    def __str__(self) -> str:
        return f"{self.subscription_id}:{self.kind}:"


Decrypt = Callable[[str, Owner], str]  # raises ValueError if the secret cannot be decrypted


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
