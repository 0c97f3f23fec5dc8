"""The limits of lanes: slots turn over or are scarce, and a rate is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.limits import MANY, Slots, TokenBucket


@pytest.mark.parametrize(
    ("total", "ended", "passed", "quick"),
    [
        (3, 3, 0.25, True),
        (3, 2, 0.25, False),
        (3, 3, 0.49, True),
        (3, 3, 0.5, False),
        (10 * MANY, MANY, 0.25, True),
        (10 * MANY, MANY - 1, 0.25, False),
    ],
)
def test_slots_turn_over_when_many_requests_end_in_the_interval(
    total: int, ended: int, passed: float, *, quick: bool
) -> None:
    """Many, or as many as there are slots. If the process stood still, the interval does not count."""
    slots = Slots(total, 0.25)
    slots.look(100.0)
    for _ in range(ended):
        slots.free(slots.take(1, timed_out=False), timed_out=False)
    slots.look(100.0 + passed)
    assert slots.quick is quick


@pytest.mark.parametrize(
    ("own", "others", "scarce"), [(4, 4, True), (5, 4, False), (3, 4, True), (2, 4, False), (0, 7, True), (0, 6, False)]
)
def test_slots_are_scarce_when_others_have_taken_them(own: int, others: int, *, scarce: bool) -> None:
    """Seven of eight slots are taken, half of these by others."""
    slots = Slots(8, 0.25)
    for _ in range(own + others):
        slots.take(1, timed_out=False)
    assert slots.is_scarce(own) is scarce


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
