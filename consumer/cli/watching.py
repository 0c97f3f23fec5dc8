"""Waits until stored deliveries are sent: the last step of `deliveries redeliver` and `replay`."""

import sys
import time
from collections import Counter
from collections.abc import Callable

import typer

from consumer.cli.console import time_text
from consumer.cli.progress import progress_bar, signals_noted

LOOK = 0.5  # seconds between two queries at least; queries take at most a sixth of the time
STALLED = 30.0  # seconds; workers look for marked rows every 5 s
LINE = 10.0  # seconds between two lines without a terminal
_OWED = ("parked", "blocked")

States = Callable[[], Counter[str]]


def watch(
    look: States,
    next_at: Callable[[], float | None],
    *,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the deliveries' progress until none is owed; exit with status 1 if one was given up or is held.

    `next_at` returns when the next waiting delivery is due (unix seconds). A signal ends only the watching.
    """
    states = look()
    before, moved_at, line_at, told = Counter[str](), clock(), clock(), False
    with signals_noted() as stopped, progress_bar(states.total()) as draw:
        while True:
            began = clock()
            states = look()
            draw(states.total() - _owed(states), summary(states))
            if not _owed(states) or stopped():
                break
            if states != before:
                before, moved_at, told = states, clock(), False
            elif not told and clock() - moved_at >= STALLED:
                _say(_advice(next_at(), now()))
                told = True
            if not sys.stderr.isatty() and clock() - line_at >= LINE:
                typer.echo(summary(states), err=True)
                line_at = clock()
            _wait(max(LOOK, 5 * (clock() - began)), stopped, clock, sleep)
    typer.echo(summary(states))
    if _owed(states):
        typer.echo("no longer watching; the workers send the rest", err=True)
        return
    if states["held"]:
        typer.echo(
            "held deliveries are sent within a minute after `subscriptions enable`, or `resume` if they are paused",
            err=True,
        )
    if states["exhausted"] or states["held"]:
        raise typer.Exit(1)


def summary(states: Counter[str]) -> str:
    """`7 delivered, 1 exhausted, 2 still owed`."""
    parts = [f"{states['delivered']:,} delivered"]
    parts += [f"{states[name]:,} {name}" for name in ("exhausted", "held") if states[name]]
    return ", ".join([*parts, *([f"{_owed(states):,} still owed"] if _owed(states) else [])])


def _owed(states: Counter[str]) -> int:
    return sum(states[name] for name in _OWED)


def _say(text: str) -> None:
    """Print a line of its own, below the bar."""
    typer.echo(f"\n{text}" if sys.stderr.isatty() else text, err=True)


def _advice(next_at: float | None, now: float) -> str:
    if next_at is not None and next_at > now:
        return f"nothing moves for now: the next attempt is due at {time_text(next_at)}"
    return f"nothing has moved for {STALLED:.0f} s: is a worker running?"


def _wait(
    seconds: float, stopped: Callable[[], bool], clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    until = clock() + seconds
    while clock() < until and not stopped():
        sleep(min(0.1, seconds))
