"""Misbehaving receivers, each in a process of its own, so that they take no CPU from the measuring thread.

    python -m benchmarks.bad_receivers KIND [OPTIONS]

prints its port, accepts `up` and `stats` on its standard input, and ends with it.
"""

import json
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Thread
from typing import IO, NamedTuple, cast

import trustme

from tests.end_to_end.webhook_receiver import Answer, Door, Drip, Receiver, Rule, Silence, always
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
RULES: dict[Kind, Rule] = {
    Kind.HANG: always(Silence.HANG),
    Kind.DRIP_HEAD: always(Drip(DRIP, head=True)),
    Kind.DRIP_BODY: always(Drip(DRIP, head=False)),
    Kind.RESET: always(Silence.RESET),
    Kind.FLAP: always(Answer()),
    Kind.FAIL: always(Answer(500)),
    Kind.SLOW: always(Answer(delay=SLOW)),
    Kind.TLS_CLOSE: always(Answer(header="connection: close")),
}


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
            [sys.executable, "-m", "benchmarks.bad_receivers", kind, *options],
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
        print(line, file=self._process.stdin, flush=True)

    def _read(self) -> str:
        return cast("IO[str]", self._process.stdout).readline()


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


class Limited:
    """A rule: serves `per_second` requests in order. Answers 503 if `queue` wait, or while down."""

    def __init__(self, per_second: float, queue: int) -> None:
        self._each = 1 / per_second
        self._most = queue
        self._since: float | None = None
        self._free_at = 0.0  # when it has served those that wait
        self.seconds: list[list[int]] = []  # as in Second

    def __call__(self, _: bytes) -> Answer:
        """The answer to a request, at its time. Unused capacity is not saved for later: it works at a rate."""
        now = time.monotonic()
        if self._since is None:
            return Answer(503)
        waiting = max(0.0, self._free_at - now) / self._each
        if waiting >= self._most:
            self._second(now)[1] += 1
            return Answer(503)
        self._second(now)[2] = max(self._second(now)[2], int(waiting) + 1)
        self._free_at = max(now, self._free_at) + self._each
        self._second(self._free_at)[0] += 1
        return Answer(delay=self._free_at - now)

    def up(self) -> None:
        """Serves requests from now on."""
        self._since = time.monotonic()

    def _second(self, at: float) -> list[int]:
        number = int(at - (self._since or at))
        while len(self.seconds) <= number:
            self.seconds.append([0, 0, 0])
        return self.seconds[number]


class NameServer:
    """Answers 127.0.0.1 for names below `good.test`, nothing for `hung` names, and NXDOMAIN for others."""

    def __init__(self) -> None:
        self.requests = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def serve(self) -> None:
        """Answers queries: 12 bytes of header, the name as labels with lengths, two bytes of type, two of class."""
        while True:
            data, client = self._socket.recvfrom(4096)
            end = data.index(0, 12)
            name, (kind,) = data[12:end].lower(), struct.unpack_from("!H", data, end + 1)
            good = name.endswith(b"\x04good\x04test")
            self.requests += not good
            if b"hung" in name:
                continue
            answers = struct.pack("!HHHIH4B", 0xC00C, 1, 1, 1, 4, 127, 0, 0, 1) if good and kind == 1 else b""
            head = data[:2] + struct.pack("!HHHHH", 0x8180 if good else 0x8183, 1, bool(answers), 0, 0)
            self._socket.sendto(head + data[12 : end + 5] + answers, client)


def flap(receiver: Receiver) -> None:
    """Stops and starts listening again and again."""
    while True:
        time.sleep(FLAP)
        receiver.shut()
        time.sleep(FLAP)
        receiver.open_again()


def main(kind: Kind, *options: str) -> None:
    """Misbehave until the standard input ends."""
    limited = Limited(float(options[0]), int(options[1])) if kind is Kind.LIMITED else None
    if kind is Kind.NAMES:
        names = NameServer()
        Thread(target=names.serve, daemon=True).start()
        obey(names.port, lambda: names.requests, limited)
    elif kind is Kind.REFUSE:
        with closing(Door()) as door:
            obey(door.port, lambda: 0, limited)
    else:
        tls: ssl.SSLContext | None = None
        if kind is Kind.TLS_CLOSE:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(options[0])
        with Receiver(tls) as receiver:
            receiver.default = limited or RULES[kind]
            if kind is Kind.FLAP:
                Thread(target=flap, args=(receiver,), daemon=True).start()
            obey(receiver.port, lambda: len(receiver.requests), limited)


def obey(port: int, requests: Callable[[], int], limited: Limited | None) -> None:
    """Print the port, and follow the commands on the standard input."""
    print(port, flush=True)
    for command in sys.stdin:
        if command == "up\n" and limited is not None:
            limited.up()
        elif command == "stats\n":
            seconds = [] if limited is None else limited.seconds
            print(json.dumps({"requests": requests(), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(Kind(sys.argv[1]), *sys.argv[2:])
