"""The token bucket: the rate that a receiver sees, and the rate that a saturated lane gets."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.limits import TokenBucket

rates = st.floats(0.01, 100_000)


def starts(rate: float, begins: float, waits: list[float]) -> list[float]:
    """The times of requests, each requested so long after the start of the one before it."""
    pace, now, found = TokenBucket(rate, begins), begins, []
    for wait in waits:
        now = pace.ready_at(now + wait)
        assert pace.ready_at(now) == now  # the returned time is late enough
        pace.take(now)
        found.append(now)
    return found


@given(
    rate=rates,
    begins=st.floats(0, 1e6),
    waits=st.lists(st.one_of(st.just(0.0), st.floats(0, 0.1), st.floats(0, 100)), min_size=1, max_size=60),
)
def test_no_window_sees_more_than_the_rate_and_a_burst(rate: float, begins: float, waits: list[float]) -> None:
    """In any t seconds between two starts: rate * t, plus a tenth of a second's worth, which is at least one."""
    found = starts(rate, begins, waits)
    burst = max(1.0, rate / 10)
    for first, since in enumerate(found):
        for last in range(first, len(found)):
            count = last - first + 1
            assert count <= rate * (found[last] - since) + burst + 1e-6 * count + rate * 1e-9


@pytest.mark.parametrize("rate", [0.5, 3.0, 9.999, 10.0, 10.1, 33.3, 999.0, 12_345.6])
def test_a_saturated_bucket_reaches_its_rate(rate: float) -> None:
    """Polled each millisecond, it gives 99 % of the rate or more, hours after it began as well as at once."""
    pace, began, taken = TokenBucket(rate, 5e5), 5e5, 0
    for millisecond in range(20_000):
        now = began + millisecond / 1000
        while pace.ready_at(now) <= now:
            pace.take(now)
            taken += 1
    assert 0.99 * rate * 20 <= taken <= rate * 20 + max(1.0, rate / 10)


@given(rate=rates, count=st.integers(1, 500))
def test_it_does_not_drift(rate: float, count: int) -> None:
    """Taken at exactly the times it returns, the last of n starts is on time to a millionth."""
    found = starts(rate, 0.0, [0.0] * count)
    due = max(0.0, (count - max(1.0, rate / 10)) / rate)
    assert found[-1] == pytest.approx(due, rel=1e-6, abs=1e-9)


@given(before=rates, after=rates, taken=st.integers(0, 200))
def test_changing_the_rate_gives_no_tokens(before: float, after: float, taken: int) -> None:
    """No number of rate changes allows a start for which the old, full bucket had no token."""
    pace, now, count = TokenBucket(before, 0.0), 1000.0, 0
    while count < taken and pace.ready_at(now) == now:
        pace.take(now)
        count += 1
    for rate in (after, before, after):
        pace.set_rate(rate, now)
    while count < 20_000 and pace.ready_at(now) == now:
        pace.take(now)
        count += 1
    assert count <= max(1.0, before / 10) + before * 1e-9
    assert pace.ready_at(now) <= now + 1 / after + 1e-9


def test_the_new_rate_counts_from_now() -> None:
    """An empty bucket waits for its next token as long as the new rate requires."""
    pace = TokenBucket(1.0, 0.0)
    pace.take(0.0)
    pace.set_rate(4.0, 0.0)
    assert pace.ready_at(0.0) == 0.25
    pace.set_rate(0.5, 0.125)  # half a token is left
    assert pace.ready_at(0.125) == 1.125


def test_a_faster_rate_begins_with_the_tokens_left() -> None:
    """A bucket of one token that was full for an hour still holds one when ten would fit."""
    pace = TokenBucket(1.0, 0.0)
    pace.set_rate(100.0, 3600.0)
    pace.take(3600.0)
    assert pace.ready_at(3600.0) == pytest.approx(3600.01)


def test_a_start_ahead_of_its_token_delays_the_next_ones() -> None:
    """The long-term rate is kept."""
    pace = TokenBucket(1.0, 0.0)
    for _ in range(3):
        pace.take(0.0)
    assert pace.ready_at(0.0) == 3.0


@given(rate=rates, waits=st.lists(st.floats(0, 10), max_size=50))
def test_an_idle_bucket_holds_no_more_than_a_burst(rate: float, waits: list[float]) -> None:
    """However long nothing was sent, at most a burst starts at once."""
    found = [*starts(rate, 0.0, waits), *starts(rate, 1e4, [0.0] * 30)][len(waits) :]
    at_once = bisect_left(found, 1e4 + 1e-9)
    assert at_once <= max(1.0, rate / 10) + rate * 1e-8


@given(rate=rates, taken=st.integers(0, 50), later=st.floats(0, 100))
def test_a_full_bucket_equals_a_new_one(rate: float, taken: int, later: float) -> None:
    """It may therefore be forgotten: a new bucket allows the same starts at the same times."""
    pace = TokenBucket(rate, 0.0)
    for _ in range(taken):
        pace.take(0.0)
    assert pace.is_full(later) == (taken / rate <= later or taken == 0) or abs(taken / rate - later) < 1e-6
    if not pace.is_full(later):
        return
    anew = TokenBucket(rate, later)
    for _ in range(200):
        assert pace.ready_at(later) == anew.ready_at(later)
        pace.take(later)
        anew.take(later)
