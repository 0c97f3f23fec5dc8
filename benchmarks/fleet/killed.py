"""One worker, request by request, until it is killed, and the deliveries that the next owner repeats.

It uses the product's own offset tracker, metadata and commit interval. A worker's time is CPU time: a turn takes as
long as its requests cost, and answers that arrive meanwhile are handled in the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random

from benchmarks.fleet.capacity import load, most_open
from benchmarks.fleet.costs import MEASURED, ROUND_TRIP, Costs
from benchmarks.fleet.world import HUNG, TIMEOUT, World, latency, setting, waits
from consumer.delivery.sender import GROWTH
from consumer.intake.commits import COMMIT_EVERY, is_commit_due
from consumer.intake.offsets import OffsetTracker, decode

HELD = 2 * TIMEOUT + waits()[0] * (1 + setting("retry_jitter"))  # seconds that a hanging receiver holds a record:
# an attempt, a wait in memory, another attempt; then it is stored
SLEEP = 0.001  # seconds of an idle turn
Answer = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Offered:
    """The load of one worker. `rate` inf means a backlog, taken as fast as possible. `answer` draws a latency."""

    rate: float
    answer: Answer
    open: int  # limit of open requests
    partitions: int
    cpu: float  # seconds of CPU of a delivery


@dataclass(slots=True)
class _Partition:
    tracker: OffsetTracker = field(default_factory=lambda: OffsetTracker(0))
    delivered: set[int] = field(default_factory=set)  # offsets received by a receiver, at or above the committed one
    committed: tuple[int, str] = (0, "")  # the broker's state
    read: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """The state of a worker when it was killed."""

    delivered: int
    per_second: float  # in the second half of the run
    open: int
    repeated: int  # deliveries received before that the next owner repeats


def run(offered: Offered, seconds: float, random: Random) -> Run:
    """Runs a worker and kills it at a random time within the last commit interval.

    Records go to its partitions in turn; each has one delivery. A receiver counts a delivery when it has received it,
    even before its answer arrives.
    """
    end = seconds + random.random() * COMMIT_EVERY
    partitions = [_Partition() for _ in range(offered.partitions)]
    answers: list[tuple[float, int, _Partition, int]] = []
    now = committed_at = middle = 0.0
    came = random.expovariate(offered.rate) if offered.rate < inf else 0.0  # time of the next record
    ended = delivered = by_middle = 0
    records, tie = count(), count()
    sent: tuple[float, list[tuple[_Partition, tuple[int, str]]]] | None = None  # a commit under way
    while now < end:
        if not middle and now >= seconds / 2:
            middle, by_middle = now, delivered
        begun = 0
        while begun < GROWTH + ended and len(answers) < offered.open and came <= now < end:
            partition = partitions[next(records) % len(partitions)]
            offset, partition.read = partition.read, partition.read + 1
            partition.tracker.track(offset)
            hangs = random.random() < HUNG
            heappush(answers, (now + (HELD if hangs else min(offered.answer(), HELD)), next(tie), partition, offset))
            if not hangs:
                partition.delivered.add(offset)
                delivered += 1
            now += offered.cpu / 2
            begun += 1
            came = 0.0 if offered.rate == inf else came + random.expovariate(offered.rate)
        ended, looked_at = 0, now  # answers from now on are for the next turn
        while answers and answers[0][0] <= looked_at and now < end:
            _, _, partition, offset = heappop(answers)
            partition.tracker.settle(offset)
            now += offered.cpu / 2
            ended += 1
        if sent is not None and sent[0] <= now:
            for partition, image in sent[1]:
                _commit(partition, image)
            sent = None
        if sent is None and is_commit_due(now - committed_at, partial(_moved, partitions)):
            committed_at = now
            sent = now + ROUND_TRIP, [(each, _committable(each)) for each in partitions if each.tracker.moved]
        if not begun and not ended:
            now += SLEEP
    repeated = sum(len(each.delivered) - len(each.delivered & _known(each)) for each in partitions)
    return Run(delivered, (delivered - by_middle) / (now - middle), len(answers), repeated)


def _moved(partitions: Sequence[_Partition]) -> int:
    return sum(each.tracker.moved for each in partitions)


def _committable(partition: _Partition) -> tuple[int, str]:
    partition.tracker.moved = 0
    return partition.tracker.committable() or (0, "")


def _commit(partition: _Partition, image: tuple[int, str]) -> None:
    """The broker has the commit: nothing below it is repeated, so it can be dropped here."""
    before, partition.committed = partition.committed[0], image
    for offset in range(before, image[0]):
        partition.delivered.discard(offset)


def _known(partition: _Partition) -> set[int]:
    """The offsets that the next owner knows as settled, above its start offset."""
    return {offset for begin, end in decode(*partition.committed) for offset in range(begin, end)}


def killed(world: World, number: int, sampled: int, seed: int, costs: Costs = MEASURED) -> list[Run]:
    """`number` pods of the world that are killed; at most `sampled` are simulated, each by itself."""
    partitions = max(1, round(world.partitions / world.pods))
    now = load(world, world.of_a_pod, costs)
    runs = []
    for each in range(min(number, sampled)):
        random = Random(f"{seed} killed {each}")  # noqa: S311 (a simulation)
        cpu = now.cpu / now.rate if now.rate else 0.0
        offered = Offered(world.of_a_pod, partial(latency, random), int(most_open(world.receivers)), partitions, cpu)
        runs.append(run(offered, HELD + TIMEOUT, random))
    return runs
