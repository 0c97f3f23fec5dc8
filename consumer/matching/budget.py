"""Limits the processor time of subscriptions' filters and projections. Pure.

The loop waits for each evaluation. An evaluation that takes no longer than a delivery is free; the time beyond that is
charged to the subscription's bucket, which drains. A subscription whose bucket overflows is left out for some seconds,
each time for twice as long, up to a minute. If all subscriptions together take too much, the heaviest is left out.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

FREE = 50e-6  # seconds of an evaluation that are not charged: a delivery costs as much
OWN = 0.05  # share of one processor's time for one subscription
ALL = 0.2  # the same for all subscriptions together
MOST_OF_ONE = 0.025  # seconds charged for one evaluation at most: five times its limit. More has another cause
BURST = 1.0  # seconds of these shares at once: 0.05 s for one, 0.2 s for all. Others wait about twice as long
PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds that a subscription is left out: at first, and at most
MOST = 10_000  # buckets kept


class _Bucket:
    """Charged seconds, draining at `rate` seconds per second."""

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
        """Whether the subscription's last pause ended less than the pause's own length ago, or has not ended."""
        return now < self.until + self.seconds


class Budget:
    """Calls `on_over(subscription, seconds)` as it leaves a subscription out for `seconds`. The clock is monotonic."""

    def __init__(self, clock: Callable[[], float], on_over: Callable[[int, float], None]) -> None:
        self._clock = clock
        self._on_over = on_over
        self._buckets: dict[int, _Bucket] = {}
        self._all = _Bucket(ALL, clock())
        self._left_out: dict[int, _LeftOut] = {}  # subscriptions over their budget now or recently

    def charge(self, subscription: int, seconds: float) -> None:
        """Charge a subscription for an evaluation; `seconds` may include a run of the garbage collector."""
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
        """Whether the subscription is left out: none of its expressions may run now."""
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
