"""Detecting that the system clock was set: a jump is noticed; a slow drift and the passing of time are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker.maintenance import JUMP, ClockWatch

DURATIONS = st.floats(0, 86400)


class Clocks:
    """Both clocks of a machine."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0
        self.watch = ClockWatch(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds: float, *, set_by: float = 0.0) -> float | None:
        """Let time pass, set the clock meanwhile, and check it."""
        self.wall += seconds + set_by
        self.monotonic += seconds
        return self.watch.jump()


@pytest.mark.parametrize(
    ("by", "text"),
    [(-3600.0, "went back by 3600 s: stored deliveries"), (7.5, "went forward by 8 s: stored deliveries")],
)
def test_a_jump_is_reported_once_and_is_a_fault_for_a_minute(by: float, text: str) -> None:
    """The next check reports it with its sign. The fault says what it means and what to do, and ends by itself."""
    clocks = Clocks()
    assert (clocks.pass_by(1.0), clocks.watch.fault) == (None, None)
    assert clocks.pass_by(1.0, set_by=by) == pytest.approx(by)
    assert text in (clocks.watch.fault or "")
    assert "check NTP" in (clocks.watch.fault or "")
    assert clocks.pass_by(59.0) is None
    assert clocks.watch.fault is not None
    assert clocks.pass_by(1.1) is None
    assert clocks.watch.fault is None


def test_the_fault_is_the_last_jump() -> None:
    """If the clock was set wrong and then right, the minute counts from the second jump."""
    clocks = Clocks()
    clocks.pass_by(1.0, set_by=-3600.0)
    clocks.pass_by(30.0, set_by=3600.0)
    clocks.pass_by(59.0)
    assert "forward by 3600 s" in (clocks.watch.fault or "")


@given(st.lists(st.tuples(DURATIONS, st.floats(-JUMP + 0.01, JUMP - 0.01))))
def test_slewing_is_no_jump(looks: list[tuple[float, float]]) -> None:
    """However long the time between two checks is, and however large the sum of small steps."""
    clocks = Clocks()
    assert all(clocks.pass_by(seconds, set_by=by) is None for seconds, by in looks)
    assert clocks.watch.fault is None


@given(DURATIONS, st.floats(JUMP + 0.01, 1e6) | st.floats(-1e6, -JUMP - 0.01))
def test_the_size_of_a_jump_excludes_the_time_passed(seconds: float, by: float) -> None:
    """It is the size of the step, without the time between the checks."""
    assert Clocks().pass_by(seconds, set_by=by) == pytest.approx(by, abs=0.01)
