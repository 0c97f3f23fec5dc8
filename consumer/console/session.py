"""Sessions of the console: a cookie signed with a key of its token's hash, and a form token for that session.

A session needs no store, so that any API pod serves it: it ends when its token leaves the file, or after LIFETIME. Only
its early end is stored: a visitor's sign-out.
"""

import hmac
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Engine

from consumer.api.tokens import Caller
from consumer.errors import KeyTaken
from consumer.ledger import request_keys
from consumer.ledger.request_keys import RequestDigests

COOKIE = "kafka-webhooks"
LIFETIME = 12 * 3600  # seconds: a shift; less than sign-outs are kept
PAUSE = 3.0  # seconds: twenty guesses a minute
LARGEST = 2000  # characters: proxies take heads of answers up to 4 KiB
_ID = 16  # characters


class ConsoleSession(NamedTuple):
    """A visitor who has signed in. Each form must carry `form_token`.

    `name` tells sessions apart and is of no use to visitors; `key` is known to the server alone.
    """

    caller: Caller
    form_token: str
    name: str
    key: bytes

    def made(self, form_token: str) -> bool:
        """Whether a form that carries this token is of this session."""
        return hmac.compare_digest(form_token.encode(), self.form_token.encode())


class SignOuts(NamedTuple):
    """The sessions that visitors have ended, for all processes: rows beside the idempotency keys, kept as long."""

    engine: Engine

    def note(self, session: ConsoleSession, now: float) -> None:
        """End a session, at `now` (unix seconds)."""
        with suppress(KeyTaken), self.engine.begin() as connection:  # it has ended already
            request_keys.note(connection, RequestDigests(session.name, session.name, now), 0)

    def have(self, session: ConsoleSession, now: float) -> bool:
        """Whether the session has ended."""
        return request_keys.find(self.engine, RequestDigests(session.name, session.name, now)) is not None


class Throttle:
    """Lets an address try again `PAUSE` seconds after a wrong token. Used by one thread."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # by address, oldest first

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try; 0 or less: now."""
        return self._until.get(address, now) - now

    def wrong(self, address: str, now: float) -> None:
        """Note a wrong token. Forgets addresses whose pause is over."""
        while self._until and self.wait(oldest := next(iter(self._until)), now) <= 0:
            del self._until[oldest]
        self._until[address] = now + PAUSE


def sealed(session: ConsoleSession, told: Mapping[str, object]) -> str:
    """`told` as a cookie that only this session can open: the effect of a form reaches the next page in it.

    Texts are cut until it has at most LARGEST characters.
    """
    most = LARGEST
    while True:
        cut = {name: value[:most] if isinstance(value, str) else value for name, value in told.items()}
        value = Fernet(session.key).encrypt(zlib.compress(orjson.dumps(cut))).decode()
        if len(value) <= LARGEST:
            return value
        most //= 2


def opened(session: ConsoleSession, cookie: str) -> Mapping[str, Any] | None:
    """The values that `sealed` got; None for anything else."""
    try:
        told: Mapping[str, Any] = orjson.loads(zlib.decompress(Fernet(session.key).decrypt(cookie)))
    except (InvalidToken, ValueError):
        return None
    return told


def cookie_of(digest: bytes, now: float) -> str:
    """The cookie of a new session; `digest` is the SHA-256 of its token, `now` in unix seconds."""
    return _id(digest) + _cipher(digest).encrypt_at_time(b"", int(now)).decode()


def session_of(cookie: str, tokens: Mapping[bytes, Caller], now: float) -> ConsoleSession | None:
    """The session of a cookie; None if it is forged, has ended, or its token was removed.

    `tokens` are the callers by the SHA-256 of their token.
    """
    digest = next(
        (each for each in tokens if hmac.compare_digest(_id(each).encode(), cookie[:_ID].encode(errors="replace"))),
        None,
    )
    if digest is None:
        return None
    try:
        _cipher(digest).decrypt_at_time(cookie[_ID:], LIFETIME - 1, int(now))
        content = urlsafe_b64decode(cookie[_ID:])  # two texts may be the same bytes, and have to be one session
    except (InvalidToken, ValueError):
        return None
    form, key = (urlsafe_b64encode(_mac(digest, purpose, content)) for purpose in (b"form", b"told"))
    name = _mac(digest, b"name", content).hex()
    return ConsoleSession(tokens[digest]._replace(way="console"), form.decode(), name, key)


def _id(digest: bytes) -> str:
    """The beginning of a cookie, which finds its token."""
    return _mac(digest, b"id", b"").hex()[:_ID]


def _cipher(digest: bytes) -> Fernet:
    return Fernet(urlsafe_b64encode(_mac(digest, b"session", b"")))


def _mac(digest: bytes, purpose: bytes, content: bytes) -> bytes:
    return hmac.digest(digest, purpose + b"\0" + content, sha256)
