"""Slow and invalid filters delay no other subscription and lose no event."""

import json
import time

import pytest

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import SLOW_FILTER, Deployment, Worker, eventually, percentile

QUICK = "data.number % 3 == 0"
EVENTS = 600
FLOOR = 0.5  # seconds of p95 that a busy machine may show


def wanted(deployment: Deployment) -> set[bytes]:
    """The bodies that the filters match."""
    slow = (body for body, kind in deployment.published.items() if kind == "slow")
    return {body for body in slow if json.loads(body)["number"] % 3 == 0}


def metric(worker: Worker) -> float:
    """The number of subscriptions whose filter is disabled."""
    return worker.metric("webhooks_expressions_left_out")


def test_filters_over_their_budget_delay_no_other_and_lose_nothing(deployment: Deployment) -> None:
    """Their events are stored without evaluating them, and filtered before they are sent."""
    deployment.alter("import consumer.matching.selection as selection; selection.PAUSE = 12.0")
    deployment.subscribe("calm", "/calm")
    slow = {
        f"/slow{each}": deployment.subscribe("slow", f"/slow{each}", event_filter=SLOW_FILTER % each)
        for each in range(5)
    }
    worker = deployment.start()
    eventually(worker.ready)
    alone = time.time()
    deployment.publish(["calm"] * 200, per_second=50)
    beside = time.time()
    deployment.publish(["calm", "slow"] * EVENTS, per_second=160)
    eventually(lambda: metric(worker) == len(slow), every=0.2)
    eventually(lambda: len(deployment.receiver.at("/calm")) == 200 + EVENTS)
    before, company = (percentile(deployment.latencies("/calm", since), 0.95) for since in (alone, beside))
    assert company < max(3 * before, FLOOR), f"p95 {before * 1e3:.0f} ms alone, {company * 1e3:.0f} ms beside"
    assert worker.log.count("takes too much CPU time; its events are stored") >= len(slow)
    eventually(lambda: deployment.lag() == 0)
    assert len(deployment.rows("parked")) > EVENTS
    for subscription in slow.values():
        deployment.sql("UPDATE webhook_subscriptions SET event_filter = ? WHERE id = ?", QUICK, subscription)
    eventually(lambda: not deployment.rows("parked"), 60)
    for path in slow:
        assert sorted(request.body for request in deployment.receiver.at(path)) == sorted(wanted(deployment))
    assert not deployment.rows("exhausted")


@pytest.mark.parametrize("event_filter", ["data.number % == 0", "data.l.all(x, data.l.all(y, x == y))"])
def test_an_invalid_filter_costs_no_event(deployment: Deployment, command_line: CommandLine, event_filter: str) -> None:
    """Its events are stored and, once it is corrected, filtered. Other subscriptions get theirs."""
    deployment.subscribe("slow", "/neighbour")
    subscription = deployment.subscribe("slow", "/broken", event_filter=event_filter)
    worker = deployment.start()
    eventually(worker.ready)
    deployment.publish(["slow"] * 30)
    eventually(lambda: len(deployment.receiver.at("/neighbour")) == 30 and deployment.lag() == 0)
    assert len(deployment.rows("parked")) == 30
    assert command_line.broken()[subscription].startswith("broken: event_filter: ")
    worker.kill()  # the partition's present owner filters stored events
    deployment.sql("UPDATE webhook_subscriptions SET event_filter = ? WHERE id = ?", QUICK, subscription)
    deployment.sql("UPDATE webhook_deliveries SET next_attempt_at = created_at")
    deployment.start()
    eventually(lambda: not deployment.rows("parked"), 60)
    assert sorted(request.body for request in deployment.receiver.at("/broken")) == sorted(wanted(deployment))
