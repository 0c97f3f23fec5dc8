"""A receiver that verifies its requests as a subscriber would; `listen` and the demo use it.

Verification is written from the specification (https://www.standardwebhooks.com, "Verifying webhook authenticity"),
independently of the signing side, so that each checks the other.
"""

import asyncio
import binascii
import hmac
import re
import time
import zlib
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from consumer.crypto.keys import VerifyingKey
from consumer.subscriptions.endpoint import HEX_HEADER

TOLERANCE = (
    300.0  # seconds between a delivery's timestamp and the receiver's clock, either way; as in the specification
)
BODY_BYTES = 2 * 1024 * 1024  # the largest body; the largest event has 1 MiB
_MOST_SIGNATURES = 16  # verified per request; a rotation has two, and each costs 100 µs for each public key
_PERMISSION = ((b"allow", b"POST"), (b"webhook-allowed-origin", b"*"), (b"webhook-allowed-rate", b"*"))
_UNIX_SECONDS = re.compile(r"[0-9]{1,12}")


class Received(NamedTuple):
    """One request. `problem` says why it cannot be trusted; None if its signatures are verified."""

    path: str
    webhook_id: str
    event_type: str
    body: bytes
    problem: str | None


class Reply(NamedTuple):
    """The receiver's answer, sent `delay` seconds after the whole request has arrived."""

    status: int = 200
    delay: float = 0.0
    headers: Sequence[tuple[bytes, bytes]] = ()


class HexHeader(NamedTuple):
    """The header that holds the hex HMAC-SHA256 of the body, and the prefix of its digits."""

    name: str = HEX_HEADER
    prefix: str = ""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    keys: Sequence[VerifyingKey],
    now: float,
    tolerance: float = TOLERANCE,
    hex_header: HexHeader = HexHeader(),  # noqa: B008 (immutable)
) -> str | None:
    """Why a request cannot be trusted; None if it can. `headers` by lower-case name, `now` in unix seconds.

    A `v1` signature must verify with a symmetric key of `keys`, or a `v1a` signature with a public one. A hex
    signature, if present, must verify with a symmetric key, if there is one.
    """
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signatures = headers.get("webhook-signature", "").split()
    if not (webhook_id and timestamp and signatures):
        return "webhook-id, webhook-timestamp or webhook-signature is missing"
    if not _UNIX_SECONDS.fullmatch(timestamp):
        return "webhook-timestamp is not a number of seconds"
    if abs(now - int(timestamp)) > tolerance:
        return f"webhook-timestamp is more than {tolerance:g} s from this machine's clock"
    message = b"%s.%s.%s" % (webhook_id.encode("latin-1"), timestamp.encode(), body)
    secrets = [key for key in keys if isinstance(key, bytes)]
    expected = [b"v1," + b64encode(hmac.digest(secret, message, "sha256")) for secret in secrets]
    given = [text.encode("latin-1") for text in signatures[:_MOST_SIGNATURES]]
    if not (_any_equal(expected, given) or _any_verified(keys, message, given)):
        return "no v1 or v1a signature in webhook-signature matches a known secret"
    plain = headers.get(hex_header.name.lower())
    if plain is not None and secrets:
        prefix = hex_header.prefix.encode()
        hexes = [prefix + hmac.digest(secret, body, "sha256").hex().encode() for secret in secrets]
        if not _any_equal(hexes, [plain.encode("latin-1")]):
            return f"{hex_header.name} matches no known secret"
    return None


def create_app(
    keys: Sequence[VerifyingKey],
    on_received: Callable[[Received, Reply], None],
    answer: Callable[[Received], Reply],
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    hex_header: HexHeader = HexHeader(),  # noqa: B008 (immutable)
) -> ASGIApp:
    """An app that receives POSTs on any path. It answers 401 if verification fails, 413 if the body is too large.

    It answers a validation request (CloudEvents' web hooks, section 4) with permission for any origin, at any rate.
    `on_received` gets each request with its answer, before the answer's delay. Neither callable may block.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["method"] != "POST":
            await _respond(send, _other(scope["method"], headers))
            return
        try:
            body = await _body(receive)
        except ClientDisconnect:
            return
        if body is not None and headers.get("content-encoding") == "gzip":
            body = unpacked(body)
        if body is None:
            await _respond(send, Reply(413))
            return
        received = Received(
            path=scope["path"],
            webhook_id=headers.get("webhook-id", ""),
            event_type=headers.get("x-webhook-event", ""),
            body=body,
            problem=verify(headers, body, keys, clock(), hex_header=hex_header),
        )
        given = Reply(401) if received.problem else answer(received)
        on_received(received, given)
        if given.delay:
            await sleep(given.delay)
        await _respond(send, given)

    return app


def _other(method: str, headers: Mapping[str, str]) -> Reply:
    """The answer to a request that brings no event."""
    if method == "OPTIONS" and "webhook-request-origin" in headers:
        return Reply(200, headers=_PERMISSION)
    return Reply(200 if method in {"GET", "HEAD"} else 405)


def unpacked(body: bytes) -> bytes | None:
    """The body as it was signed: decompressed, or unchanged if it is not gzip; None if it is too large."""
    reader = zlib.decompressobj(wbits=31)
    try:
        plain = reader.decompress(body, BODY_BYTES + 1)
    except zlib.error:
        return body
    return plain if len(plain) <= BODY_BYTES else None


def _any_equal(expected: Sequence[bytes], given: Sequence[bytes]) -> bool:
    return any([hmac.compare_digest(one, other) for one in expected for other in given])  # noqa: C419 (constant time)


def _any_verified(keys: Sequence[VerifyingKey], message: bytes, given: Sequence[bytes]) -> bool:
    signatures = [text.removeprefix(b"v1a,") for text in given if text.startswith(b"v1a,")]
    return any(_is_of(key, text, message) for key in keys for text in signatures)


def _is_of(key: VerifyingKey, signature: bytes, message: bytes) -> bool:
    if isinstance(key, bytes):
        return False
    try:
        key.verify(b64decode(signature, validate=True), message)
    except (InvalidSignature, binascii.Error):
        return False
    return True


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is larger than BODY_BYTES. ClientDisconnect if the sender disconnects meanwhile."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


async def _respond(send: Send, answer: Reply) -> None:
    headers = list(answer.headers)
    if answer.status not in {204, 304}:  # these have no body by definition (RFC 9110 section 8.6)
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
