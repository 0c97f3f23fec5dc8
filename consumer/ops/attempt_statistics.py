"""The success and the times of a subscription's attempts, in windows of up to a week, from the attempts topic.

A week may have a billion records, and Kafka finds them by time and partition, not by subscription. So the week is cut
into buckets of an hour or less, whose numbers of records Kafka tells. A bucket of few records is read whole, of another
some short runs; what is read of a complete hour is kept.
"""

import math
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, chain, groupby, pairwise
from random import Random
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END

from consumer.events.attempt import DELIVERED, Attempt
from consumer.events.event import TopicPartition
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span
from consumer.ops.walk import Bounds, walk

HOUR = 3600.0
WINDOWS = (1, 24, 168)  # hours
WHOLE = 4_000  # records of a bucket that is read whole
SAMPLE, RUNS = 1_000, 3  # records that are read of another one, and in how many runs
_LEAST, _STEP = 0.001, 1.1  # seconds are counted in steps of a tenth, from a millisecond on
_Z = 1.96  # of a normal distribution: 95 %

Between = tuple[float, float]  # unix seconds: from, and before
Counted = Counter[tuple[bool, int]]  # attempts, by success and the step of their seconds
AttemptOf = Callable[[Record], Attempt | None]  # of the subscription


class Bucket(NamedTuple):
    """The subscription's attempts in each run of the records that are stamped from `at` on.

    Each one stands for `weight`; that is 1 if all records are read.
    """

    at: float
    weight: float
    runs: Sequence[Counted]


class Success(NamedTuple):
    """A subscription's attempts in some `hours`, of which the topic has records since about `since` (unix seconds).

    `sample` attempts were read: all there are if `exact`, else the numbers are estimates. The share that was delivered
    is from `low` to `high` with 95 % probability; the median and the 95th percentile of the seconds are correct to 5 %.
    """

    hours: int
    since: float
    delivered: int
    failed: int
    sample: int
    exact: bool
    share: float | None = None
    low: float | None = None
    high: float | None = None
    median: float | None = None
    p95: float | None = None


class AttemptStatistics(NamedTuple):
    """The attempts in each of WINDOWS, and `by_hour` of the last day, without the parts that were not read in time.

    Those have `unread` buckets; the next answer goes on there.
    """

    windows: list[Success]
    by_hour: list[Success]
    unread: int


def times_of_buckets(now: float) -> list[Between]:
    """From when and before when the buckets are (unix seconds), newest first: full hours, cut where windows begin."""
    last = int(now // HOUR)
    hours = (hour * HOUR for hour in range(last - WINDOWS[-1] + 1, last + 1))
    cuts = sorted({now, *hours, *(now - window * HOUR for window in WINDOWS)}, reverse=True)
    return [(begin, end) for end, begin in pairwise(cuts)]


def runs_of(begin: int, end: int) -> list[tuple[int, int]]:
    """The runs that are read of the records between two offsets: all, or one at a random place of each equal part.

    The same bucket has always the same ones.
    """
    if end - begin <= WHOLE:
        return [(begin, end)] if begin < end else []
    length, part, places = SAMPLE // RUNS, (end - begin) / RUNS, Random(begin)  # noqa: S311 (of a sample)
    starts = [begin + int(number * part + places.random() * (part - length)) for number in range(RUNS)]
    return [(start, start + length) for start in starts]


def step_of(seconds: float) -> int:
    """The step in which a time is counted."""
    return round(math.log(max(seconds, _LEAST) / _LEAST, _STEP))


def success(hours: int, since: float, buckets: Iterable[Bucket]) -> Success:
    """The attempts of these buckets.

    The interval is Wilson's for as many independent attempts as would vary like the runs of records.
    """
    runs = [(run, bucket.weight) for bucket in buckets for run in bucket.runs]
    exact, sample = all(weight <= 1 for _, weight in runs), sum(run.total() for run, _ in runs)
    if not sample:
        return Success(hours, since, 0, 0, 0, exact)
    each = [(good, step, number * weight) for run, weight in runs for (good, step), number in run.items()]
    ok, total = sum(number for good, _, number in each if good), sum(number for *_, number in each)
    share = low = high = ok / total
    if not exact:
        alone = share * (1 - share)
        single = sum(run.total() * weight**2 for run, weight in runs)
        varied = sum((weight * sum((good - share) * n for (good, _), n in run.items())) ** 2 for run, weight in runs)
        square = _Z**2 * (varied / alone if varied > alone * single else single) / total**2
        spread = math.sqrt(alone * square + square**2 / 4)
        low, high = (min(max((share + square / 2 + way) / (1 + square), 0.0), 1.0) for way in (-spread, spread))
    steps = sorted((step, number) for _, step, number in each)
    below = list(accumulate(number for _, number in steps))
    times = (round(_LEAST * _STEP ** steps[bisect_left(below, part * below[-1])][0], 4) for part in (0.5, 0.95))
    return Success(hours, since, round(ok), round(total - ok), sample, exact, share, low, high, *times)


def is_complete(between: Between, now: float) -> bool:
    """Whether a bucket is a full hour of the windows. It gets no more records: the hour that has just ended is cut."""
    begin, end = between
    return end - begin == HOUR and now - WINDOWS[-1] * HOUR <= begin and end < now


def summarised(known: Iterable[Bucket], unread: Sequence[float], now: float) -> AttemptStatistics:
    """The statistics of the buckets that are known; `unread` has the beginnings of the others."""
    buckets = sorted(known)
    oldest = min([*unread, *(each.at for each in buckets)], default=now)

    def since(at: float) -> list[Bucket]:
        return [each for each in buckets if each.at >= at]

    windows = [(hours, now - hours * HOUR) for hours in WINDOWS if max(unread, default=0.0) < now - hours * HOUR]
    day, partly = groupby(since(now - 24 * HOUR), lambda each: each.at // HOUR), {at // HOUR for at in unread}
    return AttemptStatistics(
        [success(hours, max(at, oldest), since(at)) for hours, at in windows],
        [success(1, hour * HOUR, its) for hour, its in day if hour not in partly],
        len(unread),
    )


def read_buckets(
    reader: LogReader,
    place: TopicPartition,
    now: float,
    known: Mapping[Between, Bucket],
    attempt_of: AttemptOf,
    seconds: float,
) -> tuple[dict[Between, Bucket], list[float]]:
    """The buckets, from the newest to the log's beginning, and the beginnings of those that were not read in time."""
    stop, found, unread = time.monotonic() + seconds, {}, []
    first, newest = (reader.offsets([place], each)[place] for each in (OFFSET_BEGINNING, OFFSET_END))
    offsets = {now: newest}
    for between in times_of_buckets(now):
        bucket = known.get(between)
        if bucket is None and time.monotonic() < stop:
            for at in set(between) - offsets.keys():
                offset = reader.offsets([place], int(at * 1000))[place]
                offsets[at] = max(first, newest if offset < 0 else min(offset, newest))
            begin, end = map(offsets.__getitem__, between)
            if end <= first:
                break
            spans = [Span(*place, *run) for run in runs_of(begin, end)]
            weight = (end - begin) / max(1, sum(span.end - span.begin for span in spans))
            runs = [run for span in spans if (run := _counted(reader, span, attempt_of, stop)) is not None]
            bucket = Bucket(between[0], weight, runs) if len(runs) == len(spans) else None
        if bucket is None:
            unread.append(between[0])
        else:
            found[between] = bucket
    return found, unread


def _counted(reader: LogReader, span: Span, attempt_of: AttemptOf, stop: float) -> Counted | None:
    """The attempts in a run of records; None if it cannot be read in time."""
    if (seconds := stop - time.monotonic()) <= 0:
        return None
    counted: Counted = Counter()
    for record in chain.from_iterable(walk(reader, [span], Bounds(size=2**63, seconds=seconds))):
        if (attempt := attempt_of(record)) is not None:
            counted[attempt.outcome == DELIVERED, step_of(attempt.seconds)] += 1
    return counted if reader.done else None
