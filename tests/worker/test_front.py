"""The one port of several workers."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from consumer.http.server import BackgroundServer
from consumer.telemetry.metrics import Metrics, Readings, registry
from consumer.worker import front
from consumer.worker.front import Front, Shown, private_listener
from consumer.worker.service import STALLED, LoopState, create_app


class Workers:
    """Two workers as the front sees them, and its clock. The second is silent if it is not served."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turned_at = [1000.0, 1000.0]
        self.reasons: list[list[str]] = [[], []]
        self.metrics = [Metrics(), Metrics()]
        self.listeners = [private_listener(), private_listener()]
        self.front = Front([each.getsockname() for each in self.listeners], lambda: self.now)
        self.front.places = [Shown(11, "", 0), Shown(12, "", 0)]
        self._client = TestClient(self.front.app)

    def serve(self, place: int) -> BackgroundServer:
        def status() -> LoopState:
            return LoopState(self.turned_at[place], self.reasons[place])

        app = create_app(status, registry(self.metrics[place], Readings), lambda: self.now)
        return BackgroundServer(app, self.listeners[place], f"worker {place + 1}")

    def reads(self, path: str) -> tuple[int, list[str]]:
        answer = self._client.get(path)
        return answer.status_code, answer.json()["reasons"]

    def text(self) -> str:
        return self._client.get("/metrics").text


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """Nobody serves them yet."""
    monkeypatch.setattr(front, "PATIENCE", 10.0)
    workers = Workers()
    with ExitStack() as stack:
        for listener in workers.listeners:
            stack.enter_context(listener)
        yield workers


@pytest.fixture
def workers(silent: Workers) -> Iterator[Workers]:
    """Both are served."""
    with ExitStack() as stack:
        for place in (0, 1):
            stack.callback(silent.serve(place).close)
        yield silent


def test_all_workers_have_to_be_ready(workers: Workers) -> None:
    """Each reason names its worker; what ended an earlier process is said until the next one is ready."""
    assert workers.reads("/readyz") == (200, [])
    workers.reasons[1] = ["no Kafka", "no database"]
    assert workers.reads("/readyz") == (503, ["worker 2: no Kafka", "worker 2: no database"])
    ended = "its process ended (killed by SIGKILL)"
    workers.front.places = [Shown(11, ended, 1), Shown(12, ended, 1)]
    assert workers.reads("/readyz")[1] == ["worker 2: no Kafka", "worker 2: no database", f"worker 2: {ended}"]
    workers.reasons[1] = []
    assert workers.reads("/readyz") == (200, [])
    workers.front.places = [Shown(11, ended, 1), Shown(0, ended, 2)]
    assert workers.reads("/readyz") == (503, [f"worker 2: {ended}"])


def test_a_loop_that_stalls_is_not_alive(workers: Workers) -> None:
    """A place without a process is: the parent sees to that."""
    workers.now += STALLED
    workers.turned_at[0] = workers.now
    assert workers.reads("/healthz") == (503, ["worker 2: the loop has not turned for 30 s"])
    workers.front.places = [Shown(11, "", 0), Shown(0, "its process ended (exit status 1)", 1)]
    assert workers.reads("/healthz") == (200, [])


def test_one_page_of_metrics(workers: Workers) -> None:
    """With the sums, the front's own counters, and the sum of a worker that is gone."""
    workers.metrics[0].deliveries["delivered"] = 3
    workers.metrics[1].deliveries["delivered"] = 4
    workers.front.closed = lambda: 5
    assert 'webhooks_deliveries_total{outcome="delivered"} 7.0\n' in workers.text()
    workers.front.places = [Shown(11, "", 0), Shown(0, "its process ended (exit status 1)", 1)]
    text = workers.text()
    assert 'webhooks_deliveries_total{outcome="delivered"} 7.0\n' in text
    assert "webhooks_ops_connections_closed_total 5.0\n" in text
    assert "webhooks_workers_replaced_total 1.0\n" in text
    assert 'webhooks_in_flight{worker="1"} 0.0\n' in text
    assert 'webhooks_in_flight{worker="2"}' not in text


def test_a_silent_worker_is_not_ready_and_after_a_while_not_alive(
    silent: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts from the first question without an answer, since nobody may have asked for hours."""
    monkeypatch.setattr(front, "PATIENCE", 0.2)
    assert silent.reads("/readyz") == (503, ["worker 1: does not answer", "worker 2: does not answer"])
    assert silent.reads("/healthz") == (200, [])
    assert all(f'webhooks_ready{{worker="{number}"}} 0.0\n' in silent.text() for number in (1, 2))
    silent.now += STALLED
    silent.front.places = [Shown(0, "", 0), Shown(12, "", 0)]
    assert silent.reads("/healthz") == (503, ["worker 2: has not answered for 30 s"])
    monkeypatch.setattr(front, "PATIENCE", 10.0)
    server = silent.serve(1)
    silent.turned_at[1] = silent.now
    assert silent.reads("/healthz") == (200, [])
    server.close()
    monkeypatch.setattr(front, "PATIENCE", 0.2)
    assert silent.reads("/healthz") == (200, [])
