"""Workers come and go while events flow: nothing is lost, and orderly leaving repeats nothing."""

import time

import pytest

from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_scaling_up_and_down(deployment: Deployment, protocol: str) -> None:
    """One worker, then two, then three, then the first two leave, with both group protocols.

    A receiver that fails at times causes stored deliveries, which change owners with their partitions.
    """
    deployment.subscribe("a", "/quick")
    deployment.subscribe("a", "/slow")
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules |= {"/slow": always(Answer(delay=0.2)), "/fails-once": every(5, in_turn(503, 200))}
    settings = {
        "KAFKA_GROUP_PROTOCOL": protocol,
        "WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s",
        "WEBHOOK_RETRY_IN_MEMORY": "0",
        "WEBHOOK_DRAIN": "5s",
    }
    first = deployment.start(**settings)
    eventually(first.ready)
    with deployment.publishing("a", per_second=400):
        time.sleep(1)
        second = deployment.start(**settings)
        eventually(lambda: second.metric('webhooks_deliveries_total{outcome="delivered"}'))
        third = deployment.start(**settings)
        eventually(lambda: third.metric('webhooks_deliveries_total{outcome="delivered"}'))
        assert first.stop() < 10
        assert second.stop() < 10
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    eventually(lambda: not deployment.rows("parked"))
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()
    assert third.stop() < 10
