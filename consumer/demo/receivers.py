"""The webhook receivers, each on a port of its own. All verify their requests, and some behave badly.

One asyncio loop in a thread serves them all. It supports only as much HTTP as the worker speaks.
"""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

import orjson

from consumer.ops.receiver import Reply, verify

OUTAGE = 6.0  # seconds
SLOW = 0.3  # seconds
_OK = 200

Behaviour = Callable[[float], Reply | None]  # seconds since the first request -> answer; None: never answers


class Request(NamedTuple):
    """A request as it arrived: the request line, headers by lower-case name, the body."""

    line: str
    headers: Mapping[str, str]
    body: bytes


class Delivered(NamedTuple):
    """A request that was answered with 2xx, at `at` (monotonic), `latency` seconds after its event was published."""

    at: float
    latency: float


@dataclass(slots=True)
class Receiver:
    """One receiver and its counts. Only the loop's thread writes them; others read."""

    name: str
    event_type: str
    character: str  # how it behaves, in words
    behaviour: Behaviour | None  # None: it refuses connections
    url: str = ""
    subscription_id: int = 0
    published: int = 0  # events of its type that are in Kafka
    requests: int = 0
    asked: set[str] = field(default_factory=set)  # webhook ids, with any answer
    answered: Counter[str] = field(default_factory=Counter)  # webhook ids, times answered with 2xx
    deliveries: list[Delivered] = field(default_factory=list)
    unverified: int = 0
    problem: str = ""  # why the last unverified request cannot be trusted
    first: Request | None = None
    first_at: float = 0.0

    def received(self, request: Request, problem: str | None, now: float) -> Reply | None:
        """Count one request and decide the answer."""
        self.requests += 1
        if problem is not None or self.behaviour is None:
            self.unverified += 1
            self.problem = problem or "no request was expected here"
            return Reply(HTTPStatus.UNAUTHORIZED)
        self.asked.add(request.headers["webhook-id"])
        if self.first is None:
            self.first, self.first_at = request, now
        return self.behaviour(now - self.first_at)


def make_receivers() -> list[Receiver]:
    """The receivers of the demo. All but two get the same events, so that each could hold up the others."""
    return [
        Receiver("crm", "user.created", "answers at once", lambda _: Reply()),
        Receiver("search", "order.placed", "answers at once", lambda _: Reply()),
        Receiver("stock", "order.placed", f"slow: {SLOW * 1000:.0f} ms", lambda _: Reply(delay=SLOW)),
        Receiver(
            "billing",
            "order.placed",
            f"down {OUTAGE:.0f} s, then back",
            lambda since: Reply(HTTPStatus.SERVICE_UNAVAILABLE) if since < OUTAGE else Reply(),
        ),
        Receiver("partner", "order.placed", "never answers", lambda _: None),
        Receiver("legacy", "order.placed", "refuses connections", None),
        Receiver("retired", "user.deleted", "410: wants no more", lambda _: Reply(HTTPStatus.GONE)),
    ]


class ReceiverServer:
    """Serves `receivers` in a daemon thread and sets their urls. `published_at`: monotonic time by an event's id."""

    def __init__(self, receivers: Sequence[Receiver], secret: bytes, published_at: Mapping[int, float]) -> None:
        self._loop = asyncio.new_event_loop()
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for each in receivers if each.behaviour is not None]
        # Bound but not listening: connections are refused, and no other process gets the port.
        self._closed = [socket.socket() for each in receivers if each.behaviour is None]
        for each in self._closed:
            each.bind(("127.0.0.1", 0))
        listening, closed = iter(self._sockets), iter(self._closed)
        self._connections: set[asyncio.Transport] = set()
        for receiver in receivers:
            place = next(closed if receiver.behaviour is None else listening)
            receiver.url = f"http://127.0.0.1:{place.getsockname()[1]}/webhooks"
            if receiver.behaviour is not None:
                connection = partial(_Connection, receiver, secret, published_at, self._connections)
                self._loop.run_until_complete(self._loop.create_server(connection, sock=place))
        self._thread = threading.Thread(target=self._serve, name="receivers", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close all ports and connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        for each in (*self._sockets, *self._closed):
            each.close()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
            for transport in list(self._connections):
                transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._loop.close()


class _Connection(asyncio.Protocol):
    def __init__(
        self,
        receiver: Receiver,
        secret: bytes,
        published_at: Mapping[int, float],
        connections: set[asyncio.Transport],
    ) -> None:
        self._receiver = receiver
        self._secret = secret
        self._published_at = published_at
        self._connections = connections
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what create_server makes)
        self._transport = transport
        self._connections.add(transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        request, self._buffer = parse(self._buffer)
        if request is None:
            return
        problem = verify(request.headers, request.body, [self._secret], time.time())
        answer = self._receiver.received(request, problem, time.monotonic())
        if answer is None:
            return
        if answer.delay:
            asyncio.get_running_loop().call_later(answer.delay, self._answer, request, answer.status)
        else:
            self._answer(request, answer.status)

    def _answer(self, request: Request, status: int) -> None:
        if self._transport.is_closing():
            return
        if status == _OK:
            now = time.monotonic()
            self._receiver.answered[request.headers["webhook-id"]] += 1
            published_at = self._published_at.get(orjson.loads(request.body)["id"])
            if published_at is not None:
                self._receiver.deliveries.append(Delivered(now, now - published_at))
        self._transport.write(b"HTTP/1.1 %d -\r\ncontent-length: 0\r\n\r\n" % status)


def parse(data: bytes) -> tuple[Request | None, bytes]:
    """The first request in `data`, None while it is not complete; and the rest of the data."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None, data
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = (text.partition(":") for text in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None, data
    return Request(line, headers, rest[:length]), rest[length:]
