"""Records, the assigned partitions they come from, and the functions that read them from Kafka."""

from operator import methodcaller
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition

from consumer.events.event import RecordId, TopicPartition
from consumer.intake.offsets import OffsetTracker

_HEADER = 100  # bytes of a header in memory besides its name and value
MAX_WAIT = 0.1  # seconds; confluent-kafka holds its lock, and delays signals, for the whole wait
# A damaged batch, or one larger than librdkafka decompresses: it is reported for ever, and nothing behind it is read.
UNREADABLE = frozenset((KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG))  # noqa: SLF001 (the binding's public names)
READS = 3  # reads of such a batch before its records are given up: one damaged in transit is whole the next time
NO_TIMESTAMP = -1
STEADY_SECONDS = 5.0  # a new leader exposes all of its log within this time
GAP_SECONDS = 5.0  # librdkafka asks each second where a log begins; the next statistics have the answer


class AssignedPartition:
    """One assignment of a partition to this process.

    A partition that is revoked and assigned again is another object, so that work left over from the earlier assignment
    settles into a tracker that is never committed. `revoking`: it is being given up, and no work on it should begin.
    `owned` turns false when the assignment has ended and never true again.
    `opened`: its records are read; until then `start` may set the position. Without a committed offset, reading begins
    at offset `first`; None: where auto.offset.reset says. Offsets below `read_to` were read in this assignment, or have
    no record to read. `end`: where the log ended when it was first read to its end; None until known. `lag` is in
    records behind the end of the log, None until known. `begin`: retention has removed unread offsets below it. `gap`:
    the longest run of offsets recently missing from the log, and when it was seen. `held`: where an open transaction
    ends the readable part of the log, how many records it holds back, and since when it has been seen to. `replaces`:
    its topic was made anew, and this client has read the one before. `needs_identity`: its position counts only with
    the identity of its topic. `log`: where the log begins and ends, as far as it
    is known. `former_end`: where that of an earlier topic of the name ended.
    """

    def __init__(self, topic: str, number: int, tracker: OffsetTracker | None = None) -> None:
        self.topic = topic
        self.number = number
        self.topic_partition: TopicPartition = (topic, number)
        self.tracker = OffsetTracker(None) if tracker is None else tracker
        self.first: int | None = None
        self.begin = -1
        self.read_to = -1
        self.end: int | None = None
        self._reached_at = 0.0
        self.owned = True
        self.revoking = False
        self.opened = False
        self.lag: int | None = None
        self.gap: tuple[int, int, float] | None = None
        self.held: tuple[int, int, float] | None = None
        self.replaces = self.needs_identity = False
        self.log = (-1, -1)
        self.former_end = -1

    @property
    def position(self) -> int:
        """The next offset to read; negative: nothing was read, and nothing is committed."""
        return max(self.tracker.position, self.read_to, self.begin)

    def start(self, committed: int | None, metadata: str = "", epoch: int | None = None) -> None:
        """Set the position that the group has committed. No record may have been read yet."""
        self.tracker = OffsetTracker(committed, metadata, epoch)

    def begins_at(self, otherwise: int) -> KafkaTopicPartition:
        """The offset at which reading begins: the committed one, else `first`, else `otherwise`."""
        committed, epoch = self.tracker.committed, self.tracker.epoch
        if committed is None:
            return KafkaTopicPartition(self.topic, self.number, otherwise if self.first is None else self.first)
        # librdkafka compares the epoch with the leader's: a log truncated below the offset is read from the cut.
        return KafkaTopicPartition(self.topic, self.number, committed, leader_epoch=-1 if epoch is None else epoch)

    def reached(self, offset: int, now: float) -> None:
        """Note that reading has come to the log's end, which is at `offset`, or before the end of a new leader's."""
        self.read_to, self._reached_at = offset, now
        if offset > self.tracker.position:
            self.skipped(offset, now)

    def ends_at(self, stable: int, now: float) -> None:
        """Note the end of the log's readable part, as the statistics have it."""
        if self.end is None and 0 <= stable == self.read_to and now - self._reached_at >= STEADY_SECONDS:
            self.end = stable

    def skipped(self, offset: int, now: float) -> None:
        """Note that the next record is at `offset`, and not directly after the last one."""
        start = max(self.tracker.position, self.begin)
        if 0 <= start < offset and (self.gap is None or offset - start >= self.gap[1] - self.gap[0]):
            self.gap = start, offset, now

    def overtaken(self, begin: int, now: float) -> int:
        """How many offsets retention has removed before they were read, given that the log now begins at `begin`.

        Compaction and transactions leave gaps too, but a log does not begin inside such a gap right after it was read.
        """
        if self.gap is None:
            return 0
        start, stop, seen_at = self.gap
        if start < begin <= stop:
            self.begin, self.gap = begin, None
            return begin - start
        if now - seen_at > GAP_SECONDS:
            self.gap = None
        return 0

    def holds_back(self, stable: int, end: int, now: float) -> None:
        """Note that open transactions hold back the offsets from `stable` to before `end`."""
        since = self.held[2] if self.held is not None and self.held[0] == stable else now
        self.held = (stable, end - stable, since) if stable < end else None

    def passed(self, offset: int) -> bool:
        """Whether no record at or below `offset` is still to come; False while unknown.

        The record was read in this assignment or settled before it; or retention or compaction has removed it; or the
        group began behind it; or it belongs to an earlier topic of this name, whose log was longer.
        """
        return offset < self.position or (self.end is not None and offset >= self.end)

    def __repr__(self) -> str:
        return f"{self.topic}[{self.number}]"


Headers = list[tuple[str, bytes | None]]


class Unreadable(NamedTuple):
    """Replaces a record's headers if the record or its headers cannot be read. Has the fields of Undecodable."""

    reason: str
    detail: str


BAD_HEADERS = Unreadable("bad_headers", "the name of a header is not UTF-8")


# Not `message.headers()`: for a name that is not UTF-8 the binding returns a list with a NULL inside and leaves an
# exception pending, which specialised bytecode does not check. A call from C checks it and raises SystemError. Never
# read the headers of such a message twice.
_headers = methodcaller("headers")


def headers_of(message: Message) -> Headers | Unreadable | None:
    """The headers of a message, in the form of `Record.headers`. Call it once for each message."""
    try:
        found: Headers | None = _headers(message)
    except (SystemError, UnicodeDecodeError):
        return BAD_HEADERS
    return found


def batch(consumer: Consumer, limit: int, timeout: float) -> list[Message]:
    """Up to `limit` (at least 1) messages. Waits for the first at most `timeout` seconds, and never above MAX_WAIT."""
    messages = consumer.consume(limit, 0)
    if not messages and timeout > 0:
        messages = consumer.consume(1, min(timeout, MAX_WAIT))
        if messages and limit > 1:
            messages += consumer.consume(limit - 1, 0)
    return messages


class Record(NamedTuple):
    """A record as it stands in Kafka, tracked by its partition until settled. `timestamp` is in milliseconds."""

    partition: AssignedPartition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers | Unreadable | None

    @property
    def id(self) -> RecordId:
        """The record's place, which stays valid after the assignment."""
        return RecordId(self.partition.topic, self.partition.number, self.offset, self.timestamp)

    @property
    def size(self) -> int:
        """The approximate bytes in memory of its value, key and headers."""
        headers = self.headers
        named = 0
        if headers and not isinstance(headers, Unreadable):
            named = sum([len(name) + len(value or b"") + _HEADER for name, value in headers])
        return len(self.value or b"") + len(self.key or b"") + named


class UnreadableBatches:
    """Remembers each partition's last unreadable batch, and how often it was read.

    Neither the content nor the size of such a batch is known. So its records are given up one by one, each as a Record
    with Unreadable headers, until a record can be read again.
    """

    def __init__(self) -> None:
        self._failed: dict[AssignedPartition, tuple[int, int]] = {}

    def failed(self, partition: AssignedPartition, base: int, detail: str, position: int) -> Record | None:
        """Note a failed read of the batch that begins at offset `base`. The record to give up; None: read it again.

        That record is not tracked yet. Reading has to continue at the offset after it. `position` is the next offset to
        read.
        """
        known, times = self._failed.get(partition, (base, 0))
        times = times + 1 if known == base else 1
        self._failed[partition] = base, times
        if times < READS:
            return None
        offset = max(position, base)
        return Record(partition, offset, NO_TIMESTAMP, None, None, Unreadable("unreadable", detail))

    def forget(self, partition: AssignedPartition) -> None:
        """Forget a partition that has left."""
        self._failed.pop(partition, None)
