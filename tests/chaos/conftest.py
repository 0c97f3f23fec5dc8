"""Worlds for chaos tests on a real Kafka. Each run prints its seed and its result."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.chaos.report import HEADER
from tests.chaos.world import Shape, World
from tests.end_to_end.deployed_database import DeployedDatabase, SqliteDatabase, emulated_oracle
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Receiver
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import unique

NewWorld = Callable[[Shape, str, KafkaBroker | None], World]
Say = Callable[[str], None]

_said: list[str] = []
_seeds: list[str] = []


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """CHAOS_SEED; without it a new seed each time, but in CI always the same. It is printed for every result."""
    chosen = os.environ.get("CHAOS_SEED") or ("1" if os.environ.get("CI") else str(int.from_bytes(os.urandom(3))))
    _seeds.append(f"CHAOS_SEED={chosen}: {request.node.name}")
    return int(chosen)


@pytest.fixture
def say() -> Say:
    """Print at the end of the session, whether or not tests pass."""
    return _said.append


@pytest.fixture
def new_world(new_sqlite_engine: Callable[[], Engine], tmp_path: Path) -> Iterator[NewWorld]:
    """Makes worlds. Processes left at the end of the test are killed."""
    with making_worlds(new_sqlite_engine, tmp_path) as new_world:
        yield new_world


@contextmanager
def making_worlds(new_sqlite_engine: Callable[[], Engine], within: Path) -> Iterator[NewWorld]:
    """Makes worlds with logs below `within`. Processes left in the end are killed."""
    deployments: list[Deployment] = []
    stack = ExitStack()
    names = count()  # several threads may make worlds

    def make(shape: Shape, servers: str, brokers: KafkaBroker | None) -> World:
        receiver = stack.enter_context(Receiver())
        directory = within / str(next(names))
        directory.mkdir()
        database: DeployedDatabase
        if shape.profile:
            database = stack.enter_context(emulated_oracle(shape.profile))
        else:
            database = SqliteDatabase(Path(str(new_sqlite_engine().url.database)))
        deployment = Deployment(servers, unique("chaos"), database, receiver, directory)
        deployments.append(deployment)
        return World(shape, deployment, brokers)

    try:
        yield make
    finally:
        for deployment in deployments:
            for worker in deployment.workers:
                worker.kill()
        stack.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the results of the runs."""
    if _seeds:
        terminalreporter.section("chaos: the same faults again with these seeds")
        for line in (*_seeds, HEADER, *_said):
            terminalreporter.write_line(line)
