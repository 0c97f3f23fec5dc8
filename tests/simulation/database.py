"""Faults of a simulated database: refused writes, lost answers, and the process's death in a transaction."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Engine

WRITES = ("INSERT", "UPDATE", "DELETE")
LOCKED = "locked"


class SimulatedDatabase:
    """A real database behind a driver that fails on demand. Only jobs run `at_work` see the faults, not the test's SQL.

    `full`: reads work, writes fail. `lost_answers`: this many commits are made and not acknowledged. A refusal by a
    trigger as LOCKED is a time-out, as on Oracle, since SQLite has no row locks.
    """

    def __init__(self, engine: Engine, step: Callable[[], None]) -> None:
        """`step` is called before each write and after each commit, where the process may die."""
        self.full = False
        self.lost_answers = 0
        self._at_work = False
        self._step = step
        dialect: Any = engine.dialect  # this engine's own, so no other engine is affected
        dialect.do_execute = partial(self._execute, dialect.do_execute)
        dialect.do_executemany = partial(self._execute, dialect.do_executemany)
        dialect.do_commit = partial(self._commit, dialect.do_commit)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Enable the faults for one job."""
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
