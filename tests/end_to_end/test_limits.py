"""Limits of a subscription across real workers."""

from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Silence, always
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
