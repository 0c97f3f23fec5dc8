"""Without faults each subscription gets each event once, signed, and all offsets are committed."""

import hmac
import json
from random import Random

from standardwebhooks import Webhook

from consumer.crypto.keys import parse_secret
from tests.end_to_end.deployed_database import ON_EACH_DATABASE
from tests.end_to_end.service_rig import SECRET, Deployment
from tests.waiting import eventually

FAN_OUT = {"user.created": 1, "user.updated": 2, "order.paid": 3, "order.shipped": 8, "stock.low": 20}


@ON_EACH_DATABASE
def test_two_thousand_events_reach_each_subscription_once(deployment: Deployment) -> None:
    """With fan-outs of 1 to 20 no delivery is missing or repeated, bodies are unchanged, and signatures verify."""
    for event_type, number in FAN_OUT.items():
        for each in range(number):
            deployment.subscribe(event_type, f"/{event_type}/{each}")
    types = [*FAN_OUT, "nobody.cares"] * 333 + ["nobody.cares"] * 2
    Random(1).shuffle(types)
    worker = deployment.start()
    deployment.publish(types)
    eventually(deployment.finished)
    worker.stop()
    assert deployment.accepted() == deployment.expected()
    assert len(deployment.receiver.requests) == sum(deployment.expected().values())
    deployment.assert_true_to_what_was_published()
    assert sum(deployment.committed().values()) == 2000
    assert deployment.rows() == []
    for request in deployment.receiver.requests[::7]:
        headers = request.headers
        assert Webhook(SECRET).verify(request.body, headers) == json.loads(request.body)
        expected = hmac.new(parse_secret(SECRET), request.body, "sha256").hexdigest()
        assert headers["x-webhook-signature"] == expected
        assert headers["x-webhook-event"] == deployment.published[request.body]
        assert headers["content-type"] == "application/json"
