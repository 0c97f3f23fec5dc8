"""Oracle for tests: emulated, with a schema for each test, or a real one that is emptied for each test.

The emulator needs java and, the first time, maven. Without them its tests are skipped visibly, or fail if
ORACLE_TEST_REQUIRED=1.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy import Engine

from consumer.database import migrations
from models import Base
from tests.oracle_emulator import PROFILES, OracleEmulator, Tables
from tests.provided import or_skip

VERSIONS = "webhook_alembic_version"
OURS = {*Base.metadata.tables, VERSIONS}
Connect = Callable[[str], Engine]


def start_emulator(*arguments: Any, **more: Any) -> OracleEmulator:
    """An emulator to enter. If it cannot run, the test is skipped, or fails if it is required."""
    return or_skip(lambda: OracleEmulator(*arguments, **more), "ORACLE")


class _Server(NamedTuple):
    emulator: OracleEmulator
    tables: Tables  # as the migrations create them


class EmulatedOracles:
    """A server of each profile, started on demand."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._stack = ExitStack()
        self._servers: dict[str, _Server] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def server(self, profile: str) -> OracleEmulator:
        """The server of a profile."""
        return self._migrated(profile).emulator

    @contextmanager
    def making(self, profile: str) -> Iterator[Callable[[], Engine]]:
        """Makes engines for one test, each with a migrated schema.

        Fails if the server received a request that it lacks.
        """
        server, tables = self._migrated(profile)
        server.forget()
        made: list[tuple[str, Engine]] = []

        def make() -> Engine:
            user = server.new_user(tables)
            made.append((user, self._connect(server.url_of(user))))
            return made[-1][1]

        yield make
        for user, engine in made:
            engine.dispose()
            server.drop_user(user)
        failures = list(server.failures)
        server.forget()
        assert failures == [], failures

    def _migrated(self, profile: str) -> _Server:
        if profile not in self._servers:
            emulator = self._stack.enter_context(start_emulator(PROFILES[profile]))
            engine = self._connect(emulator.url)
            migrations.upgrade(engine)
            engine.dispose()
            self._servers[profile] = _Server(emulator, emulator.tables_of(str(engine.url.username)))
        return self._servers[profile]


def tables_of(engine: Engine) -> set[str]:
    """The user's tables. SQLAlchemy's list leaves out those in the tablespaces SYSTEM and SYSAUX."""
    there = sa.inspect(engine)
    return {*there.get_table_names(), *filter(there.has_table, OURS)}


class RealOracle:
    """The schema of a user that tests have to themselves: it must hold no table, and holds none afterwards."""

    def __init__(self, connect: Connect, url: str) -> None:
        self._connect, self._url = connect, url

    def __enter__(self) -> Self:
        self._engine = self._connect(self._url)
        found = self._tables() - {VERSIONS}
        if found:
            names = ", ".join(sorted(found))
            pytest.exit(
                f"ORACLE_URL: the user's schema has tables ({names}), and these tests delete all tables. "
                "Name a user of its own, or remove the tables that a killed run has left: alembic downgrade base",
                returncode=2,
            )
        migrations.upgrade(self._engine)
        return self

    def __exit__(self, *error: object) -> None:
        self._drop()
        self._engine.dispose()

    @contextmanager
    def making(self) -> Iterator[Callable[[], Engine]]:
        """Makes engines for one test, each on empty tables whose ids start at 1."""
        made: list[Engine] = []

        def make() -> Engine:
            self._empty()
            made.append(self._connect(self._url))
            return made[-1]

        yield make
        for engine in made:
            engine.dispose()

    def _tables(self) -> set[str]:
        return tables_of(self._engine)

    def _empty(self) -> None:
        if self._tables() != OURS:  # a test has left a table behind, or removed one of ours
            self._drop()
            migrations.upgrade(self._engine)
            return
        with self._engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
        with self._engine.begin() as connection:
            connection.exec_driver_sql(
                "ALTER SESSION SET DDL_LOCK_TIMEOUT = 30"
            )  # a killed process may still hold a lock
            for table in Base.metadata.sorted_tables:
                if "id" in table.columns:
                    restart = "(id GENERATED BY DEFAULT AS IDENTITY (START WITH 1))"
                    connection.exec_driver_sql(f"ALTER TABLE {table.name} MODIFY {restart}")

    def _drop(self) -> None:
        if self._tables() >= OURS:
            command.downgrade(migrations._config(self._engine), "base")
        with self._engine.begin() as connection:
            for name in self._tables():
                connection.exec_driver_sql(f"DROP TABLE {name} CASCADE CONSTRAINTS PURGE")
