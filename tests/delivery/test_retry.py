"""What follows a failed attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import BaseRetrying

from consumer.delivery.outcome import Failed, Outcome, Rejected, Undeliverable, retry_after
from consumer.delivery.retry import (
    MOST_RETRY_AFTER,
    GiveUp,
    Retry,
    RetryIn,
    RetryPolicy,
    WriteResult,
    after_failure,
    policy_for,
    verdict_on,
)

waits = st.lists(st.floats(0.001, 1e6), max_size=9)


@given(schedule=waits, jitter=st.floats(0, 1), data=st.data())
def test_the_wait_is_the_schedules_plus_the_jitter(schedule: list[float], jitter: float, data: st.DataObject) -> None:
    """After attempt n comes the n-th wait, stretched by up to `jitter`. After the last wait there is no attempt."""
    policy = RetryPolicy(schedule, jitter)
    attempts = data.draw(st.integers(1, len(schedule) + 3))
    decision = policy.decide(attempts, Failed("status 500", 500))
    if attempts > len(schedule):
        assert decision == GiveUp()
    else:
        assert isinstance(decision, Retry)
        wait = schedule[attempts - 1]
        assert wait * 0.999999 <= decision.wait <= wait * (1 + jitter) * 1.000001


def test_the_jitter_spreads_retries_of_simultaneous_failures() -> None:
    """Fifty waits of one schedule entry are all different, and cover most of the jitter's range."""
    waits = {RetryPolicy((100.0,), 0.5).decide(1, Failed("status 500", 500)) for _ in range(50)}
    found = [each.wait for each in waits if isinstance(each, Retry)]
    assert len(found) == 50
    assert min(found) < 110
    assert max(found) > 140


@given(asked=st.floats(0, 1e9))
def test_retry_after_moves_the_attempt_later_never_earlier(asked: float) -> None:
    """The header applies if it is longer than the schedule's wait, for a day at most."""
    decision = RetryPolicy((60.0,), 0.0).decide(1, Failed("status 429", 429, asked))
    assert decision == Retry(max(60.0, min(asked, MOST_RETRY_AFTER)))


def test_retry_after_adds_no_attempt() -> None:
    """A schedule without further attempts stays so."""
    assert RetryPolicy((1.0,), 0.0).decide(2, Failed("status 429", 429, 5.0)) == GiveUp()


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", 120.0),
        ("7", 60.0),
        ("999999999999", 86_400.0),
        ("Thu, 01 Jan 1970 00:25:00 GMT", 500.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 60.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("-120", 60.0),
        ("soon", 60.0),
        (None, 60.0),
    ],
)
def test_the_wait_that_follows_from_a_retry_after_header(header: str | None, wait: float) -> None:
    """Future seconds or dates move the attempt, by a day at most. Past, negative or unreadable values do not."""
    failed = Failed("status 503", 503, retry_after(header, 1000.0))
    assert RetryPolicy((60.0,), 0.0).decide(1, failed) == Retry(wait)


@given(
    schedule=st.lists(st.floats(0.001, 1e6), min_size=1, max_size=9),
    late=st.lists(st.floats(0, 1e6), min_size=9, max_size=9),
)
def test_a_late_attempt_skips_nothing(schedule: list[float], late: list[float]) -> None:
    """However late each attempt is, every entry of the schedule is used, from the end of the attempt before it."""
    policy, now, attempts, waited = RetryPolicy(schedule, 0.0), 0.0, 1, list[float]()
    while isinstance(decision := policy.decide(attempts, Failed("status 500", 500)), Retry):
        waited.append(decision.wait)
        now += decision.wait + late[attempts - 1]
        attempts += 1
    assert waited == schedule
    assert now >= sum(schedule) * 0.999999


def test_a_changed_schedule_continues_the_count() -> None:
    """A shorter schedule may be used up at once. A longer one continues with the next entry."""
    failed = Failed("status 500", 500)
    assert policy_for((1.0,), 0.0).decide(3, failed) == GiveUp()
    assert policy_for((1.0, 2.0, 3.0, 4.0), 0.0).decide(3, failed) == Retry(3.0)


def test_equal_schedules_share_a_policy() -> None:
    """A subscription's own schedule costs nothing per attempt, and tenacity still makes the decision."""
    assert policy_for((1.0, 2.0), 0.2) is policy_for((1.0, 2.0), 0.2)
    assert policy_for((1.0, 2.0), 0.2) is not policy_for((1.0, 2.0), 0.1)
    assert isinstance(policy_for((1.0, 2.0), 0.2), BaseRetrying)


def test_policies_are_kept_within_bounds() -> None:
    """Thousands of different schedules do not fill memory."""
    for seconds in range(1, 3000):
        policy_for((float(seconds),), 0.2)
    assert policy_for.cache_info().currsize <= 1024


def test_the_policy_keeps_no_state() -> None:
    """Deliveries share one policy: a decision for one does not change those for another."""
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
    """Calling the policy, as tenacity allows, is an error: nothing may sleep in the loop."""
    with pytest.raises(TypeError, match="the loop waits"):
        RetryPolicy((1.0,), 0.0)(print)


NOW = 1000.0
POLICY = RetryPolicy((5.0, 60.0), 0.0)


@given(wait=st.floats(0, 1e6), in_memory=st.floats(-1, 1e6))
def test_a_short_wait_is_in_memory_and_a_long_one_in_the_database(wait: float, in_memory: float) -> None:
    """Waits up to and including the limit are in memory. A longer one is due at the same time in the database."""
    step = after_failure(Retry(wait), NOW, in_memory=in_memory)
    assert step == (RetryIn(wait) if wait <= in_memory else WriteResult("parked", NOW + wait))


def test_a_delivery_that_may_not_wait_in_memory_is_stored() -> None:
    """Even a delivery that is due at once."""
    assert after_failure(Retry(0.0), NOW, in_memory=None) == WriteResult("parked", NOW)


def test_a_used_up_schedule_ends_in_the_database() -> None:
    """It is stored whatever wait memory allows, so that operators see that it was given up."""
    assert after_failure(GiveUp(), NOW, in_memory=1e6) == WriteResult("exhausted")


@pytest.mark.parametrize(
    ("outcome", "attempts", "shared", "verdict"),
    [
        (Failed("status 503", 503), 1, False, Retry(5.0)),
        (Failed("status 503", 503), 2, False, Retry(60.0)),
        (Failed("status 503", 503), 3, False, GiveUp()),
        (Failed("status 422", 422), 3, True, Retry(0.0)),
        (Failed("status 422", 422, 7.0), 3, True, Retry(7.0)),
        (Failed("status 422", 422), 1, True, Retry(5.0)),
        (Rejected("status 400", 400), 1, False, GiveUp()),
        (Rejected("status 400", 400), 1, True, Retry(0.0)),
        (Undeliverable("no value"), 1, False, GiveUp()),
    ],
)
def test_a_failure_of_a_batch_ends_none_of_its_deliveries(
    outcome: Outcome, attempts: int, verdict: object, *, shared: bool
) -> None:
    """Each follows its own schedule. A delivery whose neighbour may be to blame is tried again alone."""
    assert verdict_on(outcome, attempts, POLICY, shared=shared) == verdict
