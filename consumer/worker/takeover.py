"""Takes assigned partitions over: looks up their stored deliveries, and opens partitions whose deliveries are known."""

from collections.abc import Callable
from functools import partial

from consumer.delivery.parking import Parking
from consumer.delivery.recall import Recall
from consumer.events.event import TopicPartition
from consumer.intake.record import Partition
from consumer.intake.source import Source
from consumer.ledger.assigned import Settled
from consumer.matching.inbox import Inbox

STORED_ALONE = 1.0  # seconds until stored deliveries are sent even if their partition's records cannot be read yet
RECORDS_FIRST = 0.3  # seconds by which the first records go ahead of stored deliveries, once all partitions are open


class Takeover:
    """Takes partitions over. The records of one partition never wait for the look-up of another."""

    def __init__(
        self,
        parking: Parking,
        recall: Recall,
        inbox: Inbox,
        source: Callable[[], Source],
        owns: Callable[[TopicPartition], bool],
    ) -> None:
        """`source` gives the source that calls `assigned` and `positioned`; `owns` as for Settling."""
        self._parking = parking
        self._recall = recall
        self._inbox = inbox
        self._source = source
        self._owns = owns
        self._loading: set[Partition] = set()

    def assigned(self) -> None:
        """Partitions were assigned. Their stored deliveries are sent when their records are.

        If failing stored deliveries were sent alone, their receiver would look dead. But they wait for Kafka only
        STORED_ALONE seconds.
        """
        self._recall.within(STORED_ALONE)

    def positioned(self, partition: Partition) -> None:
        """The partition's position is known: look up which deliveries from there on are stored."""
        self._loading.add(partition)
        topic_partition = partition.topic_partition
        mark = partition.tracker.low_water_mark or 0
        self._parking.load_stored(topic_partition, mark, partial(self._loaded, partition, topic_partition))

    def more(self, topic_partition: TopicPartition, offset: int) -> None:
        """Pause the partition at this offset, and look up which deliveries from here on are stored."""
        partition = self._source().partitions[topic_partition]
        self._loading.add(partition)
        self._source().rest(partition)
        self._parking.load_more(topic_partition, offset, partial(self._known, partition, topic_partition))

    def _loaded(self, partition: Partition, topic_partition: TopicPartition, settled: Settled) -> None:
        self._known(partition, topic_partition, settled)
        if not self._loading:
            self._recall.within(RECORDS_FIRST)

    def _known(self, partition: Partition, topic_partition: TopicPartition, settled: Settled) -> None:
        self._loading = {each for each in self._loading if each.owned and each is not partition}
        if partition.owned and self._owns(topic_partition):
            self._inbox.stored(topic_partition, settled.keys, settled.end)
            if not self._inbox.stands_aside(topic_partition):
                self._source().open(partition)
