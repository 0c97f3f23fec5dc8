"""`kafka-webhooks run --workers 2` on a real Kafka: one port, one log, one end; a process that dies is replaced."""

import json

import psutil
import pytest

from tests.end_to_end.service_rig import Deployment
from tests.waiting import eventually

MOST_REPEATED = 500  # deliveries of one kill
DELIVERED = 'webhooks_deliveries_total{outcome="delivered"}'


def gone(processes: list[psutil.Process]) -> bool:
    """Whether they have ended."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_process_that_is_killed_under_load_is_replaced(deployment: Deployment, protocol: str) -> None:
    """Nothing is lost and little repeated. /readyz says why, the counters never fall, and SIGTERM ends all."""
    deployment.subscribe("a", "/good")
    parent = deployment.start(arguments=["--workers", "2"], KAFKA_GROUP_PROTOCOL=protocol)
    eventually(parent.ready, otherwise=lambda: parent.log)
    before = parent.members()
    assert before.keys() == {1, 2}
    counts: list[float] = []

    def sees(condition: object) -> object:
        counts.append(parent.metric(DELIVERED))
        return condition

    with deployment.publishing("a", per_second=300):
        eventually(lambda: sees(len(deployment.receiver.requests) > 500), otherwise=lambda: parent.log)
        before[2].kill()
        eventually(lambda: "worker 2: its process ended (killed by SIGKILL)" in parent.unready_because(), every=0.02)
        eventually(lambda: sees(parent.members().get(2) not in {None, before[2]}))
        eventually(lambda: sees(parent.ready()), otherwise=lambda: parent.log)
        eventually(lambda: sees(parent.metric('webhooks_ready{worker="2"}') == 1))
    eventually(lambda: sees(deployment.finished()), otherwise=lambda: parent.log)
    assert parent.members()[1] == before[1]
    assert counts == sorted(counts)
    # The killed process had counted more since it was last asked.
    assert 0 <= len(deployment.accepted()) + deployment.duplicates() - counts[-1] <= MOST_REPEATED + 300
    assert parent.metric("webhooks_workers_replaced_total") == 1
    assert deployment.duplicates() <= MOST_REPEATED
    deployment.assert_true_to_what_was_published()
    running = parent.children()
    parent.stop()
    assert gone(running)
    assert {json.loads(line).get("worker") for line in parent.log.splitlines()} == {None, 1, 2}


def test_a_process_that_hangs_is_replaced(deployment: Deployment) -> None:
    """Until then the metrics call it not ready. The other worker goes on, and nothing is lost."""
    deployment.subscribe("a", "/good")
    deployment.alter("""
from consumer.worker import front, supervisor

front.PATIENCE, supervisor.WATCH_EVERY = 0.3, 0.4
""")
    parent = deployment.start(arguments=["--workers", "2"])
    eventually(parent.ready, otherwise=lambda: parent.log)
    before = parent.members()
    before[2].suspend()
    eventually(lambda: 'webhooks_ready{worker="2"} 0.0' in parent.get("/metrics")[1], every=0.02)
    deployment.publish(["a"] * 40)
    eventually(lambda: parent.members().get(2) not in {None, before[2]}, otherwise=lambda: parent.log)
    eventually(deployment.finished, otherwise=lambda: parent.log)
    assert parent.members()[1] == before[1]
    assert "a worker's loop hangs; its process is killed" in parent.log
    parent.stop()


def test_a_killed_parent_leaves_no_process(deployment: Deployment) -> None:
    """The workers drain as after SIGTERM, so that nothing is repeated; the port is free for a successor."""
    deployment.subscribe("a", "/good")
    parent = deployment.start(arguments=["--workers", "2"])
    eventually(parent.ready, otherwise=lambda: parent.log)
    running = parent.children()
    assert len(running) == 3
    with deployment.publishing("a", per_second=200):
        eventually(lambda: len(deployment.receiver.requests) > 200, otherwise=lambda: parent.log)
        parent.process.kill()
        eventually(lambda: gone(running), otherwise=lambda: parent.log)
    assert parent.log.count('"event": "stopped"') == 2
    successor = deployment.start(arguments=["--workers", "2"], OPS_PORT=str(parent.port))
    successor.port = parent.port
    eventually(successor.ready, otherwise=lambda: successor.log)
    eventually(deployment.finished, otherwise=lambda: successor.log)
    successor.stop()
    assert deployment.duplicates() == 0


def test_a_frozen_worker_is_told_apart(deployment: Deployment) -> None:
    """It does not answer; the others do, and the page of metrics has them. The port's process is replaced too."""
    deployment.subscribe("a", "/good")
    parent = deployment.start(arguments=["--workers", "2"])
    eventually(parent.ready, otherwise=lambda: parent.log)
    frozen = parent.members()[2]
    frozen.suspend()
    assert parent.unready_because() == "worker 2: does not answer"
    assert parent.get("/healthz")[0] == 200
    assert parent.metric('webhooks_ready{worker="1"}') == 1
    frozen.resume()
    (front,) = set(parent.children()) - set(parent.members().values())
    front.kill()
    eventually(lambda: front.pid not in {child.pid for child in parent.children()})
    eventually(parent.ready, otherwise=lambda: parent.log)
    parent.stop()
