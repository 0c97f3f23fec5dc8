"""The console's frame: access to pages, and checks of forms.

Each page is a function from a `Visit` to an answer. It runs in a thread, since it queries the database or Kafka.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from math import ceil
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import structlog
from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.datastructures import ImmutableMultiDict, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from consumer.api.guard import REQUEST_BYTES, TooLarge, is_foreign, is_loopback_name, read_body
from consumer.api.problems import Code, RequestRefused, problem_of
from consumer.api.tokens import ANYONE, SCOPES, Caller, Scope, TokenFile
from consumer.console.rendering import STATIC, environment, static_names, whole
from consumer.console.session import (
    COOKIE,
    LIFETIME,
    ConsoleSession,
    SignOuts,
    Throttle,
    cookie_of,
    opened,
    sealed,
    session_of,
)
from consumer.database.engine import unavailable
from consumer.errors import Unavailable, WebhooksError
from consumer.http.urls import without_addresses

log = structlog.get_logger(__name__)

BASE = "/console"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
}
TOLD = "kafka-webhooks-told"  # the cookie in which a form tells the next page something
FORM_FIELDS = 500  # of one form: more than a page of deliveries needs
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
OF_TENANT = {"/", "/subscriptions", "/events", "/deliveries", "/replays"}  # the others are about all tenants


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
    told: Mapping[str, Any]  # what the form before has told this page
    tell: Callable[..., Response]  # a path and short values, for the page there: redirects the visitor

    def selected(self) -> list[int]:
        """The ids in the form, sorted. RequestRefused if there is none."""
        ids = {number for text in self.form.getlist("id") if (number := whole(text)) is not None}
        if not ids:
            raise RequestRefused(Code.BAD_REQUEST, "Select some of them first.")
        return sorted(ids)

    def back(self, home: str, said: Said) -> Response:
        """Redirect the visitor to the page of a form, with its filters, or to `home`; `said` is shown there."""
        path = self.form.get("back", home)
        return self.tell(path if path.startswith(home) else home, {"said": [*said]})


class PageRoute(NamedTuple):
    """A page at `path` below the console, and the scope that it needs. Forms are `post`.

    `page` makes the answer of a Visit; in ROUTES of a module it gets the Backing before.
    """

    path: str
    page: Callable[..., Response]
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
        sign_outs: SignOuts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._said = said
        self._sign_outs = sign_outs
        self._throttle = Throttle()
        self._clock = clock
        digest = secrets.token_bytes(32)
        self._local = session_of(cookie_of(digest, 0), {digest: ANYONE}, 0)  # of all visitors, if there are no tokens
        self._templates: Environment = environment(BASE, clock)

    def app(self, pages: Iterable[PageRoute]) -> ASGIApp:
        """All pages, with signing in and out and the static files."""
        app = Starlette(
            routes=[
                Route("/sign-in", self._sign_in_page, methods=["GET"]),
                Route("/sign-in", self._sign_in, methods=["POST"]),
                Route("/sign-out", self._sign_out, methods=["POST"]),
                Mount("/static", Static(directory=STATIC)),
                *(
                    Route(each.path, partial(self._show, each), methods=["POST" if each.post else "GET"])
                    for each in pages
                ),
            ],
            exception_handlers={HTTPStatus.NOT_FOUND: self._not_found, HTTPStatus.METHOD_NOT_ALLOWED: self._not_found},
        )
        return Entrance(app, self._tokens)  # outside of Starlette's own middleware, which answers unexpected errors

    def _session(self, request: Request) -> ConsoleSession | None:
        """The visitor's session, unless its token is gone; `_ended` says more."""
        if not self._tokens.required:
            return self._local
        return session_of(request.cookies.get(COOKIE, ""), self._tokens.all(), self._clock())

    async def _ended(self, request: Request, session: ConsoleSession) -> bool:
        """Whether the visitor has signed out, in any process. While the database does not say, pages are shown."""
        if not self._tokens.required:  # nobody signs in or out
            return False
        try:
            return await run_in_threadpool(self._sign_outs.have, session, self._clock())
        except (WebhooksError, SQLAlchemyError):
            if request.method == "POST":
                raise
            return False

    async def _show(self, route: PageRoute, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            return self._without_session(request)
        try:
            if await self._ended(request, session):
                return self._without_session(request)
            if route.scope not in session.caller.scopes:
                return self._error(request, session, HTTPStatus.FORBIDDEN, f"Your token has no scope {route.scope}.")
            told = None if route.post else opened(session, request.cookies.get(TOLD, ""))
            request.state.told = told or {}
            visit = Visit(
                session.caller,
                request.path_params,
                request.query_params,
                await self._form(request, session) if route.post else Form(),
                partial(self._render, request, session),
                request.state.told,
                partial(self._tell, request, session),
            )
            answer = await run_in_threadpool(route.page, visit)
        except (WebhooksError, RequestRefused, SQLAlchemyError) as error:
            return self._error(request, session, *_answered(session.caller, error))
        if told is not None:
            answer.delete_cookie(TOLD, path=request.url.path)
        return answer

    async def _form(self, request: Request, session: ConsoleSession) -> Form:
        """The form of a request from a page of the console. Raises RequestRefused for any other."""
        if is_foreign(request.headers):
            raise RequestRefused(Code.UNTRUSTED_ORIGIN, "The form comes from another site.")
        form = await _form_of(request)
        if not session.made(str(form.get("form_token", ""))):
            why = "The form is of an earlier session: go back, reload the page, try again."
            raise RequestRefused(Code.UNTRUSTED_ORIGIN, why)
        return form

    def _without_session(self, request: Request) -> Response:
        if "hx-request" in request.headers:  # of a part of a page: the whole page has to go to the sign-in
            return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"hx-refresh": "true"})
        wanted = "/"
        if request.method == "GET":
            wanted = request.url.path.removeprefix(BASE) + (f"?{request.url.query}" if request.url.query else "")
        return to("/sign-in", next=wanted)

    async def _sign_in_page(self, request: Request) -> Response:
        if not self._tokens.required:
            return to("/")
        return self._sign_in_form(request.query_params.get("next", "/"))

    def _tell(self, request: Request, session: ConsoleSession, path: str, told: Mapping[str, object]) -> Response:
        answer = to(path)
        self._keep(request, answer, TOLD, sealed(session, told), 60, BASE + quote(path.partition("?")[0]))
        return answer

    async def _sign_in(self, request: Request) -> Response:
        if is_foreign(request.headers):  # else another site could sign a visitor in with its own token
            return self._sign_in_form("/")
        try:
            form = await _form_of(request)
        except RequestRefused as refusal:
            return HTMLResponse(str(refusal), refusal.status)
        wanted, address = str(form.get("next", "/")), request.client.host if request.client else ""
        if (wait := self._throttle.wait(address, self._clock())) > 0:
            answer = self._sign_in_form(wanted, HTTPStatus.TOO_MANY_REQUESTS)
            answer.headers["retry-after"] = str(ceil(wait))
            return answer
        digest = _digest(str(form.get("token", "")).strip())
        if digest not in self._tokens.all():
            self._throttle.wrong(address, self._clock())
            log.warning("a sign-in was refused", client=address)
            return self._sign_in_form(wanted, HTTPStatus.UNAUTHORIZED)
        answer = to(wanted if wanted.startswith("/") and not wanted.startswith("//") else "/")
        cookie = cookie_of(digest, self._clock())
        self._keep(request, answer, COOKIE, cookie, LIFETIME, BASE)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        session = self._session(request)
        if session is not None:
            try:
                await self._form(request, session)
                await run_in_threadpool(self._sign_outs.note, session, self._clock())
            except RequestRefused as refusal:
                return self._error(request, session, HTTPStatus(refusal.status), str(refusal))
            except (WebhooksError, SQLAlchemyError):
                log.exception("a session cannot be ended")
                text = "You are still signed in: the database cannot note that you leave. Try again."
                return self._error(request, session, HTTPStatus.SERVICE_UNAVAILABLE, text)
        answer = to("/sign-in")
        answer.delete_cookie(COOKIE, path=BASE)
        return answer

    def _keep(self, request: Request, answer: Response, name: str, cookie: str, seconds: int, path: str) -> None:
        """Set a cookie that scripts and other sites do not get."""
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(name, cookie, max_age=seconds, path=path, secure=secure, httponly=True, samesite="strict")

    def _sign_in_form(self, wanted: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
        page = self._templates.get_template("sign_in.html")
        return HTMLResponse(page.render(next=wanted, status=status), status)

    def _render(
        self, request: Request, session: ConsoleSession, name: str, status: HTTPStatus = HTTPStatus.OK, **values: object
    ) -> Response:
        caller, told = session.caller, getattr(request.state, "told", {})
        here = request.url.path.removeprefix(BASE)
        text = self._templates.get_template(name).render(
            {
                "here": next((path for path, _ in reversed(PAGES) if here == path or here.startswith(f"{path}/")), ""),
                "session": caller,
                "pages": [each for each in PAGES if caller.tenant is None or each[0] in OF_TENANT],
                "signed_in": self._tokens.required,
                "may": {scope: scope in caller.scopes for scope in SCOPES},
                "said": Said(*told["said"]) if "said" in told else self._said.get(request.query_params.get("said", "")),
                "told": told,
                "back": f"{here}?{urlencode([each for each in request.query_params.multi_items() if each[0] != 'said'])}",  # noqa: E501
                "csrf": partial(_form_token, session.form_token),
                **values,
            }
        )
        return HTMLResponse(text, status)

    def _error(self, request: Request, session: ConsoleSession, status: HTTPStatus, text: str) -> Response:
        kind = "bad" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "warn"
        return self._render(request, session, "error.html", status, title=status.phrase, text=text, kind=kind)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        session = self._session(request)
        if session is None or await self._ended(request, session):
            return self._without_session(request)
        return self._error(request, session, HTTPStatus.NOT_FOUND, "There is no such page.")


async def _form_of(request: Request) -> Form:
    """The fields of a form, which has no files. RequestRefused if it is too large, too slow, or not a form."""
    try:
        body = await read_body(request.receive)
        return Form(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS))
    except TooLarge:
        raise RequestRefused(Code.TOO_LARGE, f"The form has more than {REQUEST_BYTES} bytes.") from None
    except TimeoutError:
        raise RequestRefused(Code.TOO_SLOW, "The form did not arrive in time: send it again.") from None
    except (ClientDisconnect, ValueError):
        raise RequestRefused(Code.BAD_REQUEST, "The form cannot be read.") from None


def reason_for(caller: Caller, error: Exception, problem: RequestRefused | None = None) -> str:
    """The text of an error, for a page. A tenant is not told where Kafka and other systems are."""
    problem = problem or problem_of(error, caller)
    known = (unavailable(error) or error) if isinstance(error, SQLAlchemyError) else error
    if caller.tenant is not None and isinstance(known, Unavailable):
        return f"{problem}; try again in a moment"
    text = "the database has refused the statement" if isinstance(known, SQLAlchemyError) else str(known)
    return text if caller.tenant is None else without_addresses(text)


def _answered(caller: Caller, error: Exception) -> tuple[HTTPStatus, str]:
    """The status and the text of the page that reports an error."""
    problem = problem_of(error, caller)
    text = reason_for(caller, error, problem)
    text = f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
    return HTTPStatus(problem.status), text


def _form_token(token: str) -> Markup:
    return Markup('<input type="hidden" name="form_token" value="{}">').format(token)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()


class Static(StaticFiles):
    """The static files. Browsers keep those that pages of this process name; another release has other ones."""

    async def get_response(self, path: str, scope: AsgiScope) -> Response:
        answer = await super().get_response(path, scope)
        is_ours = static_names().get(path) == f"{path}?{scope['query_string'].decode('ascii', 'replace')}"
        answer.headers["cache-control"] = "public, max-age=31536000, immutable" if is_ours else "no-cache"
        return answer


class Entrance:
    """ASGI middleware: every answer carries HEADERS. Without tokens, the Host has to be this machine.

    Otherwise a web page could read the console through a host name of its own that resolves to 127.0.0.1 (DNS
    rebinding).
    """

    def __init__(self, app: ASGIApp, tokens: TokenFile) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if message["status"] == HTTPStatus.REQUEST_TIMEOUT:
                    headers["connection"] = "close"  # else the rest of the form could keep it open
            await send(message)

        app = self._app
        if not self._tokens.required and not is_loopback_name(Request(scope).headers.get("host", "")):
            app = HTMLResponse("Without API_TOKEN, only requests to localhost are served.", HTTPStatus.FORBIDDEN)
        await app(scope, receive, with_headers)
