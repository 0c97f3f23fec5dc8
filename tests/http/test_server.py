"""A listening port and misbehaving clients: these are disconnected, and the others are served."""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from consumer.http import server as serving
from consumer.http.server import BackgroundServer, listen
from tests.waiting import eventually

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
BODY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf"


@pytest.fixture
def port(served: BackgroundServer, monkeypatch: pytest.MonkeyPatch) -> int:
    """A server that allows a third of a second for a head, and five connections."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "_MOST_CONNECTIONS", 5)
    monkeypatch.setattr(serving, "_MOST_OF_ADDRESS", 5)
    return served.port


@pytest.fixture
def served() -> Iterator[BackgroundServer]:
    """A server. Its path /held is answered without an end."""

    async def here(request: Request) -> PlainTextResponse:
        await request.body()
        kept = {"cache-control": "max-age=5"} if request.url.path == "/kept" else None
        return PlainTextResponse("here", headers=kept)

    async def held(_: Request) -> StreamingResponse:
        return StreamingResponse(beginning())

    async def beginning() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    routes = [Route("/held", held), Route("/{_:path}", here, methods=["GET", "POST"])]
    server = BackgroundServer(Starlette(routes=routes), listen("127.0.0.1", 0), "test")
    yield server
    server.close()


def seldom(log: logging.Logger) -> serving._Seldom:
    """The filter of a logger's repeated lines."""
    (found,) = (each for each in log.filters if isinstance(each, serving._Seldom))
    return found


def get(port: int) -> str:
    return requests.get(f"http://127.0.0.1:{port}/", timeout=60).text


def answer_of(client: socket.socket) -> None:
    """Send a request on a connection, and read the answer to its end."""
    client.sendall(HEAD + b"\r\n")
    client.settimeout(60)
    answer = b""
    while not answer.endswith(b"here"):
        answer += client.recv(4096)


def is_cut_off(client: socket.socket, within: float) -> bool:
    client.settimeout(within)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


@pytest.mark.parametrize("sent", [b"", b"G", HEAD], ids=["silent", "a letter", "no end of the head"])
def test_a_client_that_sends_no_head_is_disconnected(port: int, sent: bytes) -> None:
    """Its time is limited, however much of the head has come."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(sent)
        assert not is_cut_off(client, 0.1)
        assert is_cut_off(client, 60.0)
    assert get(port) == "here"


def test_a_served_client_that_begins_another_request_is_disconnected(port: int) -> None:
    """A kept connection has the same time limit for its next head."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        answer_of(client)
        client.sendall(HEAD)
        assert is_cut_off(client, 60.0)


def test_the_connection_that_waited_longest_makes_room(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Silent clients hold no place that another client needs; those who are served keep theirs. The log says so."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 30.0)
    seldom(logging.getLogger(serving.__name__))._said_at = float("-inf")
    with ExitStack() as stack:
        *silent, latest = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        for each in (*silent, latest):
            answer_of(each)  # from here on it waits
            each.sendall(HEAD)  # else its time as a kept connection ends first
        for index, sent in enumerate((HEAD, BODY, b"")):
            newest = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            newest.sendall(sent)
            assert is_cut_off(silent[index], 60.0)
        newest.sendall(HEAD)
        for each in (latest, newest):
            each.sendall(b"\r\n")
            assert each.recv(4096).startswith(b"HTTP/1.1 200")
    assert get(port) == "here"
    (line,) = [each.getMessage() for each in caplog.records if each.name == serving.__name__]
    assert "from 127.0.0.1, made room; 1 since the start" in line


def test_silent_clients_do_not_starve_a_probe(served: BackgroundServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are. Those that are closed are counted."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 600.0)
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            client.sendall(HEAD)
        assert get(served.port) == "here"
    assert served.cut == 301 - serving._MOST_OF_ADDRESS


def test_an_address_has_a_share_of_the_places(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own connections make room for its further ones: those of other addresses stay."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 30.0)
    monkeypatch.setattr(serving, "_MOST_OF_ADDRESS", 3)
    with ExitStack() as stack:
        other, *greedy = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{host}", 0)))
            for host in (2, 3, 3, 3, 3)
        ]
        assert is_cut_off(greedy[0], 60.0)
        answer_of(greedy[1])
        answer_of(other)


def test_clients_whose_requests_are_worked_on_are_not_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each place has one, the newest client is closed instead."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 30.0)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        for each in clients:
            each.sendall(HEAD + b"\r\nGET /held HTTP/1.1\r\nhost: x\r\n\r\n")  # two at once
            answer = b""
            while answer.count(b"HTTP/1.1 200") < 2:
                answer += each.recv(4096)
        assert is_cut_off(stack.enter_context(socket.create_connection(("127.0.0.1", port))), 60.0)
        assert not any(is_cut_off(each, 0.05) for each in clients)


def test_a_request_with_two_lengths_is_refused(port: int) -> None:
    """A proxy in front may have gone by the other one: what follows is not taken for a request."""
    both = b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\n" + both + HEAD + b"\r\n")
        answer = b"".join(iter(partial(client.recv, 65536), b""))  # up to the end: it is closed
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_no_answer_is_kept_or_guessed_at(port: int) -> None:
    """Caches do not keep one, and browsers do not guess its type, unless the application says otherwise."""
    plain, kept = (requests.get(f"http://127.0.0.1:{port}/{path}", timeout=60).headers for path in ("", "kept"))
    assert (plain["cache-control"], plain["x-content-type-options"]) == ("no-store", "nosniff")
    assert kept["cache-control"] == "max-age=5"


def test_a_client_that_never_reads_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer ends, however long it is. A client that reads gets all of it, however long that takes."""
    monkeypatch.setattr(serving, "_UNREAD_SECONDS", 2.0)
    ended = threading.Event()

    async def parts(request: Request) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 262_144
                await asyncio.sleep(0.01)
        finally:
            if request.url.path == "/unread":
                ended.set()

    async def endless(request: Request) -> StreamingResponse:
        return StreamingResponse(parts(request))

    server = BackgroundServer(Starlette(routes=[Route("/{_}", endless)]), listen("127.0.0.1", 0), "test")
    with ExitStack() as stack:
        stack.callback(server.close)
        for path in ("unread", "read"):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.connect(("127.0.0.1", server.port))
            client.sendall(f"GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        client.settimeout(60)
        eventually(ended.is_set, meanwhile=lambda: client.recv(262_144))
        for _ in range(40):
            assert client.recv(262_144)


def test_a_repeated_log_line_is_written_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Asyncio logs it for each connection that it cannot accept. Other lines are written."""
    log = logging.getLogger("asyncio")
    seldom(log)._said_at = float("-inf")
    for _ in range(100):
        log.error("socket.accept() out of system resource")
    log.error("something else")
    assert [record.getMessage() for record in caplog.records] == [
        "socket.accept() out of system resource",
        "something else",
    ]


def test_an_answer_is_sent_without_delay() -> None:
    """Connections of a listener do not wait for the peer's acknowledgement before they send the body."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
