"""Tests of the emulator itself, on each profile, with a server of its own for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import oracledb
import pytest

from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.oracle.oracle_databases import start_emulator
from tests.oracle_emulator import PROFILES, OracleEmulator

Start = Callable[..., OracleEmulator]
Connect = Callable[..., oracledb.Connection]


@pytest.fixture
def start_oracle() -> Iterator[Start]:
    """Starts emulators, and fails if one received a request that it lacks."""
    with ExitStack() as stack:
        started: list[OracleEmulator] = []

        def begin(*arguments: Any, **more: Any) -> OracleEmulator:
            started.append(stack.enter_context(start_emulator(*arguments, **more)))
            return started[-1]

        yield begin
        assert [failure for each in started for failure in each.failures] == []


@pytest.fixture(params=PROFILES)
def oracle(request: pytest.FixtureRequest, start_oracle: Start) -> OracleEmulator:
    """A server of each profile."""
    return start_oracle(PROFILES[request.param])


@pytest.fixture
def connect(oracle: OracleEmulator) -> Iterator[Connect]:
    """Connects with the unmodified driver; connections are closed after the test."""
    with ExitStack() as stack:

        def make(**more: Any) -> oracledb.Connection:
            given = {"user": "webhooks", "password": "secret", "dsn": oracle.dsn} | more
            connection: oracledb.Connection = stack.enter_context(oracledb.connect(**given))
            return connection

        yield make


@pytest.fixture
def connection(connect: Connect) -> oracledb.Connection:
    """A connection."""
    return connect()


@pytest.fixture
def cursor(connection: oracledb.Connection) -> oracledb.Cursor:
    """A cursor."""
    return connection.cursor()
