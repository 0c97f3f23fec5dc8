"""The database that a deployment's workers share, as tests look into it from outside: SQLite or an emulated Oracle."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import pytest
from sqlalchemy import CursorResult, Engine
from sqlalchemy.exc import DBAPIError

from consumer.database import migrations
from consumer.errors import DatabaseUnavailable
from tests.databases import DATABASES, connect_to, url_of
from tests.oracle.oracle_databases import start_emulator
from tests.oracle_emulator import PROFILES, OracleEmulator

JUDGE = "JUDGE"  # who looks from outside, and meets no fault that is meant for workers


class DatabaseAway(Exception):
    """It cannot be asked now: the tables are away, or another process holds them."""


class DeployedDatabase(Protocol):
    """What tests and workers need of it."""

    @property
    def url(self) -> str:
        """What workers are given."""

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement, with a `?` for each value, in a transaction of its own; its rows. DatabaseAway."""

    def change(self, statement: str, *values: object) -> int:
        """Run one statement like `sql`; how many rows it changed."""

    def at_rest(self) -> AbstractContextManager[None]:
        """No worker holds a lock that all others need."""


class SqliteDatabase:
    """A file. Many a test hurts it as only a file can be hurt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """What workers are given."""
        return f"sqlite:///{self.path}"

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own."""
        with self._transaction() as connection:
            return connection.execute(statement, values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        """Run one statement in a transaction of its own."""
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process holds the one lock for writing."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield

    at_rest = locked

    @contextmanager
    def no_tables(self, *tables: str) -> Iterator[None]:
        """For every connection, old and new, these tables are gone, and come back with what was in them."""
        for table in tables:
            self.sql(f"ALTER TABLE {table} RENAME TO away_{table}")
        try:
            yield
        finally:
            for table in tables:
                self.sql(f"ALTER TABLE away_{table} RENAME TO {table}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise DatabaseAway(str(error)) from error


class OracleDatabase:
    """A migrated schema on an Oracle, emulated or real. `engine` is for those who look from outside."""

    def __init__(self, engine: Engine, url: str | None = None) -> None:
        """Workers connect as `engine` does, unless another `url` is given."""
        self._engine = engine
        self.url = url or url_of(engine)
        self._lock = Lock()  # one connection for all: while the listener is down, none can be made

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own."""
        with self._executed(statement, values) as result:
            return [tuple(row) for row in result] if result.returns_rows else []

    def change(self, statement: str, *values: object) -> int:
        """Run one statement in a transaction of its own."""
        with self._executed(statement, values) as result:
            return result.rowcount

    def at_rest(self) -> AbstractContextManager[None]:
        """A session's locks are in nobody's way for longer than a call may take."""
        return nullcontext()

    @contextmanager
    def _executed(self, statement: str, values: tuple[object, ...]) -> Iterator[CursorResult[Any]]:
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f":{next(numbers)}", statement)
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    yield connection.exec_driver_sql(numbered, values)
            except (DBAPIError, DatabaseUnavailable) as error:
                raise DatabaseAway(str(error)) from error


class EmulatedOracle(OracleDatabase):
    """A server of its own, which can be hurt: those who look from outside are another user, and hurt less."""

    def __init__(self, server: OracleEmulator) -> None:
        """`server` was made for this, and listens."""
        self.server = server
        owner = connect_to(server.url)
        migrations.upgrade(owner)
        owner.dispose()
        self.user, self.password = str(owner.url.username).upper(), str(owner.url.password)
        server.add_user(JUDGE, "judge")
        super().__init__(connect_to(server.url_of(JUDGE), self.user), server.url)

    def close(self) -> None:
        """Ask no more."""
        self._engine.dispose()


@contextmanager
def emulated_oracle(profile: str) -> Iterator[EmulatedOracle]:
    """A server that in the end has understood all that it was asked."""
    with start_emulator(PROFILES[profile]) as server:
        with closing(EmulatedOracle(server)) as database:
            yield database
        assert server.failures == [], server.failures


# For tests of a whole deployment that are worth it; the others run on SQLite.
ON_EACH_DATABASE = pytest.mark.parametrize("deployed_database", DATABASES, indirect=True)
