"""Helpers for tests with Kafka: a cluster to write to and inspect, and a recording group member."""

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not said to be exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic  # the admin package does not export it to type checkers

from consumer.config.settings import KafkaSettings
from consumer.intake.record import AssignedPartition, Record
from consumer.intake.source import Source
from consumer.ops import replay_request
from tests.waiting import LIMIT, eventually

QUIET = {"log_level": 0}


@dataclass
class Kafka:
    """A cluster, mock or real, to write to and inspect from outside."""

    servers: str
    real: bool
    replicas: int = 1  # of new topics

    def __post_init__(self) -> None:
        # Each record is a batch of its own, so offsets and order are as written.
        self._producer = Producer(
            {"bootstrap.servers": self.servers, **QUIET, "linger.ms": 0, "enable.idempotence": True}  # keeps the order
        )

    def settings(self, *, group: str = "", dead_letters: str = "", **properties: str) -> KafkaSettings:
        """Settings of a fresh group. `a_b` becomes the property `a.b`."""
        named = {name.replace("_", "."): value for name, value in properties.items()}
        return KafkaSettings(
            bootstrap_servers=self.servers,
            group_id=group or unique("group"),
            dead_letter_topic=dead_letters or unique("dead"),
            properties=named,
        )

    def topic(self, name: str = "", partitions: int = 1, **config: str) -> str:
        """A new topic. On the mock cluster any name exists, with four partitions."""
        name = name or unique("topic")
        if self.real:
            admin = AdminClient({"bootstrap.servers": self.servers, **QUIET})
            config = {key.replace("_", "."): value for key, value in config.items()}
            admin.create_topics([NewTopic(name, partitions, self.replicas, config=config)])[name].result(60)
        return name

    def topic_on(self, replicas: list[list[int]], **config: str) -> str:
        """A new topic with a partition on each of these lists of nodes, of which one is enough to write."""
        name = unique("topic")
        config = {key.replace("_", "."): value for key, value in config.items()} | {"min.insync.replicas": "1"}
        new = NewTopic(name, len(replicas), replica_assignment=replicas, config=config)
        admin = AdminClient({"bootstrap.servers": self.servers, **QUIET})
        eventually(lambda: admin.create_topics([new])[name].exception(60) is None)  # a node may still be starting
        return name

    def configure(self, name: str, kind: str = "TOPIC", **config: str) -> None:
        """Change the configuration of a topic or group, on a real cluster. `a_b` is `a.b`."""
        entries = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type[kind], name, incremental_configs=entries)
        admin = AdminClient({"bootstrap.servers": self.servers, **QUIET})
        admin.incremental_alter_configs([resource])[resource].result(60)

    def write(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp: int = 0,
    ) -> None:
        """Write records in order, and wait for their acknowledgement. `timestamp` (milliseconds) 0: now."""
        for value in values:
            self._producer.produce(topic, value, b"key", partition, headers=list(headers), timestamp=timestamp)
        assert self._producer.flush(20) == 0

    def transactional(self, **properties: str) -> Producer:
        """A transactional producer that is initialized. `a_b` is the property `a.b`."""
        config = {key.replace("_", "."): value for key, value in properties.items()}
        config |= {"bootstrap.servers": self.servers, "transactional.id": unique("transactions")}
        producer = Producer({**config, **QUIET})
        producer.init_transactions(20)
        return producer

    def read(self, topic: str, number: int) -> list[Message]:
        """The records of a topic, in any partition, once there are so many."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": unique("reader"), **QUIET})
        found: list[Message] = []

        def have_come() -> bool:
            found.extend(message for message in consumer.consume(100, 0.1) if message.error() is None)
            return len(found) >= number

        try:
            eventually(lambda: consumer.list_topics(topic, 60).topics[topic].partitions)  # a producer may create it
            partitions = consumer.list_topics(topic, 60).topics[topic].partitions
            consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
            eventually(have_come, every=0.0)
        finally:
            consumer.close()
        return found

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str | None]:
        """The group's committed offset and metadata, as soon as its coordinator tells them."""
        answer = _committed(self.servers, group, TopicPartition(topic, partition))
        return answer.offset, answer.metadata


class Member:
    """A Source whose callbacks and records are recorded."""

    def __init__(self, settings: KafkaSettings, topics: Sequence[str], *, settle: bool = True) -> None:
        self.assigned: list[AssignedPartition] = []
        self.revoked: list[AssignedPartition] = []
        self.lost: list[AssignedPartition] = []
        self.records: list[Record] = []
        self.settle = settle
        self.waits = 0  # how often a waiting rebalance let the loop go on
        self.posted: deque[Callable[[], None]] = deque()
        self.source = Source(
            settings,
            topics,
            on_assign=self.assigned.extend,
            on_position=self.position,
            on_revoke=self.revoked.extend,
            on_lost=self.lost.extend,
            post=self.posted.append,
            meanwhile=self.meanwhile,
        )

    def position(self, partition: AssignedPartition) -> None:
        """Open the partition, like a worker without stored deliveries."""
        self.source.open(partition)

    def meanwhile(self, seconds: float) -> None:
        """Go on like a worker without other work."""
        self.waits += 1
        time.sleep(seconds)

    @property
    def values(self) -> list[bytes | None]:
        """The values of all records so far, in the order of arrival."""
        return [record.value for record in self.records]

    def turn(self) -> None:
        """Run posted calls, poll once, settle the records if `settle`, and commit."""
        while self.posted:
            self.posted.popleft()()
        records = self.source.poll(500, 0.05)
        self.records += records
        if self.settle:
            for record in records:
                record.partition.tracker.settle(record.offset)
        self.source.commit()


def warm_up(servers: str) -> None:
    """Create `__consumer_offsets`: the first group of a new broker would wait 3 s for it."""
    _committed(servers, "warm-up", TopicPartition("warm-up", 0))


def _committed(servers: str, group: str, partition: TopicPartition) -> TopicPartition:
    """A group's commit. Its coordinator may be created just now, or be found anew after a broker was frozen.

    Not AdminClient.list_consumer_group_offsets, which crashes (segmentation fault) while the coordinator loads.
    """
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, **QUIET})
    found: list[TopicPartition] = []
    refusals: list[KafkaException] = []

    def answers() -> bool:
        try:
            found.extend(consumer.committed([partition], 20))
        except KafkaException as error:
            refusals.append(error)
        return bool(found)

    try:
        eventually(answers, otherwise=lambda: refusals[-1:])
    finally:
        consumer.close()
    return found[0]


def read_all(servers: str, topic: str, partition: int = 0) -> list[Message]:
    """All records of a partition."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": unique("reader"), **QUIET})
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), 10)
        return [message for _ in range(end) if (message := consumer.poll(10)) is not None]
    finally:
        consumer.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """A record's headers, all of which have a value."""
    headers: Any = message.headers()
    return dict(headers)


def unique(prefix: str) -> str:
    """A name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def until(condition: Callable[[], object], *members: Member, timeout: float = LIMIT) -> None:
    """Turn the members until `condition` holds."""

    def turn() -> None:
        for member in members:
            member.turn()

    eventually(
        condition,
        timeout,
        meanwhile=turn if members else None,
        otherwise=lambda: [(each.source.fault, each.values) for each in members],
    )


def reading(
    kafka: Kafka, join: Callable[..., Member], values: Sequence[bytes | None], *, settle: bool = True, **properties: str
) -> tuple[str, KafkaSettings, Member]:
    """A new topic with these records, the settings of a new group, and its member, which has read them all."""
    topic, settings = kafka.topic(), kafka.settings(**properties)
    kafka.write(topic, values)
    member = join(settings, [topic], settle=settle)
    until(lambda: len(member.records) == len(values), member)
    return topic, settings, member


def await_looks() -> None:
    """Wait for pending reads of a log that requests have started, so that their log lines do not reach other tests."""
    permits = [replay_request._LOOKS.acquire(timeout=60) for _ in range(4)]
    assert all(permits)
    replay_request._LOOKS.release(len(permits))
