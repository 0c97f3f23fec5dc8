"""One bad receiver never slows another: a whole worker whose other receivers do not answer."""

import pytest

from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Drip, Silence, always
from tests.waiting import eventually

EVENTS, BAD, SLOTS = 400, 10, 40


@pytest.mark.parametrize("bad", [Silence.HANG, Drip(every=1.0, head=True)], ids=["hangs", "drips"])
def test_receivers_that_do_not_answer_hold_up_no_other(deployment: Deployment, bad: Silence | Drip) -> None:
    """Another one gets all events before the first of their requests ends, though these could take all slots."""
    for number in range(BAD):
        deployment.subscribe("a", f"/bad/{number}")
        deployment.receiver.rules[f"/bad/{number}"] = always(bad)
    deployment.subscriptions.clear()
    deployment.subscribe("a", "/good")
    worker = deployment.start(WEBHOOK_TIMEOUT="300s", WEBHOOK_MAX_IN_FLIGHT=str(SLOTS), WEBHOOK_DRAIN="0s")
    deployment.publish(["a"] * EVENTS)
    eventually(lambda: not deployment.missing())
    assert worker.metric('webhooks_attempts_total{status_class="error"}') == 0
    assert worker.metric("webhooks_in_flight") > 0
