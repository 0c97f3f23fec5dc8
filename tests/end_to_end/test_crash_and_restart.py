"""`kill -9` and frozen processes: nothing is lost, and duplicates are bounded and recognisable."""

import time
from collections.abc import Collection, Mapping

import pytest

from tests.end_to_end.service_rig import Deployment, Worker, eventually
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn

SHORT_RETRIES = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}
DEAD_MEMBER = {"KAFKA_SESSION_TIMEOUT_MS": "2000"}


@pytest.mark.parametrize("standby", [False, True], ids=["restarted", "taken over"])
def test_a_kill_loses_nothing_and_repeats_little(deployment: Deployment, standby: bool) -> None:  # noqa: FBT001 (pytest)
    """Only requests in flight or ended since the last commit are repeated, at most once, with the same id and body.

    One receiver fails at times, so that stored deliveries are killed too: of these, the ones sent whose row was not
    updated yet are repeated.
    """
    for path in ("/one", "/two"):
        deployment.subscribe("a", path)
        deployment.receiver.rules[path] = always(Answer(delay=0.05))
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules["/fails-once"] = every(5, in_turn(500, 200))
    settings = {**SHORT_RETRIES, **DEAD_MEMBER, "WEBHOOK_MAX_IN_FLIGHT": "20"}
    worker = deployment.start(**settings)
    others = [deployment.start(**settings)] if standby else []
    for each in (worker, *others):
        eventually(lambda each=each: len(each.lag()) == 4 / (1 + len(others)))  # type: ignore[misc]
    owned = worker.lag().keys()
    deployment.publish(["a"] * 1500)
    eventually(lambda: len(deployment.receiver.requests) > 1500, every=0.01)
    eventually(lambda: worker.metric("webhooks_commits_total") > 0, every=0.01)

    worker.kill()
    before = time.time() + 0.5  # requests still in the receiver's sockets; no other worker has taken over yet
    assert deployment.missing()
    committed = deployment.committed()
    assert any(committed[partition] for partition in owned)
    numbers = {body: number for number, body in enumerate(deployment.published)}
    unwritten = {
        body
        for (body,) in deployment.sql(
            "SELECT p.body FROM webhook_deliveries d JOIN webhook_payloads p USING"
            " (group_id, topic, partition_no, record_offset, record_ts) WHERE d.status = 'parked'"
        )
    }
    if not standby:
        deployment.start(**settings)
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not deployment.lag())
    deployment.assert_true_to_what_was_published()
    accepted = deployment.accepted()
    repeated = {delivery for delivery, times in accepted.items() if times > 1}
    assert repeated <= {
        (each.path, each.body)
        for each in deployment.receiver.requests
        if each.accepted
        and each.at < before
        and (at_risk(numbers[each.body], owned, committed) or (each.path == "/fails-once" and each.body in unwritten))
    }
    assert max(accepted.values()) <= 2
    assert {row.status for row in deployment.rows()} <= {"delivered", "parked"}


def at_risk(number: int, owned: Collection[int], committed: Mapping[int, int]) -> bool:
    """Whether the event with this number in the order of publishing is in an owned partition and not committed."""
    offset, partition = divmod(number, 4)
    return partition in owned and offset >= committed[partition]


def _delivered(worker: Worker) -> float:
    return worker.metric('webhooks_deliveries_total{outcome="delivered"}')


def test_answers_received_while_frozen_count(deployment: Deployment) -> None:
    """When the worker wakes, the time-out has passed, but the answers in its sockets are read first."""
    deployment.subscribe("a", "/slow")
    deployment.receiver.rules["/slow"] = always(Answer(delay=0.7))
    worker = deployment.start(WEBHOOK_TIMEOUT="1.5", WEBHOOK_MAX_IN_FLIGHT="200")
    eventually(worker.ready)
    deployment.publish(["a"] * 100)
    eventually(lambda: len(deployment.receiver.requests) == 100, every=0.01)
    worker.freeze()
    time.sleep(3)
    worker.thaw()
    eventually(lambda: not deployment.lag())
    deployment.assert_true_to_what_was_published()
    assert (deployment.duplicates(), worker.metric('webhooks_deliveries_total{outcome="retried"}')) == (0, 0)
    worker.stop()


def test_a_frozen_worker_has_lost_its_partitions(deployment: Deployment) -> None:
    """Another worker takes over meanwhile; the first one neither moves offsets back nor stops working for good."""
    for path in ("/good", "/fails-once"):
        deployment.subscribe("a", path)
    deployment.receiver.rules["/good"] = always(Answer(delay=0.02))
    # Only once: failed deliveries are due first, and would keep the circuit breaker open for a minute.
    deployment.receiver.rules["/fails-once"] = every(5, in_turn(500, 200))
    settings = {**SHORT_RETRIES, **DEAD_MEMBER, "WEBHOOK_MAX_IN_FLIGHT": "20"}
    frozen = deployment.start(**settings)
    eventually(frozen.ready)
    deployment.publish(["a"] * 1000)
    eventually(lambda: len(deployment.receiver.requests) > 700, every=0.01)
    with deployment.database.at_rest():  # otherwise it might be frozen while it holds SQLite's lock
        frozen.freeze()
    assert deployment.missing() > 500
    other = deployment.start(**settings)
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not deployment.lag())
    repeated = deployment.duplicates()
    committed = deployment.committed()

    frozen.thaw()
    eventually(lambda: "lost" in frozen.log or frozen.ready(), timeout=120)
    time.sleep(1)
    assert deployment.committed() == committed
    assert deployment.duplicates() <= repeated + 200  # of 2000: it starts some before its client reports the loss
    before = _delivered(frozen)
    with deployment.publishing("a", per_second=100):
        eventually(lambda: _delivered(frozen) > before)
    other.stop()
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not deployment.lag())
    eventually(lambda: not deployment.rows("parked"))
    deployment.assert_true_to_what_was_published()
    frozen.stop()
