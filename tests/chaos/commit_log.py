"""Every commit of a consumer group, in the broker's order, read from Kafka's own log of commits.

Polling the committed offsets would miss those between two requests, and a broker that was paused answers from its
memory. The formats are Kafka's OffsetCommitKey and OffsetCommitValue. Another version is an error.
"""

from contextlib import suppress
from struct import Struct
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.kafka_kit import QUIET, unique
from tests.waiting import eventually

TOPIC = "__consumer_offsets"
MADE_WITHIN = 20.0  # seconds
_COMMIT_KEYS = (0, 1)
_STRINGS, _COMPACT_STRINGS = 3, 4  # value versions: length prefix as int16, or as a varint of length plus one
_INT16, _INT32, _OFFSET_AND_EPOCH = Struct(">h"), Struct(">i"), Struct(">qi")


class Commit(NamedTuple):
    """One partition's part of a commit. `offset` is None if Kafka has deleted the commit."""

    partition: int
    offset: int | None
    metadata: str


class CommitLog:
    """A group's commits for a topic from now on."""

    def __init__(self, servers: str, group: str, topic: str) -> None:
        self._wanted = group, topic
        # With ZooKeeper a broker that starts again knows no topic for a moment; the client asks again after this.
        refresh = {"topic.metadata.refresh.interval.ms": 1000}
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": unique("watch"), **refresh, **QUIET})
        partitions = self._partitions()
        # As a number, not as OFFSET_END: a broker that is killed before the first fetch would move the end.
        ends = [self._consumer.get_watermark_offsets(TopicPartition(TOPIC, each), 20)[1] for each in partitions]
        self._consumer.assign([TopicPartition(TOPIC, each, end) for each, end in zip(partitions, ends, strict=True)])

    def read(self, timeout: float) -> list[Commit]:
        """The commits that have come, after at most `timeout` seconds."""
        commits = []
        for message in self._consumer.consume(500, timeout):
            key, value = message.key(), message.value()
            if message.error() is None and key is not None and (commit := self._decode(key, value)) is not None:
                commits.append(commit)
        return commits

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _partitions(self) -> list[int]:
        """A new cluster has no such topic before the first request for a coordinator."""
        found: list[int] = []

        def are_there() -> bool:
            with suppress(KafkaException):  # the coordinator is being created
                self._consumer.committed([TopicPartition(TOPIC, 0)], MADE_WITHIN)
                found.extend(self._consumer.list_topics(TOPIC, MADE_WITHIN).topics[TOPIC].partitions)
            return bool(found)

        eventually(are_there, MADE_WITHIN)
        return found

    def _decode(self, key: bytes, value: bytes | None) -> Commit | None:
        if _INT16.unpack_from(key)[0] not in _COMMIT_KEYS:
            return None
        group, at = _string(key, 2)
        topic, at = _string(key, at)
        if (group, topic) != self._wanted:
            return None
        (partition,) = _INT32.unpack_from(key, at)
        if value is None:
            return Commit(partition, None, "")
        (version,) = _INT16.unpack_from(value)
        offset, _ = _OFFSET_AND_EPOCH.unpack_from(value, 2)
        at = 2 + _OFFSET_AND_EPOCH.size
        if version == _STRINGS:
            return Commit(partition, offset, _string(value, at)[0])
        if version == _COMPACT_STRINGS:
            return Commit(partition, offset, _compact_string(value, at))
        raise ValueError(f"OffsetCommitValue of version {version}: teach this reader its format")


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = _INT16.unpack_from(data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length


def _compact_string(data: bytes, at: int) -> str:
    length = shift = 0
    while True:
        length |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return data[at : at + length - 1].decode()
