"""Tells on stderr what a command waits for, once that takes longer than a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Timer
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

PATIENCE = 1.0  # seconds that pass without a word
_quiet = ContextVar("quiet", default=False)


@contextmanager
def quietly(*, quiet: bool) -> Iterator[None]:
    """Tell nobody of what is waited for inside, if `quiet`: a program reads what the command prints."""
    before = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(before)


class Waiting:
    """Says `waiting for ...` if what is inside takes long: once, however often it is entered."""

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
        over = "\r\x1b[K" if sys.stderr.isatty() else ""  # a bar that stands there is drawn again below
        typer.echo(f"{over}waiting for {self._what}", err=True)


def told_of(engine: "Engine") -> "Engine":
    """The engine, that tells where it takes long to connect, or a statement does."""
    from sqlalchemy import event

    waiting = Waiting(f"the database at {engine.url.render_as_string(hide_password=True)}")

    def begin(*_: object) -> None:
        waiting.__enter__()

    def end(*_: object) -> None:
        waiting.__exit__()

    event.listen(engine, "do_connect", begin, insert=True)
    event.listen(engine, "before_cursor_execute", begin)
    for name in ("connect", "after_cursor_execute", "handle_error"):
        event.listen(engine, name, end)
    return engine
