"""Receivers on loopback, one thread per connection; proxies to them; and senders. `net` makes them and ends them."""

import contextlib
import select
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_network
from typing import IO, Any, TypeVar

import psutil
import pytest
import requests
import trustme
from requests import PreparedRequest, Response

from consumer.loop.poller import Poller
from consumer.sending.adapter import LoopAdapter
from consumer.sending.connection import Connection
from consumer.sending.dns import _CachedAddresses
from consumer.sending.egress import EgressPolicy
from consumer.sending.transfer import Result
from tests.sending.signed_kit import signed
from tests.waiting import eventually

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
LOOPBACK = EgressPolicy((ip_network("127.0.0.0/8"), ip_network("::1/128")))
Behaviour = Callable[[Any, bytes], bool]  # one request on a socket; True: keep the connection


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


def own_connections() -> int:
    """The sockets that this process has connected to ports of its own. Other descriptors come and go meanwhile."""
    ours = psutil.Process().net_connections("tcp")
    listening = {each.laddr.port for each in ours if each.status == psutil.CONN_LISTEN}
    return sum(bool(each.raddr) and each.raddr.port in listening for each in ours)


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port whose backlog is full, so that connecting to it never ends, as with a firewall that drops packets."""
    with socket.create_server((host, port), backlog=0) as listener, contextlib.ExitStack() as filling:
        for _ in range(4):
            client = filling.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def closed_port() -> int:
    """A port on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def read_request(file: IO[bytes], *, whole: bool = True) -> bytes:
    """One request's head and body; not `whole`, the head alone. Empty at the end."""
    lines: list[bytes] = []
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line)
    length = next((int(each[15:]) for each in lines if each.lower().startswith(b"content-length:")), 0)
    body = file.read(length) if whole else b""
    return b"".join([*lines, b"\r\n", body]) if line and len(body) == (length if whole else 0) else b""


def answer(text: bytes, then: str = "keep") -> Behaviour:
    """Answer `text` to every request, then keep the connection, close it, half or by RST, hang, or go on for ever."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(text)
        if then == "reset":
            time.sleep(0.05 if text else 0)  # the end would overtake the text
            reset(connection)
        elif then == "half-close":
            connection.shutdown(socket.SHUT_WR)
        if then in {"hang", "half-close"}:
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


def in_turn(*behaviours: Behaviour | bytes) -> Behaviour:
    """The first request gets the first behaviour, and so on; the last one stays."""
    left = list(behaviours)

    def behave(connection: socket.socket, request: bytes) -> bool:
        each = left.pop(0) if len(left) > 1 else left[0]
        return (answer(each) if isinstance(each, bytes) else each)(connection, request)

    return behave


class Listener(socketserver.ThreadingTCPServer):
    """Listens on loopback, with a thread for each connection, which `_serve` handles."""

    request_queue_size = 1024

    def __init__(self, scheme: str) -> None:
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self.connections = 0
        self.faults: list[Exception] = []  # of the client's protocol, and of the behaviour
        self.port = int(self.server_address[1])
        self.base = f"{scheme}://127.0.0.1:{self.port}"
        self.url = f"{self.base}/hook"
        threading.Thread(target=self.serve_forever, args=(0.005,), daemon=True).start()

    def at(self, host: str) -> str:
        """Its URL with another host."""
        return self.url.replace("127.0.0.1", host)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        del client_address
        with contextlib.suppress(OSError):  # the client may disconnect at any time
            request.settimeout(60)
            self._serve(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        if isinstance(fault := sys.exception(), Exception):
            self.faults.append(fault)

    def shutdown_request(self, request: Any) -> None:
        request.close()  # and no FIN before a RST

    def _serve(self, raw: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the accepting thread. Connections end when their client closes them."""
        self.shutdown()
        self.server_close()


L = TypeVar("L", bound=Listener)


class Receiver(Listener):
    """Listens on loopback and runs a behaviour for each request.

    `resumed` and `protocols` say of each request whether its connection resumed a TLS session, and the protocol that
    was chosen for it. Not `whole`: the behaviour starts when the head of a request has been read. `greet` is called
    with each accepted connection.
    """

    def __init__(
        self,
        behave: Behaviour,
        tls: ssl.SSLContext | None,
        *,
        whole: bool = True,
        greet: Callable[[socket.socket], object] = lambda _connection: None,
    ) -> None:
        self.requests: list[bytes] = []
        self.resumed: list[bool] = []
        self.protocols: list[str | None] = []
        self._behave = behave
        self._tls = tls
        self._whole, self._greet = whole, greet
        super().__init__("http" if tls is None else "https")

    def _serve(self, raw: socket.socket) -> None:
        self._greet(raw)
        secured = raw if self._tls is None else self._tls.wrap_socket(raw, server_side=True)
        with secured as connection, connection.makefile("rb") as file:
            while request := read_request(file, whole=self._whole):
                self.requests.append(request)
                if isinstance(connection, ssl.SSLSocket):
                    self.resumed.append(bool(connection.session_reused))
                    self.protocols.append(connection.selected_alpn_protocol())
                if not self._behave(connection, request):
                    return


def proxying(port: int, head: bytes = TUNNEL, piece: int = 65536) -> Behaviour:
    """Connects all requests to one receiver, in pieces of at most `piece` bytes; answers CONNECT with `head`."""

    def behave(connection: socket.socket, request: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", port), 20) as onward:
            if not request.startswith(b"CONNECT "):
                onward.sendall(request)
                connection.sendall(onward.recv(65536))
                return True
            connection.sendall(head)
            ways = {connection: onward, onward: connection}
            while True:
                pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
                one = connection if pending else select.select([*ways], [], [], 60)[0][0]
                if not (data := one.recv(piece)):
                    return False
                ways[one].sendall(data)

    return behave


class Clock:
    """Stands still unless the test moves it."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Sender:
    """A poller and an adapter, with helpers for tests. `http2`: all of its requests ask for HTTP/2."""

    def __init__(self, *, http2: bool = False, clock: Callable[[], float] = time.monotonic, **options: Any) -> None:
        self.http2, self.clock, self.poller = http2, clock, Poller(clock)
        options = {"egress": LOOPBACK, "timeout": 60.0, "connect_timeout": 30.0, "max_connections": 64, **options}
        self.adapter = LoopAdapter(self.poller, clock=clock, **options)

    def know(self, name: str, *addresses: str) -> None:
        """Put a name's addresses into the resolver's cache."""
        self.adapter._connector.resolver._cache[name] = _CachedAddresses(addresses, self.clock() + 60)

    def prepare(self, url: str, body: bytes | str | None = b"{}", **headers: str) -> PreparedRequest:
        if self.http2:
            return signed(url, body if isinstance(body, bytes) else b"", http2=True, headers=tuple(headers.items()))
        return requests.Request("POST", url, data=body, headers=headers).prepare()

    def submit(self, to: str | PreparedRequest, results: list[Result], **headers: str) -> Any:
        return self.adapter.submit(self.prepare(to, **headers) if isinstance(to, str) else to, results.append)

    def start(self, *to: str | PreparedRequest) -> list[Result]:
        """Submit the requests. The list gets their results."""
        results: list[Result] = []
        for each in to:
            self.submit(each, results)
        assert results == []  # never inside submit
        return results

    def results(self, *to: str | PreparedRequest) -> list[Result]:
        """Submit the requests, and wait for all of their results."""
        results = self.start(*to)
        self.turn_until(lambda: len(results) == len(to))
        return results

    def result(self, to: str | PreparedRequest, **headers: str) -> Result:
        return self.results(self.prepare(to, **headers) if isinstance(to, str) else to)[0]

    def response(self, to: str | PreparedRequest, **headers: str) -> Response:
        result = self.result(to, **headers)
        assert isinstance(result, Response), result
        return result

    @property
    def idle(self) -> list[Any]:
        """The idle connections."""
        return list(self.adapter._pool._idle)

    def open_sockets(self) -> int:
        """The sockets that the sender has open, but for idle connections."""
        return len(self.poller._handlers) - len(self.idle) - 1

    def turn_until(self, done: Callable[[], object]) -> None:
        eventually(done, meanwhile=partial(self.poller.turn, 0.05))

    def awaits(self, transfer: Any, text: str) -> None:
        """Turn until the transfer's time-out would have this text."""
        self.turn_until(lambda: transfer.stage is not None and text in str(transfer.stage.late()))

    def timed_out(self, results: list[Result], step: float = 0.1) -> Result:
        """Turn, `step` seconds of the standing clock after each other, until there is a result."""
        clock = self.clock
        assert isinstance(clock, Clock)
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


def statuses(results: list[Result]) -> Counter[object]:
    """How many results have each status, or each text of an error."""
    return Counter(result.status_code if isinstance(result, Response) else str(result) for result in results)


class Net:
    """Makes receivers, proxies and senders. Senders trust `authority`, unless a subscription has its own.

    `clock` is one that stands still, for senders made with `clock=net.clock`.
    """

    def __init__(self, authority: trustme.CA) -> None:
        self.authority = authority
        self.clock = Clock()
        self._senders: list[Sender] = []
        self._receivers: list[Listener] = []

    def tls(self, *names: str) -> ssl.SSLContext:
        """The TLS context of a receiver whose certificate is for these names and 127.0.0.1."""
        return server_tls(self.authority.issue_cert("127.0.0.1", *names))

    def receive(self, behaviour: Behaviour | bytes = NO_CONTENT, then: str = "keep", **options: Any) -> Receiver:
        """A receiver that answers these bytes, or behaves like this; `tls=`, `whole=` and `greet=` as of Receiver."""
        behave = answer(behaviour, then) if isinstance(behaviour, bytes) else behaviour
        return self.add(Receiver(behave, options.pop("tls", None), **options))

    def add(self, made: L) -> L:
        """Have a receiver ended with the test."""
        self._receivers.append(made)
        return made

    def proxy(self, scheme: str, to: Listener, **options: Any) -> Receiver:
        """A proxy by http or https, which connects to this receiver."""
        tls = self.tls("receiver.test") if scheme == "https" else None
        return self.receive(proxying(to.port, **options), tls=tls)

    def sender(self, **options: Any) -> Sender:
        """A sender, with the arguments of `LoopAdapter`."""
        self._senders.append(Sender(**options))
        return self._senders[-1]

    def close(self) -> None:
        """End the senders, then the receivers, which wait for the senders' connections."""
        for sender in self._senders:
            sender.close()
        for receiver in self._receivers:
            receiver.close()
        assert [fault for each in self._receivers for fault in each.faults] == []


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def net(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    # A request may follow an answer on its connection at once, so that tests can count connections.
    monkeypatch.setattr(Connection, "rest", 0.0)
    with authority.cert_pem.tempfile() as bundle:
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        made = Net(authority)
        yield made
        made.close()


@pytest.fixture
def sender(net: Net) -> Sender:
    return net.sender()


Receive = Callable[..., Receiver]


@pytest.fixture
def receive(net: Net) -> Receive:
    """Makes receivers, for tests with senders of their own."""
    return net.receive
