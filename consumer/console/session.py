"""Sessions of the console: a cookie signed with its token's hash, and a form token for that session. Pure.

A session needs no store, so that any API pod serves it: it ends when its token leaves the file, or after LIFETIME.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from consumer.api.tokens import Caller

COOKIE = "kafka-webhooks"
LIFETIME = 12 * 3600  # seconds: a shift
NONCE = 16  # bytes
_MAC = 32
_ID = 8  # bytes that find the token of a cookie
_EXPIRY = 8


class Session(NamedTuple):
    """A visitor who has signed in. Each form must carry `form_token`."""

    caller: Caller
    form_token: str


def cookie_of(digest: bytes, now: float, nonce: bytes) -> str:
    """The cookie of a new session; `digest` is the SHA-256 of its token, `now` in unix seconds."""
    content = _id(digest) + int(now + LIFETIME).to_bytes(_EXPIRY, "big") + nonce
    return urlsafe_b64encode(content + _mac(digest, b"session", content)).decode()


def session_of(cookie: str, tokens: Mapping[bytes, Caller], now: float) -> Session | None:
    """The session of a cookie; None if it is forged, has ended, or its token was removed.

    `tokens` are the callers by the SHA-256 of their token.
    """
    try:
        value = urlsafe_b64decode(cookie.encode())
    except ValueError:
        return None
    content, mac = value[:-_MAC], value[-_MAC:]
    if len(content) != _ID + _EXPIRY + NONCE or int.from_bytes(content[_ID : _ID + _EXPIRY], "big") <= now:
        return None
    digest = next((each for each in tokens if hmac.compare_digest(_id(each), content[:_ID])), None)
    if digest is None or not hmac.compare_digest(_mac(digest, b"session", content), mac):
        return None
    return Session(tokens[digest], urlsafe_b64encode(_mac(digest, b"form", content)).decode())


def _id(digest: bytes) -> bytes:
    return _mac(digest, b"id", b"")[:_ID]


def _mac(digest: bytes, purpose: bytes, content: bytes) -> bytes:
    return hmac.digest(digest, purpose + b"\0" + content, sha256)
