"""A receiver that fails, as one pod sees it: its breaker, what waits for it, and how much more may."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.fleet.world import Outage
from consumer.delivery.breaker import Breaker
from consumer.delivery.delivery import LANE_DELIVERIES


@dataclass(slots=True, eq=False)
class Lane:
    """The part of a receiver that is in the process. `waiting`: deliveries that wait in memory, by number."""

    rank: int
    outages: Sequence[Outage]
    breaker: Breaker
    open: int = 0
    timed_out: bool = False  # as its last request did
    queue: "deque[Delivery]" = field(default_factory=deque)
    waiting: set[int] = field(default_factory=set)
    full: list[int] = field(default_factory=list)  # partitions whose rows wait for room

    @property
    def held(self) -> int:
        """How many are here and not open."""
        return len(self.queue) + len(self.waiting)

    def room(self, now: float) -> int:
        """How many more may be held, by the rule of the product's lane."""
        window = self.breaker.window(now)
        most = LANE_DELIVERIES if window is None else min(LANE_DELIVERIES, 2 * window)
        return most - self.held


@dataclass(slots=True, eq=False)
class Delivery:
    """One event on its way to it. `made` are its attempts, `due` is when the next is; `row`: it is stored."""

    number: int
    lane: Lane
    place: int  # its partition
    made: int = 0
    row: bool = False
    due: float = 0.0
