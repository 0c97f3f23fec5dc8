"""Visitors who watch the overview."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Event

import pytest
from sqlalchemy import Engine

from consumer.api.app import create_app
from consumer.api.backing import Backing
from consumer.console import overview as page
from consumer.console.app import BASE
from consumer.console.assembly import with_console
from consumer.crypto.vault import Vault
from consumer.http.server import BackgroundServer, listen
from consumer.ops.changes import Deployment
from consumer.ops.overview import Overview, overview
from consumer.subscriptions import repository
from tests.console.browser import Browser
from tests.console.tokens import Tokens
from tests.ledger.rows_kit import GROUP, URL

REFRESH = 0.1
WATCHERS = 45  # more than the process has threads for requests

Serve = Callable[[Callable[[], Overview]], int]


@pytest.fixture
def serve(engine: Engine) -> Iterator[Serve]:
    """Starts a console with this overview, and returns its port."""
    with ExitStack() as stack:

        def port(look: Callable[[], Overview]) -> int:
            backing = Backing(Deployment(engine, GROUP, Vault()), look=look)
            tokens = Tokens({})
            app = with_console(create_app(backing, tokens), backing, tokens)
            server = BackgroundServer(app, listen("127.0.0.1", 0), "console")
            stack.callback(server.close)
            return server.port

        yield port


def watch(port: int, cookies: str) -> socket.socket:
    """A visitor whose stream has begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(f"GET {BASE}/live HTTP/1.1\r\nhost: localhost\r\ncookie: {cookies}\r\n\r\n".encode())
    assert client.recv(65_536).startswith(b"HTTP/1.1 200")
    return client


def test_watchers_of_a_slow_overview_leave_threads_for_others(
    serve: Serve, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them wait for one reading, and get it. Meanwhile other pages are shown."""
    monkeypatch.setattr(page, "REFRESH", REFRESH)
    begun, released = Event(), Event()

    def slow() -> Overview:
        begun.set()
        released.wait(60)
        return overview(engine, None, ())

    port = serve(slow)
    browser = Browser(port)
    browser.get("/subscriptions")
    cookies = "; ".join(f"{each.name}={each.value}" for each in browser.cookies)
    with ExitStack() as stack:
        stack.callback(released.set)
        clients = [stack.enter_context(watch(port, cookies)) for _ in range(WATCHERS)]
        assert begun.wait(60)
        time.sleep(2 * REFRESH)  # each of them waits for the overview
        assert browser.get("/subscriptions").ok
        released.set()
        for client in clients:
            received = b""
            while b"Every receiver is well" not in received:
                received += (part := client.recv(65_536))
                assert part


def test_watchers_get_only_what_has_changed(serve: Serve, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The live part is sent at first and when it has changed, compressed, each time at once."""
    monkeypatch.setattr(page, "REFRESH", REFRESH)
    taken = 0

    def look() -> Overview:
        nonlocal taken
        taken += 1
        if taken == 5:
            repository.set_enabled(engine, repository.add(engine, URL, "user.created"), False, "it has moved")
        return overview(engine, None, ())

    browser = Browser(serve(look))
    browser.get("/subscriptions")
    received = b""
    with browser.get("/live", stream=True) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        for part in answer.iter_content(None):
            received += part
            if b"it has moved" in received:
                break
    assert received.count(b"event: overview") == 2
