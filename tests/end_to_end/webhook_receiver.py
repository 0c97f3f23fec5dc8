"""A receiver for tests: records each request and answers by rules for each path.

It is a little HTTP/1.1 on asyncio in a thread of its own: it must be faster than the service, and no framework lets a
test hang or reset a connection in the middle.
"""

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple, Self

_PERMISSION = b"HTTP/1.1 200 x\r\nwebhook-allowed-origin: *\r\nwebhook-allowed-rate: *\r\ncontent-length: 0\r\n\r\n"


class Request(NamedTuple):
    """One request. `status` is that of the answer, or None without one; `at` is unix seconds."""

    path: str
    webhook_id: str
    body: bytes
    headers: dict[str, str]
    status: int | None
    at: float

    @property
    def accepted(self) -> bool:
        """Whether it was answered with a 2xx."""
        return self.status is not None and 200 <= self.status < 300


class Answer(NamedTuple):
    """A status line after `delay` seconds, an optional further header line `header`, and a body."""

    status: int = 200
    delay: float = 0.0
    header: str = ""
    body: str = ""


class Drip(NamedTuple):
    """A 200 sent one byte each `every` seconds: all of it, or only its body."""

    every: float
    head: bool


class Silence(Enum):
    """No answer."""

    HANG = auto()  # the connection stays open
    RESET = auto()


Rule = Callable[[bytes], Answer | Drip | Silence]  # called with the body


def always(answer: Answer | Drip | Silence) -> Rule:
    """The same answer for each request."""
    return lambda _: answer


def in_turn(*statuses: int, header: str = "") -> Rule:
    """These answers for each event's attempts in turn, the last one repeated. All have this header line."""
    attempts = Counter[bytes]()

    def answer(body: bytes) -> Answer:
        attempts[body] += 1
        return Answer(statuses[min(attempts[body], len(statuses)) - 1], header=header)

    return answer


def every(nth: int, rule: Rule) -> Rule:
    """A rule for the first event and each nth after it, at all their attempts; other events are accepted.

    A receiver that failed for all first events would look dead, and its breaker would open.
    """
    turns: dict[bytes, int] = {}

    def answer(body: bytes) -> Answer | Drip | Silence:
        return Answer() if turns.setdefault(body, len(turns)) % nth else rule(body)

    return answer


class Receiver:
    """Listens on loopback. `rules` are by path; `default` is that of other paths. `requests` has all received ones.

    It agrees to each validation request.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.rules: dict[str, Rule] = {}
        self.default: Rule = always(Answer())
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Transport] = set()
        self._door = Door()

    def __enter__(self) -> Self:
        self._thread.start()
        self.open(self._door)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def port(self) -> int:
        """Its port."""
        return self._door.port

    def url(self, path: str) -> str:
        """The URL of `path`."""
        return self._door.url(path)

    def shut(self) -> None:
        """Resets all connections and stops listening."""
        self._run(self._close()).result(60)
        self._door.close()

    def open_again(self) -> None:
        """Listens again, on the same port."""
        self._door = Door(self.port)
        self.open(self._door)

    def open(self, door: "Door") -> None:
        """Listens at this port too."""
        self._run(self._serve(door.socket)).result(60)

    def at(self, path: str) -> list[Request]:
        """The requests to one path so far."""
        return [request for request in list(self.requests) if request.path == path]

    async def _serve(self, listener: socket.socket) -> None:
        server = await self._loop.create_server(
            lambda: _Connection(self, self._connections),
            sock=listener.dup(),
            backlog=4096,
            ssl=self._tls,
        )
        self._servers.append(server)

    async def _close(self) -> None:
        while self._servers:
            self._servers.pop().close()
        for connection in tuple(self._connections):
            _reset(connection)
        await asyncio.sleep(0)

    def _run(self, coroutine: object) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]


class Door:
    """A reserved port of loopback: connections are refused until a receiver opens it."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", port))
        self.port: int = self.socket.getsockname()[1]

    def close(self) -> None:
        """Releases the port."""
        self.socket.close()

    def url(self, path: str) -> str:
        """The URL of `path` at this port."""
        return f"http://127.0.0.1:{self.port}{path}"


class _Connection(asyncio.Protocol):
    """A connection, split into requests."""

    def __init__(self, receiver: Receiver, connections: set[asyncio.Transport]) -> None:
        self._receiver = receiver
        self._connections = connections
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._connections.discard(self.transport)

    def data_received(self, data: bytes) -> None:
        """Handles received bytes: a part of a request, or several."""
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers["content-length"])
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            self._take(first.split(" ")[1], headers, rest[:length])

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        if "webhook-id" not in headers:  # a validation request
            self.transport.write(_PERMISSION)
            return
        answer = self._receiver.rules.get(path, self._receiver.default)(body)
        status = answer.status if isinstance(answer, Answer) else None
        if isinstance(answer, Drip) and not answer.head:
            status = 200
        self._receiver.requests.append(Request(path, headers["webhook-id"], body, headers, status, time.time()))
        if isinstance(answer, Answer):
            extra = f"{answer.header}\r\n" if answer.header else ""
            content = answer.body.encode()
            begin = f"HTTP/1.1 {answer.status} x\r\ncontent-length: {len(content)}\r\n{extra}\r\n"
            line = begin.encode() + content
            if answer.delay:
                asyncio.get_running_loop().call_later(answer.delay, self.transport.write, line)
            else:
                self.transport.write(line)
            if answer.header == "connection: close":
                self.transport.close()
        elif isinstance(answer, Drip):
            head, body = b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n", b"some more"
            if not answer.head:
                self.transport.write(head)
            self._drip(answer.every, head + body if answer.head else body)
        elif answer is Silence.RESET:
            _reset(self.transport)

    def _drip(self, every: float, rest: bytes) -> None:
        if rest and not self.transport.is_closing():
            self.transport.write(rest[:1])
            asyncio.get_running_loop().call_later(every, self._drip, every, rest[1:])


def _reset(transport: asyncio.Transport) -> None:
    """Ends a connection by RST."""
    peer: socket.socket = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
