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
from contextlib import suppress
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from consumer.crypto.keys import VerifyingKey
from consumer.subscriptions.endpoint import HEX_HEADER

TOLERANCE = 300.0  # seconds between a delivery's timestamp and the receiver's clock, either way (specification)
BODY_BYTES = 2 * 1024 * 1024  # the largest body; the largest event has 1 MiB
_MOST_SIGNATURES = 16  # verified per request; a rotation has two, and each costs 100 µs for each public key
_PERMISSION = {"allow": "POST", "webhook-allowed-origin": "*", "webhook-allowed-rate": "*"}
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
    headers: Mapping[str, str] = {}


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

    async def replied(request: Request) -> Reply:
        headers, method = request.headers, request.method
        if method != "POST":
            asked = method == "OPTIONS" and "webhook-request-origin" in headers
            return Reply(200, headers=_PERMISSION) if asked else Reply(200 if method in {"GET", "HEAD"} else 405)
        body = await body_of(request)
        if body is None:
            return Reply(413)
        problem = verify(headers, body, keys, clock(), hex_header=hex_header)
        names = headers.get("webhook-id", ""), headers.get("x-webhook-event", "")
        received = Received(request.url.path, *names, body, problem)
        given = Reply(401) if problem else answer(received)
        on_received(received, given)
        if given.delay:
            await sleep(given.delay)
        return given

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            with suppress(ClientDisconnect):  # nobody waits for the answer
                given = await replied(Request(scope, receive))
                await Response(status_code=given.status, headers=given.headers)(scope, receive, send)

    return app


async def body_of(request: Request) -> bytes | None:
    """The body as it was signed: decompressed, or unchanged if it is not gzip. None: it is larger than BODY_BYTES."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            return None
    if request.headers.get("content-encoding") != "gzip":
        return bytes(body)
    try:
        plain = zlib.decompressobj(wbits=31).decompress(body, BODY_BYTES + 1)
    except zlib.error:
        return bytes(body)
    return plain if len(plain) <= BODY_BYTES else None


def _any_equal(expected: Sequence[bytes], given: Sequence[bytes]) -> bool:
    return any([hmac.compare_digest(one, other) for one in expected for other in given])  # noqa: C419 (constant time)


def _any_verified(keys: Sequence[VerifyingKey], message: bytes, given: Sequence[bytes]) -> bool:
    for text in given:
        for key in keys:
            if text.startswith(b"v1a,") and not isinstance(key, bytes):
                with suppress(InvalidSignature, binascii.Error):  # another signature may be valid
                    key.verify(b64decode(text.removeprefix(b"v1a,"), validate=True), message)
                    return True
    return False
