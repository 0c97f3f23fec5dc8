"""The count of attempts, when the next is due, the first and the last error: the database's, whoever sends."""

import json
import time
from itertools import pairwise
from typing import Any, NamedTuple

from tests.end_to_end.service_rig import Deployment, Worker, eventually
from tests.end_to_end.webhook_receiver import Answer, Rule, in_turn

WAITS = (0.4, 0.6, 1.0, 1.4)  # seconds
STATUSES = (404, 403, 402, 401, 400)  # said of the event: of 5xx the breaker would open
SCHEDULE = {"WEBHOOK_RETRY_SCHEDULE": ",".join(f"{wait}s" for wait in WAITS)}


class Stored(NamedTuple):
    """What a row says of its attempts."""

    attempt: int
    first_status: int
    first_error: str
    last_status: int
    last_error: str


ENDED = Stored(len(STATUSES), 404, "status 404", 400, "status 400")


def test_a_hand_over_neither_resets_nor_skips_an_attempt_and_only_owners_send(deployment: Deployment) -> None:
    """Two workers, of which the first leaves, a third comes, the second leaves: each event has its whole schedule.

    The first wait stays in memory, and is stored when its worker leaves; the others are stored at once.
    """
    deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = in_turn(*STATUSES)
    settings = {**SCHEDULE, "WEBHOOK_RETRY_IN_MEMORY": "500ms"}
    first, second = deployment.start(**settings), deployment.start(**settings)
    eventually(lambda: len(first.lag()) == len(second.lag()) == 2)
    with deployment.publishing("a", per_second=40):
        for worker in (first, second):
            makes_attempts(worker)
            assert partitions_sent(worker) == worker.lag().keys()
        first.stop()
        makes_attempts(second)
        third = deployment.start(**settings)
        makes_attempts(third)
        second.stop()
    eventually(lambda: len(stored(deployment)) == len(deployment.published), timeout=60)
    eventually(lambda: not deployment.lag())
    third.stop()
    assert set(stored(deployment).values()) == {ENDED}
    for body, times in attempts(deployment, "/fails").items():
        assert [status for _, status in times] == list(STATUSES), body[:60]
        assert in_time(times), times
    deployment.assert_true_to_what_was_published()


def test_a_kill_repeats_the_attempts_in_flight_and_changes_no_other(deployment: Deployment) -> None:
    """What a receiver has seen and the database has not is tried once more; all else goes on where it was."""
    fails: Rule = in_turn(*STATUSES)

    def slowly(body: bytes) -> Answer:
        answer = fails(body)
        assert isinstance(answer, Answer)
        return answer._replace(delay=0.05)

    deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = slowly
    settings = {
        **SCHEDULE,
        "WEBHOOK_RETRY_IN_MEMORY": "0",
        "WEBHOOK_MAX_IN_FLIGHT": "12",
        "KAFKA_SESSION_TIMEOUT_MS": "2000",
    }
    worker = deployment.start(**settings)
    deployment.publish(["a"] * 60)
    eventually(lambda: len(deployment.receiver.requests) > 100, every=0.01)
    worker.kill()
    before = time.time() + 0.5  # what lay in the receiver's sockets; the next owner cannot have started
    made = {body: row.attempt for body, row in stored(deployment, "parked").items()}
    assert max(made.values()) > 1

    worker = deployment.start(**settings)
    eventually(lambda: len(stored(deployment)) == 60, timeout=60)
    eventually(lambda: not deployment.lag())
    worker.stop()
    assert {row.attempt for row in stored(deployment).values()} == {len(STATUSES)}
    for body, times in attempts(deployment, "/fails").items():
        unknown = sum(at < before for at, _ in times) - made.get(body, 0)
        assert unknown in {0, 1}
        assert len(times) == len(STATUSES) + unknown, (body[:60], times, made.get(body))
        assert unknown or in_time(times), times
    deployment.assert_true_to_what_was_published()


def makes_attempts(worker: Worker, more: int = 150) -> None:
    """Wait until it has."""
    sample = 'webhooks_attempts_total{status_class="4xx"}'
    before = worker.metric(sample)
    eventually(lambda: worker.metric(sample) > before + more)


def partitions_sent(worker: Worker) -> set[int]:
    """Of which this worker has made attempts that failed, by its log."""
    lines = (json.loads(line) for line in worker.log.splitlines() if line.endswith("}"))
    return {line["partition"] for line in lines if line["event"] == "attempt"}


def stored(deployment: Deployment, status: str = "exhausted") -> dict[bytes, Stored]:
    """The rows of this status, by body."""
    rows: Any = deployment.sql(
        "SELECT p.body, attempt, first_status, first_error, last_status, last_error"
        " FROM webhook_deliveries d JOIN webhook_payloads p USING"
        " (group_id, topic, partition_no, record_offset, record_ts) WHERE d.status = ?",
        status,
    )
    return {body: Stored(*rest) for body, *rest in rows}


def attempts(deployment: Deployment, path: str) -> dict[bytes, list[tuple[float, int | None]]]:
    """When each event was tried, and how that was answered."""
    found: dict[bytes, list[tuple[float, int | None]]] = {body: [] for body in deployment.published}
    for request in deployment.receiver.at(path):
        found[request.body].append((request.at, request.status))
    return found


def in_time(times: list[tuple[float, int | None]]) -> bool:
    """No attempt came before its wait was over."""
    gaps = (later - earlier for (earlier, _), (later, _) in pairwise(times))
    return all(gap >= wait for gap, wait in zip(gaps, WAITS, strict=True))
