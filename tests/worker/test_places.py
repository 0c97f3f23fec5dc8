"""Decisions about the place of a worker's process that has ended."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.places import BACK_OFF, REFUSED, STEADY, Ending, Place

RUNS = st.lists(st.tuples(st.floats(0, 3 * STEADY), st.sampled_from([0, 1, REFUSED, -signal.SIGKILL])), max_size=20)


@given(RUNS)
def test_the_wait_grows_unless_a_process_has_run_for_long(runs: list[tuple[float, int]]) -> None:
    """It doubles from half a second to thirty, and is half a second again after a process that ran for a minute."""
    place, now, wait = Place(), 1000.0, 0.0
    for seconds, status in runs:
        place = place.begun(7, now)
        now += seconds
        begun_at, place = place.at, place.ended(Ending(status), now)
        wait = BACK_OFF[0] if now - begun_at >= STEADY or not wait else min(2 * wait, BACK_OFF[1])
        assert place.at - now == pytest.approx(wait)
        now = place.at
    assert place.endings == len(runs)
    assert place.refused == (bool(runs) and runs[0][1] == REFUSED)


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (Ending(1, "no memory"), "exit status 1: no memory"),
        (Ending(0), "exit status 0"),
        (Ending(-signal.SIGKILL), "killed by SIGKILL"),
        (Ending(-250), "killed by signal 250"),
    ],
)
def test_the_reason_says_how_it_ended(ending: Ending, text: str) -> None:
    """It stays while the next process becomes ready."""
    place = Place().begun(7, 0.0)
    assert (Place().reason, place.reason) == ("starting", "")
    after = place.ended(ending, 1.0)
    assert after.reason == after.begun(8, 2.0).reason == f"its process ended ({text})"
