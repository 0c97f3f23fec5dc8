"""Receivers that fail for days: their subscriptions are paused, and resume by themselves once a probe succeeds."""

import pytest

from tests.end_to_end.service_rig import Deployment, Row, Worker, assert_in_order
from tests.end_to_end.webhook_receiver import in_turn
from tests.waiting import eventually

KEYS = [f"key {number}".encode() for number in range(48)]
SCHEDULE = ",".join(["1s"] * 60)


def _start(deployment: Deployment) -> list[Worker]:
    """Two workers for which days are seconds."""
    fast = {"WEBHOOK_PAUSE_AFTER": "5s", "WEBHOOK_RESUME_PROBE": "1s", "WEBHOOK_RETRY_SCHEDULE": SCHEDULE}
    workers = [deployment.start(**fast) for _ in range(2)]
    for worker in workers:
        eventually(worker.ready)
    return workers


def _state(deployment: Deployment) -> tuple[object, ...]:
    ((*state,),) = deployment.sql(
        "SELECT paused_at, paused_reason, probed_at, failing_since FROM webhook_subscriptions WHERE url LIKE '%/down'"
    )
    return tuple(state)


def _told(deployment: Deployment) -> tuple[object, ...]:
    cursors = deployment.sql("SELECT partition_no, first_offset, next_offset, end_offset FROM webhook_cursors")
    return deployment.missing(), _state(deployment), cursors, deployment.rows()[:5]


def _held(deployment: Deployment) -> list[Row]:
    return [row for row in deployment.rows() if row.status in {"held", "blocked"}]


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_a_receiver_that_fails_for_days_is_paused_until_it_works(deployment: Deployment, ordering: str) -> None:
    """It then costs one attempt now and then and no further rows; when it works again, it gets everything once."""
    deployment.subscribe("a", "/down", ordering=ordering)
    deployment.subscribe("a", "/other")
    deployment.receiver.rules["/down"] = in_turn(503)
    workers = _start(deployment)
    deployment.sql("UPDATE webhook_subscriptions SET failing_since = CURRENT_TIMESTAMP WHERE url LIKE '%/down'")
    eventually(
        lambda: _state(deployment)[0] is not None,
        every=0.5,
        meanwhile=lambda: deployment.publish(["a"] * 4, keys=KEYS),
        otherwise=lambda: _told(deployment),
    )
    assert str(_state(deployment)[1]).startswith("every attempt failed for ")
    eventually(lambda: not deployment.lag(), otherwise=lambda: _told(deployment))
    rows = len(deployment.rows())
    deployment.publish(["a"] * 400, keys=KEYS)
    eventually(lambda: not deployment.lag(), otherwise=lambda: _told(deployment))
    attempts = len(deployment.receiver.at("/down"))
    eventually(lambda: len(deployment.receiver.at("/down")) >= attempts + 2, otherwise=lambda: _told(deployment))
    assert len(deployment.rows()) == rows
    del deployment.receiver.rules["/down"]
    eventually(deployment.finished, otherwise=lambda: _told(deployment))
    assert _state(deployment) == (None, None, None, None)
    assert not deployment.duplicates()
    assert not _held(deployment)
    deployment.assert_true_to_what_was_published()
    if ordering == "key":
        assert_in_order(deployment, "/down")
    for worker in workers:
        worker.stop()


def test_a_probe_comes_from_the_log_if_no_row_is_left(deployment: Deployment) -> None:
    """A failed one becomes a row, and such rows are the next probes, so that few of many events are tried."""
    deployment.subscribe("a", "/down", ordering="key")
    deployment.receiver.rules["/down"] = in_turn(503)
    workers = _start(deployment)
    now = "2026-01-02 03:04:05.000000"
    pause = "UPDATE webhook_subscriptions SET paused_at = ?, paused_reason = 'it failed', probed_at = ?"
    deployment.sql(pause, now, now)
    deployment.publish(["a"] * 400, keys=KEYS)
    eventually(lambda: len(deployment.receiver.at("/down")) >= 8, otherwise=lambda: _told(deployment))
    assert len({request.body for request in deployment.receiver.at("/down")}) < 8
    assert len(deployment.rows()) < 8
    del deployment.receiver.rules["/down"]
    eventually(deployment.finished, otherwise=lambda: _told(deployment))
    assert _state(deployment) == (None, None, None, None)
    assert not deployment.duplicates()
    assert_in_order(deployment, "/down")
    for worker in workers:
        worker.stop()
