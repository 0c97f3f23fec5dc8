"""What follows a failed attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.outcome import Failed, Outcome, Rejected, Undeliverable
from consumer.delivery.retry import MOST_RETRY_AFTER, RetryPolicy, policy_for, wait_after

waits = st.lists(st.floats(0.001, 1e6), max_size=9)


@given(schedule=waits, jitter=st.floats(0, 1), data=st.data())
def test_the_wait_is_the_schedules_plus_the_jitter(schedule: list[float], jitter: float, data: st.DataObject) -> None:
    """After attempt n comes the n-th wait, stretched by up to `jitter`. After the last wait there is no attempt."""
    policy = RetryPolicy(schedule, jitter)
    attempts = data.draw(st.integers(1, len(schedule) + 3))
    decision = policy.decide(attempts, Failed("status 500", 500))
    if attempts > len(schedule):
        assert decision is None
    else:
        assert decision is not None
        wait = schedule[attempts - 1]
        assert wait * 0.999999 <= decision <= wait * (1 + jitter) * 1.000001


def test_the_jitter_spreads_retries_of_simultaneous_failures() -> None:
    """Fifty waits of one schedule entry are all different, and cover most of the jitter's range."""
    waits = {RetryPolicy((100.0,), 0.5).decide(1, Failed("status 500", 500)) for _ in range(50)}
    found = [each for each in waits if each is not None]
    assert len(found) == 50
    assert min(found) < 110
    assert max(found) > 140


@given(asked=st.floats(0, 1e9))
def test_retry_after_moves_the_attempt_later_never_earlier(asked: float) -> None:
    """The header applies if it is longer than the schedule's wait, for a day at most."""
    decision = RetryPolicy((60.0,), 0.0).decide(1, Failed("status 429", 429, asked))
    assert decision == max(60.0, min(asked, MOST_RETRY_AFTER))


def test_a_changed_schedule_continues_the_count() -> None:
    """A shorter schedule may be used up at once. A longer one continues with the next entry."""
    failed = Failed("status 500", 500)
    assert policy_for((1.0,), 0.0).decide(3, failed) is None
    assert policy_for((1.0, 2.0, 3.0, 4.0), 0.0).decide(3, failed) == 3.0


POLICY = RetryPolicy((5.0, 60.0), 0.0)


@pytest.mark.parametrize(
    ("outcome", "attempts", "shared", "wait"),
    [
        (Failed("status 503", 503), 1, False, 5.0),
        (Failed("status 503", 503), 2, False, 60.0),
        (Failed("status 503", 503), 3, False, None),
        (Failed("status 422", 422), 3, True, 0.0),
        (Failed("status 422", 422, 7.0), 3, True, 7.0),
        (Failed("status 422", 422), 1, True, 5.0),
        (Rejected("status 400", 400), 1, False, None),
        (Rejected("status 400", 400), 1, True, 0.0),
        (Undeliverable("no value"), 1, False, None),
    ],
)
def test_a_failure_of_a_batch_ends_none_of_its_deliveries(
    outcome: Outcome, attempts: int, wait: float | None, *, shared: bool
) -> None:
    """Each follows its own schedule. A delivery whose neighbour may be to blame is tried again alone."""
    assert wait_after(outcome, attempts, POLICY, spared=shared) == wait
