"""The HTTP port of a worker."""

import json
import socket
from collections.abc import Iterator

import pytest
import requests
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from consumer.config.settings import OpsSettings
from consumer.http.server import BackgroundServer, listen
from consumer.telemetry.metrics import Metrics, Readings, registry
from consumer.worker.service import STALLED, LoopState, create_app, listener_of


class Loop:
    """The state of a worker as the port sees it, set by the test."""

    now = 1000.0
    turned_at = 1000.0
    reasons: tuple[str, ...] = ()

    def status(self) -> LoopState:
        return LoopState(self.turned_at, self.reasons)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def server(loop: Loop) -> Iterator[BackgroundServer]:
    metrics = Metrics()
    metrics.deliveries["delivered"] = 7
    app = create_app(loop.status, registry(metrics, Readings), lambda: loop.now)
    server = BackgroundServer(app, listen("127.0.0.1", 0), "test")
    yield server
    server.close()


def get(server: BackgroundServer, path: str) -> tuple[int, str]:
    answer = requests.get(f"http://127.0.0.1:{server.port}{path}", timeout=60)
    return answer.status_code, answer.text


def test_alive_while_the_loop_turns(server: BackgroundServer, loop: Loop) -> None:
    """`/healthz` is 200 unless the loop has not turned for 30 s. `/metrics` has the worker's samples."""
    assert get(server, "/healthz")[0] == 200
    loop.now += STALLED - 0.1
    assert get(server, "/healthz")[0] == 200
    loop.now += 0.1
    status, body = get(server, "/healthz")
    assert (status, json.loads(body)) == (503, {"alive": False, "reasons": ["the loop has not turned for 30 s"]})
    assert get(server, "/readyz")[0] == 503
    assert 'webhooks_deliveries_total{outcome="delivered"} 7.0' in get(server, "/metrics")[1]


def test_every_reason_is_listed(server: BackgroundServer, loop: Loop) -> None:
    """`/readyz` lists all reasons why the worker is not ready, and is 200 if there is none."""
    loop.reasons = ("no Kafka", "no database")
    status, body = get(server, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["no Kafka", "no database"]})
    loop.reasons = ()
    status, body = get(server, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})


def test_a_taken_port_is_a_warning() -> None:
    """If another process has the port, the worker runs without it and logs that. OPS_PORT=0 is no mistake."""
    with socket.create_server(("127.0.0.1", 0)) as other, capture_logs() as logs:
        for port in (0, other.getsockname()[1]):
            assert listener_of(OpsSettings(ops_host="127.0.0.1", ops_port=port)) is None
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "OPS_PORT" in logs[0]["change"]


def test_closing_frees_the_port_at_once() -> None:
    """After `close` another process can bind it."""
    listener = listen("127.0.0.1", 0)
    server = BackgroundServer(create_app(lambda: LoopState(0, ()), CollectorRegistry()), listener, "test")
    server.close()
    listen("127.0.0.1", server.port).close()
