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
from urllib.parse import parse_qsl, urlencode

import structlog
from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.datastructures import ImmutableMultiDict, QueryParams
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from consumer.api.guard import REQUEST_BYTES, TooLarge, read_body, site_of
from consumer.api.problems import RequestRefused
from consumer.api.tokens import ANYONE, Caller, Scope, TokenFile
from consumer.console.front import Entrance, Headers, Static, text_page
from consumer.console.rendering import environment
from consumer.console.session import (
    COOKIE,
    LIFETIME,
    NONCE,
    ConsoleSession,
    SignOuts,
    Throttle,
    cookie_of,
    opened,
    sealed,
    session_of,
)
from consumer.errors import Conflict, InvalidSubscription, NotFound, SettingsError, WebhooksError

log = structlog.get_logger(__name__)

BASE = "/console"
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


Page = Callable[[Visit], Response]


class Refusal(WebhooksError):
    """The page cannot be shown or the form not accepted; the text tells the visitor why."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class PageRoute(NamedTuple):
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
        sign_outs: SignOuts,
        clock: Callable[[], float] = time.time,
        **names: object,
    ) -> None:
        self._tokens = tokens
        self._said = said
        self._sign_outs = sign_outs
        self._throttle = Throttle()
        self._clock = clock
        self._local = secrets.token_bytes(32)  # signs the sessions of visitors without a token
        self._templates: Environment = environment(BASE, clock, pages=PAGES, **names)

    def app(self, pages: Iterable[PageRoute], more: Iterable[Route] = ()) -> ASGIApp:
        """All pages, with signing in and out and the static files, and `more` routes with checks of their own."""
        app = Starlette(
            routes=[
                Route("/sign-in", self._sign_in_page, methods=["GET"]),
                Route("/sign-in", self._sign_in, methods=["POST"]),
                Route("/sign-out", self._sign_out, methods=["POST"]),
                Mount("/static", Static()),
                *more,
                *(
                    Route(each.path, partial(self._show, each), methods=["POST" if each.post else "GET"])
                    for each in pages
                ),
            ],
            exception_handlers={HTTPStatus.NOT_FOUND: self._not_found, HTTPStatus.METHOD_NOT_ALLOWED: self._not_found},
            middleware=[Middleware(Entrance, self._tokens)],
        )
        return Headers(app)  # outside of Starlette's own middleware, which answers unexpected errors

    def session(self, request: Request) -> ConsoleSession | None:
        """The visitor's session, unless its token is gone; `ended` says more."""
        return session_of(request.cookies.get(COOKIE, ""), self._callers(), self._clock())

    async def ended(self, request: Request, session: ConsoleSession) -> bool:
        """Whether the visitor has signed out, in any process. While the database does not say, pages are shown."""
        if not self._tokens.required:  # nobody signs in or out
            return False
        try:
            return await run_in_threadpool(self._sign_outs.have, session, self._clock())
        except (WebhooksError, SQLAlchemyError):
            if request.method == "POST":
                raise
            return False

    def _callers(self) -> Mapping[bytes, Caller]:
        return self._tokens.all() if self._tokens.required else {self._local: ANYONE}

    async def _show(self, route: PageRoute, request: Request) -> Response:
        session = self.session(request)
        if session is None:
            return self._without_session(request)
        try:
            if await self.ended(request, session):
                return self._without_session(request)
            _check(session.caller, route.scope)
            told = None if route.post else opened(session, request.cookies.get(TOLD, ""))
            visit = Visit(
                session.caller,
                request.path_params,
                request.query_params,
                await self._form(request, session) if route.post else Form(),
                partial(self._render, request, session),
                told or {},
                partial(self._tell, request, session),
            )
            answer = await run_in_threadpool(route.page, visit)
        except (WebhooksError, RequestRefused, SQLAlchemyError) as error:
            return self._error(request, session, *_answered(request, error))
        if told is not None:
            answer.delete_cookie(TOLD, path=request.url.path)
        return answer

    async def _form(self, request: Request, session: ConsoleSession) -> Form:
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

    def _tell(self, request: Request, session: ConsoleSession, path: str, told: Mapping[str, object]) -> Response:
        answer = to(path)
        self._keep(request, answer, TOLD, sealed(session, told), 60, f"{BASE}{path}")
        return answer

    async def _sign_in(self, request: Request) -> Response:
        if _is_foreign(request):  # else another site could sign a visitor in with its own token
            return self._sign_in_form("/")
        try:
            form = await _form_of(request)
        except Refusal as refusal:
            return text_page(str(refusal), refusal.status)
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
        self._begin(request, answer, digest)
        return answer

    async def _sign_out(self, request: Request) -> Response:
        session = self.session(request)
        if session is not None:
            try:
                await self._form(request, session)
                await run_in_threadpool(self._sign_outs.note, session, self._clock())
            except Refusal as refusal:
                return self._error(request, session, refusal.status, str(refusal))
            except (WebhooksError, SQLAlchemyError):
                log.exception("a session cannot be ended")
                text = "You are still signed in: the database cannot note that you leave. Try again."
                return self._error(request, session, HTTPStatus.SERVICE_UNAVAILABLE, text)
        answer = to("/sign-in")
        answer.delete_cookie(COOKIE, path=BASE)
        return answer

    def _begin(self, request: Request, answer: Response, digest: bytes) -> None:
        cookie = cookie_of(digest, self._clock(), secrets.token_bytes(NONCE))
        self._keep(request, answer, COOKIE, cookie, LIFETIME, BASE)

    def _keep(self, request: Request, answer: Response, name: str, cookie: str, seconds: int, path: str) -> None:
        """Set a cookie that scripts and other sites do not get."""
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(name, cookie, max_age=seconds, path=path, secure=secure, httponly=True, samesite="strict")

    def _sign_in_form(self, wanted: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
        return text_page(self._templates.get_template("sign_in.html").render(next=wanted, status=status), status)

    def _render(
        self, request: Request, session: ConsoleSession, name: str, status: HTTPStatus = HTTPStatus.OK, **values: object
    ) -> Response:
        return text_page(self.fragment(request, session, name, **values), status)

    def fragment(self, request: Request, session: ConsoleSession, name: str, **values: object) -> str:
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

    def _error(self, request: Request, session: ConsoleSession, status: HTTPStatus, text: str) -> Response:
        kind = "bad" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "warn"
        return self._render(request, session, "error.html", status, title=status.phrase, text=text, kind=kind)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        session = self.session(request)
        if session is None or await self.ended(request, session):
            return self._without_session(request)
        return self._error(request, session, HTTPStatus.NOT_FOUND, "There is no such page.")


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


def _answered(request: Request, error: Exception) -> tuple[HTTPStatus, str]:
    """The status and the text of the page that reports an error, which is logged if it is ours."""
    text = str(error) if isinstance(error, WebhooksError | RequestRefused) else "the database has refused the statement"
    text = f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
    match error:
        case Refusal():
            return error.status, text
        case RequestRefused():
            return HTTPStatus(error.status), text
        case NotFound():
            return HTTPStatus.NOT_FOUND, text
        case Conflict() | InvalidSubscription() | SettingsError():
            return HTTPStatus.CONFLICT, text
    log.error("a page cannot be shown", path=request.url.path, exc_info=error)
    return HTTPStatus.SERVICE_UNAVAILABLE, text


def _check(caller: Caller, scope: Scope) -> None:
    if scope not in caller.scopes:
        raise Refusal(HTTPStatus.FORBIDDEN, f"Your token has no scope {scope}.")


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
