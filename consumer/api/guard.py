"""What a request must pass before the application sees it: the token, or a loopback name; a bounded body."""

import asyncio
import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_BYTES = 64 * 1024  # of a request's body; a registration has at most 2.5 kB
_BODY_TIMEOUT = 10.0  # seconds for all of it
WANTED = (
    'send a JSON object {"url": …, "eventType": …}, perhaps with "ownSecret": true, with content-type: application/json'
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1: they change nothing
_OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})  # they tell nothing that is not public


class _TooLarge(Exception):
    pass


class Guard:
    """ASGI middleware. Answers 400, 401, 403, 408 and 413 itself, before anything of the body is looked at.

    Without a token the Host must be a loopback name: else a web page could have a browser on this machine register
    webhooks through a name of its own that resolves to 127.0.0.1 (DNS rebinding). Nor may another site's page have it
    post: a browser says whose page it is (`Origin`), and asks before it sends JSON, so that other content is refused.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its whole body read, or refuse it."""
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
        return _error(403, "requests of other sites' pages are not served")
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
