"""Reads partitions at chosen positions, beside the group's own reading. Joins no group and commits nothing.

One thread owns a reader. No call blocks: the loop's thread uses it between two polls of the group's consumer.
"""

import time
import uuid
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.config.settings import KafkaSettings
from consumer.events.event import TopicPartition
from consumer.intake.record import UNREADABLE, AssignedPartition, Record, UnreadableBatches, headers_of
from consumer.kafka.client import LibrdkafkaLog, Reachability, Reported, onlooker, refused
from consumer.loop.part import guarded

log = structlog.get_logger(__name__)

_FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "auto.offset.reset": "error",  # a position that the log does not hold is reported, and the reader says what is gone
    "enable.partition.eof": True,  # the log's end, where a transaction's marker or compaction leaves no record
    # Prefetch of all partitions together. A position that moves on elsewhere discards what was fetched for it.
    "queued.min.messages": 2_000,
    "queued.max.messages.kbytes": 8_192,
    "fetch.message.max.bytes": 262_144,
    "fetch.queue.backoff.ms": 20,
    "fetch.error.backoff.ms": 100,
    "statistics.interval.ms": 1_000,
}


class RemovedRecords(NamedTuple):
    """Offsets that were to be read, from `first` to before `stop`, and that retention has removed."""

    partition: TopicPartition
    first: int
    stop: int


class CursorReader:
    """`positions` holds the next offset of each partition that is read; offsets before it were returned, or are gone.

    `answered`: Kafka has returned a record or the log's end from the position that was sought, so it exists.
    `removed` lists what retention took, and `restarted` the partitions whose log no longer reaches their position, as
    after their topic was made again; the caller empties both.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises SettingsError if librdkafka refuses a setting. Sends no request yet."""
        self.positions: dict[TopicPartition, int] = {}
        self.removed: list[RemovedRecords] = []
        self.restarted: set[TopicPartition] = set()
        self.answered: set[TopicPartition] = set()
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._lost: set[TopicPartition] = set()  # read from the log's beginning, since it holds no such position
        self._unreadable = UnreadableBatches()
        self._reported = Reported("")
        self._failures: list[Exception] = []
        self._reachability = Reachability(kafka, clock, expected=False)
        keep = self._failures.append
        try:
            self._consumer = Consumer(
                {
                    **onlooker(kafka, "kafka-webhooks-cursors", warns=True),
                    **_FIXED,
                    # The binding requires a group id. This one is unique, and nothing is ever stored under it.
                    "group.id": f"kafka-webhooks-cursors-{uuid.uuid4().hex}",
                    "error_cb": guarded(keep, self._reachability.error),
                    "stats_cb": guarded(keep, lambda document: self._reachability.statistics(orjson.loads(document))),
                },
                logger=LibrdkafkaLog(),
            )
        except KafkaException as error:
            raise refused(error, kafka.properties) from None

    @property
    def fault(self) -> str | None:
        """Why no records come, if no broker can be reached or a topic cannot be read."""
        return self._reachability.fault or self._reported.fault

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read a partition from this offset on, and not where it was read before."""
        if self.positions.get(partition) == offset:
            return
        if partition in self.positions:
            self._leave((partition,))
        self.positions[partition] = offset
        self._partitions[partition] = AssignedPartition(*partition)
        self._consumer.incremental_assign([KafkaTopicPartition(*partition, offset)])

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions no more."""
        there = [each for each in partitions if each in self.positions]
        if not there:
            return
        self._leave(there)
        for topic in {topic for topic, _ in there} - {topic for topic, _ in self.positions}:
            self._reported.answers(topic)

    def _leave(self, there: Collection[TopicPartition]) -> None:
        for partition in there:
            del self.positions[partition]
            self._unreadable.forget(self._partitions.pop(partition))
            self._lost.discard(partition)
            self.answered.discard(partition)
        self._consumer.incremental_unassign([KafkaTopicPartition(*partition) for partition in there])

    def read(self, limit: int) -> list[Record]:
        """Up to `limit` (at least 1) records that have come, in order within each partition. Does not wait.

        A record that librdkafka cannot read has Unreadable headers and no timestamp. Raises FatalKafkaError.
        """
        if self._failures:
            raise self._failures.pop(0)
        if self._reported.fatal is not None:
            raise self._reported.fatal
        records: list[Record] = []
        moved: set[TopicPartition] = set()  # their further messages were fetched for another position
        for message in self._consumer.consume(limit, 0):
            partition: TopicPartition = (message.topic(), message.partition())  # type: ignore[assignment]
            if partition in moved or (partition not in self.positions and message.error() is None):
                continue
            record = self._failed(partition, message, moved) if message.error() else self._read(partition, message)
            if record is not None:
                records.append(record)
        return records

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()

    def _read(self, partition: TopicPartition, message: Message) -> Record:
        offset: int = message.offset()  # type: ignore[assignment]
        self._found(partition, offset)
        self._reported.answers(partition[0])
        self.positions[partition] = offset + 1
        timestamp = message.timestamp()[1]
        return Record(
            self._partitions[partition], offset, timestamp, message.key(), message.value(), headers_of(message)
        )

    def _failed(self, partition: TopicPartition, message: Message, moved: set[TopicPartition]) -> Record | None:
        """Note an error that Kafka reports in place of a record. Returns a record to give up, if there is one."""
        error, offset = message.error(), message.offset() or 0
        assert error is not None  # noqa: S101 (for mypy)
        code = error.code()
        if partition not in self.positions:
            if error.fatal() or code == KafkaError._FATAL:  # noqa: SLF001 (the binding's public name)
                self._reported.error(partition[0], error)
            return None
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the same)
            self._found(partition, offset)
            self.positions[partition] = max(self.positions[partition], offset)
        elif code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 (the same)
            self._lost.add(partition)
            self._move(partition, OFFSET_BEGINNING)
            moved.add(partition)
        else:
            self._reported.error(partition[0], error)
            if code in UNREADABLE:
                position = self.positions[partition]
                record = self._unreadable.failed(self._partitions[partition], offset, error.str(), position)
                if record is not None:
                    self.positions[partition] = record.offset + 1
                    self._move(partition, record.offset + 1)
                    moved.add(partition)
                return record
        return None

    def _found(self, partition: TopicPartition, offset: int) -> None:
        """The log has a record, or its end, at this offset: the first one, if the log's beginning was looked for."""
        if partition not in self._lost:
            self.answered.add(partition)
            return
        self._lost.discard(partition)
        position = self.positions[partition]
        if offset < position:
            self.restarted.add(partition)
            return
        self.answered.add(partition)
        if offset > position:
            self.removed.append(RemovedRecords(partition, position, offset))
            self.positions[partition] = offset

    def _move(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.incremental_unassign([KafkaTopicPartition(*partition)])
        self._consumer.incremental_assign([KafkaTopicPartition(*partition, offset)])
