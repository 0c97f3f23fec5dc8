"""An embedded Kafka: librdkafka's mock cluster, in this process, for as long as its owner exists.

It keeps some 5 MB per partition in memory, and each topic has four partitions: enough for a demo only.
"""

from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.errors import KafkaUnavailable

_TIMEOUT = 10.0  # seconds for each answer; it comes from this machine
_PARTITIONS = 4


class DeadLetter(NamedTuple):
    """A record on the dead-letter topic: the reason, and the original record's value."""

    reason: str
    value: bytes


class EmbeddedKafka:
    """A broker on a free port of 127.0.0.1; other processes can reach it at `servers`."""

    def __init__(self) -> None:
        self._refused: KafkaError | None = None
        self._producer = Producer(
            {"bootstrap.servers": "embedded", "test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 0}
        )
        brokers = self._producer.list_topics(timeout=_TIMEOUT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def create(self, topic: str) -> None:
        """Create a topic: the mock cluster does so when asked for a topic's metadata."""
        self._producer.list_topics(topic, timeout=_TIMEOUT)

    def publish(self, topic: str, value: bytes, *, key: bytes, event_type: str | None = None) -> None:
        """Hand one record to the producer; `poll` or `flush` raises if it was refused."""
        headers: list[tuple[str, str | bytes | None]] = [("event-type", event_type)] if event_type else []
        self._producer.produce(topic, value, key, headers=headers, on_delivery=self._acknowledged)

    def poll(self) -> None:
        """Serve acknowledgements. KafkaUnavailable if a record was refused."""
        self._producer.poll(0)
        if self._refused is not None:
            raise KafkaUnavailable(f"the embedded Kafka refused a record: {self._refused.str()}")

    def flush(self) -> None:
        """Wait until all records are acknowledged. KafkaUnavailable if they are not."""
        if self._producer.flush(_TIMEOUT):
            raise KafkaUnavailable("the embedded Kafka does not acknowledge")
        self.poll()

    def progress(self, group: str, topic: str) -> tuple[int, int]:
        """How many records of `topic` the group has committed, and how many there are."""
        consumer = self._reader(group)
        try:
            places = consumer.committed([KafkaTopicPartition(topic, number) for number in range(_PARTITIONS)], _TIMEOUT)
            ends = [consumer.get_watermark_offsets(place, timeout=_TIMEOUT)[1] for place in places]
        finally:
            consumer.close()
        return sum(max(0, place.offset) for place in places), sum(ends)

    def dead_letters(self, topic: str) -> list[DeadLetter]:
        """All records of a dead-letter topic."""
        consumer = self._reader("demo-reader")
        try:
            consumer.assign([KafkaTopicPartition(topic, number, 0) for number in range(_PARTITIONS)])
            ends = [
                consumer.get_watermark_offsets(KafkaTopicPartition(topic, number), timeout=_TIMEOUT)[1]
                for number in range(_PARTITIONS)
            ]
            messages = consumer.consume(total, _TIMEOUT) if (total := sum(ends)) else []
        finally:
            consumer.close()
        return [_dead_letter(message) for message in messages]

    def close(self) -> None:
        """Drop unacknowledged records; the broker ends with this object."""
        self._producer.purge()
        self._producer.flush(1)

    def _acknowledged(self, error: KafkaError | None, _message: Message) -> None:
        self._refused = error or self._refused

    def _reader(self, group: str) -> Consumer:
        """A consumer that joins no group and only reads."""
        return Consumer(
            {"bootstrap.servers": self.servers, "group.id": group, "enable.auto.commit": False, "log_level": 0}
        )


def _dead_letter(message: Message) -> DeadLetter:
    headers = dict(message.headers() or ())
    reason = headers.get("dead-letter-reason") or b""
    return DeadLetter(reason if isinstance(reason, str) else reason.decode(), message.value() or b"")
