"""The console's frame: access to pages, checks of forms, and the headers of every answer.

Each page is a function from a `Visit` to an answer. It runs in a thread, since it queries the database or Kafka.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

import structlog
from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.datastructures import ImmutableMultiDict, MutableHeaders, QueryParams
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from consumer.api.guard import REQUEST_BYTES, TooLarge, is_loopback_name, read_body, site_of
from consumer.api.tokens import ANYONE, Caller, Scope, TokenFile
from consumer.console.rendering import STATIC, environment, static_names
from consumer.console.session import COOKIE, LIFETIME, NONCE, Session, cookie_of, session_of
from consumer.errors import InvalidSubscription, SettingsError, WebhooksError

log = structlog.get_logger(__name__)

BASE = "/console"
FORM_FIELDS = 500  # of one form: more than a page of deliveries needs
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}
PAGES = (
    ("/", "Overview"),
    ("/subscriptions", "Subscriptions"),
    ("/events", "Events"),
    ("/deliveries", "Deliveries"),
    ("/types", "Event types"),
    ("/dead-letters", "Dead letters"),
    ("/replays", "Replays"),
    ("/audit", "Audit"),
)


Form = ImmutableMultiDict[str, str]


class Said(NamedTuple):
    """The message about a form's effect, for the page that is shown next; `kind` is good, warn or bad."""

    text: str
    kind: str = "good"
    more: str = ""


class Visit(NamedTuple):
    """An authorised request to a page."""

    caller: Caller
    path: Mapping[str, str]
    query: QueryParams
    form: Form
    render: Callable[..., Response]  # of a template's name, and its values


Page = Callable[[Visit], Response]


class Refusal(WebhooksError):
    """The page cannot be shown or the form not accepted; the text tells the visitor why."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Entry(NamedTuple):
    """A page at `path` below the console, and the scope that it needs. Forms are `post`."""

    path: str
    page: Page
    scope: Scope = "read"
    post: bool = False


def to(path: str, said: str = "", **query: str) -> Response:
    """Redirect the visitor to a page; `said` names one of SAID."""
    asked = {**query, **({"said": said} if said else {})}
    return RedirectResponse(f"{BASE}{path}{'?' + urlencode(asked) if asked else ''}", HTTPStatus.SEE_OTHER)


class _Number(IntegerConvertor):
    """A number in a path that a row may have: below 2^63. Other text is no path."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", _Number())


class Frame:
    """Lets visitors in and shows them pages. Without tokens, every visitor from this machine may do everything."""

    def __init__(
        self,
        tokens: TokenFile,
        said: Mapping[str, Said],
        clock: Callable[[], float] = time.time,
        **names: object,
    ) -> None:
        self._tokens = tokens
        self._said = said
        self._clock = clock
        self._local = secrets.token_bytes(32)  # signs the sessions of visitors without a token
        self._templates: Environment = environment(BASE, clock, pages=PAGES, **names)

    def app(self, entries: Iterable[Entry], more: Iterable[Route] = ()) -> ASGIApp:
        """All pages, with signing in and out and the static files, and `more` routes with checks of their own."""
        app = Starlette(
            routes=[
                Route("/sign-in", self._sign_in_page, methods=["GET"]),
                Route("/sign-in", self._sign_in, methods=["POST"]),
                Route("/sign-out", self._sign_out, methods=["POST"]),
                Mount("/static", _Static()),
                *more,
                *(
                    Route(each.path, partial(self._show, each), methods=["POST" if each.post else "GET"])
                    for each in entries
                ),
            ],
            exception_handlers={HTTPStatus.NOT_FOUND: self._not_found, HTTPStatus.METHOD_NOT_ALLOWED: self._not_found},
            middleware=[Middleware(Entrance, self._tokens)],
        )
        return Headers(app)  # outside of Starlette's own middleware, which answers unexpected errors

    def session(self, request: Request) -> Session | None:
        """The visitor's session."""
        return session_of(request.cookies.get(COOKIE, ""), self._callers(), self._clock())

    def _callers(self) -> Mapping[bytes, Caller]:
        return self._tokens.all() if self._tokens.required else {self._local: ANYONE}

    async def _show(self, entry: Entry, request: Request) -> Response:
        session = self.session(request)
        if session is None:
            return self._without_session(request)
        try:
            _check(session.caller, entry.scope)
            form = await self._form(request, session) if entry.post else Form()
            visit = Visit(
                session.caller, request.path_params, request.query_params, form, partial(self._render, request, session)
            )
            return await run_in_threadpool(entry.page, visit)
        except Refusal as refusal:
            return self._error(request, session, refusal.status, str(refusal))
        except (InvalidSubscription, SettingsError) as error:
            return self._error(request, session, HTTPStatus.CONFLICT, str(error))
        except (WebhooksError, SQLAlchemyError) as error:
            log.exception("a page cannot be shown", path=request.url.path)
            text = str(error) if isinstance(error, WebhooksError) else "The database has refused the statement."
            return self._error(request, session, HTTPStatus.SERVICE_UNAVAILABLE, text)

    async def _form(self, request: Request, session: Session) -> Form:
        """The form of a request from a page of the console. Raises Refusal for any other."""
        if _is_foreign(request):
            raise Refusal(HTTPStatus.FORBIDDEN, "The form comes from another site.")
        form = await _form_of(request)
        if not secrets.compare_digest(str(form.get("form_token", "")).encode(), session.form_token.encode()):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "The form is of an earlier session: go back, reload the page, try again."
            )
        return form

    def _without_session(self, request: Request) -> Response:
        wanted = "/"
        if request.method == "GET":
            wanted = request.url.path.removeprefix(BASE) + (f"?{request.url.query}" if request.url.query else "")
        if self._tokens.required:
            return to("/sign-in", next=wanted)
        answer = to(wanted)
        self._begin(request, answer, self._local)
        return answer

    async def _sign_in_page(self, request: Request) -> Response:
        if not self._tokens.required:
            return to("/")
        return self._sign_in_form(request.query_params.get("next", "/"))

    async def _sign_in(self, request: Request) -> Response:
        if _is_foreign(request):  # else another site could sign a visitor in with its own token
            return self._sign_in_form("/")
        try:
            form = await _form_of(request)
        except Refusal as refusal:
            return _page(str(refusal), refusal.status)
        wanted = str(form.get("next", "/"))
        digest = _digest(str(form.get("token", "")).strip())
        if digest not in self._tokens.all():
            log.warning("a sign-in was refused", client=request.client.host if request.client else None)
            return self._sign_in_form(wanted, wrong=True)
        answer = to(wanted if wanted.startswith("/") and not wanted.startswith("//") else "/")
        self._begin(request, answer, digest)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        session = self.session(request)
        if session is not None:
            try:
                await self._form(request, session)
            except Refusal as refusal:
                return self._error(request, session, refusal.status, str(refusal))
        answer = to("/sign-in")
        answer.delete_cookie(COOKIE, path=BASE)
        return answer

    def _begin(self, request: Request, answer: Response, digest: bytes) -> None:
        cookie = cookie_of(digest, self._clock(), secrets.token_bytes(NONCE))
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, cookie, max_age=LIFETIME, path=BASE, secure=secure, httponly=True, samesite="strict")

    def _sign_in_form(self, wanted: str, *, wrong: bool = False) -> Response:
        status = HTTPStatus.UNAUTHORIZED if wrong else HTTPStatus.OK
        return _page(self._templates.get_template("sign_in.html").render(next=wanted, wrong=wrong), status)

    def _render(
        self, request: Request, session: Session, name: str, status: HTTPStatus = HTTPStatus.OK, **values: object
    ) -> Response:
        return _page(self.fragment(request, session, name, **values), status)

    def fragment(self, request: Request, session: Session, name: str, **values: object) -> str:
        """A template's text, for this visitor."""
        caller = session.caller
        here = request.url.path.removeprefix(BASE)
        return self._templates.get_template(name).render(
            {
                "here": next((path for path, _ in reversed(PAGES) if here == path or here.startswith(f"{path}/")), "/"),
                "session": caller,
                "signed_in": self._tokens.required,
                "may": {scope: scope in caller.scopes for scope in ("read", "write", "secrets")},
                "said": self._said.get(request.query_params.get("said", "")),
                "csrf": partial(_form_token, session.form_token),
                **values,
            }
        )

    def _error(self, request: Request, session: Session, status: HTTPStatus, text: str) -> Response:
        kind = "bad" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "warn"
        return self._render(request, session, "error.html", status, title=status.phrase, text=text, kind=kind)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        session = self.session(request)
        if session is None:
            return self._without_session(request)
        return self._error(request, session, HTTPStatus.NOT_FOUND, "There is no such page.")


class _Static(StaticFiles):
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
            refusal = _page("Without API_TOKEN, only requests to localhost are served.", HTTPStatus.FORBIDDEN)
            await refusal(scope, receive, send)


async def _form_of(request: Request) -> Form:
    """The fields of a form, which has no files. Raises Refusal if it is too large, too slow, or not a form."""
    try:
        body = await read_body(request.receive)
    except TooLarge:
        text = f"The form has more than {REQUEST_BYTES} bytes."
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text) from None
    except TimeoutError:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The form did not arrive in time: send it again.") from None
    except ClientDisconnect:
        raise Refusal(HTTPStatus.BAD_REQUEST, "The form was not sent to its end.") from None
    try:
        return Form(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from None


def _check(caller: Caller, scope: Scope) -> None:
    if scope not in caller.scopes:
        raise Refusal(HTTPStatus.FORBIDDEN, f"Your token has no scope {scope}.")


def _page(text: str, status: HTTPStatus) -> Response:
    return HTMLResponse(text, status)


def _form_token(token: str) -> Markup:
    return Markup('<input type="hidden" name="form_token" value="{}">').format(token)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()


def _is_foreign(request: Request) -> bool:
    """Whether the browser reports that a page of another site has sent the request."""
    site, origin = request.headers.get("sec-fetch-site", "same-origin"), request.headers.get("origin")
    return site not in {"same-origin", "none"} or (
        origin is not None and site_of(origin) != request.headers.get("host")
    )
