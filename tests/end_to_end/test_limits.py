"""Concurrency and rate of subscriptions; dead receivers are spared."""

import time
from math import log2

from tests.end_to_end.service_rig import Deployment, Worker, assert_in_order, eventually
from tests.end_to_end.webhook_receiver import Answer, Door, Request, always


def test_two_workers_keep_the_limits_of_a_subscription_together(deployment: Deployment) -> None:
    """Each has a share by its partitions, the last one left has all, and no other subscription is slowed."""
    delay, rate = 0.3, 40.0
    deployment.subscribe("a", "/four", max_in_flight=4)
    deployment.receiver.rules["/four"] = always(Answer(delay=delay))
    deployment.subscribe("a", "/paced", rate_limit=rate)
    deployment.subscribe("a", "/free")
    first, second = deployment.start(), deployment.start()
    for worker in (first, second):
        eventually(lambda worker=worker: len(worker.lag()) == 2)  # type: ignore[misc]
    time.sleep(1.5)  # shares are computed each second
    deployment.publish(["a"] * 160)
    eventually(lambda: len(deployment.receiver.at("/free")) == 160)
    assert len(deployment.receiver.at("/paced")) < 160
    eventually(lambda: len(deployment.receiver.at("/paced")) > 80)
    most = 2 * rate + 2 * (0.1 * rate + 1) + 0.5 * rate  # for two seconds; half a second more for a slow receiver
    assert most_in(deployment.receiver.at("/paced"), 2.0) <= most
    assert most_in(deployment.receiver.at("/four"), delay) <= 4
    assert len(deployment.receiver.at("/four")) > 20  # and the slots are used
    second.stop()
    eventually(lambda: len(first.lag()) == 4)
    time.sleep(1.5)
    alone_at = time.time()
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not deployment.lag())
    alone = [request for request in deployment.receiver.at("/four") if request.at > alone_at]
    assert most_in(alone, delay) == 4
    assert most_in(deployment.receiver.at("/paced"), 2.0) <= most
    assert deployment.duplicates() == 0
    first.stop()


def most_in(requests: list[Request], seconds: float) -> int:
    """The most requests that arrived within so many seconds."""
    times = sorted(request.at for request in requests)
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


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
    eventually(worker.ready)
    deployment.publish(["a"] * 50, per_second=100, keys=keys)
    eventually(lambda: worker.metric("webhooks_breaker_open") == 2)
    asked, asked_at = _attempts(worker), time.monotonic()
    deployment.publish(["a"] * 600, keys=keys)
    eventually(lambda: not deployment.lag())
    eventually(lambda: len(deployment.receiver.at("/good")) == 650)
    untried = [row for row in deployment.rows() if row.attempt == 0]
    assert len(untried) > 2 * 600
    assert {row.status for row in untried if row.subscription_id == down} == {"parked"}
    assert {row.status for row in untried} == {"parked", "blocked"}
    time.sleep(max(0.0, asked_at + 4 - time.monotonic()))
    assert worker.metric("webhooks_breaker_open") == 2
    probes = log2(time.monotonic() - asked_at + 2)  # after 1, 2, 4, ... seconds
    assert _attempts(worker) - asked <= 2 * (probes + 1)

    deployment.receiver.open(door)
    deployment.receiver.rules.clear()
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    eventually(lambda: worker.metric("webhooks_breaker_open") == 0)
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")
    deployment.assert_true_to_what_was_published()


def _attempts(worker: Worker) -> float:
    """The failed attempts."""
    return sum(worker.metric(f'webhooks_attempts_total{{status_class="{each}"}}') for each in ("error", "5xx"))
