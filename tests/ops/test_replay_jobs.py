"""Background replays in API processes: each event is stored once, processes may stop, no replay blocks another."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from consumer.crypto.vault import Vault
from consumer.errors import ReplayEnded
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.ledger import outbox, replays
from consumer.ledger.replays import Replay, Span
from consumer.ops import replay_jobs, replay_request
from consumer.ops.changes import Deployment
from consumer.ops.replay import Choice, Hold
from consumer.ops.replay import run as run_replay
from consumer.ops.replay_jobs import AGAIN, LEASE, ReplayJobs
from consumer.subscriptions import repository
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.kafka_kit import Kafka

GROUP = "webhooks"
URL = "https://example.com/hook"
RECORDS = 300


class Clock:
    """Real time plus the time that a test has added."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return time.time() + self.added


@pytest.fixture
def log(mock_kafka: str) -> tuple[Kafka, str]:
    """A topic of so many events of type a."""
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    kafka.write(topic, [b'{"type": "a", "n": %d}' % n for n in range(RECORDS)])
    return kafka, topic


Begin = Callable[..., int]


@pytest.fixture
def begin(engine: Engine, log: tuple[Kafka, str]) -> Begin:
    """Creates a replay of the topic to a new subscription; returns its id, which is also the subscription's."""

    def make(rate: float = 100_000.0) -> int:
        subscription = repository.add(engine, URL, "a")
        spans = [Span(log[1], 0, 0, RECORDS)]
        return replays.create(
            engine, GROUP, subscription, 0.0, time.time(), None, rate, spans, background=True, created_by="api:all"
        )

    return make


Start = Callable[..., ReplayJobs]


@pytest.fixture
def start(engine: Engine, log: tuple[Kafka, str]) -> Iterator[Start]:
    """Starts the jobs of an API process, and closes them after the test."""
    started: list[ReplayJobs] = []

    def make(clock: Clock | None = None, servers: str = "", **options: Any) -> ReplayJobs:
        kafka = log[0] if not servers else Kafka(servers, real=True)
        registry = Deployment(engine, GROUP, Vault())
        jobs = ReplayJobs(registry, kafka.settings(group=GROUP), clock=clock or Clock(), every=0.05, **options)
        started.append(jobs)
        jobs.start()
        return jobs

    yield make
    for jobs in started:
        jobs.close()


def load(engine: Engine, replay: int) -> Replay:
    found = replays.load(engine, replay)
    assert found is not None
    return found


def state(engine: Engine, replay: int, clock: Callable[[], float] = time.time) -> str:
    return load(engine, replay).state(clock())


def until(condition: Callable[[], object], within: float = 120.0) -> None:
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def stored(engine: Engine, replay: int) -> list[int]:
    """The offsets of a replay's rows, with repetitions."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT record_offset FROM webhook_deliveries WHERE replay = :r ORDER BY record_offset"), {"r": replay}
        )
        return [int(row[0]) for row in rows]


def is_tried_again(engine: Engine, replay: int, lease_before: float | None) -> bool:
    return load(engine, replay).lease_until not in {None, lease_before}


def change(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_a_created_replay_is_run(engine: Engine, begin: Begin, start: Start) -> None:
    """More than run at the same time are each stored whole."""
    made = [begin() for _ in range(3)]
    start(most=2)
    until(lambda: [state(engine, each) for each in made] == ["finished"] * 3)
    for each in made:
        assert stored(engine, each) == list(range(RECORDS))
        assert load(engine, each).matched == RECORDS


def begun_and_killed(engine: Engine, log: tuple[Kafka, str], replay: int, clock: Clock) -> Iterator[object]:
    """The steps of a process that is killed or stops in the middle of the replay, after its first rows."""
    claimed = replays.claim(engine, GROUP, clock(), clock() + LEASE)
    assert claimed is not None
    receiver = repository.get(engine, claimed.subscription_id)
    assert receiver is not None
    hold = Hold(claimed.lease_until or 0.0, LEASE)
    with LogReader(log[0].settings(group=GROUP)) as reader:
        choice = Choice(receiver, decode)
        yield from run_replay(engine, claimed, choice, reader, lambda: False, hold=hold, clock=clock)
    assert claimed.id == replay


def test_another_process_continues_a_killed_ones_replay(
    engine: Engine, log: tuple[Kafka, str], begin: Begin, start: Start
) -> None:
    """It does half a minute later.

    If the first was only slow, it stores nothing more, not even rows that were sent by then.
    """
    replay, clock = begin(rate=20.0), Clock()
    steps = begun_and_killed(engine, log, replay, clock)
    with closing(steps):  # type: ignore[type-var]  # a generator
        next(step for step in steps if load(engine, replay).matched)
        first = stored(engine, replay)
        assert 0 < len(first) < RECORDS
        start(clock)
        other = begin()
        until(lambda: state(engine, other, clock) == "finished")  # they have looked for replays
        assert load(engine, replay).matched == len(first)
        change(engine, "UPDATE webhook_replays SET rate = 100000")
        clock.added += LEASE
        until(lambda: load(engine, replay).matched > len(first))
        change(engine, "DELETE FROM webhook_deliveries WHERE record_offset < 100")  # as if sent
        with pytest.raises(ReplayEnded):
            list(steps)
    until(lambda: state(engine, replay, clock) == "finished")
    assert load(engine, replay).matched == RECORDS
    rows = stored(engine, replay)
    assert len(rows) == len(set(rows))
    assert rows[-1] == RECORDS - 1
    assert not set(first) & set(rows)


def test_a_process_that_stops_releases_its_replays(engine: Engine, begin: Begin, start: Start) -> None:
    """It does so between two transactions, and another goes on without waiting for the lease to expire."""
    replay = begin(rate=20.0)
    jobs = start()
    until(lambda: load(engine, replay).matched)
    jobs.close()
    left = load(engine, replay)
    assert (left.lease_until, left.last_error, left.finished_at) == (None, None, None)
    change(engine, "UPDATE webhook_replays SET rate = 100000")
    start()
    until(lambda: state(engine, replay) == "finished")
    assert stored(engine, replay) == list(range(RECORDS))


def test_a_disabled_subscription_is_waited_for(engine: Engine, begin: Begin, start: Start) -> None:
    """The reason is logged once, and other replays go on."""
    replay, clock = begin(rate=20.0), Clock()
    with capture_logs() as logs:
        start(clock)
        until(lambda: load(engine, replay).matched)
        repository.set_enabled(engine, load(engine, replay).subscription_id, False)
        until(lambda: load(engine, replay).last_error)
        assert state(engine, replay, clock) == "waiting"
        for _ in range(2):
            before = load(engine, replay).lease_until
            clock.added += AGAIN
            until(partial(is_tried_again, engine, replay, before))
        assert "is disabled; once it is enabled" in (load(engine, replay).last_error or "")
        other = begin()
        until(lambda: state(engine, other, clock) == "finished")
        change(engine, "UPDATE webhook_replays SET rate = 100000")
        repository.set_enabled(engine, load(engine, replay).subscription_id, True)
        clock.added += AGAIN
        until(lambda: state(engine, replay, clock) == "finished")
    assert (stored(engine, replay), load(engine, replay).last_error) == (list(range(RECORDS)), None)
    told = [each["reason"] for each in logs if each["event"].startswith("a replay has stopped")]
    assert len(told) == 2  # first disabled, then tried in vain
    assert "was disabled or removed meanwhile" in told[0]


def test_a_removed_subscription_ends_its_replay(engine: Engine, begin: Begin, start: Start) -> None:
    """The service itself cancels it with the reason."""
    replay = begin()
    change(engine, "DELETE FROM webhook_subscriptions")
    start()
    until(lambda: state(engine, replay) == "cancelled")
    assert load(engine, replay).last_error == f"subscription {load(engine, replay).subscription_id} was removed"
    ((_, event, _),) = outbox.pending(engine, GROUP, 10)
    assert (event.type, event.data["actor"]) == ("replay.cancelled", None)


def test_a_replay_with_damaged_positions_is_cancelled(engine: Engine, begin: Begin, start: Start) -> None:
    """It is neither finished, with its records unread, nor claimed again and again; others go on."""
    damaged = begin()
    change(engine, "UPDATE webhook_replays SET positions = '{}'")
    other = begin()
    start()
    until(lambda: state(engine, damaged) == "cancelled" and state(engine, other) == "finished")
    assert "positions are not a JSON array" in (load(engine, damaged).last_error or "")


def test_a_replay_is_cancelled_while_it_runs(engine: Engine, begin: Begin, start: Start) -> None:
    """Stored rows stay, and it stores no more."""
    replay = begin(rate=20.0)
    jobs = start()
    until(lambda: load(engine, replay).matched)
    assert replay_request.cancel(engine, "api:all", replay, time.time())
    until(lambda: not any(each.is_alive() for each in jobs._running))
    assert state(engine, replay) == "cancelled"
    assert stored(engine, replay) == list(range(load(engine, replay).matched))


def test_a_fault_of_one_replay_stops_no_other(
    engine: Engine, begin: Begin, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored with its replay, logged once, and the replay is retried."""
    faulty, clock = begin(), Clock()
    tried: list[int] = []

    def choice(receiver: Any, *rest: Any) -> Choice:
        if receiver.id == load(engine, faulty).subscription_id:
            tried.append(receiver.id)
            raise ZeroDivisionError
        return Choice(receiver, *rest)

    monkeypatch.setattr(replay_jobs, "Choice", choice)
    with capture_logs() as logs:
        start(clock)
        until(lambda: load(engine, faulty).last_error)
        other = begin()
        until(lambda: state(engine, other, clock) == "finished")
        clock.added += AGAIN
        until(lambda: len(tried) == 2)
        until(lambda: (load(engine, faulty).lease_until or 0) > clock() + AGAIN - 5)
    assert "ZeroDivisionError" in (load(engine, faulty).last_error or "")
    assert [each["event"] for each in logs if each["log_level"] == "error"] == [
        "a replay has failed; it is tried again"
    ]


def test_an_unreachable_kafka_is_the_reason_shown(engine: Engine, begin: Begin, start: Start) -> None:
    """The process keeps the replay, and stops soon on request."""
    replay = begin()
    with capture_logs():
        jobs = start(servers="127.0.0.1:1")
        until(lambda: load(engine, replay).last_error)
        assert state(engine, replay) == "waiting"
        assert "127.0.0.1:1" in (load(engine, replay).last_error or "")
        jobs.close(60)
    assert load(engine, replay).lease_until is None


def test_an_unreachable_database_is_waited_for(
    engine: Engine, begin: Begin, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outage is logged once, and replays run when it is back."""
    replay = begin()
    looks: list[object] = []
    claim = replays.claim

    def look(*words: Any) -> Replay | None:
        looks.append(words)
        return claim(*words)

    monkeypatch.setattr(replays, "claim", look)
    change(engine, "ALTER TABLE webhook_replays RENAME TO away")
    with capture_logs() as logs:
        start()
        until(lambda: logs and len(looks) > 3)
        change(engine, "ALTER TABLE away RENAME TO webhook_replays")
        until(lambda: state(engine, replay) == "finished")
    assert [each["event"] for each in logs].count("replays cannot be looked up; they wait") == 1
