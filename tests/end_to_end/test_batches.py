"""Batches on a real Kafka: arrays that verify, a poisonous event among good ones, kills, stops and rebalances."""

import json
import time
from collections import Counter

import pytest
from standardwebhooks.webhooks import Webhook

from tests.end_to_end.service_rig import SECRET, Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, Request, Silence, always

PATH = "/batches"
STORED_RETRIES = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}


def carried(request: Request) -> list[int]:
    """The numbers of the events in a request."""
    return [event["number"] for event in json.loads(request.body)]


def accepted(deployment: Deployment) -> Counter[int]:
    """How often each event was in a batch that was accepted."""
    return Counter(number for each in deployment.receiver.at(PATH) if each.accepted for number in carried(each))


def assert_true_to_what_was_published(deployment: Deployment) -> None:
    """Each batch is an array of the records as they came, byte for byte, and is signed."""
    bodies = list(deployment.published)
    for request in deployment.receiver.at(PATH):
        assert request.body == b"[" + b",".join(bodies[number] for number in carried(request)) + b"]"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["x-webhook-event"] == "a"
        Webhook(SECRET).verify(request.body.decode(), request.headers)


def test_events_arrive_in_arrays(deployment: Deployment) -> None:
    """Full ones at once, the rest after its time, each partition in order; others see no difference."""
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


@pytest.mark.parametrize("in_memory", ["0", "10s"])
def test_a_poisonous_event_exhausts_itself_alone(deployment: Deployment, in_memory: str) -> None:
    """A receiver that answers 422 to any batch that holds it: each of these events is tried alone from then on."""
    poison, mark = 13, b'"number": 13,'
    deployment.subscribe("a", PATH, batch_size=20, batch_wait_ms=300)
    deployment.receiver.rules[PATH] = lambda body: Answer(422 if mark in body else 200)
    deployment.start(**STORED_RETRIES | {"WEBHOOK_RETRY_IN_MEMORY": in_memory})
    deployment.publish(["a"] * 100)
    eventually(lambda: len(accepted(deployment)) == 99)
    eventually(lambda: deployment.rows("exhausted"))
    eventually(lambda: not deployment.rows("parked") and not deployment.lag())
    assert accepted(deployment) == dict.fromkeys(set(range(100)) - {poison}, 1)
    (row,) = deployment.rows("exhausted")
    assert (row.attempt, row.last_status) == (4, 422)
    refused = [carried(each) for each in deployment.receiver.at(PATH) if not each.accepted]
    assert [len(each) for each in refused[1:]] == [1, 1, 1]
    assert_true_to_what_was_published(deployment)


def test_a_kill_in_the_middle_of_batches_loses_nothing(deployment: Deployment) -> None:
    """Some are open, some wait to be full, some are stored; what comes again is in the committed order of things."""
    deployment.subscribe("a", PATH, batch_size=50, batch_wait_ms=200, max_in_flight=4)
    turns = Counter[bool]()

    def fails_now_and_then(_: bytes) -> Answer:
        turns[True] += 1
        return Answer(503 if turns[True] % 4 == 0 else 200, delay=0.1)

    deployment.receiver.rules[PATH] = fails_now_and_then
    settings = STORED_RETRIES | {"WEBHOOK_RETRY_SCHEDULE": ",".join(["1s"] * 20), "KAFKA_SESSION_TIMEOUT_MS": "2000"}
    worker = deployment.start(**settings)
    deployment.publish(["a"] * 2000)
    eventually(lambda: 400 < accepted(deployment).total() < 1800, every=0.01)
    worker.kill()
    before = accepted(deployment)
    assert len(before) < 2000
    deployment.start(**settings)
    eventually(lambda: len(accepted(deployment)) == 2000, timeout=60)
    eventually(lambda: not deployment.rows("parked") and not deployment.lag())
    assert max(accepted(deployment).values()) <= 2
    assert {row.status for row in deployment.rows()} <= {"delivered"}
    assert_true_to_what_was_published(deployment)


def test_a_stop_drains_batches_and_repeats_nothing(deployment: Deployment) -> None:
    """Those that are open may end; those that wait to be full are left to the next worker, which goes on from there."""
    deployment.subscribe("a", PATH, batch_size=30, batch_wait_ms=60_000, max_in_flight=2)
    deployment.receiver.rules[PATH] = always(Answer(delay=0.4))
    worker = deployment.start()
    deployment.publish(["a"] * 400)
    eventually(lambda: accepted(deployment).total() >= 60, every=0.01)
    assert worker.stop() < 10
    assert len(accepted(deployment)) < 400
    deployment.sql("UPDATE webhook_subscriptions SET batch_wait_ms = 100")
    deployment.start()
    eventually(lambda: len(accepted(deployment)) == 400)
    eventually(lambda: not deployment.rows("parked") and not deployment.lag())
    assert accepted(deployment) == dict.fromkeys(range(400), 1)
    assert_true_to_what_was_published(deployment)


def test_a_batch_that_hangs_while_some_of_its_partitions_leave(deployment: Deployment) -> None:
    """It is cut off: what leaves is stored as attempted, what stays is tried again; each event arrives."""
    deployment.subscribe("a", PATH, batch_size=80, batch_wait_ms=5000)
    deployment.receiver.rules[PATH] = always(Silence.HANG)
    settings = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_TIMEOUT": "60s", "WEBHOOK_DRAIN": "1s"}
    first = deployment.start(**settings)
    eventually(first.ready)
    deployment.publish(["a"] * 80)
    eventually(lambda: deployment.receiver.at(PATH))
    del deployment.receiver.rules[PATH]
    second = deployment.start(**settings)
    eventually(lambda: len(accepted(deployment)) == 80)
    eventually(lambda: not deployment.rows("parked") and not deployment.lag())
    assert accepted(deployment) == dict.fromkeys(range(80), 1)
    rows = deployment.rows()
    assert [(row.status, row.attempt) for row in rows] == [("delivered", 2)] * 40, "of the partitions that left"
    assert {len(each.lag()) for each in (first, second)} == {2}
    assert_true_to_what_was_published(deployment)
