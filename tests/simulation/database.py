"""What a database does to the worker: it refuses, it loses an answer, it sees the process die in a transaction."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Engine

WRITES = ("INSERT", "UPDATE", "DELETE")
LOCKED = "locked"


class SimulatedDatabase:
    """A real one behind a driver that fails when a test says so; only jobs run `at_work` see it, the test's SQL never.

    `full`: it can be read, and takes no writes. `lost_answers`: so many commits are made and not acknowledged. What a
    trigger refuses as LOCKED takes too long, as on Oracle: SQLite has no locks of rows.
    """

    def __init__(self, engine: Engine, step: Callable[[], None]) -> None:
        """`step` is called before each write and after each commit: there the process may die."""
        self.full = False
        self.lost_answers = 0
        self._at_work = False
        self._step = step
        dialect: Any = engine.dialect  # this engine's own: no other is concerned
        dialect.do_execute = partial(self._execute, dialect.do_execute)
        dialect.do_executemany = partial(self._execute, dialect.do_executemany)
        dialect.do_commit = partial(self._commit, dialect.do_commit)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """For the time of a job."""
        self._at_work = True
        try:
            yield
        finally:
            self._at_work = False

    def _execute(self, execute: Callable[..., None], cursor: object, statement: str, *values: object) -> None:
        if self._at_work and statement.startswith(WRITES):
            self._step()
            if self.full:
                raise _error("FULL", "database or disk is full")
        try:
            execute(cursor, statement, *values)
        except sqlite3.IntegrityError as error:
            if str(error) == LOCKED:
                raise sqlite3.OperationalError("DPY-4024: call timeout of 30000 ms exceeded") from None
            raise

    def _commit(self, commit: Callable[..., None], connection: object) -> None:
        commit(connection)
        if self._at_work:
            self._step()
            if self.lost_answers:
                self.lost_answers -= 1
                raise _error("IOERR", "disk I/O error")


def _error(name: str, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorname = f"SQLITE_{name}"
    return error
