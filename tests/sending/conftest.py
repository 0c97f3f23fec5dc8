"""Receivers that behave as told, one thread a connection, and a sender with what tests do over and over."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
import requests

from consumer.sending.adapter import LoopAdapter, Result
from consumer.sending.egress import EgressPolicy
from consumer.sending.poller import Poller

LOOPBACK = EgressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))
Behaviour = Callable[[socket.socket, bytes], bool]  # one request; True: keep the connection


def read_request(connection: socket.socket) -> bytes:
    """One request's head and body; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(text: bytes, then: str = "keep") -> Callable[[socket.socket, bytes], bool]:
    """Answer `text` to every request, then keep the connection, close it, reset it, hang, or go on for ever."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(text)
        if then == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif then == "hang":
            connection.recv(1)
        elif then == "drip":
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)
        elif then == "endless":
            while True:
                connection.sendall(b"x" * 65536)
        return then == "keep"

    return behave


class Receiver:
    """Listens on loopback and behaves as told. `stopped` ends behaviours that hang."""

    def __init__(self, behave: Behaviour, tls: ssl.SSLContext | None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.stopped = threading.Event()
        self._behave = behave
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}/hook"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.stopped.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError):  # the client may go at any time
            connection = raw if self._tls is None else self._tls.wrap_socket(raw, server_side=True)
            with connection:
                connection.settimeout(20)
                while request := read_request(connection):
                    self.requests.append(request)
                    if not self._behave(connection, request):
                        return

    def close(self) -> None:
        """End the accepting thread; connections end when their client does."""
        self.stopped.set()
        with contextlib.suppress(OSError), socket.create_connection(self._listener.getsockname()[:2]):
            self._threads[0].join(5)
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join(5)


class Sender:
    """A poller and an adapter, with what tests do over and over."""

    def __init__(
        self, *, egress: EgressPolicy = LOOPBACK, timeout: float = 5, connect_timeout: float = 2, **more: Any
    ) -> None:
        self.poller = Poller()
        self.adapter = LoopAdapter(
            self.poller, egress=egress, timeout=timeout, connect_timeout=connect_timeout, max_connections=64, **more
        )

    def prepare(self, url: str, body: bytes | str | None = b"{}", **headers: str) -> requests.PreparedRequest:
        return requests.Request("POST", url, data=body, headers=headers).prepare()

    def submit(self, url: str, results: list[Result], **headers: str) -> Any:
        return self.adapter.submit(self.prepare(url, **headers), results.append)

    def result(self, url: str, **headers: str) -> Result:
        results: list[Result] = []
        self.submit(url, results, **headers)
        assert results == []  # never inside submit
        self.turn_until(lambda: results)
        return results[0]

    def response(self, url: str, **headers: str) -> requests.Response:
        result = self.result(url, **headers)
        assert isinstance(result, requests.Response), result
        return result

    def turn_until(self, done: Callable[[], object], limit: float = 10) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline
            self.poller.turn(0.05)

    def close(self) -> None:
        self.adapter.close()
        self.poller.close()


Receive = Callable[..., Receiver]
MakeSender = Callable[..., Sender]


@pytest.fixture
def receive() -> Iterator[Receive]:
    """Make receivers: `receive(text, then="keep")` or `receive(behaviour)`, each with `tls=` if wanted."""
    made: list[Receiver] = []

    def make(behaviour: Behaviour | bytes, then: str = "keep", *, tls: ssl.SSLContext | None = None) -> Receiver:
        made.append(Receiver(answer(behaviour, then) if isinstance(behaviour, bytes) else behaviour, tls=tls))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def make_sender(receive: Receive) -> Iterator[MakeSender]:
    del receive  # its receivers close after the senders, whose connections they wait for
    made: list[Sender] = []

    def make(**options: Any) -> Sender:
        made.append(Sender(**options))
        return made[-1]

    yield make
    for sender in made:
        sender.close()


@pytest.fixture
def sender(make_sender: MakeSender) -> Sender:
    return make_sender()
