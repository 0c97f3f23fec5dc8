"""Assumptions about receivers: the rate of each, its latency, and its outages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from math import exp
from random import Random, getstate, seed, setstate
from typing import NamedTuple

from consumer.config.environment import load
from consumer.config.settings import DeliverySettings

EXPONENT = 0.9  # of Zipf's law: of a million receivers the busiest gets 3 % of all deliveries
MEDIAN, SIGMA = 0.08, 1.0  # seconds; log-normal: 99 % of these answers come within 0.8 s
TAIL, TAIL_FROM, TAIL_SHAPE = 0.01, 1.0, 1.5  # one answer in a hundred: Pareto, from a second on
UP = 30 * 86400.0  # seconds between two outages of a receiver, on average; exponential
DOWN_MEDIAN, DOWN_SIGMA = 300.0, 1.2  # seconds of an outage; log-normal: 10 minutes on average
HUNG = 1e-4  # share of receivers that accept requests and never answer
HANGING = 0.2  # share of outages without an answer; in the others connections are refused
REFUSAL = 0.02  # seconds until a connection is refused
KEEP_ALIVE = 60.0  # seconds that receivers keep an idle connection
EVENT_KIB = 0.45
SINGLE = 64  # ranks that are classes of their own; the other ranks share a hundred classes
_DEFAULTS = load(DeliverySettings, {"WEBHOOK_SECRET": "of-a-simulation"})


def setting(name: str) -> float:
    """The default of a numeric delivery setting."""
    return float(getattr(_DEFAULTS, name))


def waits() -> tuple[float, ...]:
    """The default retry schedule."""
    return _DEFAULTS.retry_schedule


TIMEOUT = setting("timeout")


@contextmanager
def seeded(text: str) -> Iterator[None]:
    """Seeds Python's global random numbers, which tenacity uses, by the text, and restores their state afterwards."""
    state = getstate()
    seed(text)
    try:
        yield
    finally:
        setstate(state)


class Class(NamedTuple):
    """Receivers with about the same number of deliveries: how many, and each one's share of all."""

    number: int
    share: float


class Failure(Enum):
    """How a request to a receiver that is down ends."""

    REFUSED = auto()
    HANGING = auto()


class Outage(NamedTuple):
    """Begin and end (seconds) of a receiver's outage."""

    begin: float
    end: float
    failure: Failure


@dataclass(frozen=True)
class World:
    """A deployment and its load: `rate` deliveries a second in all."""

    pods: int = 1_000
    receivers: int = 1_000_000
    partitions: int = 3_000
    rate: float = 500_000.0
    https: float = 1.0  # share of receivers with https URLs: all, by the egress rule's default

    @property
    def of_a_pod(self) -> float:
        """Deliveries a second of an average pod."""
        return self.rate / self.pods

    @cached_property
    def classes(self) -> tuple[Class, ...]:
        """All receivers, the busiest first."""
        return zipf(self.receivers)

    def share(self, rank: int) -> float:
        """The share of all deliveries of the receiver with this rank (0 or more)."""
        return _weight(rank) / self._weights

    @cached_property
    def _weights(self) -> float:
        return _all_weights(self.receivers)


def _weight(rank: int) -> float:
    return float((rank + 1) ** -EXPONENT)


def _all_weights(number: int) -> float:
    return sum(map(_weight, range(min(SINGLE, number)))) + _between(SINGLE, number)


def _between(begin: int, end: int) -> float:
    """The approximate weights of the ranks from `begin` up to `end`."""
    power = 1 - EXPONENT
    return max(0.0, float((end + 0.5) ** power - (begin + 0.5) ** power) / power)


def zipf(number: int) -> tuple[Class, ...]:
    """So many receivers in classes; all shares add up to one."""
    total = _all_weights(number)
    classes = [Class(1, _weight(rank) / total) for rank in range(min(SINGLE, number))]
    begin = SINGLE
    while begin < number:
        end = min(number, max(begin + 1, int(begin * 1.1)))
        classes.append(Class(end - begin, _between(begin, end) / total / (end - begin)))
        begin = end
    return tuple(classes)


def latency(random: Random) -> float:
    """Seconds until a healthy receiver answers; above TIMEOUT it is too late."""
    if random.random() < TAIL:
        return float(TAIL_FROM * random.paretovariate(TAIL_SHAPE))
    return random.lognormvariate(0.0, SIGMA) * MEDIAN


def mean_open() -> float:
    """The average seconds of a request to a receiver that is healthy or hangs."""
    body = MEDIAN * exp(SIGMA**2 / 2)
    power = TAIL_SHAPE - 1
    tail = TAIL_FROM + (TAIL_FROM - TAIL_FROM**TAIL_SHAPE * TIMEOUT**-power) / power
    return float((1 - HUNG) * ((1 - TAIL) * body + TAIL * tail) + HUNG * TIMEOUT)


def later_than(seconds: float) -> float:
    """The share of answers that take so long or longer; `seconds` must be in the tail, far above the median."""
    return float(TAIL * min(1.0, (TAIL_FROM / seconds) ** TAIL_SHAPE))


def down_time(random: Random) -> float:
    """Seconds of an outage."""
    return random.lognormvariate(0.0, DOWN_SIGMA) * DOWN_MEDIAN


def _failure(random: Random) -> Failure:
    return Failure.HANGING if random.random() < HANGING else Failure.REFUSED


def background(receivers: int, until: float, random: Random) -> Iterator[tuple[int, Outage]]:
    """Ranks with an outage each, of receivers that hang or fail independently between 0 and `until`.

    Receivers down at 0 have been so for a while. Each fails at most once, which is nearly true within a few hours.
    """
    mean = DOWN_MEDIAN * exp(DOWN_SIGMA**2 / 2)
    for rank in random.sample(range(receivers), round(receivers * HUNG)):
        yield rank, Outage(0.0, float("inf"), Failure.HANGING)
    for rank in random.sample(range(receivers), min(receivers, round(receivers * mean / (UP + mean)))):
        yield rank, Outage(0.0, down_time(random) * random.random(), _failure(random))
    at = random.expovariate(receivers / UP)
    while at < until:
        yield random.randrange(receivers), Outage(at, at + down_time(random), _failure(random))
        at += random.expovariate(receivers / UP)


def at_once(receivers: int, share: float, seconds: float, random: Random) -> Iterator[tuple[int, Outage]]:
    """The same for a share of the receivers, all down from 0 on for so long."""
    for rank in random.sample(range(receivers), round(receivers * share)):
        yield rank, Outage(0.0, seconds, _failure(random))


def is_down(outages: Sequence[Outage], now: float) -> Failure | None:
    """How a request sent now fails; None if it does not."""
    return next((each.failure for each in outages if each.begin <= now < each.end), None)
