"""The display of a command that waits or works: the wait's cause, a progress bar; and its end, by a signal too."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from threading import Timer
from types import FrameType
from typing import TypeVar

import typer

T = TypeVar("T")

PATIENCE = 1.0  # seconds of waiting before it is reported
_quiet = ContextVar("quiet", default=False)
_ends: ContextVar[ExitStack] = ContextVar("ends")


@contextmanager
def running(*, quiet: bool) -> Iterator[None]:
    """The run of a command. If `quiet`, it reports no waiting, because a program reads its output."""
    with ExitStack() as ends:
        before, outer = _quiet.set(quiet), _ends.set(ends)
        try:
            yield
        finally:
            _quiet.reset(before)
            _ends.reset(outer)


def at_end(action: Callable[[], object]) -> None:
    """Call `action` when the command ends, whatever ends it."""
    _ends.get().callback(action)


class Waiting:
    """A context that prints `waiting for ...` if its body takes longer than PATIENCE; at most once per object."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = False
        self._timer: Timer | None = None

    def __enter__(self) -> None:
        self.__exit__()
        if not (self._said or _quiet.get()):
            self._timer = Timer(PATIENCE, self._say)
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        self._said = True
        over = "\r\x1b[K" if sys.stderr.isatty() else ""  # overwrites a progress bar, which is drawn again below
        typer.echo(f"{over}waiting for {self._what}", err=True)


@contextmanager
def progress_bar(length: int | None) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on stderr, if that is a terminal; `length` is None if unknown.

    Yields a function that redraws the bar, given the amount done and a text to show beside it.
    """
    text = ""
    nothing: Iterator[None] = (None for _ in ())  # a tuple would have a length of its own
    terminal = sys.stderr.isatty()
    with typer.progressbar(
        nothing, length=length, item_show_func=lambda _: text or None, file=sys.stderr, hidden=not terminal
    ) as bar:

        def draw(done: int, beside: str) -> None:
            nonlocal text
            text = beside
            bar.update(done - bar.pos)
            bar.render_progress()

        yield draw


@contextmanager
def signals_noted() -> Iterator[Callable[[], bool]]:
    """Note the first SIGINT or SIGTERM; yields a function that reports whether one came. A second acts as before."""
    noted: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def note(received: int, _frame: FrameType | None) -> None:
        noted.append(received)
        for number in numbers:
            signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def until_signal(batches: Iterable[T], left: str) -> Iterator[T]:
    """Yield the batches. A signal ends the command after the current one, with status 0; `left` describes the rest."""
    with signals_noted() as stopped:
        for batch in batches:
            yield batch
            if stopped():
                typer.echo(f"stopped; {left}", err=True)
                raise typer.Exit
