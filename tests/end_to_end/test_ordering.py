"""`ordering = 'key'`: the events of one key go one at a time, in the order of the log, whatever happens in between."""

import time

import pytest

from tests.end_to_end.service_rig import Deployment, Worker, assert_in_order, eventually
from tests.end_to_end.webhook_receiver import Answer, Drip, Rule, Silence, always, every, in_turn

KEYS = [f"key {number}".encode() for number in range(8)]
QUICK = "200ms,200ms,200ms,200ms"
# Parked, a retry waits in the database; else in memory.
WAITS = pytest.mark.parametrize("in_memory", ["0", "10s"], ids=["parked", "in memory"])


def by_number(deployment: Deployment, special: dict[int, Rule], otherwise: Rule) -> Rule:
    """Events of these numbers, in the order of publishing, are answered by rules of their own."""

    def answer(body: bytes) -> Answer | Drip | Silence:
        number = next(number for number, each in enumerate(list(deployment.published)) if each == body)
        return special.get(number, otherwise)(body)

    return answer


@WAITS
def test_a_key_waits_for_its_first_event_and_no_other_key_does(deployment: Deployment, in_memory: str) -> None:
    """Retried: its key stands still. Exhausted: its key goes on. What has no key, or asks for none, knows no order."""
    keys: list[bytes | None] = [*KEYS, None, None, None, None]
    deployment.subscribe("a", "/ordered", ordering="key", retry_schedule="300ms," * 80 + "1s", final_statuses="422")
    deployment.subscribe("a", "/free")
    stuck, exhausted, null = 12, 13, 20  # of keys 0 and 1, and of none
    statuses = {stuck: 404, null: 404}  # about the event alone; of 5xx the breaker would open
    rule = by_number(
        deployment,
        {
            stuck: lambda _: Answer(statuses[stuck]),
            exhausted: in_turn(404, 404, 422),
            null: lambda _: Answer(statuses[null]),
        },
        every(7, in_turn(503, 404, 200)),
    )
    deployment.receiver.rules |= {"/ordered": rule, "/free": every(7, in_turn(503, 404, 200))}
    worker = deployment.start(WEBHOOK_RETRY_IN_MEMORY=in_memory, WEBHOOK_RETRY_SCHEDULE=QUICK)
    deployment.publish(["a"] * 240, keys=keys)
    bodies = list(deployment.published)
    owed = {("/ordered", body) for number, body in enumerate(bodies) if number >= stuck and number % 12 == 0}
    owed |= {("/ordered", bodies[null]), ("/ordered", bodies[exhausted])}
    eventually(lambda: deployment.missing() == len(owed))
    assert deployment.expected().keys() - deployment.accepted().keys() == owed
    statuses |= {stuck: 200, null: 200}
    eventually(lambda: deployment.missing() == 1)
    eventually(lambda: not deployment.lag())
    assert [(row.attempt, row.last_status) for row in deployment.rows("exhausted")] == [(3, 422)]
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")
    with pytest.raises(AssertionError):  # or the check sees nothing
        assert_in_order(deployment, "/free")
    deployment.assert_true_to_what_was_published()


@WAITS
def test_order_is_kept_while_workers_come_go_and_die(deployment: Deployment, in_memory: str) -> None:
    """A second one joins, the first leaves, a third joins, one is killed, with retries of all kinds under way."""
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.subscribe("a", "/free")
    deployment.receiver.rules |= {
        "/ordered": every(9, in_turn(503, 404, 200)),
        "/free": every(9, in_turn(503, 404, 200)),
    }
    settings = {
        "WEBHOOK_RETRY_IN_MEMORY": in_memory,
        "WEBHOOK_RETRY_SCHEDULE": "500ms,1s,1s,1s",
        "KAFKA_SESSION_TIMEOUT_MS": "2000",
    }
    first = deployment.start(**settings)
    eventually(first.ready)
    # Of each key some three a second, so that none falls behind for good: each ninth stands still for 1.5 s.
    with deployment.publishing("a", per_second=150, keys=[f"key {number}".encode() for number in range(48)]):
        second = deployment.start(**settings)
        _delivers(second)
        first.stop()
        third = deployment.start(**settings)
        _delivers(third)
        calm = deployment.duplicates()
        second.kill()
        fourth = deployment.start(**settings)
        _delivers(fourth)
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    assert calm == 0
    assert_in_order(deployment, "/ordered")
    deployment.assert_true_to_what_was_published()
    third.stop()
    fourth.stop()


def _delivers(worker: Worker, most: float = 100) -> None:
    def delivered() -> float:
        return worker.metric('webhooks_deliveries_total{outcome="delivered"}')

    before = delivered()
    eventually(lambda: delivered() > before + most)


def test_a_busy_key_gets_out_of_the_database_again(deployment: Deployment) -> None:
    """What comes while its first event waits is stored behind that; all is sent before the events stop coming."""
    deployment.subscribe("a", "/ordered", ordering="key", retry_schedule="2s,1s")
    deployment.receiver.rules["/ordered"] = by_number(deployment, {0: in_turn(404, 200)}, always(Answer()))
    worker = deployment.start(WEBHOOK_RETRY_IN_MEMORY="0")
    eventually(worker.ready)
    with deployment.publishing("a", per_second=100, keys=KEYS[:4]):  # 25 of the first
        eventually(lambda: len(deployment.rows("blocked")) > 20)
        eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")


def test_a_backlog_that_fills_the_lane_is_stored_behind_its_first_and_drained_in_order(deployment: Deployment) -> None:
    """A thousand wait in memory and the rest in the database; a worker that takes over half-way goes on in order."""
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.subscribe("a", "/free")
    deployment.receiver.rules["/ordered"] = always(Silence.HANG)
    worker = deployment.start(WEBHOOK_DRAIN="1s", WEBHOOK_RETRY_SCHEDULE=QUICK)
    eventually(worker.ready)
    deployment.publish(["a"] * 1300, keys=KEYS)
    eventually(lambda: len(deployment.receiver.at("/free")) == 1300)
    eventually(lambda: len(deployment.rows("blocked")) > 200)
    deployment.receiver.rules["/ordered"] = always(Answer(delay=0.01))
    worker.stop()
    worker = deployment.start(WEBHOOK_DRAIN="1s")
    eventually(lambda: len(deployment.receiver.at("/ordered")) > 300)
    worker.stop()
    assert deployment.missing() > 300
    worker = deployment.start()
    eventually(lambda: not deployment.missing(), timeout=60)
    eventually(lambda: not deployment.lag())
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")


def test_a_subscription_that_its_receiver_ends_goes_on_in_order_when_it_is_enabled(deployment: Deployment) -> None:
    """410 in the middle of the stream: what waits is held, and goes before what comes after."""
    ordered = deployment.subscribe("a", "/ordered", ordering="key")
    gone_at, gone = 60, [410]
    deployment.receiver.rules["/ordered"] = by_number(
        deployment, {gone_at: lambda _: Answer(gone[0])}, every(9, in_turn(503, 200))
    )
    deployment.alter("import consumer.worker as worker; worker.FIRST_TIDY = worker.TIDY_EVERY = 1.0")
    settings = {"WEBHOOK_RETRY_SCHEDULE": "500ms,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}
    worker = deployment.start(**settings)
    eventually(worker.ready)
    deployment.publish(["a"] * 240, per_second=400, keys=KEYS)
    eventually(lambda: not deployment.lag())
    eventually(lambda: deployment.sql("SELECT enabled FROM webhook_subscriptions") == [(0,)])
    eventually(lambda: deployment.rows("held") and not deployment.rows("parked"))
    told = len(deployment.receiver.requests)
    assert [row.last_status for row in deployment.rows("exhausted")] == [410]
    time.sleep(1.5)
    assert len(deployment.receiver.requests) == told

    gone[0] = 200
    deployment.sql("UPDATE webhook_subscriptions SET enabled = 1, disabled_reason = NULL WHERE id = ?", ordered)
    deployment.publish(["a"] * 80, per_second=200, keys=KEYS)
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked", "held"})
    eventually(lambda: not deployment.lag())
    worker.stop()
    bodies = list(deployment.published)
    accepted = {body for path, body in deployment.accepted()}
    assert bodies[gone_at] not in accepted  # an event that meets a 410 is given up
    assert accepted >= set(bodies[:gone_at]) | set(bodies[280:])
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")
