"""Leaving a group while an assignment is pending: librdkafka must not receive it while it closes."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.intake.group_consumer import leave
from tests.kafka_kit import QUIET, Kafka, unique, until

CLASSIC = {"partition.assignment.strategy": "cooperative-sticky"}
KIP_848 = {"group.protocol": "consumer"}


class Member:
    """A subscribed member that records its callbacks. It wraps its consumer, to record calls of `close` too."""

    def __init__(self, servers: str, group: str, topic: str, properties: dict[str, str]) -> None:
        self.told: list[str] = []
        self.fatal = False
        self.partitions: set[tuple[str, int]] = set()
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": group, **QUIET, **properties})
        self._consumer.subscribe([topic], on_assign=self._given, on_revoke=self._taken)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def _given(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.told.append("given")
        self.partitions |= {(each.topic, each.partition) for each in partitions}

    def _taken(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.told.append("taken")
        self.partitions -= {(each.topic, each.partition) for each in partitions}

    def unsubscribe(self) -> None:
        """Fail after a fatal error, as librdkafka does."""
        if self.fatal:
            raise KafkaException(KafkaError(KafkaError._FATAL))
        self._consumer.unsubscribe()

    def close(self) -> None:
        """Record the call."""
        self.told.append("closed")
        self._consumer.close()


NewMember = Callable[..., tuple[Member, str]]


@pytest.fixture(params=[CLASSIC, KIP_848], ids=["classic", "consumer"])
def new_member(request: pytest.FixtureRequest, kafka_bootstrap: str) -> Callable[..., tuple[Member, str]]:
    """Makes members with a partition whose assignment callback is still pending. Returns the member and its group."""

    def make(**properties: str) -> tuple[Member, str]:
        group, topic = unique("group"), Kafka(kafka_bootstrap, real=True).topic()
        more = {name.replace("_", "."): value for name, value in properties.items()}
        member = Member(kafka_bootstrap, group, topic, request.param | more)
        until(lambda: any(owns(each) for each in members_of(kafka_bootstrap, group)))
        time.sleep(1.0)  # the coordinator knows before its answer is here, and only a poll would show the answer
        return member, group

    return make


def members_of(servers: str, group: str) -> list[Any]:
    """The members of a group, as the coordinator reports them."""
    admin = AdminClient({"bootstrap.servers": servers, **QUIET})
    found: Any = admin.describe_consumer_groups([group])[group].result(60)
    return list(found.members)


def owns(member: Any) -> bool:
    """Whether partitions are assigned to it."""
    return bool(member.assignment.topic_partitions)


def test_a_pending_assignment_is_taken_and_revoked_before_the_close(
    new_member: NewMember, kafka_bootstrap: str
) -> None:
    """If it closed first, one in a hundred would hang for ever."""
    member, group = new_member()
    leave(member, lambda: len(member.told), static=False)  # type: ignore[arg-type]
    assert member.told == ["given", "taken", "closed"]
    assert members_of(kafka_bootstrap, group) == []


def test_a_static_member_keeps_its_assignment(new_member: NewMember, kafka_bootstrap: str) -> None:
    """It takes the pending assignment, and the partition stays assigned to it."""
    member, group = new_member(group_instance_id="one")
    leave(member, lambda: len(member.told), static=True)  # type: ignore[arg-type]
    assert member.told[:2] == ["given", "closed"]
    assert [owns(each) for each in members_of(kafka_bootstrap, group)] == [True]


def test_after_a_fatal_error_it_only_closes(new_member: NewMember) -> None:
    """There is no group left to leave."""
    member, _ = new_member()
    member.fatal = True
    leave(member, lambda: len(member.told), static=False)  # type: ignore[arg-type]
    assert member.told[0] == "closed"
