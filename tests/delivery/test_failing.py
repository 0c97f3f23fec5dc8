"""Subscriptions whose every attempt fails, with the attempts spread over several workers."""

from collections.abc import Callable, Iterable

import pytest
from sqlalchemy import Engine

from consumer.delivery.failing import NOTE_AFTER, STALE, Failing, Notes
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.subscribed import Subscribed
from tests.delivery.store_kit import NOW, Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL

DAY = 86400.0
DISABLE_AFTER = 5 * DAY
EVENT = ("msg_1",)


class Workers(Store):
    """Two workers on one database, with one subscription."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.one, self.other = (Failing(self.notes, GROUP, DISABLE_AFTER) for _ in range(2))
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
def test_days_of_nothing_but_failures_disable(workers: Workers, last: str) -> None:
    """Either worker may see the last failure. Failures of the first minute are not yet recorded."""
    workers.one.failed(workers.endpoint(), NOW, EVENT)
    workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER - 1, EVENT)
    assert workers.now().failing_since is None
    workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER, EVENT)
    assert workers.endpoint().failing_since == NOW
    worker = {"one": workers.one, "other": workers.other}[last]
    for day in range(1, 5):
        worker.failed(workers.endpoint(), NOW + day * DAY, [f"msg_{day}"])
    worker.failed(workers.endpoint(), NOW + DISABLE_AFTER - 1, EVENT)
    assert workers.now().enabled
    worker.failed(workers.endpoint(), NOW + DISABLE_AFTER, EVENT)
    assert (workers.now().enabled, workers.now().disabled_reason) == (False, "every attempt failed for 5.0 days")


@pytest.mark.parametrize(
    "failures",
    [
        {0: "a", 1: "a", 2: "a", 3: "a", 5: "b", 6: "b"},  # one event's schedule, and days later another one's
        {0: "a", 5: "b", 5.1: "c", 5.2: "d"},  # one bad moment, and later another
    ],
)
def test_a_few_bad_moments_do_not_disable(workers: Workers, failures: dict[float, str]) -> None:
    """Failures days apart, with no attempts in between, are not enough: several events must fail, on several days."""
    workers.marked()
    for day, identity in failures.items():
        workers.one.failed(workers.endpoint(), NOW + NOTE_AFTER + day * DAY, [identity])
    assert workers.now().enabled
    for day in range(6, 9):
        workers.one.failed(workers.endpoint(), NOW + day * DAY, [f"msg_{day}"])
    assert not workers.now().enabled


def test_one_workers_old_failure_does_not_disable(workers: Workers) -> None:
    """Another worker succeeded ever since, unknown to the first. A clock that was set must not disable it either."""
    workers.one.failed(workers.endpoint(), NOW, EVENT)
    for day in range(7):
        workers.other.succeeded(workers.endpoint(), NOW + day * DAY)
    workers.one.failed(workers.endpoint(), NOW + 7 * DAY, EVENT)
    workers.other.failed(workers.endpoint(), NOW + 7 * DAY + 1, EVENT)
    assert workers.now().enabled
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


def test_with_0_nothing_is_disabled_for_failing(workers: Workers) -> None:
    """The subscription is still marked as failing, for operators."""
    never = Failing(workers.notes, GROUP, 0.0)
    never.failed(workers.endpoint(), NOW, EVENT)
    never.failed(workers.endpoint(), NOW + NOTE_AFTER, EVENT)
    assert workers.endpoint().failing_since == NOW
    never.failed(workers.endpoint(), NOW + 100 * DISABLE_AFTER, EVENT)
    assert workers.now().enabled


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
    workers.other.succeeded(marked, NOW + DISABLE_AFTER)
    workers.one.failed(marked, NOW + DISABLE_AFTER, EVENT)
    workers.one.disable(marked, "the receiver answered 410 Gone", NOW + DISABLE_AFTER)
    assert workers.now().disabled_reason == "the receiver answered 410 Gone"


class Counted(Notes):
    """Writes nothing, and counts the requests to write."""

    def __init__(self) -> None:
        self.written = 0

    def add(self, write: Callable[[Engine], object], on_written: Callable[[], object] = list) -> None:
        del write, on_written
        self.written += 1


def marked_of(failing: Failing, notes: Counted, down: Iterable[int], minutes: int) -> set[int]:
    """The subscriptions that get a mark, each tried once a minute. A mark is known at the next attempt."""
    marked: dict[int, float] = {}
    for minute in range(minutes):
        for number in down:
            now, before = NOW + 61.0 * minute + number / 1000, notes.written
            failing.failed(Endpoint(number, URL, DEFAULT, failing_since=marked.get(number)), now, EVENT)
            if notes.written > before:
                marked[number] = now
    return set(marked)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of subscriptions that are remembered, made small."""
    monkeypatch.setattr("consumer.delivery.failing.MOST", 4)
    return 4


def test_all_are_marked_when_more_fail_than_are_remembered(few: int) -> None:
    """The remembered ones are marked first, and make room for the others."""
    notes = Counted()
    down = range(1, 3 * few)
    assert marked_of(Failing(notes, GROUP, 0.0), notes, down, 15) == set(down)


def test_a_subscription_without_further_attempts_makes_room_in_time(few: int) -> None:
    """It was removed, or another worker sends for it now, so no further result arrives."""
    notes = Counted()
    failing = Failing(notes, GROUP, 0.0)
    for number in range(100, 100 + few):
        failing.failed(Endpoint(number, URL, DEFAULT), NOW, EVENT)
    assert marked_of(failing, notes, [1, 2], int(STALE / 61)) == set()
    assert marked_of(failing, notes, [1, 2], int(STALE / 61) + 4) == {1, 2}


def test_recorded_successes_are_bounded(few: int) -> None:
    """A subscription that recovers may be removed, and must not be remembered for ever."""
    notes = Counted()
    failing = Failing(notes, GROUP, 0.0)
    for _ in range(2):
        for number in range(5 * few):
            failing.succeeded(Endpoint(number, URL, DEFAULT, failing_since=NOW), NOW + 1)
    assert len(failing._handled) == few
    written = notes.written
    failing.succeeded(Endpoint(5 * few - 1, URL, DEFAULT, failing_since=NOW), NOW + 1)
    assert notes.written == written
