"""Where a partition stands when it is assigned: what the group has committed, and where the log begins and ends."""

from collections.abc import Callable
from typing import NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

log = structlog.get_logger(__name__)

# Each of three questions; a broker that does not answer the first is not asked the others.
_TIMEOUT = 5.0


class Position(NamedTuple):
    """`committed` None: nothing committed, or not known. `begin` and `end` None: not known."""

    topic: str
    number: int
    committed: int | None
    metadata: str
    begin: int | None
    end: int | None

    @property
    def overtaken(self) -> int:
        """How many offsets retention removed after the last commit."""
        return max(0, self.begin - self.committed) if self.begin is not None and self.committed is not None else 0

    @property
    def length(self) -> int:
        """How many offsets the log holds, 0 where not known."""
        return self.end - self.begin if self.end is not None and self.begin is not None else 0


def read_positions(consumer: Consumer, partitions: list[TopicPartition]) -> list[Position]:
    """Ask the brokers. What they do not say in time is None: the group's offsets then hold, their metadata does not."""
    places = [(each.topic, each.partition) for each in partitions]
    committed = _ask(consumer.committed, [TopicPartition(*place) for place in places])
    begin = end = dict[tuple[str, int], TopicPartition]()
    if committed:
        # As timestamps these two stand for the log's ends: all partitions in one request, unlike get_watermark_offsets.
        begin = _ask(consumer.offsets_for_times, [TopicPartition(*place, OFFSET_BEGINNING) for place in places])
    if begin:
        end = _ask(consumer.offsets_for_times, [TopicPartition(*place, OFFSET_END) for place in places])
    return [
        Position(
            *place,
            _offset(committed.get(place)),
            (committed[place].metadata or "") if place in committed else "",
            _offset(begin.get(place)),
            _offset(end.get(place)),
        )
        for place in places
    ]


def _ask(
    question: Callable[[list[TopicPartition], float], list[TopicPartition]], partitions: list[TopicPartition]
) -> dict[tuple[str, int], TopicPartition]:
    try:
        answers = question(partitions, _TIMEOUT)
    except KafkaException as error:
        log.warning("Kafka did not say where partitions stand; going on without", error=error.args[0].str())
        return {}
    return {(each.topic, each.partition): each for each in answers if each.error is None}


def _offset(answer: TopicPartition | None) -> int | None:
    return answer.offset if answer is not None and answer.offset >= 0 else None
