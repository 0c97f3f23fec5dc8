"""Pages are for signed-in visitors, and forms for those who were shown them."""

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import oracledb
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount
from structlog.testing import capture_logs

from consumer.api import guard
from consumer.api.problems import Code, RequestRefused
from consumer.api.tokens import Caller
from consumer.config.settings import KafkaSettings
from consumer.console.app import BASE, HEADERS, TOLD, Frame, PageRoute, Said, Visit, to
from consumer.console.rendering import static_names
from consumer.console.session import COOKIE, PAUSE, SignOuts
from consumer.errors import DatabaseUnavailable
from consumer.http.server import BackgroundServer, listen
from consumer.intake import log_reader
from consumer.ops import replay_request
from consumer.ops.attempts import AttemptHistory
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from tests.console.browser import Browser, form_token
from tests.console.tokens import Tokens
from tests.delivery.store_kit import rename
from tests.ledger.rows_kit import GROUP
from tests.waiting import eventually

TOKENS = {
    "all": Caller("all", frozenset({"read", "write", "secrets"})),
    "reader": Caller("reader", frozenset({"read"}), "acme"),
}
SAID = {"done": Said("It is done.")}


def shown(visit: Visit) -> Response:
    """A page with a title."""
    text = f"told: {visit.told['word']}" if visit.told else visit.path.get("id", "none")
    return visit.render("error.html", title="A page", text=text, kind="good")


def done(visit: Visit) -> Response:
    """A form with an effect."""
    return to("/page", "done", word=str(visit.form.get("word")))


def tells(visit: Visit) -> Response:
    """A form whose effect the next page shows."""
    return visit.tell(visit.form.get("to", "/page/5"), {"word": "sëcret"})


def refuses(_visit: Visit) -> Response:
    """A page that refuses."""
    raise RequestRefused(Code.NOT_FOUND, "There is no subscription 7.")


def fails(_visit: Visit) -> Response:
    """A page whose database is unreachable."""
    raise DatabaseUnavailable("no answer")


def down(_visit: Visit) -> Response:
    """A page whose database cannot be connected to."""
    raise OperationalError("SELECT 1", {}, oracledb.OperationalError("DPY-6005: cannot connect to database"))


def broken(_visit: Visit) -> Response:
    """A page with a bug."""
    raise ZeroDivisionError


ENTRIES = [
    PageRoute("/", shown),
    PageRoute("/page", shown),
    PageRoute("/page/{id:number}", shown),
    PageRoute("/do", done, "write", post=True),
    PageRoute("/tell", tells, "write", post=True),
    PageRoute("/refuses", refuses),
    PageRoute("/fails", fails),
    PageRoute("/broken", broken),
    PageRoute("/down", down),
]


Open = Callable[..., Browser]


@pytest.fixture
def browse(engine: Engine) -> Iterator[Open]:
    """Opens browsers, each of a process of its own with these tokens."""
    servers = []

    def browser_of(callers: dict[str, Caller], clock: Callable[[], float] = time.time) -> Browser:
        frame = Frame(Tokens(callers), SAID, SignOuts(engine), clock)
        app = Starlette(routes=[Mount(BASE, frame.app(ENTRIES))])
        servers.append(BackgroundServer(app, listen("127.0.0.1", 0), "console"))
        return Browser(servers[-1].port)

    yield browser_of
    for server in servers:
        server.close()


@pytest.fixture
def browser(browse: Open) -> Browser:
    """A browser of a console with tokens."""
    return browse(TOKENS)


@pytest.fixture
def local(browse: Open) -> Browser:
    """A browser of a console without tokens."""
    return browse({})


def sign_in(browser: Browser, token: str, **form: str) -> str:
    """Signs in and returns the page that follows."""
    return browser.post("/sign-in", data={"token": token, **form}).text


def test_signing_in_leads_to_the_requested_page(browser: Browser) -> None:
    """A token of the API signs in. The cookie is for this console only, hidden from scripts and other sites."""
    assert "Sign in" in browser.get("/page/5").text
    form = {"token": " all ", "next": "/page/5"}
    answer = browser.post("/sign-in", data=form, allow_redirects=False, headers={"x-forwarded-proto": "https"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BASE}/page/5")
    flags = answer.headers["set-cookie"].lower()
    assert all(flag in flags for flag in ("httponly", "samesite=strict", "secure", f"path={BASE}"))
    assert "A page" in browser.post("/sign-in", data=form).text


AWAY = KafkaSettings(bootstrap_servers="localhost:1", group_id=GROUP)


def test_a_tenant_does_not_see_where_kafka_is(
    engine: Engine, console: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it does not answer, neither the API nor a page names a broker, and the search says that it has ended."""
    monkeypatch.setattr(log_reader, "_TIMEOUT", 0.5)
    monkeypatch.setattr(replay_request, "SECONDS", 1.0)
    number = repository.add(engine, "https://example.com/", "order.*", tenant="acme")
    history = AttemptHistory(AWAY, "attempts")
    history.start()
    v1: tuple[tuple[str, str, dict[str, object] | None], ...] = (
        ("GET", "/events/orders/0/0", None),
        ("GET", "/search?q=order-4711", None),
        ("POST", "/subscriptions/backtest", {"event_type": "*"}),
        ("POST", "/replays", {"subscription_id": number, "since": "5m"}),
        ("GET", "/attempts?since=2026-12-01T00:00:00Z", None),
        ("GET", "/attempts", None),
        ("GET", f"/subscriptions/{number}/statistics", None),
        ("GET", "/statistics", None),
    )
    pages = (
        "/",
        f"/subscriptions/{number}",
        f"/subscriptions/{number}/statistics",
        "/events/orders/0/0",
        "/search/log?q=4711",
    )
    try:
        for token in ("acme", "all"):
            browser = console(token, kafka=AWAY, log=Log(AWAY, ["orders"]), history=history)
            eventually(lambda: history.fault)
            told = [browser.get(path).text for path in pages]
            browser.base = browser.base.replace(BASE, "/v1")
            headers = {"authorization": f"Bearer {token}"}
            told += [browser.request(method, path, json=body, headers=headers).text for method, path, body in v1]
            named = ["localhost" in text for text in told]
            assert any(named) == (token == "all"), list(zip((*pages, *v1), named, strict=True))
            assert "Searching" not in told[4]
            assert "Search again" in told[4]
    finally:
        history.close()


@pytest.mark.parametrize("token", ["wrong", "\udcff"])
def test_a_wrong_token_is_refused(browser: Browser, token: str) -> None:
    """The page gives the reason, and no session starts."""
    answer = browser.post("/sign-in", data={"token": token.encode(errors="surrogateescape")})
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert "No token matches" in answer.text
    assert COOKIE not in browser.cookies


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", ""])
def test_signing_in_never_leads_to_another_site(browser: Browser, wanted: str) -> None:
    """Targets on other sites are ignored."""
    answer = browser.post("/sign-in", data={"token": "all", "next": wanted}, allow_redirects=False)
    assert answer.headers["location"].startswith(f"{BASE}/")


def test_a_form_of_a_page_is_accepted(browser: Browser) -> None:
    """The next page reports the effect."""
    token = form_token(sign_in(browser, "all"))
    page = browser.post("/do", data={"form_token": token, "word": "x"})
    assert urlsplit(page.url).path == f"{BASE}/page"
    assert parse_qs(urlsplit(page.url).query)["word"] == ["x"]
    assert "It is done." in page.text


def test_a_form_without_its_token_is_refused(browser: Browser) -> None:
    """So is one with another's token, or that of an earlier session."""
    earlier = form_token(sign_in(browser, "all"))
    sign_in(browser, "all")
    for token in ({}, {"form_token": ""}, {"form_token": "x"}, {"form_token": earlier}):
        answer = browser.post("/do", data=token)
        assert answer.status_code == HTTPStatus.FORBIDDEN
        assert "earlier session" in answer.text


@pytest.mark.parametrize(
    "header", [{"origin": "https://evil.example"}, {"origin": "http://["}, {"sec-fetch-site": "cross-site"}]
)
def test_a_form_of_another_site_is_refused(browser: Browser, header: dict[str, str]) -> None:
    """This holds for any content, and for signing in: otherwise a visitor could be signed in as somebody else."""
    token = form_token(sign_in(browser, "all"))
    assert browser.post("/do", data={"form_token": token}, headers=header).status_code == HTTPStatus.FORBIDDEN
    browser.cookies.clear()
    browser.post("/sign-in", data={"token": "all"}, headers=header)
    assert COOKIE not in browser.cookies


def test_a_session_has_the_scopes_of_its_token(browser: Browser) -> None:
    """A token with the scope `read` can only read."""
    token = form_token(sign_in(browser, "reader"))
    answer = browser.post("/do", data={"form_token": token})
    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert "no scope write" in answer.text
    assert "tenant acme" in browser.get("/page").text


def test_a_form_that_never_ends_is_given_up(browser: Browser, local: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is free again, whether a session is needed or not."""
    monkeypatch.setattr(guard, "BODY_TIMEOUT", 0.2)
    for console, path in ((browser, "/sign-in"), (local, "/do")):
        port = urlsplit(console.base).port
        head = f"POST {BASE}{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port or 0), timeout=60) as connection:
            connection.sendall(head.encode())
            answer = b"".join(iter(partial(connection.recv, 65536), b""))  # up to the end: it is closed
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_signing_out_ends_the_session(browser: Browser, browse: Open) -> None:
    """It ends in this browser, and for whoever has its cookie, in each process; other sessions of the token go on."""
    token = form_token(sign_in(browser, "all"))
    thief, colleague = browse(TOKENS), browse(TOKENS)
    thief.cookies.update(browser.cookies)
    sign_in(colleague, "all")
    assert "A page" in thief.get("/page").text
    for _ in range(2):  # the second time without a session
        browser.post("/sign-out", data={"form_token": token})
    assert "Sign in" in browser.get("/page").text
    for path in ("/page", "/absent"):
        assert "Sign in" in thief.get(path).text
    assert "Sign in" in thief.post("/do", data={"form_token": token}).text
    assert "A page" in colleague.get("/page").text


def test_a_database_that_does_not_answer_ends_no_visit(browser: Browser, engine: Engine) -> None:
    """Pages are shown, to see what is wrong; no form is accepted, and no one seems to have signed out."""
    token = form_token(sign_in(browser, "all"))
    rename(engine, "webhook_request_keys", "away")
    assert "A page" in browser.get("/page").text
    with capture_logs():
        for path, text in (("/do", "run kafka-webhooks migrate"), ("/sign-out", "You are still signed in")):
            answer = browser.post(path, data={"form_token": token})
            assert (answer.status_code >= 500, text in answer.text) == (True, True)


def test_guessing_a_token_takes_long(browse: Open) -> None:
    """After a wrong token, no token of that address is looked at for a while; the page and a header say so."""
    now = [1_800_000_000.0]
    browser = browse(TOKENS, lambda: now[0])
    assert browser.post("/sign-in", data={"token": "wrong"}).status_code == HTTPStatus.UNAUTHORIZED
    refused = browser.post("/sign-in", data={"token": "all"})
    assert (refused.status_code, refused.headers["retry-after"]) == (HTTPStatus.TOO_MANY_REQUESTS, "3")
    assert "Wait some seconds" in refused.text
    other = browser.post("/sign-in", data={"token": "all"}, headers={"x-forwarded-for": "192.0.2.7"})
    assert "A page" in other.text
    browser.cookies.clear()
    now[0] += PAUSE
    assert "A page" in sign_in(browser, "all")


def test_a_form_tells_the_next_page_what_came_of_it(browser: Browser, browse: Open) -> None:
    """Once, and in any process: a page that is loaded again neither sends the form nor shows it again."""
    form = {"form_token": form_token(sign_in(browser, "all"))}
    answer = browser.post("/tell", data=form, allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (HTTPStatus.SEE_OTHER, f"{BASE}/page/5")
    flags = answer.headers["set-cookie"].lower()
    assert all(flag in flags for flag in ("httponly", "samesite=strict", f"path={BASE}/page/5"))
    elsewhere = browse(TOKENS)
    forged = {"form_token": form_token(sign_in(elsewhere, "all")), "to": "/page/5; domain=example.com"}
    assert "domain=" not in elsewhere.post("/tell", data=forged, allow_redirects=False).headers["set-cookie"].lower()
    other = browse(TOKENS)
    other.cookies.update(browser.cookies)
    assert "told: sëcret" in other.get("/page/5").text
    assert "told" not in other.get("/page/5").text
    stranger = browse(TOKENS)
    sign_in(stranger, "all")
    stranger.cookies.update({TOLD: browser.cookies[TOLD]})
    assert "told" not in stranger.get("/page/5").text


def test_without_tokens_forms_still_belong_to_their_page(local: Browser) -> None:
    """The first visit starts a session, whose form token another site does not have."""
    assert "Sign out" not in local.get("/page").text
    assert local.get("/sign-in").url == f"{local.base}/"
    assert local.post("/do", data={"word": "x"}).status_code == HTTPStatus.FORBIDDEN


def test_every_answer_keeps_scripts_and_frames_out(browser: Browser) -> None:
    """This holds for pages, errors, redirects and files; only files may be cached by browsers."""
    sign_in(browser, "all")
    file = f"/static/{static_names()['console.css']}"
    # The last one closes the connection.
    for path in ("/page", "/refuses", "/absent", file, "/static/absent", "/broken"):
        answer = browser.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert ("immutable" in answer.headers["cache-control"]) == (path == file)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/refuses", 404, "There is no subscription 7."),
        ("/fails", 503, "No answer."),
        ("/down", 503, "DPY-6005: cannot connect to database."),
        ("/absent", 404, "There is no such page."),
        (f"/page/{2**63}", 404, "There is no such page."),
        (f"/page/{'9' * 5000}", 404, "There is no such page."),
    ],
)
def test_errors_are_pages_of_the_console(browser: Browser, path: str, status: int, text: str) -> None:
    """They give the reason."""
    sign_in(browser, "all")
    answer = browser.get(path)
    assert (answer.status_code, text in answer.text, "Subscriptions" in answer.text) == (status, True, True)
