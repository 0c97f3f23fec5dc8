"""A failing receiver in one pod: its breaker, its waiting deliveries, and the room for more."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.fleet.world import Outage
from consumer.delivery.breaker import Breaker
from consumer.delivery.delivery import LANE_DELIVERIES


@dataclass(slots=True, eq=False)
class Lane:
    """A receiver's deliveries in the process. `waiting`: the numbers of deliveries that wait in memory."""

    rank: int
    outages: Sequence[Outage]
    breaker: Breaker
    open: int = 0
    timed_out: bool = False  # whether its last request timed out
    queue: "deque[Delivery]" = field(default_factory=deque)
    waiting: set[int] = field(default_factory=set)
    full: list[int] = field(default_factory=list)  # partitions whose rows wait for room

    @property
    def held(self) -> int:
        """The number of deliveries here that are not open requests."""
        return len(self.queue) + len(self.waiting)

    def room(self, now: float) -> int:
        """How many more may be held, by the rule of the product's lane."""
        window = self.breaker.window(now)
        most = LANE_DELIVERIES if window is None else min(LANE_DELIVERIES, 2 * window)
        return most - self.held


@dataclass(slots=True, eq=False)
class Delivery:
    """One event on its way to a receiver.

    `made`: attempts; `due`: time of the next one; `row`: whether it is stored; `behind`: whether a cursor has it.
    """

    number: int
    lane: Lane
    place: int  # its partition
    at: float = 0.0  # when its record came
    offset: float = 0.0
    behind: bool = False
    made: int = 0
    row: bool = False
    due: float = 0.0
