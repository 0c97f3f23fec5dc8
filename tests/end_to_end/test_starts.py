"""Subscriptions that begin in the past."""

import pytest

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, assert_in_order
from tests.waiting import eventually

KEYS = [f"key {number}".encode() for number in range(24)]
HERE = {"WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8", "WEBHOOK_ALLOW_HTTP": "true"}


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_a_subscription_gets_the_events_since_its_start(
    deployment: Deployment, command_line: CommandLine, ordering: str
) -> None:
    """Added while events come, it gets all of the log once, without a gap where it meets the new ones, in order."""
    deployment.subscribe("a", "/first")
    worker = deployment.start()
    eventually(worker.ready)
    deployment.publish(["a", "b"] * 1000, keys=KEYS)
    url = deployment.receiver.url("/late")
    words = ["subscriptions", "add", url, "a", "--from", "earliest", "--ordering", ordering]
    with deployment.publishing("a", per_second=300, keys=KEYS):
        status, _, errors = command_line.run(*words, **HERE)
        assert status == 0, errors
        deployment.subscriptions["/late"] = "a"
        eventually(lambda: len(deployment.receiver.at("/late")) > 2000)
        new = len(deployment.receiver.at("/late"))
        eventually(lambda: len(deployment.receiver.at("/late")) > new + 3000)
    eventually(deployment.finished, otherwise=lambda: (deployment.missing(), _cursors(deployment)))
    assert not deployment.duplicates()
    # Only where it meets the live stream, for as long as a write takes; without cursors, all of the newer ones.
    assert len(deployment.rows()) < len(deployment.receiver.at("/late")) / 2
    if ordering == "key":
        assert_in_order(deployment, "/late")
    deployment.assert_true_to_what_was_published()
    worker.stop()


def _cursors(deployment: Deployment) -> list[tuple[object, ...]]:
    return deployment.sql("SELECT partition_no, reason, first_offset, next_offset, end_offset FROM webhook_cursors")


def test_a_subscription_begins_at_its_start_after_a_kill(deployment: Deployment, command_line: CommandLine) -> None:
    """Workers that die meanwhile lose none of its events, and repeat few."""
    workers = [deployment.start(KAFKA_SESSION_TIMEOUT_MS="2000") for _ in range(2)]
    for worker in workers:
        eventually(worker.ready)
    deployment.publish(["a"] * 4000, keys=KEYS)
    url = deployment.receiver.url("/late")
    with deployment.publishing("a", per_second=200, keys=KEYS):
        words = ["subscriptions", "add", url, "a", "--from", "1h", "--ordering", "key", "--rate-limit", "800"]
        status, _, errors = command_line.run(*words, **HERE)
        assert status == 0, errors
        deployment.subscriptions["/late"] = "a"
        eventually(lambda: len(deployment.receiver.at("/late")) > 1000)
        workers[0].kill()
        eventually(lambda: len(deployment.receiver.at("/late")) > 6000)
    eventually(deployment.finished, otherwise=lambda: (deployment.missing(), _cursors(deployment)))
    assert deployment.duplicates() <= 500
    assert_in_order(deployment, "/late")
    deployment.assert_true_to_what_was_published()
    workers[1].stop()


def test_without_kafka_nothing_is_added(deployment: Deployment, command_line: CommandLine) -> None:
    """The start is looked up before the subscription is added."""
    words = ["subscriptions", "add", "https://example.com", "a", "--from", "2h"]
    status, output, errors = command_line.run(*words, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (status, output) == (1, "")
    assert "127.0.0.1:1" in errors
    assert deployment.sql("SELECT COUNT(*) FROM webhook_subscriptions") == [(0,)]
