"""Checks each request before the application sees it: the token or a loopback name, and the size of the body."""

import asyncio
import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_BYTES = 64 * 1024  # the largest request body; a registration has at most 2.5 kB
_BODY_TIMEOUT = 10.0  # seconds for the whole body
WANTED = (
    'send a JSON object {"url": …, "eventType": …}, perhaps with "ownSecret": true, with content-type: application/json'
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1: they change nothing
_OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})  # they reveal only public information


class _TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware. Answers 400, 401, 403, 408 and 413 itself, before the body is parsed.

    Without a token the Host must be a loopback name: else a web page could make a browser on this machine register
    webhooks through a host name of its own that resolves to 127.0.0.1 (DNS rebinding). Posts from other sites' pages
    are refused: the browser names the page's site (`Origin`), and asks before it sends JSON, so that any other content
    type is refused.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or read its whole body and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        app: ASGIApp | None = self._refusal(scope["path"], headers) or _cross_site(scope["method"], headers)
        if app is None:
            try:
                async with asyncio.timeout(_BODY_TIMEOUT):
                    receive = _replay(await _read(receive), receive)
                app = self._app
            except ClientDisconnect:
                return
            except TimeoutError:
                app = _error(408, "the body did not arrive in time")
            except _TooLarge:
                app = _error(413, f"the body has more than {REQUEST_BYTES} bytes")
        await app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        if path not in _OPEN_PATHS:
            if self._expected is None:
                if not _is_loopback_name(headers.get("host", "")):
                    return _error(403, "without API_TOKEN, only requests to localhost are served")
            elif not hmac.compare_digest(headers.get("authorization", "").encode("latin-1"), self._expected):
                return _error(401, "send the header authorization: Bearer <API_TOKEN>", {"www-authenticate": "Bearer"})
        return None


def _cross_site(method: str, headers: Headers) -> JSONResponse | None:
    if method in _SAFE:
        return None
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        return _error(403, "requests from other sites' pages are refused")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return None if kind == "application/json" else _error(400, WANTED)


def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > REQUEST_BYTES:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)
