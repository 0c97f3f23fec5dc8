"""The one port of several workers: it asks each on its private socket, and answers for all of them.

A process of its own serves it, so that probes are answered whatever the workers do, and the parent has no threads.
"""

import asyncio
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, NamedTuple

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consumer.http.server import BackgroundServer
from consumer.telemetry.merged import Merged
from consumer.telemetry.metrics import COUNTERS
from consumer.worker.service import STALLED

PATIENCE = 3.0  # seconds for a worker's answer; orchestrators give a probe five
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_BACKLOG = 16


class Shown(NamedTuple):
    """A place, as the parent describes it: the process in it, why there is none or another one, and how many ended."""

    pid: int
    reason: str
    endings: int


def private_listener() -> socket.socket:
    """A listening socket that only processes of this machine or container reach, without a port and a file."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # Linux gives it a name
    listener.listen(_BACKLOG)
    return listener


class Front:
    """Answers for all workers. `addresses` are their private sockets, the first that of worker 1."""

    def __init__(self, addresses: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._addresses = addresses
        self._clock = clock
        self._merged = Merged()
        self._silent: dict[int, float] = {}  # by process: when it first did not answer
        self.places: Sequence[Shown] = [Shown(0, "starting", 0) for _ in addresses]
        self.closed: Callable[[], int] = lambda: 0  # connections to this port that made room for others
        routes = {"/metrics": self._metrics, "/healthz": self._healthz, "/readyz": self._readyz}
        self.app = Starlette(routes=[Route(path, answer) for path, answer in routes.items()])

    async def _metrics(self, request: Request) -> Response:
        answers = await self._ask(request.url.path)
        for worker, (place, body) in answers.items():
            if body is not None:
                self._merged.take(worker, place.pid, body.decode())
        self._merged.take(0, 0, generate_latest(_Families(self.own())).decode())
        present = [worker for worker, (_, body) in answers.items() if body is not None]
        families = self._merged.families(present, answers.keys() - present)
        return Response(generate_latest(_Families(families)), media_type=CONTENT_TYPE_LATEST)

    async def _healthz(self, request: Request) -> Response:
        """A place without a process is none of its reasons: the parent starts another one."""
        reasons = []
        for worker, (place, body) in (await self._ask(request.url.path)).items():
            if place.pid and body is None:
                silent = self._clock() - self._silent.setdefault(place.pid, self._clock())
                reasons += [f"worker {worker}: has not answered for {silent:.0f} s"] if silent >= STALLED else []
            elif body is not None:
                self._silent.pop(place.pid, None)
                reasons += [f"worker {worker}: {reason}" for reason in orjson.loads(body)["reasons"]]
        return JSONResponse({"alive": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def _readyz(self, request: Request) -> Response:
        reasons = []
        for worker, (place, body) in (await self._ask(request.url.path)).items():
            own = [] if not place.pid else ["does not answer"] if body is None else orjson.loads(body)["reasons"]
            if own or not place.pid:
                own += [place.reason] if place.reason else []
            reasons += [f"worker {worker}: {reason}" for reason in own]
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    def own(self) -> Iterable[Metric]:
        """The metrics of the port and of the places."""
        endings = sum(each.endings for each in self.places)
        yield CounterMetricFamily("webhooks_workers_replaced", "Workers' processes that ended unasked.", endings)
        name, text, _ = next(each for each in COUNTERS if each[2] == "ops_closed")
        yield CounterMetricFamily(name, text, self.closed())

    async def _ask(self, path: str) -> dict[int, tuple[Shown, bytes | None]]:
        """By worker, what is known of its place, and the body of its answer if there is one in time."""
        places = self.places
        bodies = await asyncio.gather(
            *(
                _get(address, path) if place.pid else _nothing()
                for address, place in zip(self._addresses, places, strict=True)
            )
        )
        return dict(enumerate(zip(places, bodies, strict=True), 1))


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _nothing() -> None:
    return None


async def _get(address: str, path: str) -> bytes | None:
    """The whole body of a worker's answer; None if it gives none in time."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(address)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nhost: worker\r\nconnection: close\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return body if length is not None and len(body) == int(length[1]) else None  # else it died within its answer


def serve(listener: socket.socket, addresses: Sequence[str], told: BinaryIO) -> None:
    """Serve until `told` ends: the parent's lines, each with all places as they are now."""
    front = Front(addresses)
    server = BackgroundServer(front.app, listener, "health")
    front.closed = lambda: server.cut
    for line in told:
        front.places = [Shown(*each) for each in orjson.loads(line)]
    server.close()
