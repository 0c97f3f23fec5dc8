"""A listening port and misbehaving clients: these are disconnected, and the others are served."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from consumer.http import server as serving
from consumer.http.server import BackgroundServer, listen

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server that allows a third of a second for a head, and five connections."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(serving, "_MOST_CONNECTIONS", 5)

    async def slowly(_: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    server = BackgroundServer(Starlette(routes=[Route("/", slowly)]), listen("127.0.0.1", 0), "test")
    yield server.port
    server.close()


def get(port: int) -> str:
    return requests.get(f"http://127.0.0.1:{port}/", timeout=5).text


def answer_of(client: socket.socket) -> None:
    """Send a request on a connection, and read the answer to its end."""
    client.sendall(HEAD + b"\r\n")
    client.settimeout(5.0)
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
        begin = time.monotonic()
        assert is_cut_off(client, 10.0)
        assert time.monotonic() - begin > 0.2
    assert get(port) == "here"


def test_a_served_client_that_begins_another_request_is_disconnected(port: int) -> None:
    """A kept connection has the same time limit for its next head."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        answer_of(client)
        client.sendall(HEAD)
        assert is_cut_off(client, 10.0)


def test_connections_beyond_the_bound_are_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With five open, further ones are closed at once. When these have gone, others are served."""
    monkeypatch.setattr(serving, "_HEAD_SECONDS", 30.0)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        time.sleep(0.1)
        more = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
        assert all(is_cut_off(each, 5.0) for each in more)
        answer_of(clients[0])
    assert get(port) == "here"


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
        client.settimeout(5.0)
        time.sleep(0.3)  # both answers wait for their clients
        give_up = time.monotonic() + 20.0
        while not ended.is_set():
            assert client.recv(262_144)
            assert time.monotonic() < give_up
        more = time.monotonic() + 0.4
        while time.monotonic() < more:
            assert client.recv(262_144)


def test_a_repeated_log_line_is_written_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Asyncio logs it for each connection that it cannot accept. Other lines are written."""
    log = logging.getLogger("asyncio")
    (seldom,) = (each for each in log.filters if isinstance(each, serving._Seldom))
    seldom._said_at = float("-inf")
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


def test_resources_are_closed_before_the_signal_ends_the_process() -> None:
    """The previous signal handler may end the process at once."""
    code = (
        "import os, signal, sys\n"
        "from starlette.applications import Starlette\n"
        "from consumer.http.server import listen, serve\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(3))\n"
        "listener = listen('127.0.0.1', 0)\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "serve(Starlette(), listener, lambda: print('closed', flush=True))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        requests.get(f"http://127.0.0.1:{port}/", timeout=5)
        process.terminate()
        assert process.stdout.read() == "closed\n"
    assert process.returncode == 3
