"""The stored deliveries that this worker sends: of its partitions and, if it leads, of partitions that are gone."""

from collections.abc import Callable, Collection, Mapping

import structlog

from consumer.events.event import TopicPartition
from consumer.intake.record import Partition
from consumer.intake.topics import Topics

log = structlog.get_logger(__name__)

NO_LOG = 2**63 - 1  # stands for an offset where no log is left: the largest that Kafka and the column hold


class Ownership:
    """`partitions` are those that Kafka has assigned, until their assignment has ended.

    `adopted` partitions have rows but no longer exist in Kafka. The worker that leads the group sends these rows.
    """

    def __init__(
        self, partitions: Mapping[TopicPartition, Partition], topics: Topics, monotonic: Callable[[], float]
    ) -> None:
        self._partitions = partitions
        self._topics = topics
        self._monotonic = monotonic
        self._closed = False
        self.adopted: dict[TopicPartition, None] = {}

    def leads(self) -> bool:
        """Whether this worker does the work that one worker of the group should do."""
        return not self._closed and self._topics.leads(self._kept())

    def close(self) -> None:
        """The group is being left."""
        self._closed = True

    def topic_partitions(self) -> Collection[TopicPartition]:
        """The partitions whose stored deliveries this worker sends."""
        return () if self._closed else {*self._kept(), *self.adopted}

    def owns(self, topic_partition: TopicPartition) -> bool:
        """Whether the partition is one of `topic_partitions`."""
        partition = self._partitions.get(topic_partition)
        kept = topic_partition in self.adopted if partition is None else not partition.revoking
        return kept and not self._closed

    def _kept(self) -> list[TopicPartition]:
        return [each.topic_partition for each in self._partitions.values() if not each.revoking]

    def adopt(self, stored: Collection[TopicPartition]) -> None:
        """Adopt those of the partitions with rows, `stored`, that are long gone, if this worker leads."""
        adopted = dict.fromkeys(self._topics.gone(stored, self._monotonic())) if self.leads() else {}
        for topic in {topic for topic, _ in adopted.keys() - self.adopted.keys()}:
            log.warning("a topic is gone; sending its stored deliveries", topic=topic)
        self.adopted = adopted

    def released(self) -> Collection[TopicPartition]:
        """Give up adopted partitions if this worker no longer leads; returns them."""
        if self.leads():
            return ()
        released, self.adopted = self.adopted, {}
        return released

    def given_out(self, topic_partition: TopicPartition, waiting: int | None) -> Callable[[int], bool]:
        """A predicate on offsets: whether all records of this partition up to the offset were fanned out.

        `waiting` is the lowest offset that was read and is not yet fanned out; None if there is none.
        """
        partition = self._partitions.get(topic_partition)
        if partition is None:
            return lambda _: True  # no log is left to read
        return partition.passed if waiting is None else lambda offset: offset < waiting

    def unasked(self) -> dict[TopicPartition, int]:
        """Adopted partitions, which no restart reads, except partitions of a topic that was just recreated."""
        return dict.fromkeys(self.adopted.keys() - self._partitions.keys(), NO_LOG)
