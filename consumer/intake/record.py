"""What the source hands over: records, and the partitions they came from."""

from typing import NamedTuple

from consumer.event import RecordId
from consumer.intake.offsets import OffsetTracker


class Partition:
    """One assignment of a partition to this process.

    A partition that is revoked and assigned again is another object, so that work left over from the earlier assignment
    settles into a tracker that nobody commits. `owned` turns false when the assignment ends and never true again.
    `lag` is in records behind the end of the log, None until known. The log held offsets from `begin` to before `end`
    when the assignment began; None: not known.
    """

    __slots__ = ("begin", "end", "lag", "number", "owned", "topic", "tracker")

    def __init__(
        self, topic: str, number: int, tracker: OffsetTracker, begin: int | None = None, end: int | None = None
    ) -> None:
        self.topic = topic
        self.number = number
        self.tracker = tracker
        self.begin = begin
        self.end = end
        self.owned = True
        self.lag: int | None = None

    def passed(self, offset: int) -> bool:
        """Whether no record at or below `offset` is still to come.

        It was read, or retention has removed it, or it is of an earlier life of the topic, which was longer.
        """
        read = offset < self.tracker.position or (self.begin is not None and offset < self.begin)
        return read or (self.end is not None and offset >= self.end)

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
