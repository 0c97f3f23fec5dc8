"""Around all pages: the headers of every answer, the host's name, and the static files."""

from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from consumer.api.guard import is_loopback_name
from consumer.api.tokens import TokenFile
from consumer.console.rendering import STATIC, static_names

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}


def text_page(text: str, status: HTTPStatus) -> Response:
    """A page of this text."""
    return HTMLResponse(text, status)


class Static(StaticFiles):
    """The static files, under names that change with their content."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        self._files = {name: file for file, name in static_names().items()}

    async def get_response(self, path: str, scope: AsgiScope) -> Response:
        answer = await super().get_response(self._files.get(path, "absent"), scope)
        answer.headers["cache-control"] = "public, max-age=31536000, immutable"
        return answer


class Headers:
    """ASGI middleware: every answer carries HEADERS, unless it has its own. 408 closes the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] == HTTPStatus.REQUEST_TIMEOUT:
                    headers["connection"] = "close"  # else the rest of the form could keep it open
            await send(message)

        await self._app(scope, receive, with_headers)


class Entrance:
    """ASGI middleware: without tokens, refuses each request whose Host is not this machine.

    Otherwise a web page could read the console through a host name of its own that resolves to 127.0.0.1 (DNS
    rebinding).
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] != "http" or self._tokens.required or is_loopback_name(Request(scope).headers.get("host", "")):
            await self._app(scope, receive, send)
        else:
            refusal = text_page("Without API_TOKEN, only requests to localhost are served.", HTTPStatus.FORBIDDEN)
            await refusal(scope, receive, send)
