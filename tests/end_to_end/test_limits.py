"""Limits of a subscription across real workers, and a receiver that is down: its events are stored and come later."""

from tests.end_to_end.service_rig import Deployment, assert_in_order
from tests.end_to_end.webhook_receiver import Answer, Door, Silence, always
from tests.waiting import eventually


def test_two_workers_keep_the_limits_of_a_subscription_together(deployment: Deployment) -> None:
    """Each has a share by its partitions, the last one left has all, and no other subscription is slowed."""
    deployment.alter("import consumer.worker.maintenance as maintenance; maintenance.LOOK_EVERY = 0.0")
    deployment.subscribe("a", "/four", max_in_flight=4)
    deployment.receiver.rules["/four"] = always(Silence.HANG)
    del deployment.subscriptions["/four"]
    deployment.subscribe("a", "/free")
    settings = {"WEBHOOK_TIMEOUT": "300s", "WEBHOOK_DRAIN": "0s"}
    first, second = deployment.start(**settings), deployment.start(**settings)
    eventually(lambda: len(first.lag()) == len(second.lag()) == 2)
    deployment.publish(["a"] * 160)
    eventually(lambda: not deployment.missing())
    eventually(lambda: [each.metric("webhooks_in_flight") for each in (first, second)] == [2, 2])
    assert len(deployment.receiver.at("/four")) == 4
    second.stop()
    eventually(lambda: first.metric("webhooks_in_flight") == 4)
    assert len(deployment.receiver.at("/four")) == 6
    first.kill()


def test_a_dead_receiver_is_probed_and_gets_its_backlog(deployment: Deployment, door: Door) -> None:
    """Its events are stored without an attempt and delivered later; other subscriptions are unaffected.

    One receiver refuses connections; another one, with ordering, answers 503.
    """
    keys = [b"a", b"b", b"c", b"d"]
    down = deployment.subscribe("a", "/down", door.url("/down"))
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.subscribe("a", "/good")
    deployment.receiver.rules["/ordered"] = always(Answer(503))
    worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="1s," * 30 + "1s", WEBHOOK_RETRY_IN_MEMORY="5s")
    deployment.publish(["a"] * 50, keys=keys)
    eventually(lambda: worker.metric("webhooks_breaker_open") == 2)
    deployment.publish(["a"] * 600, keys=keys)
    eventually(lambda: not deployment.lag())
    eventually(lambda: len(deployment.receiver.at("/good")) == 650)
    untried = [row for row in deployment.rows() if row.attempt == 0]
    assert len(untried) > 2 * 600
    assert {row.status for row in untried if row.subscription_id == down} == {"parked"}
    assert {row.status for row in untried} == {"parked", "blocked"}

    deployment.receiver.open(door)
    deployment.receiver.rules.clear()
    eventually(deployment.finished)
    eventually(lambda: worker.metric("webhooks_breaker_open") == 0)
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")
    deployment.assert_true_to_what_was_published()
