"""Kafka as the intake sees it: nodes that a test may kill, and members of groups."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from consumer.config.settings import KafkaSettings
from tests.kafka_broker import KafkaBroker, KafkaUnavailable
from tests.kafka_kit import Member


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[KafkaBroker]:
    """A cluster of which a test may kill one node after the other, and starts them again."""
    try:
        broker = KafkaBroker(nodes=3)
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with broker:
        yield broker


@pytest.fixture
def one_node() -> Iterator[KafkaBroker]:
    """A cluster that a test may freeze."""
    try:
        broker = KafkaBroker()
    except KafkaUnavailable as error:
        pytest.skip(str(error))
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
