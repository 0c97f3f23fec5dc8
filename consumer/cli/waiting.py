"""Reports on stderr what a command waits for, if the wait takes longer than a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

PATIENCE = 1.0  # seconds of waiting before it is reported
_quiet = ContextVar("quiet", default=False)


@contextmanager
def quietly(*, quiet: bool) -> Iterator[None]:
    """Within the context, report no waiting if `quiet`, because a program reads the command's output."""
    before = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(before)


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


def told_of(engine: "Engine") -> "Engine":
    """Make the engine report when a connect or a statement takes longer than PATIENCE; returns the engine."""
    from sqlalchemy import event

    from consumer.database.engine import place_of

    waiting = Waiting(f"the database at {place_of(engine)}")

    def begin(*_: object) -> None:
        waiting.__enter__()

    def end(*_: object) -> None:
        waiting.__exit__()

    event.listen(engine, "do_connect", begin, insert=True)
    event.listen(engine, "before_cursor_execute", begin)
    for name in ("connect", "after_cursor_execute", "handle_error"):
        event.listen(engine, name, end)
    return engine
