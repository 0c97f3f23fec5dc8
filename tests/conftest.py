"""Shared by all tests: the split into quick tests and the rest, Hypothesis profiles, and Kafka.

Kafka is the cluster of KAFKA_TEST_BOOTSTRAP_SERVERS, else a private one (java and maven), else a visible skip. With
KAFKA_TEST_REQUIRED=1 a missing Kafka is an error.
"""

import os
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # the admin package does not export it to type checkers
from hypothesis import settings

from consumer.config.settings import KafkaSettings
from tests.databases import (  # noqa: F401 (fixtures)
    closed_files,
    emulated_oracles,
    emulator,
    engine,
    new_engine,
    new_sqlite_engine,
    real_oracle,
    sqlite_engine,
)
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import Kafka, Member, warm_up
from tests.processes import is_setting
from tests.provided import missing, or_skip
from tests.selection import LeftOut, mark

# No time limit for an example: a loaded machine is no failure. CI uses the same examples each time, so that a correct
# change passes; elsewhere they are new each time.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "quick")

# Service settings exported by the shell may name a cluster and a database that tests must not write to.
for _name in filter(is_setting, tuple(os.environ)):
    del os.environ[_name]

SERVERS = os.environ.get("KAFKA_TEST_BOOTSTRAP_SERVERS", "")


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its cost and its needs: see `tests.selection`."""
    for item in items:
        mark(item)


def pytest_configure(config: pytest.Config) -> None:
    """Count the tests that the selection leaves out, for the last line."""
    config.pluginmanager.register(LeftOut(config))


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[KafkaBroker | None]:
    """The brokers, which tests may kill and restart; None if KAFKA_TEST_BOOTSTRAP_SERVERS names others."""
    if SERVERS:
        yield None
        return
    broker = or_skip(lambda: KafkaBroker(nodes=int(os.environ.get("KAFKA_TEST_NODES", "1"))))
    with broker:
        yield broker


@pytest.fixture
def brokers(kafka_cluster: KafkaBroker | None) -> KafkaBroker:
    """The brokers, to be killed, restarted or frozen; the test brings them back."""
    if kafka_cluster is None:
        pytest.skip("the brokers of KAFKA_TEST_BOOTSTRAP_SERVERS are not ours to kill or to freeze")
    return kafka_cluster


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_cluster: KafkaBroker | None) -> str:
    """Addresses of a real Kafka."""
    servers = SERVERS or (kafka_cluster.bootstrap if kafka_cluster else "")
    warm_up(servers)
    return servers


@pytest.fixture
def topic(kafka_bootstrap: str) -> Iterator[str]:
    """A fresh topic of four partitions on the real Kafka."""
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    name = f"t-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(name, num_partitions=4, replication_factor=1)])[name].result(60)
    yield name
    admin.delete_topics([name])[name].result(60)


@pytest.fixture(scope="session")
def mock_kafka() -> Iterator[str]:
    """Addresses of librdkafka's mock cluster, for other processes too. Any topic exists, with four partitions."""
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in owner.list_topics(timeout=60).brokers.values())
    owner.flush(1)


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> Kafka:
    """The mock cluster, then the real Kafka: a test must pass on both."""
    real = request.param == "real"
    return Kafka(request.getfixturevalue("kafka_bootstrap" if real else "mock_kafka"), real=real)


@pytest.fixture
def real_kafka(kafka_bootstrap: str) -> Kafka:
    """The real Kafka, for tests that the mock cluster cannot serve."""
    return Kafka(kafka_bootstrap, real=True)


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[KafkaBroker]:
    """A cluster whose nodes a test may kill and restart."""
    broker = or_skip(lambda: KafkaBroker(nodes=3))
    with broker:
        warm_up(broker.bootstrap)  # with ZooKeeper, the topic of offsets is created only while all nodes are there
        yield broker


@pytest.fixture
def one_node() -> Iterator[KafkaBroker]:
    """A cluster that a test may freeze."""
    broker = or_skip(KafkaBroker)
    with broker:
        yield broker


@pytest.fixture
def join() -> Iterator[Callable[..., Member]]:
    """Makes members, and closes them in the end."""
    members: list[Member] = []

    def make(settings: KafkaSettings, topics: Sequence[str], *, settle: bool = True) -> Member:
        members.append(Member(settings, topics, settle=settle))
        return members[-1]

    yield make
    for member in members:
        assert member.source.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report in the last lines which tests did not run."""
    for reason in dict.fromkeys(missing):
        terminalreporter.write_line(f"!!! every test that needs it was SKIPPED: {reason}", red=True, bold=True)
