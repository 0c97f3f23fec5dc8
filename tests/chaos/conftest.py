"""Worlds to be hurt, on a Kafka that is; each run prints its seed and what it came to."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.chaos.report import HEADER
from tests.chaos.world import Shape, World
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Receiver
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import unique

NewWorld = Callable[[Shape, str, KafkaBroker | None], World]
Say = Callable[[str], None]

_said: list[str] = []


@pytest.fixture
def seed() -> int:
    """CHAOS_SEED; without one another each time, in CI the same."""
    if chosen := os.environ.get("CHAOS_SEED"):
        return int(chosen)
    return 1 if os.environ.get("CI") else int.from_bytes(os.urandom(3))


@pytest.fixture
def say() -> Say:
    """Print at the end of the session, whether tests pass or not."""
    return _said.append


@pytest.fixture
def new_world(new_engine: Callable[[], Engine], tmp_path: Path) -> Iterator[NewWorld]:
    """Makes worlds; whatever is left of them when the test ends is killed."""
    deployments: list[Deployment] = []
    receivers: list[Receiver] = []

    def make(shape: Shape, servers: str, brokers: KafkaBroker | None) -> World:
        receiver = Receiver()
        receivers.append(receiver.__enter__())
        directory = tmp_path / str(len(deployments))
        directory.mkdir()
        database = Path(str(new_engine().url.database))
        deployments.append(Deployment(servers, unique("chaos"), database, receiver, directory))
        return World(shape, deployments[-1], brokers)

    yield make
    for deployment in deployments:
        for worker in deployment.workers:
            worker.kill()
    for receiver in receivers:
        receiver.__exit__(None, None, None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the runs came to."""
    if _said:
        terminalreporter.section("chaos (replay a run with CHAOS_SEED=…)")
        for line in (HEADER, *_said):
            terminalreporter.write_line(line)
