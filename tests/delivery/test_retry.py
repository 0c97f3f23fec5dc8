"""The schedule of attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.outcome import Failed
from consumer.delivery.retry import MOST_RETRY_AFTER, GiveUp, Retry, RetryPolicy

waits = st.lists(st.floats(0.001, 1e6), max_size=9)


@given(schedule=waits, jitter=st.floats(0, 1), data=st.data())
def test_the_wait_is_the_schedules_stretched_by_the_jitter(
    schedule: list[float], jitter: float, data: st.DataObject
) -> None:
    """After attempt n comes the n-th wait, up to `jitter` longer; after the last wait, nothing."""
    policy = RetryPolicy(schedule, jitter)
    attempts = data.draw(st.integers(1, len(schedule) + 3))
    decision = policy.decide(attempts, Failed("status 500", 500))
    if attempts > len(schedule):
        assert decision == GiveUp()
    else:
        assert isinstance(decision, Retry)
        wait = schedule[attempts - 1]
        assert wait * 0.999999 <= decision.wait <= wait * (1 + jitter) * 1.000001


@given(asked=st.floats(0, 1e9))
def test_retry_after_moves_the_attempt_later_never_earlier(asked: float) -> None:
    """The receiver's wish counts when it is longer than the schedule's wait, and for a day at most."""
    decision = RetryPolicy((60.0,), 0.0).decide(1, Failed("status 429", 429, asked))
    assert decision == Retry(max(60.0, min(asked, MOST_RETRY_AFTER)))


def test_retry_after_adds_no_attempt() -> None:
    """A used-up schedule stays used up."""
    assert RetryPolicy((1.0,), 0.0).decide(2, Failed("status 429", 429, 5.0)) == GiveUp()


def test_the_policy_keeps_no_state() -> None:
    """Deliveries share one policy: what it decided for one changes nothing for another."""
    policy = RetryPolicy((1.0, 2.0, 3.0), 0.0)
    failed = Failed("status 500", 500)
    assert [policy.decide(n, failed) for n in (3, 1, 4, 2, 1)] == [
        Retry(3.0),
        Retry(1.0),
        GiveUp(),
        Retry(2.0),
        Retry(1.0),
    ]


def test_it_runs_no_function() -> None:
    """The call that tenacity has is closed: nothing may sleep in the loop."""
    with pytest.raises(TypeError, match="the loop waits"):
        RetryPolicy((1.0,), 0.0)(print)
