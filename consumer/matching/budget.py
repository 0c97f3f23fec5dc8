"""How much of the processor's time the filters and projections of subscriptions may take. Pure.

The loop waits for each evaluation. A usual one takes less than the delivery that follows from it, and is free; what is
beyond that is charged to its subscription, in a bucket that drains. A subscription whose bucket runs over is left out
for some seconds, each time for twice as long up to a minute, and so is the heaviest one where all together take too
much.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

FREE = 50e-6  # seconds of an evaluation that are not charged: a delivery costs as much
OWN = 0.05  # of one processor's time, for one subscription,
ALL = 0.2  # and for all of them together,
MOST_OF_ONE = 0.025  # seconds that one evaluation counts at most: five times what it may take. More is not its doing
BURST = 1.0  # seconds of that at once: 0.05 s for one, 0.2 s for all. Others wait about twice as long
PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds that a subscription is over its budget: at first, and at most
MOST = 10_000  # buckets that are kept


class _Bucket:
    """What is charged, in seconds; it drains at `rate`."""

    __slots__ = ("_at", "_rate", "_spent")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._spent = 0.0
        self._at = now

    def spent(self, now: float) -> float:
        self._spent = max(0.0, self._spent - self._rate * (now - self._at))
        self._at = now
        return self._spent

    def add(self, seconds: float, now: float) -> None:
        self._spent = self.spent(now) + seconds

    def is_over(self, now: float) -> bool:
        return self.spent(now) > self._rate * BURST


class _LeftOut(NamedTuple):
    until: float
    seconds: float

    def is_recent(self, now: float) -> bool:
        """It has not kept within its budget for as long as it was left out."""
        return now < self.until + self.seconds


class Budget:
    """`on_over(subscription, seconds)` is called when one is left out for so long. The clock is monotonic."""

    def __init__(self, clock: Callable[[], float], on_over: Callable[[int, float], None]) -> None:
        self._clock = clock
        self._on_over = on_over
        self._buckets: dict[int, _Bucket] = {}
        self._all = _Bucket(ALL, clock())
        self._left_out: dict[int, _LeftOut] = {}  # those that are over, and that were lately

    def charge(self, subscription: int, seconds: float) -> None:
        """An expression of this subscription has taken so long, or the garbage collector that came in between."""
        if seconds <= FREE:
            return
        seconds = min(seconds, MOST_OF_ONE)
        now = self._clock()
        bucket = self._buckets.get(subscription)
        if bucket is None:
            self._forget(now)
            bucket = self._buckets[subscription] = _Bucket(OWN, now)
        bucket.add(seconds - FREE, now)
        self._all.add(seconds - FREE, now)
        if bucket.is_over(now):
            self._leave_out(subscription, now)
        elif self._all.is_over(now):
            self._leave_out(max(self._buckets, key=lambda each: self._buckets[each].spent(now)), now)

    def is_over(self, subscription: int) -> bool:
        """It is left out: nothing of it may run now."""
        left_out = self._left_out.get(subscription)
        return left_out is not None and self._clock() < left_out.until

    def __iter__(self) -> Iterator[int]:
        """The subscriptions that are over their budget."""
        return iter([each for each in list(self._left_out) if self.is_over(each)])

    def _leave_out(self, subscription: int, now: float) -> None:
        bucket = self._buckets.pop(subscription)
        self._all.add(-bucket.spent(now), now)
        seconds, last = PAUSE, self._left_out.get(subscription)
        if last is not None and last.is_recent(now):
            seconds = min(LONGEST_PAUSE, 2 * last.seconds)
        self._left_out[subscription] = _LeftOut(now + seconds, seconds)
        self._on_over(subscription, seconds)

    def _forget(self, now: float) -> None:
        if len(self._buckets) >= MOST:
            self._buckets = {each: bucket for each, bucket in self._buckets.items() if bucket.spent(now)}
            self._left_out = {each: last for each, last in self._left_out.items() if last.is_recent(now)}
