"""Subscriptions whose every attempt fails, with the attempts spread over several workers."""

from collections.abc import Iterable
from dataclasses import replace
from typing import cast
from unittest.mock import Mock

import pytest
from sqlalchemy import Engine, select
from structlog.testing import capture_logs

from consumer.database.engine import DatabaseThread
from consumer.delivery.failing import NOTE_AFTER, STALE, Failing, Notes
from consumer.ledger import outbox
from consumer.ledger.rows import time_of
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.subscribed import Subscribed
from models import Subscription
from tests.delivery.backlog_kit import NO_ENGINE
from tests.delivery.store_kit import NOW, Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL

DAY = 86400.0
PAUSE_AFTER = 5 * DAY
EVENT = ("msg_1",)


class Workers(Store):
    """Two workers on one database, with one subscription."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.one, self.other = (Failing(self.notes, GROUP, PAUSE_AFTER) for _ in range(2))
        self.subscription = repository.add(engine, URL, "user.created")

    def endpoint(self) -> Endpoint:
        """The subscription as the database has it now, after all notes were written."""
        since = self.now().failing_since
        return Endpoint(self.subscription, URL, DEFAULT, failing_since=None if since is None else since.timestamp())

    def now(self) -> Subscribed:
        """The subscription."""
        self.write_all()
        found = repository.get(self.engine, self.subscription)
        assert found is not None
        return found

    def paused(self) -> str | None:
        """Why the subscription is paused; None if it is not."""
        self.write_all()
        with self.engine.connect() as connection:
            paused_at, reason = connection.execute(select(Subscription.paused_at, Subscription.paused_reason)).one()
        assert (paused_at is None) is (reason is None)
        return reason

    def marked(self) -> Endpoint:
        """The subscription, after a minute of failures on the first worker."""
        for second in (0.0, NOTE_AFTER):
            self.one.failed(self.endpoint(), NOW + second, EVENT)
        assert self.endpoint().failing_since == NOW
        return self.endpoint()


@pytest.fixture
def workers(engine: Engine, rigs: list[Store]) -> Workers:
    """Two workers."""
    rigs.append(workers := Workers(engine))
    return workers


@pytest.mark.parametrize("last", ["one", "other"])
def test_days_of_nothing_but_failures_pause(workers: Workers, last: str) -> None:
    """Either worker may see the last failure. Failures of the first minute are not yet recorded."""
    workers.one.failed(workers.endpoint(), NOW, EVENT)
    workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER - 1, EVENT)
    assert workers.now().failing_since is None
    workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER, EVENT)
    assert workers.endpoint().failing_since == NOW
    worker = {"one": workers.one, "other": workers.other}[last]
    for day in range(1, 5):
        worker.failed(workers.endpoint(), NOW + day * DAY, [f"msg_{day}"])
    worker.failed(workers.endpoint(), NOW + PAUSE_AFTER - 1, EVENT)
    assert not workers.paused()
    worker.failed(workers.endpoint(), NOW + PAUSE_AFTER, EVENT)
    assert workers.paused() == "every attempt failed for 5.0 days"
    assert workers.now().enabled


@pytest.mark.parametrize(
    "failures",
    [
        {0: "a", 1: "a", 2: "a", 3: "a", 5: "b", 6: "b"},  # one event's schedule, and days later another one's
        {0: "a", 5: "b", 5.1: "c", 5.2: "d"},  # one bad moment, and later another
    ],
)
def test_a_few_bad_moments_do_not_pause(workers: Workers, failures: dict[float, str]) -> None:
    """Failures days apart, with no attempts in between, are not enough: several events must fail, on several days."""
    workers.marked()
    for day, identity in failures.items():
        workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER + day * DAY, [identity])
    assert not workers.paused()
    for day in range(6, 9):
        workers.one.failed(workers.endpoint(), NOW + day * DAY, [f"msg_{day}"])
    assert workers.paused()


def test_one_workers_old_failure_does_not_pause(workers: Workers) -> None:
    """Another worker succeeded ever since, unknown to the first. A clock that was set must not pause it either."""
    workers.one.failed(workers.endpoint(), NOW, EVENT)
    for day in range(7):
        workers.other.succeeded(workers.endpoint(), NOW + day * DAY)
    workers.one.failed(workers.endpoint(), NOW + 7 * DAY, EVENT)
    workers.other.failed(workers.endpoint(), NOW + 7 * DAY + 1, EVENT)
    assert not workers.paused()
    workers.other.succeeded(workers.endpoint(), NOW + 7 * DAY + 3)
    assert workers.now().failing_since is None


def test_a_mark_that_another_worker_removed_is_made_again(workers: Workers) -> None:
    """Another worker's success removed it before the first worker read the subscription again."""
    unmarked = workers.endpoint()
    for second in (0.0, NOTE_AFTER):
        workers.one.failed(unmarked, NOW + second, EVENT)
    workers.other.succeeded(workers.endpoint(), NOW + NOTE_AFTER)
    assert workers.now().failing_since is None
    for second in (2 * NOTE_AFTER, 3 * NOTE_AFTER):
        workers.one.failed(unmarked, NOW + second, EVENT)
    assert workers.now().failing_since is not None


def test_a_mark_that_is_being_written_is_not_written_again(workers: Workers) -> None:
    """Its row may be locked for hours. Notes on other subscriptions do not wait behind copies of this one."""
    unmarked = workers.endpoint()
    for minute in range(10):
        workers.one.failed(unmarked, NOW + minute * NOTE_AFTER, EVENT)
    assert workers.notes.pending == 1
    workers.other.succeeded(workers.endpoint(), NOW + 10 * NOTE_AFTER)
    assert workers.now().failing_since is None
    workers.one.failed(unmarked, NOW + 11 * NOTE_AFTER, EVENT)
    assert workers.notes.pending == 1
    assert workers.now().failing_since is not None


def test_a_success_begins_the_minute_anew(workers: Workers) -> None:
    """Half a minute of failures before a success and half a minute after it do not add up to a minute of failures."""
    endpoint = workers.endpoint()
    workers.one.failed(endpoint, NOW, EVENT)
    assert workers.one.remembers(endpoint)
    workers.one.succeeded(endpoint, NOW + NOTE_AFTER / 2)
    assert not workers.one.remembers(endpoint)
    workers.one.failed(endpoint, NOW + NOTE_AFTER / 2 + 1, EVENT)
    workers.one.failed(endpoint, NOW + NOTE_AFTER, EVENT)
    assert workers.now().failing_since is None


def test_with_0_nothing_is_paused_for_failing(workers: Workers) -> None:
    """The subscription is still marked as failing, for operators."""
    never = Failing(workers.notes, GROUP, 0.0)
    never.failed(workers.endpoint(), NOW, EVENT)
    never.failed(workers.endpoint(), NOW + NOTE_AFTER, EVENT)
    assert workers.endpoint().failing_since == NOW
    never.failed(workers.endpoint(), NOW + 100 * PAUSE_AFTER, EVENT)
    assert not workers.paused()


def test_a_burst_of_410s_disables_once(workers: Workers) -> None:
    """A thousand requests were open. After the subscription is enabled again, the next 410 disables it again."""
    endpoint = workers.endpoint()
    for _ in range(3):
        workers.one.disable(endpoint, "410", NOW)
    assert workers.notes.pending == 1
    assert not workers.now().enabled
    repository.set_enabled(workers.engine, workers.subscription, enabled=True)
    workers.one.disable(workers.endpoint(), "410", NOW + 1)
    assert not workers.now().enabled


def test_a_410_disables_while_another_note_is_being_written(workers: Workers) -> None:
    """The pending note, that it has failed for days, has no effect because another worker succeeded first."""
    marked = workers.marked()
    workers.other.succeeded(marked, NOW + PAUSE_AFTER)
    workers.one.failed(marked, NOW + PAUSE_AFTER, EVENT)
    workers.one.disable(marked, "the receiver answered 410 Gone", NOW + PAUSE_AFTER)
    assert workers.now().disabled_reason == "the receiver answered 410 Gone"


def probed(workers: Workers) -> Endpoint:
    """The subscription, paused at NOW + PAUSE_AFTER; the second worker has claimed a probe two hours later."""
    workers.marked()
    for day in range(1, 6):
        workers.one.failed(workers.endpoint(), NOW + day * DAY, [f"msg_{day}"])
    assert workers.paused()
    at = time_of(NOW + PAUSE_AFTER)
    workers.other.probes(workers.subscription, at)
    return replace(workers.endpoint(), paused=True)


def told(workers: Workers) -> list[tuple[str, object]]:
    """The operational events, each with its reason, or its number of seconds."""
    found = (event for _, event, _ in outbox.pending(workers.engine, GROUP, 9))
    return [(each.type, each.data.get("reason") or each.data.get("paused_for_seconds")) for each in found]


def test_a_probe_that_succeeds_resumes(workers: Workers) -> None:
    """The subscription is as new: a failure begins another five days. Both changes are operational events."""
    paused = probed(workers)
    assert workers.other.remembers(paused)
    workers.other.succeeded(paused, NOW + PAUSE_AFTER + 7200)
    assert not workers.paused()
    assert workers.endpoint().failing_since is None
    why = "every attempt failed for 5.0 days"
    assert told(workers) == [("subscription.paused", why), ("subscription.resumed", 7200)]
    workers.other.failed(workers.endpoint(), NOW + PAUSE_AFTER + 7201, EVENT)
    assert workers.endpoint().failing_since is None


def test_a_probe_that_fails_changes_nothing(workers: Workers) -> None:
    """It neither resumes later, when an attempt from before the pause ends well, nor pauses once more."""
    paused = probed(workers)
    workers.other.failed(paused, NOW + PAUSE_AFTER + 7200, EVENT)
    workers.other.succeeded(paused, NOW + PAUSE_AFTER + 7201)
    assert workers.paused()
    assert [what for what, _ in told(workers)] == ["subscription.paused"]


def test_a_success_without_a_probe_does_not_resume(workers: Workers) -> None:
    """A person may have paused it for good reasons while a request was open."""
    paused = probed(workers)
    workers.one.succeeded(paused, NOW + PAUSE_AFTER + 1)
    assert workers.paused()


def test_a_success_after_a_person_has_resumed_says_nothing(workers: Workers) -> None:
    """The probe that was claimed before changes nothing then, and a log line would say that it did."""
    paused = probed(workers)
    repository.resume(workers.engine, workers.subscription)
    with capture_logs() as logs:
        workers.other.succeeded(paused, NOW + PAUSE_AFTER + 7200)
        workers.write_all()
    assert not [line for line in logs if "resumed" in line["event"]]


def test_a_410_ends_a_probe(workers: Workers) -> None:
    """If somebody enables the subscription, it is paused as before, and a success resumes it only with a new probe."""
    paused = probed(workers)
    workers.other.disable(paused, "410", NOW + PAUSE_AFTER + 7200)
    assert not workers.now().enabled
    repository.set_enabled(workers.engine, workers.subscription, enabled=True)
    workers.other.succeeded(paused, NOW + PAUSE_AFTER + 7201)
    assert workers.paused()


def unwritten() -> Notes:
    """Notes of which none is ever written."""
    return Notes(NO_ENGINE, cast("DatabaseThread", Mock()), lambda: NOW, lambda: None)


def marked_of(failing: Failing, notes: Notes, down: Iterable[int], minutes: int) -> set[int]:
    """The subscriptions that get a mark, each tried once a minute. A mark is known at the next attempt."""
    marked: dict[int, float] = {}
    for minute in range(minutes):
        for number in down:
            now, before = NOW + 61.0 * minute + number / 1000, notes.pending
            failing.failed(Endpoint(number, URL, DEFAULT, failing_since=marked.get(number)), now, EVENT)
            if notes.pending > before:
                marked[number] = now
    return set(marked)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of subscriptions that are remembered, made small."""
    monkeypatch.setattr("consumer.delivery.failing.MOST", 4)
    return 4


def test_all_are_marked_when_more_fail_than_are_remembered(few: int) -> None:
    """The remembered ones are marked first, and make room for the others."""
    notes = unwritten()
    down = range(1, 3 * few)
    assert marked_of(Failing(notes, GROUP, 0.0), notes, down, 15) == set(down)


def test_a_subscription_without_further_attempts_makes_room_in_time(few: int) -> None:
    """It was removed, or another worker sends for it now, so no further result arrives."""
    notes = unwritten()
    failing = Failing(notes, GROUP, 0.0)
    for number in range(100, 100 + few):
        failing.failed(Endpoint(number, URL, DEFAULT), NOW, EVENT)
    assert marked_of(failing, notes, [1, 2], int(STALE / 61)) == set()
    assert marked_of(failing, notes, [1, 2], int(STALE / 61) + 4) == {1, 2}


def test_recorded_successes_are_bounded(few: int) -> None:
    """A subscription that recovers may be removed, and must not be remembered for ever."""
    notes = unwritten()
    failing = Failing(notes, GROUP, 0.0)
    for _ in range(2):
        for number in range(5 * few):
            failing.succeeded(Endpoint(number, URL, DEFAULT, failing_since=NOW), NOW + 1)
    assert len(failing._handled) == few
    written = notes.pending
    failing.succeeded(Endpoint(5 * few - 1, URL, DEFAULT, failing_since=NOW), NOW + 1)
    assert notes.pending == written
