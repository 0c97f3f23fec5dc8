"""The next step after an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.next_step import Finished, RetryIn, WriteResult, after_failure, after_success, verdict_on
from consumer.delivery.outcome import Failed, Outcome, Rejected, Undeliverable
from consumer.delivery.retry import GiveUp, Retry, RetryPolicy

NOW = 1000.0
POLICY = RetryPolicy((5.0, 60.0), 0.0)


def test_a_success_is_written_only_for_a_stored_delivery() -> None:
    """For a delivery from a record nothing is written."""
    assert after_success(is_row=False) == Finished()
    assert after_success(is_row=True) == WriteResult("delivered")


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
