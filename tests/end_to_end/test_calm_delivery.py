"""Without faults each subscription gets each event once, signed, and all offsets are committed."""

import hmac
import json
import time
from random import Random

from standardwebhooks import Webhook

from consumer.crypto.keys import parse_secret
from tests.end_to_end.deployed_database import ON_EACH_DATABASE
from tests.end_to_end.service_rig import SECRET, Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always

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
    eventually(lambda: not deployment.missing())
    delivered_at = time.monotonic()
    eventually(lambda: not deployment.lag())
    assert time.monotonic() - delivered_at < 5  # a commit every 0.25 s
    assert worker.stop() < 10
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


def test_a_subscription_counts_from_when_it_is_made_until_it_is_removed(deployment: Deployment) -> None:
    """Workers see changes by plain SQL within about WEBHOOK_SUBSCRIPTION_CACHE, without a restart."""
    deployment.subscribe("a", "/first")
    worker = deployment.start(WEBHOOK_SUBSCRIPTION_CACHE="0.3")
    deployment.publish(["a"])
    eventually(lambda: deployment.receiver.at("/first"))

    added = deployment.subscribe("a", "/second")
    time.sleep(1)
    deployment.publish(["a"] * 10)
    eventually(lambda: len(deployment.receiver.at("/second")) == 10)

    deployment.sql("DELETE FROM webhook_subscriptions WHERE id = ?", added)
    time.sleep(1)
    deployment.publish(["a"] * 10)
    eventually(lambda: len(deployment.receiver.at("/first")) == 21)
    deployment.sql("UPDATE webhook_subscriptions SET enabled = 0")
    time.sleep(1)
    deployment.publish(["a"] * 10)
    eventually(lambda: not deployment.lag())
    worker.stop()
    assert len(deployment.receiver.at("/second")) == 10
    assert len(deployment.receiver.at("/first")) == 21


def test_a_workers_own_port(deployment: Deployment) -> None:
    """It serves metrics with fixed names and true counts, liveness and readiness."""
    deployment.subscribe("a", "/good")
    deployment.subscribe("a", "/bad")
    deployment.receiver.rules["/bad"] = always(Answer(503))
    worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="1h", WEBHOOK_RETRY_IN_MEMORY="0")
    deployment.publish(["a", "a", "b"])
    deployment.write(b"not json")
    deployment.flush()
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    assert worker.get("/healthz")[0] == 200
    expected = {
        'webhooks_events_total{outcome="matched"}': 2,
        'webhooks_events_total{outcome="unmatched"}': 1,
        'webhooks_events_total{outcome="dead_lettered"}': 1,
        'webhooks_deliveries_total{outcome="delivered"}': 2,
        'webhooks_deliveries_total{outcome="parked"}': 2,
        'webhooks_attempts_total{status_class="2xx"}': 2,
        'webhooks_attempts_total{status_class="5xx"}': 2,
        "webhooks_attempt_seconds_count": 4,
        "webhooks_delivery_latency_seconds_count": 2,
        "webhooks_in_flight": 0,
        "webhooks_breaker_open": 0,
    }
    assert {sample: worker.metric(sample) for sample in expected} == expected
    eventually(lambda: worker.metric("webhooks_commits_total") > 0)
    text = worker.get("/metrics")[1]
    assert "webhooks_parked " in text
    for partition in range(4):
        assert f'webhooks_consumer_lag{{partition="{partition}",topic="{deployment.topic}"}} ' in text
