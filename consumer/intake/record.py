"""What the source hands over: records, and the partitions they came from."""

from typing import NamedTuple

from consumer.event import RecordId
from consumer.intake.offsets import OffsetTracker


class Partition:
    """One assignment of a partition to this process.

    A partition that is revoked and assigned again is another object, so that work left over from the earlier assignment
    settles into a tracker that nobody commits. `owned` turns false when the assignment ends and never true again.
    `lag` is in records behind the end of the log, None until known.
    """

    __slots__ = ("lag", "number", "owned", "topic", "tracker")

    def __init__(self, topic: str, number: int, tracker: OffsetTracker) -> None:
        self.topic = topic
        self.number = number
        self.tracker = tracker
        self.owned = True
        self.lag: int | None = None

    def __repr__(self) -> str:
        return f"{self.topic}[{self.number}]"


Headers = list[tuple[str, bytes | None]]


class UnreadableHeaders:
    """Stands for headers that the binding cannot hand over: a name is not UTF-8."""


class Record(NamedTuple):
    """A record as it stands in Kafka, tracked by its partition until settled. `timestamp` is in milliseconds."""

    partition: Partition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers | UnreadableHeaders | None

    @property
    def id(self) -> RecordId:
        """The record's place, for what outlives the assignment."""
        return RecordId(self.partition.topic, self.partition.number, self.offset, self.timestamp)
