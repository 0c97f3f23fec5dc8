"""Pages of past attempts, newest first, read from the attempts topic.

A page takes the newest records of all partitions, step by step, until it has enough attempts or has used its time. What
is not read then was written before what is: attempts up to that time are complete, and the next page begins there.
"""

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable
from consumer.events.attempt import WRITTEN_WITHIN, Attempt, key_of, parse
from consumer.events.event import TopicPartition
from consumer.intake.log_reader import LogReader
from consumer.ledger.replays import Span

READ_BACK = 10.0  # seconds of one page
RECORDS_READ = 100_000  # records of one page
SLACK = 5.0  # seconds by which the records of different workers may be out of the order of their times
FAR = 4102444800.0  # unix seconds: the year 2100
STEP = 5_000  # records that are read at once, of all partitions together
_TICK = 0.002  # seconds: records are stamped in whole milliseconds
_AT_ONCE = 1_000  # records

order = attrgetter("at", "subscription_id", "webhook_id", "attempt")  # of the list, in reverse


class Position(NamedTuple):
    """Where a list goes on: with attempts below `before` in `order`, whose records are stamped before `written`."""

    before: tuple[float] | tuple[float, int, str, int]
    written: float


class AttemptPage(NamedTuple):
    """Attempts, newest first, and the position after them; None at the end.

    A page may have fewer attempts than asked for, even none, and still a position.
    """

    attempts: list[Attempt]
    position: Position | None


class Wanted(NamedTuple):
    """The attempts of a list: of a subscription or of all, at or after `since` and before `until` (unix seconds)."""

    subscription_id: int | None
    since: float
    until: float
    where: Callable[[Attempt], bool] = lambda _: True

    def has(self, attempt: Attempt) -> bool:
        """Whether the attempt is one of these."""
        its = self.subscription_id in {None, attempt.subscription_id}
        return its and self.since <= attempt.at < self.until and self.where(attempt)


def after(attempts: Sequence[Attempt], now: float) -> Position:
    """The position after attempts of a list that begins `now`."""
    before = order(attempts[-1]) if attempts else (now,)
    return Position(before, before[0] + WRITTEN_WITHIN)


def read_page(kafka: KafkaSettings, topic: str, wanted: Wanted, limit: int, position: Position | None) -> AttemptPage:
    """A page of at most `limit` attempts, after the `position` that a page of this list has given.

    Reads the topic for 10 s and 100,000 records at most. Attempts of one subscription are found only in the partition
    that its records are written to now. Raises KafkaUnavailable, also if there is no topic or the time is too short for
    any of them, WebhooksError if the topic may not be read, and SettingsError if librdkafka refuses a setting.
    """
    end = time.monotonic() + READ_BACK
    before, written = position or Position((wanted.until,), wanted.until + WRITTEN_WITHIN)
    until = min(wanted.until, math.nextafter(before[0], math.inf))
    found: list[tuple[Attempt, float]] = []  # with the times of their records
    oldest: dict[TopicPartition, float] = {}  # of the records that are read
    records, unread, horizon = 0, written, until
    with LogReader(kafka, name="attempts") as reader:
        partitions = partitions_of(reader, topic, wanted.subscription_id)
        left = {(span.topic, span.number): span for span in reader.spans(partitions, wanted.since, written)}
        while left and (records < RECORDS_READ or horizon >= until):  # a page gets further than the one before
            steps = _last_steps(list(left.values()))
            reader.start(steps)
            fresh = [
                (attempt, stamp)
                for stamp, attempt in _read(reader, kafka.event_source, end, oldest)
                if attempt is not None and attempt.at < until and order(attempt) < before and wanted.has(attempt)
            ]
            records += sum(step.end - step.begin for step in steps)
            if not reader.done:  # it reads forwards: the newest records of the step may be the missing ones
                if horizon >= until:
                    why = f"the attempts could not be read within {READ_BACK:.0f} s"
                    raise KafkaUnavailable(f"{why}; ask for those of one subscription, or try again")
                break
            found += fresh
            left = _before(left, steps)
            unread = max((oldest.get(place, written) for place in left), default=0.0)
            horizon = max(wanted.since, _later(unread, until)) if left else wanted.since
            if sum(attempt.at >= horizon for attempt, _ in found) >= limit:
                break
    shown = sorted((each for each, _ in found if each.at >= horizon), key=order, reverse=True)[:limit]
    if not left and len(shown) == len(found):
        return AttemptPage(shown, None)
    following = order(shown[-1]) if len(shown) == limit else min((horizon,), before)
    newest = max((stamp for attempt, stamp in found if order(attempt) < following), default=0.0)
    return AttemptPage(shown, Position(following, min(written, _later(max(newest, unread), written))))


def partitions_of(reader: LogReader, topic: str, subscription_id: int | None) -> list[TopicPartition]:
    """The partition that a subscription's attempts are written to now, or all. KafkaUnavailable without a topic."""
    found = reader.partitions_of(topic)
    if not found:
        raise no_topic(topic)
    if subscription_id is None:
        return found
    return [found[zlib.crc32(key_of(subscription_id)) % len(found)]]


def no_topic(topic: str) -> KafkaUnavailable:
    """The error of an attempts topic that does not exist."""
    why = f"the topic {topic} does not exist, or this user may not read it"
    return KafkaUnavailable(f"{why}: create it, allow Read, or correct KAFKA_ATTEMPTS_TOPIC")


def _read(
    reader: LogReader, source: str, end: float, oldest: dict[TopicPartition, float]
) -> Iterator[tuple[float, Attempt | None]]:
    """The stamps of the records that are read until `end`, and their attempts. Notes the oldest of each partition."""
    while not reader.done and time.monotonic() < end:
        for record in reader.read(_AT_ONCE, 0.1):
            place, stamp = (record.partition.topic, record.partition.number), record.timestamp / 1000
            if stamp > 0:  # else it cannot be read
                oldest[place] = min(stamp, oldest.get(place, stamp))
            yield stamp, parse(record.value, source)


def _later(stamp: float, below: float) -> float:
    """A time after the record with this stamp and those that are out of order; hardly later if that is not `below`."""
    return stamp + SLACK if stamp + SLACK < below else stamp + _TICK


def _last_steps(spans: Sequence[Span]) -> list[Span]:
    """The last records of each span, together `STEP`."""
    each = max(1, STEP // len(spans))
    return [span._replace(begin=max(span.begin, span.end - each)) for span in spans]


def _before(spans: dict[TopicPartition, Span], steps: Sequence[Span]) -> dict[TopicPartition, Span]:
    """The parts of the spans before these steps."""
    cut = {(step.topic, step.number): spans[step.topic, step.number]._replace(end=step.begin) for step in steps}
    return {place: span for place, span in cut.items() if span.begin < span.end}
