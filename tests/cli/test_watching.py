"""Watching deliveries: queries, output, and the end."""

import signal
from collections import Counter
from collections.abc import Callable

import pytest
import typer

from consumer.cli.watching import STALLED, States, summary, watch


class Clock:
    """A clock that moves only during sleeps."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def over_time(clock: Clock, *steps: tuple[float, dict[str, int]]) -> States:
    """The states from these times on, in seconds."""
    begin = clock()
    return lambda: Counter([states for at, states in steps if clock() - begin >= at][-1])


def follow(look: States, clock: Clock, next_at: Callable[[], float | None] = lambda: None) -> None:
    watch(look, next_at, clock=clock, now=clock, sleep=clock.sleep)


def test_it_ends_when_all_are_delivered(capsys: pytest.CaptureFixture[str]) -> None:
    """A final line says so; without a terminal there is a line each ten seconds before."""
    clock = Clock()
    look = over_time(clock, (0, {"parked": 3}), (15, {"parked": 1, "delivered": 2}), (25, {"delivered": 3}))
    follow(look, clock)
    shown = capsys.readouterr()
    assert shown.out == "3 delivered\n"
    assert shown.err.splitlines() == ["0 delivered, 3 still owed", "2 delivered, 1 still owed"]


@pytest.mark.parametrize("state", ["exhausted", "held"])
def test_undelivered_rows_are_1(capsys: pytest.CaptureFixture[str], state: str) -> None:
    """They were exhausted, or are held until an operator enables the subscription."""
    clock = Clock()
    with pytest.raises(typer.Exit) as ended:
        follow(over_time(clock, (0, {"blocked": 2}), (3, {state: 1, "delivered": 1})), clock)
    assert ended.value.exit_code == 1
    assert capsys.readouterr().out == f"1 delivered, 1 {state}\n"


@pytest.mark.parametrize(
    ("due_in", "says"),
    [(None, "is a worker running?"), (-10.0, "is a worker running?"), (600.0, "the next attempt is due at 2023-")],
)
def test_nothing_moves(capsys: pytest.CaptureFixture[str], due_in: float | None, says: str) -> None:
    """After half a minute one line gives the reason: no worker, or no delivery due yet."""
    clock = Clock()
    look = over_time(clock, (0, {"parked": 2}), (2.5 * STALLED, {"delivered": 2}))
    follow(look, clock, lambda: None if due_in is None else clock() + due_in)
    assert len([line for line in capsys.readouterr().err.splitlines() if says in line]) == 1


def test_a_signal_ends_the_watching_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A line says that the workers send the rest."""
    clock = Clock()

    def look() -> Counter[str]:
        if clock() > 1_700_000_005:
            signal.raise_signal(signal.SIGINT)
        return Counter(parked=1)

    follow(look, clock)
    assert capsys.readouterr() == ("0 delivered, 1 still owed\n", "no longer watching; the workers send the rest\n")


def test_a_summary_names_the_present_states() -> None:
    """Delivered is always shown, other states if they occur."""
    assert summary(Counter()) == "0 delivered"
    states = Counter(delivered=1200, exhausted=1, held=2, parked=3, blocked=4)
    assert summary(states) == "1,200 delivered, 1 exhausted, 2 held, 7 still owed"
