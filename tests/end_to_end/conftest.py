"""A whole deployment on real Kafka for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chromium import chromium  # noqa: F401 (a fixture)
from tests.databases import making_engines
from tests.end_to_end.canaries import search
from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.deployed_database import DeployedDatabase, OracleDatabase, SqliteDatabase
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that listens until the test ends."""
    with Receiver() as listening:
        yield listening


@pytest.fixture
def deployed_database(request: pytest.FixtureRequest) -> Iterator[DeployedDatabase]:
    """SQLite, and also Oracle for tests marked with `ON_EACH_DATABASE`."""
    name = getattr(request, "param", "sqlite")
    with making_engines(request, name) as make:
        engine = make()
        yield SqliteDatabase(Path(str(engine.url.database))) if name == "sqlite" else OracleDatabase(engine)


@pytest.fixture
def deployment(
    kafka_bootstrap: str, topic: str, deployed_database: DeployedDatabase, receiver: Receiver, tmp_path: Path
) -> Iterator[Deployment]:
    """A topic of four partitions, a database and a receiver; remaining workers are killed at the end.

    Fails if a worker has printed a secret.
    """
    deployment = Deployment(kafka_bootstrap, topic, deployed_database, receiver, tmp_path)
    yield deployment
    for worker in deployment.workers:
        worker.kill()
    deployment.assert_no_secret_is_told()


@pytest.fixture
def command_line(deployment: Deployment, tmp_path: Path) -> Iterator[CommandLine]:
    """Runs commands. Remaining ones are killed, and the test fails if one has printed a secret."""
    commands = CommandLine(deployment, tmp_path)
    yield commands
    said = []
    for process in commands.started:
        process.kill()
        said.append("\n".join(process.communicate()))  # with its earlier output
    assert search(commands.secrets, {f"command {place}": text for place, text in enumerate(said)}) == []
