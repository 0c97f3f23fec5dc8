"""The attempt history: reads the attempts topic, which workers write with KAFKA_ATTEMPTS_TOPIC.

A thread reads the topic outside any group, and keeps the last hour in memory. Older attempts are read on demand.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush, nlargest
from itertools import chain
from operator import attrgetter
from threading import Event, Lock, Thread
from typing import NamedTuple

import structlog
from confluent_kafka import OFFSET_END

from consumer.config.settings import KafkaSettings
from consumer.errors import WebhooksError
from consumer.events.attempt import DELIVERED, Attempt, key_of, parse
from consumer.intake.log_reader import FOREVER, SHORT, LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span
from consumer.ops.attempt_pages import AttemptPage, Position, Wanted, no_topic, order, partitions_of, read_page
from consumer.ops.attempt_statistics import AttemptStatistics, Between, Bucket, is_complete, read_buckets, summarised
from consumer.ops.walk import Bounds, left, walk

log = structlog.get_logger(__name__)

HOUR = 3600.0
MINUTES = 60
OF_ONE = 200  # attempts kept of one subscription
OF_ALL = 50_000  # attempts kept
BYTES = 64 * 2**20  # of all kept attempts, about
OVERHEAD = 700  # bytes of an attempt's objects in memory, beyond its record
COUNTED = 20_000  # subscriptions that are counted by the minute, some 1.5 kB each
LOOK_EVERY = 30.0  # seconds between two looks at the topic's partitions
AGAIN = 2.0  # seconds after a failure
STATISTICS = 5.0  # seconds of reading for the statistics of a subscription; the next answer goes on
KEPT = 100  # subscriptions of which complete hours are kept, some 200 kB each
FORWARD = Bounds(seconds=3.0)  # of one `of_event`
SKEW = 60.0  # seconds by which the clocks of a record's producer and of a worker may differ
_AT_ONCE = 1_000  # records
_END = 10.0  # seconds that `close` waits


class Minute(NamedTuple):
    """The attempts of the minute that begins `at` (unix seconds)."""

    at: int
    ok: int
    failed: int


class Tried(NamedTuple):
    """How many attempts of a subscription have succeeded and failed in some minutes."""

    subscription_id: int
    ok: int
    failed: int


class RecentAttempts:
    """Keeps the newest attempts. The oldest ones beyond the limits are forgotten first. Times are unix seconds.

    The counts of `summary` include attempts that are forgotten; they are kept for the subscriptions that were last
    attempted.
    """

    def __init__(self, of_one: int = OF_ONE, of_all: int = OF_ALL, most_bytes: int = BYTES) -> None:
        self.bytes = 0
        self._of_one, self._of_all, self._most_bytes = of_one, of_all, most_bytes
        self._kept: dict[int, tuple[Attempt, int]] = {}  # by number in order of arrival, with its bytes
        self._of: dict[int, deque[int]] = {}  # numbers by subscription
        self._oldest: list[tuple[float, int]] = []  # a heap by time; it may have numbers that are forgotten
        self._number = 0
        self._counts: OrderedDict[int, _Counts] = OrderedDict()
        self._all_counts = _Counts()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, attempt: Attempt, size: int, now: float) -> None:
        """Keep an attempt, whose record has `size` bytes, if it is less than an hour old."""
        if attempt.at <= now - HOUR:
            return
        subscription, ok = attempt.subscription_id, attempt.outcome == DELIVERED
        minute = int(min(attempt.at, now) // 60)
        self._all_counts.count(minute, ok=ok)
        counts = self._counts.get(subscription)
        if counts is None:
            counts = self._counts[subscription] = _Counts()
            if len(self._counts) > COUNTED:
                self._counts.popitem(last=False)
        self._counts.move_to_end(subscription)
        counts.count(minute, ok=ok)
        self._number = number = self._number + 1
        self._kept[number] = attempt, size + OVERHEAD
        self.bytes += size + OVERHEAD
        numbers = self._of.setdefault(subscription, deque())
        numbers.append(number)
        heappush(self._oldest, (attempt.at, number))
        if len(numbers) > self._of_one:
            self._forget(numbers[0])
        self._fit(now)

    def recent(
        self, subscription_id: int | None, limit: int, now: float, where: Callable[[Attempt], bool] | None = None
    ) -> list[Attempt]:
        """The newest of a subscription, or of all, that meet `where`, newest first; up to OF_ONE, none is left out."""
        self._fit(now)
        numbers = self._kept if subscription_id is None else self._of.get(subscription_id, ())
        attempts = (self._kept[number][0] for number in numbers)
        return nlargest(limit, attempts if where is None else filter(where, attempts), key=order)

    def summary(self, subscription_id: int | None, now: float) -> list[Minute]:
        """The last sixty minutes, the current one included, oldest first; of a subscription, or of all."""
        counts = self._all_counts if subscription_id is None else self._counts.get(subscription_id)
        last = int(now // 60)
        minutes = range(last - MINUTES + 1, last + 1)
        return [Minute(minute * 60, *(counts.of(minute) if counts is not None else (0, 0))) for minute in minutes]

    def most_failed(self, minutes: int, limit: int, now: float) -> list[Tried]:
        """The subscriptions with the most failed attempts in the last `minutes`, the current one included."""
        last = int(now // 60)
        tried = []
        for each, counts in self._counts.items():
            if counts.failed_at > last - minutes:
                counted = [counts.of(minute) for minute in range(last - minutes + 1, last + 1)]
                tried.append(Tried(each, sum(ok for ok, _ in counted), sum(failed for _, failed in counted)))
        return nlargest(limit, tried, key=attrgetter("failed"))

    def _fit(self, now: float) -> None:
        """Forget attempts that are an hour old, and the oldest ones beyond the limits."""
        oldest = self._oldest
        while oldest:
            at, number = oldest[0]
            if number in self._kept:
                fits = len(self._kept) <= self._of_all and self.bytes <= self._most_bytes
                if fits and at > now - HOUR:
                    break
                self._forget(number)
            heappop(oldest)
        if len(oldest) > 2 * len(self._kept) + 1000:  # most are forgotten: one subscription has many attempts
            self._oldest = [(attempt.at, number) for number, (attempt, _) in self._kept.items()]
            heapify(self._oldest)

    def _forget(self, number: int) -> None:
        attempt, size = self._kept.pop(number)
        self.bytes -= size
        numbers = self._of[attempt.subscription_id]
        numbers.remove(number)  # the first one, but for attempts that came out of order
        if not numbers:
            del self._of[attempt.subscription_id]


class _Counts:
    """Attempts by minute, of the last hour."""

    __slots__ = ("_failed", "_minutes", "_ok", "failed_at")

    def __init__(self) -> None:
        self.failed_at = 0  # the last minute in which an attempt failed
        self._minutes = [0] * MINUTES  # which minute each place counts
        self._ok = [0] * MINUTES
        self._failed = [0] * MINUTES

    def count(self, minute: int, *, ok: bool) -> None:
        place = minute % MINUTES
        if self._minutes[place] > minute:
            return
        if self._minutes[place] < minute:
            self._minutes[place], self._ok[place], self._failed[place] = minute, 0, 0
        (self._ok if ok else self._failed)[place] += 1
        self.failed_at = self.failed_at if ok else max(self.failed_at, minute)

    def of(self, minute: int) -> tuple[int, int]:
        place = minute % MINUTES
        return (self._ok[place], self._failed[place]) if self._minutes[place] == minute else (0, 0)


class AttemptHistory:
    """Returns past attempts. Its thread runs from `start` to `close`; every method is safe in any thread.

    `fault` says why attempts are missing now, else it is None. `skipped` counts records that hold no attempt of this
    deployment's workers (KAFKA_GROUP_ID).
    """

    def __init__(self, kafka: KafkaSettings, topic: str, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives unix seconds. Sends no request yet."""
        self.skipped = 0
        self._kafka, self._topic, self._clock = kafka, topic, clock
        self._problem: str | None = None
        self._outage: str | None = None
        self._positions: dict[int, int] = {}  # by partition: the next offset
        self._recent = RecentAttempts()
        self._complete: OrderedDict[tuple[object, ...], dict[Between, Bucket]] = OrderedDict()  # by subscription
        self._lock = Lock()  # of `_recent` and `_complete`
        self._closing = Event()
        self._thread = Thread(target=self._run, name="attempt-history", daemon=True)

    @property
    def fault(self) -> str | None:
        """Why attempts are missing now, with advice."""
        return self._problem or self._outage

    def start(self) -> None:
        """Begin to read. The last hour is complete a few seconds later."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_END)

    def recent(
        self, subscription_id: int | None, limit: int, where: Callable[[Attempt], bool] | None = None
    ) -> list[Attempt]:
        """Attempts of the last hour that are in memory, of a subscription or of all, that meet `where`; newest first.

        `where` must not wait, because the thread that reads the topic waits meanwhile.
        """
        with self._lock:
            return self._recent.recent(subscription_id, limit, self._clock(), where)

    def summary(self, subscription_id: int | None) -> list[Minute]:
        """How many attempts have succeeded and failed in each of the last sixty minutes, oldest first."""
        with self._lock:
            return self._recent.summary(subscription_id, self._clock())

    def most_failed(self, minutes: int, limit: int) -> list[Tried]:
        """The subscriptions with the most failed attempts in the last `minutes` (at most 60)."""
        with self._lock:
            return self._recent.most_failed(minutes, limit, self._clock())

    def page(self, wanted: Wanted, limit: int, position: Position | None) -> AttemptPage:
        """A page of attempts, newest first, which the topic is read for, as `read_page` does."""
        return read_page(self._kafka, self._topic, wanted, limit, position)

    def statistics(
        self, subscription_id: int, tenant: str | None = None, seconds: float = STATISTICS
    ) -> AttemptStatistics:
        """The statistics of a subscription's attempts, or of those for one tenant's events; read in so many `seconds`.

        Attempts are found as in `read_page`. Raises the same errors.
        """
        now, key, source = self._clock(), key_of(subscription_id), self._kafka.event_source

        def attempt_of(record: Record) -> Attempt | None:
            found = parse(record.value, source) if record.key == key else None
            return found if found is not None and tenant in {None, found.tenant} else None

        with LogReader(self._kafka, name="attempts", properties=SHORT) as reader:
            place = partitions_of(reader, self._topic, subscription_id)[0]
            whose = (subscription_id, tenant, place)
            with self._lock:
                known = self._complete.get(whose, {})
            read, unread = read_buckets(reader, place, now, known, attempt_of, seconds)
        with self._lock:
            kept = {each: bucket for each, bucket in (known | read).items() if is_complete(each, now)}
            self._complete[whose] = kept
            self._complete.move_to_end(whose)
            if len(self._complete) > KEPT:
                self._complete.popitem(last=False)
        return summarised(read.values(), unread, now)

    def of_event(self, webhook_id: str, since: float) -> tuple[list[Attempt], str | None]:
        """The attempts to deliver an event, newest first; and why some may be missing, None if none should be.

        Reads the topic from the time `since` (unix seconds; the record's) on, within FORWARD, and adds the attempts in
        memory. Raises as `read_back` does.
        """
        wanted = webhook_id.encode()
        with LogReader(self._kafka, name="attempts") as reader:
            spans = reader.spans(reader.partitions_of(self._topic), max(0.0, since - SKEW), None)
            records = chain.from_iterable(walk(reader, spans, FORWARD))
            # Most records are of other events: searching their bytes takes a twentieth of the time of parsing them.
            read = [
                parse(record.value, self._kafka.event_source) for record in records if wanted in (record.value or b"")
            ]
            unread = left(reader, spans)
        found = {each for each in read if each is not None and each.webhook_id == webhook_id}
        found.update(self.recent(None, OF_ALL, lambda each: each.webhook_id == webhook_id))
        missing = "later attempts than the ones that were read in time, if any" if unread else self.fault
        return sorted(found, key=attrgetter("at"), reverse=True), missing

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with LogReader(self._kafka, name="attempts") as reader:
                    self._follow(reader)
            except WebhooksError as error:
                self._has_problem(str(error))
            except Exception as error:  # the thread must go on
                log.exception("the attempt history cannot be read; it begins again")
                self._has_problem(f"{type(error).__name__}: {error}")
            self._closing.wait(AGAIN)

    def _follow(self, reader: LogReader) -> None:
        """Read until `close`, or until there are other partitions. Raises the errors that need a new reader."""
        there = reader.partitions_of(self._topic)
        if not there:
            self._positions.clear()  # a new topic of this name is read from its start
            raise no_topic(self._topic)
        ends = reader.offsets(there, OFFSET_END)  # where a partition without records of this hour begins
        # A position beyond the end is of an earlier topic of this name.
        new = [place for place in there if self._positions.get(place[1], FOREVER) > ends[place]]
        begins = reader.offsets(new, int((self._clock() - HOUR) * 1000))
        self._positions |= {place[1]: begins[place] if begins[place] >= 0 else ends[place] for place in new}
        reader.start([Span(*place, self._positions[place[1]], FOREVER) for place in there])
        look_at = time.monotonic() + LOOK_EVERY
        while not self._closing.is_set():
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_EVERY
                if reader.partitions_of(self._topic) != there:
                    return
            records = reader.read(_AT_ONCE, 0.1)
            self._problem, self._outage = None, reader.fault
            with self._lock:
                for record in records:
                    self._take(record)

    def _take(self, record: Record) -> None:
        self._positions[record.partition.number] = record.offset + 1
        attempt = parse(record.value, self._kafka.event_source)
        if attempt is None:
            self.skipped += 1
        else:
            self._recent.add(attempt, len(record.value or b""), self._clock())

    def _has_problem(self, text: str) -> None:
        problem = f"attempt history: {text}"
        if self._problem != problem:
            log.warning("attempts are missing from the attempt history", reason=text)
        self._problem = problem
