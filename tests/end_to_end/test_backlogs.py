"""Subscriptions that are paused or behind: their events wait in Kafka, and all of them come, in order."""

import json

import pytest

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, assert_in_order
from tests.end_to_end.webhook_receiver import in_turn
from tests.waiting import eventually

KEYS = [f"key {number}".encode() for number in range(48)]


def _run(command_line: CommandLine, command: str, subscription: int, *more: str) -> str:
    status, told, error = command_line.run("subscriptions", command, str(subscription), *more)
    assert (status, error) == (0, "")
    return told


def _cursors(deployment: Deployment) -> list[tuple[object, ...]]:
    return deployment.sql("SELECT partition_no, reason, first_offset, next_offset, end_offset FROM webhook_cursors")


@pytest.mark.parametrize("ordering", ["none", "key"])
def test_a_paused_subscription_gets_its_events_later(
    deployment: Deployment, command_line: CommandLine, ordering: str
) -> None:
    """While it is paused, it gets nothing and no row is stored; resumed, it gets all, beside other subscriptions."""
    paused = deployment.subscribe("a", "/paused", ordering=ordering)
    deployment.subscribe("a", "/other", ordering=ordering)
    worker = deployment.start()
    eventually(worker.ready)
    deployment.publish(["a"] * 200, keys=KEYS)
    eventually(deployment.finished)
    _run(command_line, "pause", paused)
    with deployment.publishing("a", per_second=800, keys=KEYS):
        eventually(lambda: len(_cursors(deployment)) == deployment.partitions)
        got = len(deployment.receiver.at("/paused"))
        eventually(lambda: len(deployment.receiver.at("/other")) > got + 2000)
        assert len(deployment.receiver.at("/paused")) == got
        assert not deployment.rows()
        owed = json.loads(_run(command_line, "show", paused, "--json"))["cursors"]
        assert {(each["reason"], each["end"]) for each in owed} == {("paused", None)}
        assert [each["partition"] for each in owed] == [*range(deployment.partitions)]
        _run(command_line, "resume", paused)
        eventually(
            lambda: all(end is not None for *_, end in _cursors(deployment)), otherwise=lambda: _cursors(deployment)
        )
    eventually(
        deployment.finished, otherwise=lambda: (deployment.missing(), _cursors(deployment), deployment.rows()[:3])
    )
    assert not deployment.duplicates()
    eventually(lambda: not json.loads(_run(command_line, "show", paused, "--json"))["cursors"])
    deployment.assert_true_to_what_was_published()
    if ordering == "key":
        assert_in_order(deployment, "/paused")
    worker.stop()


def test_a_receiver_that_is_down_costs_few_rows(deployment: Deployment) -> None:
    """Beyond the rows that it may have, its events are covered by a cursor for each partition, and come in the end."""
    deployment.subscribe("a", "/down", ordering="key")
    deployment.receiver.rules["/down"] = in_turn(503)
    worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="1s,1s,2s,5s,5s,5s,5s,5s,5s,5s,5s")
    eventually(worker.ready)
    deployment.publish(["a"] * 12_000, keys=KEYS)
    eventually(lambda: not deployment.lag(), otherwise=lambda: (deployment.lag(), _cursors(deployment)))
    ((most,),) = deployment.sql(
        "SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM webhook_deliveries GROUP BY partition_no)"
    )
    assert isinstance(most, int)
    assert most < 1100
    assert len(_cursors(deployment)) == deployment.partitions
    del deployment.receiver.rules["/down"]
    eventually(
        deployment.finished, otherwise=lambda: (deployment.missing(), _cursors(deployment), deployment.rows()[:3])
    )
    assert_in_order(deployment, "/down")
    assert not deployment.duplicates()
    ((stored,),) = deployment.sql("SELECT seq FROM sqlite_sequence WHERE name = 'webhook_deliveries'")
    assert isinstance(stored, int)
    assert stored < 1.5 * 1100 * deployment.partitions  # the cursors read the others again, behind what is stored too
    worker.stop()


def test_nothing_is_lost_when_workers_die_while_they_catch_up(
    deployment: Deployment, command_line: CommandLine
) -> None:
    """Killed while paused, while reading behind, and near the live stream: each event comes, few twice, in order."""
    paused = deployment.subscribe("a", "/paused", ordering="key")
    deployment.subscribe("a", "/other")
    workers = [deployment.start(KAFKA_SESSION_TIMEOUT_MS="2000") for _ in range(2)]
    for worker in workers:
        eventually(worker.ready)
    with deployment.publishing("a", per_second=500, keys=KEYS):
        eventually(lambda: len(deployment.receiver.at("/paused")) > 500)
        _run(command_line, "pause", paused)
        eventually(lambda: len(_cursors(deployment)) == deployment.partitions)
        workers[0].kill()
        workers.append(deployment.start(KAFKA_SESSION_TIMEOUT_MS="2000"))
        eventually(workers[2].ready)
        got = len(deployment.receiver.at("/other"))
        eventually(lambda: len(deployment.receiver.at("/other")) > got + 5000)
        got = len(deployment.receiver.at("/paused"))
        _run(command_line, "resume", paused)
        eventually(lambda: len(deployment.receiver.at("/paused")) > got + 500)
        workers[1].kill()
        workers.append(deployment.start(KAFKA_SESSION_TIMEOUT_MS="2000"))
        got = len(deployment.receiver.at("/paused"))
        eventually(lambda: len(deployment.receiver.at("/paused")) > got + 2000)
        workers[2].kill()
    eventually(
        deployment.finished, otherwise=lambda: (deployment.missing(), _cursors(deployment), deployment.rows()[:3])
    )
    assert deployment.duplicates() < 3 * 500
    deployment.assert_true_to_what_was_published()
    assert_in_order(deployment, "/paused")
