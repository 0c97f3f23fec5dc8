"""Misbehaving receivers, each in a process of its own, so that they take no CPU from the measuring thread.

    python -m tests.end_to_end.bad_receivers KIND [OPTIONS]

prints its port, accepts `up`, `down` and `stats` on its standard input, and ends with it.
"""

import asyncio
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import trustme

from tests.end_to_end.webhook_receiver import Exchanges
from tests.processes import ROOT, environment


class Kind(StrEnum):
    """The ways to misbehave."""

    HANG = "hang"  # reads the request, never answers
    DRIP_HEAD = "drip-head"  # a byte of the status line a second
    DRIP_BODY = "drip-body"  # 200 at once, then a byte of the body a second
    RESET = "reset"  # RST in place of an answer
    REFUSE = "refuse"  # does not listen
    FLAP = "flap"  # listens for FLAP seconds, then not for FLAP seconds
    FAIL = "fail"  # 500
    SLOW = "slow"  # 200 after SLOW seconds
    TLS_CLOSE = "tls-close"  # 200 over TLS, a new connection for each
    LIMITED = "limited"  # serves so many requests a second with a short queue; 503 beyond it, and to all while down
    NAMES = "names"  # a name server: see `NameServer`


FLAP, SLOW, DRIP = 2.0, 3.0, 1.0  # seconds
OK = b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"
LONG = b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000


class Second(NamedTuple):
    """The counts of a limited receiver in one second since it went up."""

    served: int
    refused: int
    most_waiting: int


class BadReceiver:
    """The receiver's process, seen from outside."""

    def __init__(self, kind: Kind, *options: str) -> None:
        self._scheme = "https" if kind is Kind.TLS_CLOSE else "http"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.bad_receivers", kind, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment({}),
            cwd=ROOT,
        )
        self.port = int(self._read())

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Its URL for `path`."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def up(self) -> None:
        """A limited receiver serves requests from now on."""
        self._write("up")

    def requests(self) -> int:
        """The number of requests received; for a name server, of queries for other names than the good ones."""
        self._write("stats")
        requests: int = json.loads(self._read())["requests"]
        return requests

    def seconds(self) -> list[Second]:
        """The counts of a limited receiver for each second since it went up."""
        self._write("stats")
        return [Second(*each) for each in json.loads(self._read())["seconds"]]

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate(timeout=120)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def bad_receiver(kind: Kind, *options: str) -> Iterator[BadReceiver]:
    """A bad receiver that runs until the end of the block."""
    receiver = BadReceiver(kind, *options)
    try:
        yield receiver
    finally:
        receiver.close()


class Certificates(NamedTuple):
    """Files: the authority that a worker must trust (SSL_CERT_FILE), and a certificate for a receiver on 127.0.0.1."""

    trusted: Path
    shown: Path


def certificates(directory: Path) -> Certificates:
    """Certificates of a new authority."""
    authority = trustme.CA()
    made = Certificates(directory / "authority.pem", directory / "receiver.pem")
    authority.cert_pem.write_to_path(made.trusted)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(made.shown)
    return made


def asking(name_server: BadReceiver) -> str:
    """Code that makes a worker resolve names at this server: c-ares reads name servers from system files only."""
    return _ASKING.format(f"127.0.0.1:{name_server.port}")


_ASKING = """\
from functools import partial

from consumer.worker import wiring

wiring.LoopAdapter = partial(wiring.LoopAdapter, nameservers=["{}"])
"""

# Code inside the process.

Behaviour = Callable[[asyncio.Transport], None]  # called for each request


def hang(_: asyncio.Transport) -> None:
    """Never answers, and keeps the connection open."""


def say(answer: bytes, transport: asyncio.Transport) -> None:
    """Answers at once."""
    transport.write(answer)


def say_late(answer: bytes, transport: asyncio.Transport) -> None:
    """Answers after SLOW seconds."""
    asyncio.get_running_loop().call_later(SLOW, transport.write, answer)


def say_and_close(answer: bytes, transport: asyncio.Transport) -> None:
    """Answers at once and closes the connection."""
    transport.write(answer)
    transport.close()


def drip(answer: bytes, position: int, transport: asyncio.Transport) -> None:
    """Writes the answer up to `position`, then one more byte each second."""
    if position <= len(answer) and not transport.is_closing():
        transport.write(answer[max(position - 1, 0) : position])
        asyncio.get_running_loop().call_later(DRIP, drip, answer, position + 1, transport)


def drip_body(transport: asyncio.Transport) -> None:
    """Writes the head at once, and the body byte by byte."""
    head = LONG.index(b"\r\n\r\n") + 4
    transport.write(LONG[:head])
    drip(LONG, head + 1, transport)


def reset(transport: asyncio.Transport) -> None:
    """Resets the connection."""
    peer: socket.socket = transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Limited:
    """Serves `per_second` requests in order. Answers 503 if more than `queue` wait, or while down."""

    TICK = 0.01

    def __init__(self, per_second: float, queue: int) -> None:
        self._per_second = per_second
        self._most = queue
        self._waiting: deque[asyncio.Transport] = deque()
        self._since: float | None = None
        self._served = 0
        self.seconds: list[list[int]] = []  # as in Second

    def __call__(self, transport: asyncio.Transport) -> None:
        """Serves or refuses a request."""
        if self._since is None:
            transport.write(REFUSED)
        elif len(self._waiting) >= self._most:
            transport.write(REFUSED)
            self._second()[1] += 1
        else:
            self._waiting.append(transport)
            second = self._second()
            second[2] = max(second[2], len(self._waiting))

    def up(self) -> None:
        """Serves requests from now on."""
        self._since = asyncio.get_running_loop().time()
        self._tick(self._since)

    def _tick(self, last: float) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        # Unused capacity is not saved for later: it works at a rate.
        for _ in range(min(len(self._waiting), self._due(last, now))):
            self._waiting.popleft().write(OK)
            self._second()[0] += 1
        loop.call_later(self.TICK, self._tick, now)

    def _due(self, last: float, now: float) -> int:
        assert self._since is not None
        return int((now - self._since) * self._per_second) - int((last - self._since) * self._per_second)

    def _second(self) -> list[int]:
        assert self._since is not None
        number = int(asyncio.get_running_loop().time() - self._since)
        while len(self.seconds) <= number:
            self.seconds.append([0, 0, 0])
        return self.seconds[number]


class Connection(Exchanges):
    """Applies the behaviour to each request."""

    def __init__(self, server: "Server") -> None:
        super().__init__()
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Registers with the server, which may reset the connection."""
        super().connection_made(transport)
        self._server.connections.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Deregisters."""
        del exc
        self._server.connections.discard(self.transport)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Counts a request and applies the behaviour."""
        del path, headers, body
        self._server.requests += 1
        self._server.behave(self.transport)


class Server:
    """A port and its behaviour."""

    def __init__(self, behave: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.connections: set[asyncio.Transport] = set()
        self.requests = 0
        self.flapping: asyncio.Task[None] | None = None
        self._tls = tls
        self._listening: asyncio.Server | None = None

    async def listen(self, port: int = 0) -> int:
        """Listens; returns the port."""
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), "127.0.0.1", port, ssl=self._tls, backlog=4096
        )
        taken: int = self._listening.sockets[0].getsockname()[1]
        return taken

    async def flap(self, port: int) -> None:
        """Stops and starts listening again and again."""
        while self._listening is not None:
            await asyncio.sleep(FLAP)
            self._listening.close()
            for connection in tuple(self.connections):
                reset(connection)
            await asyncio.sleep(FLAP)
            await self.listen(port)


class NameServer(asyncio.DatagramProtocol):
    """Answers 127.0.0.1 for names below `good.test`, nothing for `hung` names, and NXDOMAIN for others."""

    def __init__(self) -> None:
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the socket."""
        self.transport = cast(
            "asyncio.DatagramTransport", transport
        )  # asyncio's own class is no DatagramTransport until 3.12

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers a query: 12 bytes of header, the name as labels with lengths, two bytes of type, two of class."""
        end = data.index(0, 12)
        name, (kind,) = data[12:end].lower(), struct.unpack_from("!H", data, end + 1)
        good = name.endswith(b"\x04good\x04test")
        self.requests += not good
        if b"hung" in name:
            return
        answers = struct.pack("!HHHIH4B", 0xC00C, 1, 1, 1, 4, 127, 0, 0, 1) if good and kind == 1 else b""
        head = data[:2] + struct.pack("!HHHHH", 0x8180 if good else 0x8183, 1, bool(answers), 0, 0)
        self.transport.sendto(head + data[12 : end + 5] + answers, addr)


BEHAVIOURS: dict[Kind, Behaviour] = {
    Kind.HANG: hang,
    Kind.DRIP_HEAD: partial(drip, OK, 1),
    Kind.DRIP_BODY: drip_body,
    Kind.RESET: reset,
    Kind.FLAP: partial(say, OK),
    Kind.FAIL: partial(say, FAILED),
    Kind.SLOW: partial(say_late, OK),
    Kind.TLS_CLOSE: partial(say_and_close, CLOSING),
}


async def main(kind: Kind, *options: str) -> None:
    """Misbehave until the standard input ends."""
    loop = asyncio.get_running_loop()
    limited: Limited | None = None
    server: Server | NameServer = Server(hang)
    if kind is Kind.NAMES:
        transport, server = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
    elif kind is Kind.REFUSE:
        closed = socket.socket()
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    elif kind is Kind.LIMITED:
        limited = Limited(float(options[0]), int(options[1]))
        server = Server(limited)
        port = await server.listen()
    else:
        tls: ssl.SSLContext | None = None
        if kind is Kind.TLS_CLOSE:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(options[0])
        server = Server(BEHAVIOURS[kind], tls)
        port = await server.listen()
        if kind is Kind.FLAP:
            server.flapping = loop.create_task(server.flap(port))
    print(port, flush=True)  # noqa: T201 (how it answers)

    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), os.fdopen(0, "rb"))
    async for command in commands:
        if command == b"up\n" and limited is not None:
            limited.up()
        elif command == b"stats\n":
            seconds = [] if limited is None else limited.seconds
            print(json.dumps({"requests": server.requests, "seconds": seconds}), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(Kind(sys.argv[1]), *sys.argv[2:]))
