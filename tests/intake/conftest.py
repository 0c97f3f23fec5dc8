"""Members of groups."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from consumer.config.settings import KafkaSettings
from tests.kafka_kit import Member


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
