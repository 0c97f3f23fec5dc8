"""Fleets on a real Kafka of one broker, or of three in three racks. The results are printed in the end."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.end_to_end.deployed_database import SqliteDatabase
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Receiver
from tests.kafka_broker import KafkaBroker
from tests.membership.cases import NewFleet
from tests.membership.fleet import HEADER, Count, Fleet
from tests.processes import ROOT

SUMMARY = Path(os.environ.get("MEMBERSHIP_SUMMARY", ROOT / ".cache" / "membership.md"))

Say = Callable[[Count], None]

_said: list[Count] = []


@pytest.fixture
def say() -> Say:
    """Print at the end of the session, and append to SUMMARY."""

    def say(count: Count) -> None:
        _said.append(count)
        new = not SUMMARY.exists()
        SUMMARY.parent.mkdir(parents=True, exist_ok=True)
        with SUMMARY.open("a") as summary:
            summary.write((HEADER + "\n" if new else "") + count.line() + "\n")

    return say


@pytest.fixture
def new_fleet(
    request: pytest.FixtureRequest, new_sqlite_engine: Callable[[], Engine], tmp_path: Path
) -> Iterator[NewFleet]:
    """Makes a fleet, on one broker or on `three`. Its workers are killed when the test ends."""
    deployments: list[Deployment] = []
    with ExitStack() as stack:

        def make(rounds: int, *, three: bool) -> Fleet:
            receiver = stack.enter_context(Receiver())
            brokers: KafkaBroker | None = request.getfixturevalue("three_nodes") if three else None
            servers = brokers.bootstrap if brokers else request.getfixturevalue("kafka_bootstrap")
            database = SqliteDatabase(Path(str(new_sqlite_engine().url.database)))
            deployments.append(Deployment(servers, "", database, receiver, tmp_path))
            return Fleet(deployments[-1], rounds, replicas=3 if three else 1, brokers=brokers)

        yield make
        for deployment in deployments:
            for worker in deployment.workers:
                worker.kill()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the results of the scenarios."""
    if _said:
        terminalreporter.section("membership")
        for line in (HEADER, *(count.line() for count in _said)):
            terminalreporter.write_line(line)
