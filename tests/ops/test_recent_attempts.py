"""The attempts of the last hour in memory: which are kept, and how they are counted."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consumer.events.attempt import Attempt
from consumer.ops import attempts as recent_attempts
from consumer.ops.attempts import HOUR, MINUTES, OVERHEAD, Minute, RecentAttempts

NOW = 1_700_000_040.0  # start of a minute


def attempt(subscription: int = 7, at: float = NOW, outcome: str = "delivered", number: int = 0) -> Attempt:
    """An attempt at the record with this offset."""
    return Attempt(at, subscription, "msg_1", "a", None, "t", 0, number, 1, outcome, 200, None, 0.1, None)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 300), st.integers(0, 3000)), min_size=20, max_size=60))
def test_the_newest_are_kept_within_every_bound(steps: list[tuple[int, int, int]]) -> None:
    """The newest by time are kept, bounded for each subscription and, over all, in number and bytes."""
    of_one, of_all, most = 3, 9, 9 * OVERHEAD + 12_000
    recent = RecentAttempts(of_one, of_all, most)
    model: list[tuple[Attempt, int]] = []
    now = NOW
    for number, (subscription, seconds, size) in enumerate(steps):
        now += seconds
        recent.add(attempt(subscription, now, number=number), size, now)
        model.append((attempt(subscription, now, number=number), size + OVERHEAD))
        of_this = [each for each in model if each[0].subscription_id == subscription]
        if len(of_this) > of_one:
            model.remove(of_this[0])
        while len(model) > of_all or sum(each for _, each in model) > most or model[0][0].at <= now - HOUR:
            del model[0]
    kept = [each for each, _ in model][::-1]
    found = recent.recent(None, 100, now)
    assert Counter(found) == Counter(kept)
    assert [each.at for each in found] == [each.at for each in kept]
    assert recent.bytes == sum(size for _, size in model)
    for subscription in range(1, 5):
        assert Counter(recent.recent(subscription, 100, now)) == Counter(
            each for each in kept if each.subscription_id == subscription
        )


def test_the_first_partitions_read_do_not_displace_newer_attempts() -> None:
    """At the start one partition's hour is read after another's: times decide, not the order of reading."""
    recent = RecentAttempts(of_all=10)
    for number in range(10):
        recent.add(attempt(number, NOW - number), 1, NOW)
    for number in range(10, 20):
        recent.add(attempt(number, NOW - 1000 - number), 1, NOW)
    assert [each.subscription_id for each in recent.recent(None, 20, NOW)] == list(range(10))


def test_attempts_are_dropped_after_an_hour() -> None:
    """This needs no new attempt, and applies to attempts that arrive late."""
    recent = RecentAttempts()
    recent.add(attempt(at=NOW - HOUR), 1, NOW)
    assert (len(recent), recent.summary(7, NOW)[0].ok) == (0, 0)
    recent.add(attempt(at=NOW), 1, NOW)
    assert recent.recent(7, 9, NOW + HOUR) == []
    assert (len(recent), recent.bytes) == (0, 0)


def test_the_summary_counts_the_last_sixty_minutes() -> None:
    """Counts are by subscription and in total, oldest minute first, with empty minutes.

    They include attempts that are no longer kept.
    """
    recent = RecentAttempts(of_one=2)
    for _ in range(5):
        recent.add(attempt(at=NOW - 61), 1, NOW)
    recent.add(attempt(at=NOW, outcome="parked"), 1, NOW)
    recent.add(attempt(8, at=NOW, outcome="exhausted"), 1, NOW)
    found = recent.summary(7, NOW)
    assert [each.at for each in found] == [int(NOW) - 60 * back for back in reversed(range(MINUTES))]
    assert found[-3:] == [Minute(int(NOW) - 120, 5, 0), Minute(int(NOW) - 60, 0, 0), Minute(int(NOW), 0, 1)]
    assert recent.summary(None, NOW)[-1] == Minute(int(NOW), 0, 2)
    assert recent.summary(9, NOW)[-1] == Minute(int(NOW), 0, 0)
    later = NOW + 60 * MINUTES
    recent.add(attempt(at=later), 1, later)
    assert [each[1:] for each in recent.summary(7, later)] == [(0, 0)] * 59 + [(1, 0)]


def test_the_subscriptions_that_failed_most_come_first() -> None:
    """Those whose attempts failed in the last minutes do, with the successes and failures of that time."""
    recent = RecentAttempts()
    for number, at, outcome in (
        (1, 0, "parked"),
        (2, 70, "parked"),
        (2, 0, "parked"),
        (2, 0, "delivered"),
        (3, 700, "x"),
    ):
        recent.add(attempt(number, at=NOW - at, outcome=outcome), 1, NOW)
    assert recent.most_failed(10, 9, NOW) == [(2, 1, 2), (1, 0, 1)]
    assert recent.most_failed(1, 1, NOW) == [(1, 0, 1)]


def test_counts_are_bounded_too() -> None:
    """The subscription whose last attempt is oldest is dropped."""
    recent = RecentAttempts()
    for subscription in (1, *range(2, recent_attempts.COUNTED + 1), 1, -1):
        recent.add(attempt(subscription), 1, NOW)
    assert recent.summary(1, NOW)[-1].ok == 2
    assert recent.summary(2, NOW)[-1].ok == 0
    assert recent.summary(3, NOW)[-1].ok == 1


def test_the_heap_of_times_stays_bounded() -> None:
    """A busy subscription drops its own attempts, though an older one of another subscription is kept."""
    recent = RecentAttempts(of_one=5)
    recent.add(attempt(8, at=NOW - 100), 1, NOW)
    for number in range(10_000):
        recent.add(attempt(at=NOW + number / 1000), 1, NOW + 10)
    assert len(recent) == 6
    assert len(recent._oldest) <= 2 * len(recent) + 1001
