"""What comes from Kafka: records, the partitions that they come from, and how both are read there."""

from operator import methodcaller
from typing import NamedTuple

from confluent_kafka import Consumer, Message

from consumer.events.event import RecordId
from consumer.intake.offsets import OffsetTracker

MAX_WAIT = 0.1  # seconds; confluent-kafka holds its lock, and signals back, for the whole wait
GAP_SECONDS = 5.0  # librdkafka asks each second where a log begins; the answer is in the statistics after that


class Partition:
    """One assignment of a partition to this process.

    A partition that is revoked and assigned again is another object, so that work left over from the earlier assignment
    settles into a tracker that nobody commits. `owned` turns false when the assignment ends and never true again.
    `opened` says that its records are read; until then `start` may say where that begins. Where nothing is committed it
    begins at offset `first`; None: where auto.offset.reset says.
    `lag` is in records behind the end of the log, None until known. The log held offsets from `begin` to before `end`
    when Kafka was asked, or retention has removed what was below `begin` since; None: not known yet. `gap` is the
    longest run of offsets that were lately not there when they should have been read, with the time it was seen.
    """

    __slots__ = ("begin", "end", "first", "gap", "lag", "number", "opened", "owned", "topic", "tracker")

    def __init__(self, topic: str, number: int, tracker: OffsetTracker | None = None) -> None:
        self.topic = topic
        self.number = number
        self.tracker = OffsetTracker(None) if tracker is None else tracker
        self.first: int | None = None
        self.begin: int | None = None
        self.end: int | None = None
        self.owned = True
        self.opened = False
        self.lag: int | None = None
        self.gap: tuple[int, int, float] | None = None

    def start(self, committed: int | None, metadata: str = "", epoch: int | None = None) -> None:
        """The group has this stored for it; nothing of it has been read yet."""
        self.tracker = OffsetTracker(committed, metadata, epoch)

    def reaches(self, begin: int, end: int, now: float) -> int:
        """The log holds this. Tells how many offsets retention has removed since the last commit, unread."""
        at = self.tracker.position
        # If something was read meanwhile, what it went past is remembered.
        lost = max(0, begin - at) if at == self.tracker.committed else self.overtaken(begin, now)
        self.begin, self.end = max(begin, self.begin or 0), end
        if self.lag is None:
            self.lag = max(0, end - max(at, begin))
        return lost

    def skipped(self, offset: int, now: float) -> None:
        """The next record is that of `offset`, which is not the one after the last."""
        start = max(self.tracker.position, -1 if self.begin is None else self.begin)
        if 0 <= start < offset and (self.gap is None or offset - start >= self.gap[1] - self.gap[0]):
            self.gap = start, offset, now

    def overtaken(self, begin: int, now: float) -> int:
        """How many offsets retention has removed before they were read, now that the log is known to begin there.

        Compaction and transactions leave gaps too, but the log does not begin inside of one that was just passed.
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

    def passed(self, offset: int) -> bool:
        """Whether no record at or below `offset` is still to come; False while that is not known.

        It was read in this assignment, or settled before it; or retention has removed it; or it is of an earlier life
        of the topic, which was longer.
        """
        read = offset < self.tracker.position or (self.begin is not None and offset < self.begin)
        return read or (self.end is not None and offset >= self.end)

    def __repr__(self) -> str:
        return f"{self.topic}[{self.number}]"


Headers = list[tuple[str, bytes | None]]


class Unreadable(NamedTuple):
    """Stands for the headers of a record that cannot be handed over, in whole or but for its value: see Undecodable."""

    reason: str
    detail: str


BAD_HEADERS = Unreadable("bad_headers", "the name of a header is not UTF-8")


# Not `message.headers()`: for a name that is not UTF-8 the binding returns a list with a NULL inside and an exception
# pending, which specialised bytecode does not look at. A call from C does: SystemError. Never ask the message again.
_headers = methodcaller("headers")


def headers_of(message: Message) -> Headers | Unreadable | None:
    """The headers of a message, as a Record has them; ask once."""
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

    partition: Partition
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers | Unreadable | None

    @property
    def id(self) -> RecordId:
        """The record's place, for what outlives the assignment."""
        return RecordId(self.partition.topic, self.partition.number, self.offset, self.timestamp)
