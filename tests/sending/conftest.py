"""Receivers with configurable behaviour, one thread per connection, and a sender with helpers for tests."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import psutil
import pytest
import requests
import trustme

from consumer.loop.poller import Poller
from consumer.sending.adapter import LoopAdapter
from consumer.sending.connection import Connection
from consumer.sending.dns import _CachedAddresses
from consumer.sending.egress import EgressPolicy
from consumer.sending.transfer import Result

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
LOOPBACK = EgressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))
Behaviour = Callable[[socket.socket, bytes], bool]  # one request; True: keep the connection


def reset(connection: socket.socket) -> None:
    """Make the connection send RST when it is closed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The TLS context of a receiver with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def descriptors() -> int:
    """The number of descriptors that this process has open."""
    return psutil.Process().num_fds()


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose backlog is full, so that connecting to it never ends, as with a firewall that drops packets."""
    with socket.create_server((host, port), backlog=0) as listener, contextlib.ExitStack() as filling:
        for _ in range(4):
            client = filling.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def read_request(connection: socket.socket, *, whole: bool = True) -> bytes:
    """One request's head and body; not `whole`, only the bytes that came with the head. Empty at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while whole and len(body) < length:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        body += chunk
    return head + b"\r\n\r\n" + body


def answer(text: bytes, then: str = "keep") -> Callable[[socket.socket, bytes], bool]:
    """Answer `text` to every request, then keep the connection, close it, reset it, hang, or go on for ever."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(text)
        if then == "reset":
            reset(connection)
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


class Listener:
    """Listens on loopback, with a thread for each connection, which `_serve` handles."""

    def __init__(self, scheme: str, greet: Callable[[socket.socket], None] | None) -> None:
        self.connections = 0
        self.stopped = threading.Event()
        self._greet = greet
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}/hook"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.stopped.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._greeted, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _greeted(self, raw: socket.socket) -> None:
        with raw, contextlib.suppress(OSError):  # the client may disconnect at any time
            raw.settimeout(60)
            if self._greet is not None:
                self._greet(raw)
            self._serve(raw)

    def _serve(self, raw: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the accepting thread. Connections end when their client closes them."""
        self.stopped.set()
        with contextlib.suppress(OSError), socket.create_connection(self._listener.getsockname()[:2]):
            self._threads[0].join(60)
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join(60)


class Receiver(Listener):
    """Listens on loopback and runs a behaviour for each request. `stopped` ends behaviours that hang.

    Not `whole`: the behaviour starts when the head of a request has been read. `greet` is called with each
    accepted connection.
    """

    def __init__(
        self,
        behave: Behaviour,
        tls: ssl.SSLContext | None,
        *,
        whole: bool = True,
        greet: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self._behave = behave
        self._tls = tls
        self._whole = whole
        super().__init__("http" if tls is None else "https", greet)

    def _serve(self, raw: socket.socket) -> None:
        with raw if self._tls is None else self._tls.wrap_socket(raw, server_side=True) as connection:
            while request := read_request(connection, whole=self._whole):
                self.requests.append(request)
                if not self._behave(connection, request):
                    return


class Clock:
    """Stands still unless the test moves it."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """A poller and an adapter, with helpers for tests."""

    def __init__(
        self, *, egress: EgressPolicy = LOOPBACK, timeout: float = 60, connect_timeout: float = 30, **more: Any
    ) -> None:
        self.poller = Poller(more.get("clock", time.monotonic))
        self.adapter = LoopAdapter(
            self.poller,
            egress=egress,
            timeout=timeout,
            connect_timeout=connect_timeout,
            **{"max_connections": 64, **more},
        )

    def know(self, name: str, *addresses: str) -> None:
        """Put a name's addresses into the resolver's cache."""
        self.adapter._connector.resolver._cache[name] = _CachedAddresses(addresses, self.poller._clock() + 60)

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

    def turn_until(self, done: Callable[[], object], limit: float = 120.0) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline
            self.poller.turn(0.05)

    def awaits(self, transfer: Any, text: str) -> None:
        """Turn until the transfer's time-out would have this text."""
        self.turn_until(lambda: transfer.stage is not None and text in str(transfer.stage.late()))

    def timed_out(self, results: list[Result], clock: Clock, step: float = 0.1) -> Result:
        """Turn, `step` seconds of the clock after each other, until there is a result."""
        began = clock.now
        while not results:
            assert clock.now - began < 120
            clock.now += step
            for _ in range(2):  # a time-out is handed over in the next turn
                self.poller.turn(0)
        return results[0]

    def close(self) -> None:
        self.adapter.close()
        self.poller.close()


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a request follow an answer on its connection at once, so that tests can count connections."""
    monkeypatch.setattr(Connection, "rest", 0.0)


Receive = Callable[..., Receiver]
MakeSender = Callable[..., Sender]


@pytest.fixture
def receive() -> Iterator[Receive]:
    """Make receivers: `receive(text, then="keep")` or `receive(behaviour)`, optionally with `tls=` or `whole=`."""
    made: list[Receiver] = []

    def make(behaviour: Behaviour | bytes, then: str = "keep", **options: Any) -> Receiver:
        behave = answer(behaviour, then) if isinstance(behaviour, bytes) else behaviour
        made.append(Receiver(behave, options.pop("tls", None), **options))
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def make_sender(receive: Receive) -> Iterator[MakeSender]:
    del receive  # its receivers close after the senders, since they wait for the senders' connections
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


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """An authority that is trusted by all senders made from now on."""
    with authority.cert_pem.tempfile() as bundle:
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        yield authority


@pytest.fixture
def receive2(trusted: trustme.CA) -> Iterator[Any]:
    """Make receivers that offer HTTP/2 (`http2_kit.Receive2`)."""
    kit = pytest.importorskip("tests.sending.http2_kit")
    with kit.receivers(trusted) as make:
        yield make
