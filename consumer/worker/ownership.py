"""Whose stored deliveries this worker sends: its partitions' and, where it leads, those of partitions long gone."""

from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.record import Partition
from consumer.intake.topics import Topics
from consumer.worker.dispatch import Dispatch

log = structlog.get_logger(__name__)

NO_LOG = 2**63 - 1  # in place of an offset, where no restart asks for any: the largest that Kafka and the column have


class Ownership:
    """`partitions` are those that Kafka has assigned, whatever they are at the moment.

    `adopted` are places that have rows and no partition any more. Whoever leads the group sends these.
    """

    def __init__(
        self,
        partitions: Callable[[], Mapping[TopicPartition, Partition]],
        topics: Topics,
        dispatch: Dispatch,
        settling: Settling,
        monotonic: Callable[[], float],
    ) -> None:
        self._partitions = partitions
        self._topics = topics
        self._dispatch = dispatch
        self._settling = settling
        self._monotonic = monotonic
        self._closed = False
        self.adopted: dict[TopicPartition, None] = {}

    @property
    def leads(self) -> bool:
        """This worker does what one of the group should do and none must."""
        return not self._closed and self._topics.leads(self._partitions())

    def close(self) -> None:
        """The group is being left."""
        self._closed = True

    def places(self) -> Collection[TopicPartition]:
        """The partitions whose stored deliveries this worker sends."""
        if self._closed:
            return ()
        return {**self._partitions(), **self.adopted} if self.adopted else self._partitions()

    def adopt(self, topics: Collection[TopicPartition]) -> None:
        """Of topics (with their highest partition) that have rows, those are ours whose partitions are long gone."""
        gone = self._topics.gone(topics, self._monotonic()) if self.leads else {}
        adopted = {(topic, number): None for topic, numbers in gone.items() for number in numbers}
        for topic in {topic for topic, _ in adopted.keys() - self.adopted.keys()}:
            log.warning("a topic is gone; sending what is stored of it", topic=topic)
        self._settling.own(adopted)
        self.adopted = adopted

    def released(self, leaving: Sequence[Partition] = ()) -> Collection[TopicPartition]:
        """What was adopted, if this worker leads no more once these have left; it is adopted no more then."""
        rest = self._partitions().keys() - {(partition.topic, partition.number) for partition in leaving}
        if self._topics.leads(rest):
            return ()
        released, self.adopted = self.adopted, {}
        return released

    def given_out(self, place: TopicPartition) -> Callable[[int], bool]:
        """Tells of an offset of this partition whether its record, and all before it, have been fanned out."""
        partition, first = self._partitions().get(place), self._dispatch.first_offset(place)
        if partition is None:
            return lambda _: True  # no log is left to read
        return partition.passed if first is None else lambda offset: offset < first

    def unasked(self) -> dict[TopicPartition, int]:
        """Of what was adopted no restart asks, unless its topic was made anew and has just come here."""
        return dict.fromkeys(self.adopted.keys() - self._partitions().keys(), NO_LOG)
