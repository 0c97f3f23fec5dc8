"""`ordering = 'key'`: the events of a key are sent one at a time, in the order of the log, in spite of any faults."""

from tests.end_to_end.service_rig import Deployment, Worker, assert_in_order
from tests.end_to_end.webhook_receiver import every, in_turn
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


def _delivers(worker: Worker, most: float = 100) -> None:
    def delivered() -> float:
        return worker.metric('webhooks_deliveries_total{outcome="delivered"}')

    before = delivered()
    eventually(lambda: delivered() > before + most)
