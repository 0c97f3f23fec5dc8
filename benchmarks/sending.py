"""The sender alone, without Kafka and the database, for benchmarks that measure it."""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any

from requests import Response

from benchmarks import rig
from consumer.events.event import Event, RecordId
from consumer.loop.poller import Poller
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.request import build
from consumer.sending.signing import prepare
from consumer.sending.transfer import Result
from consumer.subscriptions.endpoint import Endpoint


class Run:
    """Sends events to the urls: each to one of them in turn, or to all of them with `fan_out`."""

    def __init__(self, urls: Sequence[str], *, fan_out: bool = False, **options: Any) -> None:
        secrets = (rig.SECRET.encode(),)
        endpoints = [Endpoint(number, url, secrets, **options) for number, url in enumerate(urls)]
        self._targets = [(endpoint, prepare(endpoint)) for endpoint in endpoints]
        self._each = len(urls) if fan_out else 1
        self.poller = Poller()
        self.adapter = LoopAdapter(
            self.poller,
            egress=EgressPolicy((ip_network("127.0.0.0/8"),)),
            timeout=15,
            connect_timeout=5,
            max_connections=3_000,
        )
        self.sent = self.done = self.bytes = 0
        self.latencies: list[float] = []

    def send(self, body: bytes) -> None:
        """Sends one event."""
        number = self.sent // self._each
        record = RecordId("bench", 0, number, 0)
        made = Event(record, "bench.event", f"msg_{number:032x}", body, "application/json", None, None)
        for _ in range(self._each):
            endpoint, template = self._targets[self.sent % len(self._targets)]
            request = build(template, endpoint, made, int(time.time()))
            self.bytes += len(request.body or b"")
            self.adapter.submit(request, partial(self._on_result, time.perf_counter()))
            self.sent += 1

    def _on_result(self, began: float, result: Result) -> None:
        if not isinstance(result, Response) or not result.ok:
            sys.exit(f"a delivery failed: {result!r}")
        self.done += 1
        self.latencies.append(time.perf_counter() - began)

    def until(self, number: int, concurrency: int, body: Callable[[int], bytes]) -> None:
        """Sends until so many are done. `body` returns the next event's body for the number sent so far."""
        while self.done < number:
            while self.sent < number and self.sent - self.done < concurrency:
                self.send(body(self.sent))
            self.poller.turn(1.0)
