"""Batches on a real Kafka: arrays that verify. Chaos tests cover kills, stops, rebalances and invalid events."""

import json
import time
from collections import Counter

from standardwebhooks.webhooks import Webhook

from tests.end_to_end.service_rig import SECRET, Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, Request, always

PATH = "/batches"


def carried(request: Request) -> list[int]:
    """The numbers of the events in a request."""
    return [event["number"] for event in json.loads(request.body)]


def accepted(deployment: Deployment) -> Counter[int]:
    """How often each event was in an accepted batch."""
    return Counter(number for each in deployment.receiver.at(PATH) if each.accepted for number in carried(each))


def assert_true_to_what_was_published(deployment: Deployment) -> None:
    """Each batch is an array of the unchanged records, and is signed."""
    bodies = list(deployment.published)
    for request in deployment.receiver.at(PATH):
        assert request.body == b"[" + b",".join(bodies[number] for number in carried(request)) + b"]"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-webhook-event"] == "a"
        Webhook(SECRET).verify(request.body.decode(), request.headers)


def test_events_arrive_in_arrays(deployment: Deployment) -> None:
    """Full ones are sent at once, others after their wait, in order of each partition.

    Other subscriptions are unaffected.
    """
    deployment.subscribe("a", PATH, batch_size=20, batch_wait_ms=1500)
    deployment.subscribe("a", "/single")
    deployment.receiver.rules[PATH] = always(Answer(delay=0.01))
    worker = deployment.start()
    eventually(worker.ready)
    begin = time.time()
    deployment.publish(["a"] * 205)
    eventually(lambda: accepted(deployment).total() >= 200)
    full = [carried(each) for each in deployment.receiver.at(PATH)]
    assert [len(each) for each in full] == [20] * 10
    eventually(lambda: accepted(deployment).total() >= 205)
    (rest,) = deployment.receiver.at(PATH)[10:]
    assert len(carried(rest)) == 5
    assert rest.at - begin > 1.5
    assert accepted(deployment) == dict.fromkeys(range(205), 1)
    for batch in full:
        for partition in range(4):
            of_partition = [number for number in batch if number % 4 == partition]
            assert of_partition == sorted(of_partition)
    assert_true_to_what_was_published(deployment)
    assert len(deployment.receiver.at("/single")) == 205
    eventually(lambda: not deployment.lag())
    assert worker.metric('webhooks_attempts_total{status_class="2xx"}') == 205 + 11
    assert worker.metric('webhooks_deliveries_total{outcome="delivered"}') == 2 * 205
    assert worker.stop() < 10
