"""Signatures over the exact bytes that are sent, or that become these by compression. Pure.

Standard Webhooks (https://www.standardwebhooks.com, "Signature scheme") signs `id.timestamp.body`: `v1,` and the
HMAC-SHA256 for each valid secret, `v1a,` and the ed25519 signature for each private key, in base64, separated by
spaces. A second header holds the plain hex HMAC-SHA256 of the body.
"""

from base64 import b64encode
from binascii import b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from consumer.crypto.keys import Ed25519Key

_BLOCK = 64  # bytes of a SHA-256 block (RFC 2104, section 2)
_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))


class HmacKey:
    """HMAC-SHA256 (RFC 2104) that hashes the key block once: 0.8 µs for 450 bytes, against 1.6 with `hmac.digest`."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        block = (sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
        self._inner, self._outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))

    def digest(self, start: bytes, body: bytes) -> bytes:
        """The HMAC of `start` followed by `body`."""
        inner, outer = self._inner.copy(), self._outer.copy()
        if start:
            inner.update(start)
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()


hmac_key = lru_cache(10_000)(HmacKey)  # most subscriptions share the deployment's secret


def standard_signature(keys: Sequence[HmacKey], private_keys: Sequence[Ed25519Key], start: bytes, body: bytes) -> bytes:
    """The value of the `webhook-signature` header.

    `start` is `id.timestamp.`: the event's id, which has no dot, and the attempt's unix seconds.
    """
    if len(keys) == 1 and not private_keys:
        return b"v1," + b2a_base64(keys[0].digest(start, body), newline=False)
    words = [b"v1," + b64encode(key.digest(start, body)) for key in keys]
    if private_keys:
        words += [b"v1a," + b64encode(key.sign(start + body)) for key in private_keys]
    return b" ".join(words)


def hex_signature(key: HmacKey, body: bytes) -> bytes:
    """The digits of the hex header; a receiver computes them with `hmac.new(secret, body, sha256).hexdigest()`."""
    return key.digest(b"", body).hex().encode("ascii")
