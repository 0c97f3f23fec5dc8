"""`ordering = 'key'`: the events of a key are sent one at a time, in the order of the log, in spite of any faults."""

import pytest

from tests.end_to_end.service_rig import Deployment, Worker, assert_in_order
from tests.end_to_end.webhook_receiver import Answer, every, in_turn
from tests.waiting import eventually


def test_order_is_kept_while_workers_come_go_and_die(deployment: Deployment) -> None:
    """A second worker joins, the first leaves, a third joins, one is killed; retries wait in memory and stored."""
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.subscribe("a", "/free")
    deployment.receiver.rules |= {
        "/ordered": every(9, in_turn(503, 404, 200)),
        "/free": every(9, in_turn(503, 404, 200)),
    }
    settings = {
        "WEBHOOK_RETRY_IN_MEMORY": "500ms",
        "WEBHOOK_RETRY_SCHEDULE": "500ms,1s,1s,1s",
        "KAFKA_SESSION_TIMEOUT_MS": "2000",
    }
    first = deployment.start(**settings)
    eventually(first.ready)
    # About three a second for each key, so that none falls behind for good: every ninth is delayed by 1.5 s.
    with deployment.publishing("a", per_second=150, keys=[f"key {number}".encode() for number in range(48)]):
        second = deployment.start(**settings)
        _delivers(second)
        first.stop()
        third = deployment.start(**settings)
        _delivers(third)
        calm = deployment.duplicates()
        second.kill()
        fourth = deployment.start(**settings)
        _delivers(fourth)
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    assert calm == 0
    assert_in_order(deployment, "/ordered")
    deployment.assert_true_to_what_was_published()
    third.stop()
    fourth.stop()


@pytest.mark.parametrize("status", [422, 500])
def test_a_key_that_is_refused_stops_no_other_key(deployment: Deployment, status: int) -> None:
    """However many of its deliveries wait, first in the log and later: also in a worker that has seen no 2xx."""
    deployment.partitions = 1
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.receiver.rules["/ordered"] = lambda body: Answer(status if deployment.keys[body] == b"bad" else 200)
    settings = {"WEBHOOK_BACKLOG_ROWS": "100", "WEBHOOK_RETRY_SCHEDULE": "5m,30m,2h"}

    def others_have_come() -> bool:
        others = (body for path, body in deployment.expected() - deployment.accepted())
        return not any(deployment.keys[body] != b"bad" for body in others)

    first = deployment.start(**settings)
    eventually(first.ready)
    deployment.publish(["a"] * 1000, keys=[b"bad"])
    eventually(lambda: not deployment.lag())
    first.stop()
    for _ in range(2):  # a new worker begins where the last one stood
        deployment.publish(["a"] * 1500, keys=[b"bad", *(b"%d" % number for number in range(9))])
        worker = deployment.start(**settings)
        eventually(others_have_come, otherwise=deployment.missing)
        assert worker.ready()
        worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")


def _delivers(worker: Worker, most: float = 100) -> None:
    def delivered() -> float:
        return worker.metric('webhooks_deliveries_total{outcome="delivered"}')

    before = delivered()
    eventually(lambda: delivered() > before + most)
