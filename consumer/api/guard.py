"""Checks each request before the application sees it: the token or a loopback name, and the size of the body.

The routes of /v1 check the token's scope in `context`, and its tenant in `backing` and `ops.changes`.
"""

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumer.api import problems
from consumer.api.problems import PREFIX, Code, RequestRefused
from consumer.api.tokens import ANYONE, STRANGER, Caller, TokenFile

REQUEST_BYTES = 64 * 1024  # the largest body of a request or form; a registration has at most 2.5 kB
BODY_TIMEOUT = 10.0  # seconds for the whole body
WANTED = (
    'send a JSON object {"url": …, "eventType": …}, perhaps with "ownSecret": true, with content-type: application/json'
)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 section 9.2.1: they change nothing
_OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})  # they reveal only public information
_KEYS = f"{PREFIX}/jwks"  # a STRANGER may read it; its route decides what
_JSON = frozenset({"application/json"})
_PATCHES = _JSON | {"application/merge-patch+json"}
TOKEN = HTTPBearer(auto_error=False)  # for /openapi.json; the guard has checked the token before


class TooLarge(Exception):
    """A body has more than REQUEST_BYTES."""


class Guard:
    """ASGI middleware. Answers 400, 401, 403, 408, 413 and 415 itself, before the body is parsed.

    The application finds the `Caller` in the request's state. Paths outside /v1 accept only tokens of all tenants.

    Without a token the Host must be a loopback name: else a web page could make a browser on this machine register
    webhooks through a host name of its own that resolves to 127.0.0.1 (DNS rebinding). Posts from other sites' pages
    are refused: the browser states the page's site (`Origin`). Any content type but JSON is refused too, because a
    browser sends JSON to another site only after a preflight request.
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or read its whole body and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        if method == "HEAD":  # FastAPI knows none; the server leaves the body of an answer to it out
            scope = {**scope, "method": "GET"}
        app: ASGIApp = self._app
        try:
            caller = None if path in _OPEN_PATHS else self._caller(path, method, headers)
            _check_site(path, method, headers)
            receive = _replay(await read_body(receive), receive)
            scope["state"] = {**scope.get("state", {}), "caller": caller}
        except ClientDisconnect:
            return
        except TimeoutError:
            why = "the body did not arrive in time"  # its rest could keep the connection open
            app = _answer(path, RequestRefused(Code.TOO_SLOW, why, headers={"connection": "close"}))
        except TooLarge:
            app = _answer(path, RequestRefused(Code.TOO_LARGE, f"the body has more than {REQUEST_BYTES} bytes"))
        except RequestRefused as refused:
            app = _answer(path, refused)
        await app(scope, receive, send)

    def _caller(self, path: str, method: str, headers: Headers) -> Caller:
        if not self._tokens.required:
            if not is_loopback_name(headers.get("host", "")):
                raise RequestRefused(Code.UNTRUSTED_ORIGIN, "without API_TOKEN, only requests to localhost are served")
            return ANYONE
        sent = headers.getlist("authorization")
        if not sent and path == _KEYS and method in _SAFE:
            return STRANGER
        scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        caller = self._tokens.find(token.encode("latin-1")) if scheme.lower() == "bearer" else None
        if caller is None:
            raise unauthorized()
        if not problems.concerns(path):
            needed = "read" if method in _SAFE else "write"
            if caller.tenant is not None or needed not in caller.scopes:
                why = f"this path needs a token of all tenants with the scope {needed}; see /v1"
                raise RequestRefused(Code.SCOPE, why)
        return caller


def unauthorized() -> RequestRefused:
    """The problem of a request without a valid token."""
    why = "send the header authorization: Bearer <API_TOKEN>, once"
    return RequestRefused(Code.UNAUTHORIZED, why, headers={"www-authenticate": "Bearer"})


def _check_site(path: str, method: str, headers: Headers) -> None:
    """Raise RequestRefused for a request that a page of another site could have made."""
    if method in _SAFE:
        return
    if is_foreign(headers):
        raise RequestRefused(Code.UNTRUSTED_ORIGIN, "requests from other sites' pages are refused")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not problems.concerns(path):
        if kind not in _JSON:
            raise RequestRefused(Code.BAD_REQUEST, WANTED)
    elif kind not in _PATCHES if method == "PATCH" else method == "POST" and kind not in _JSON:
        why = "send content-type: application/json, and {} as an empty body"
        raise RequestRefused(Code.UNSUPPORTED_MEDIA_TYPE, why)


def is_foreign(headers: Headers) -> bool:
    """Whether the browser reports that a page of another site has made the request."""
    site, origin = headers.get("sec-fetch-site", "none"), headers.get("origin")
    try:
        place = None if origin is None else urlsplit(origin).netloc
    except ValueError:
        return True
    return site not in {"same-origin", "none"} or place not in {None, headers.get("host")}


def _answer(path: str, refused: RequestRefused) -> JSONResponse:
    if problems.concerns(path):
        return problems.document(refused)
    return JSONResponse({"error": str(refused)}, refused.status, refused.headers)


def is_loopback_name(host: str) -> bool:
    """Whether the header `Host` names this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request. Raises TooLarge, TimeoutError after BODY_TIMEOUT, and ClientDisconnect."""
    body = bytearray()
    async with asyncio.timeout(BODY_TIMEOUT):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > REQUEST_BYTES:
                raise TooLarge
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
