"""The database shared by a deployment's workers, as tests access it from outside: SQLite or an emulated Oracle."""

import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from sqlalchemy import CursorResult, Engine
from sqlalchemy.exc import DBAPIError

from consumer.database import migrations
from consumer.errors import DatabaseUnavailable
from tests.databases import DATABASES, connect_to, database, url_of
from tests.oracle.oracle_databases import start_emulator
from tests.oracle_emulator import PROFILES, OracleEmulator

JUDGE = "JUDGE"  # the tests' own user, not affected by faults for workers


class DatabaseAway(Exception):
    """The database is not accessible now: its tables are renamed, or another process locks it."""


class DeployedDatabase(ABC):
    """The database of a deployment, as workers reach it by `url`, and as tests change it."""

    url: str
    engine: Engine  # for the tests' own access

    @abstractmethod
    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs one statement, with `?` for each value, in its own transaction; returns rows. Raises DatabaseAway."""

    @abstractmethod
    def change(self, statement: str, *values: object) -> int:
        """Runs one statement like `sql`; returns the number of changed rows."""

    def at_rest(self) -> AbstractContextManager[None]:
        """Holds off locks of workers that would block all others. Oracle's end with a call's time limit."""
        return nullcontext()


class SqliteDatabase(DeployedDatabase):
    """A file, with faults that only a file can have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.engine = database(path)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs one statement in its own transaction."""
        with self._transaction() as connection:
            return connection.execute(statement, values).fetchall()

    def change(self, statement: str, *values: object) -> int:
        """Runs one statement in its own transaction."""
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the only write lock, as another process would."""
        with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield

    at_rest = locked

    @contextmanager
    def no_tables(self, *tables: str) -> Iterator[None]:
        """These tables are missing for every connection, old and new, and come back with their content."""
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


class OracleDatabase(DeployedDatabase):
    """A migrated schema on an Oracle, emulated or real."""

    def __init__(self, engine: Engine, url: str | None = None) -> None:
        """Workers connect as `engine` does, unless another `url` is given."""
        self.engine = engine
        self.url = url or url_of(engine)
        self._lock = Lock()  # one connection for all threads: while the listener is down, no other can be opened

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs one statement in its own transaction."""
        with self._executed(statement, values) as result:
            return [tuple(row) for row in result] if result.returns_rows else []

    def change(self, statement: str, *values: object) -> int:
        """Runs one statement in its own transaction."""
        with self._executed(statement, values) as result:
            return result.rowcount

    @contextmanager
    def _executed(self, statement: str, values: tuple[object, ...]) -> Iterator[CursorResult[Any]]:
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f":{next(numbers)}", statement)
        with self._lock:
            try:
                with self.engine.begin() as connection:
                    yield connection.exec_driver_sql(numbered, values)
            except (DBAPIError, DatabaseUnavailable) as error:
                raise DatabaseAway(str(error)) from error


class EmulatedOracle(OracleDatabase):
    """A server of its own, for faults: the tests' own access is by another user, which most faults do not affect."""

    def __init__(self, server: OracleEmulator) -> None:
        """`server` belongs to this database alone, and listens."""
        self.server = server
        owner = connect_to(server.url)
        migrations.upgrade(owner)
        owner.dispose()
        self.user, self.password = str(owner.url.username).upper(), str(owner.url.password)
        server.add_user(JUDGE, "judge")
        super().__init__(connect_to(server.url_of(JUDGE), self.user), server.url)

    def close(self) -> None:
        """Closes the connections."""
        self.engine.dispose()


@contextmanager
def emulated_oracle(profile: str) -> Iterator[EmulatedOracle]:
    """A server, which at the end must have lacked no request."""
    with start_emulator(PROFILES[profile]) as server:
        with closing(EmulatedOracle(server)) as database:
            yield database
        assert server.failures == [], server.failures


# For selected tests of a whole deployment; the others run on SQLite.
ON_EACH_DATABASE = pytest.mark.parametrize("deployed_database", DATABASES, indirect=True)
