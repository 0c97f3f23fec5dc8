"""The attempts of the last hour, in memory: bounded for each subscription, in number and in bytes. Pure."""

from collections import OrderedDict, deque
from collections.abc import Callable
from heapq import heapify, heappop, heappush, nlargest
from operator import attrgetter
from typing import NamedTuple

from consumer.events.attempt import DELIVERED, Attempt

HOUR = 3600.0
MINUTES = 60
OF_ONE = 200  # attempts kept of one subscription
OF_ALL = 50_000  # attempts kept
BYTES = 64 * 2**20  # of all kept attempts, about
OVERHEAD = 700  # bytes of an attempt's objects in memory, beyond its record
COUNTED = 20_000  # subscriptions that are counted by the minute, some 1.5 kB each


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
        self._counts: OrderedDict[int | None, _Counts] = OrderedDict()
        self._all_counts = _Counts()
        self._failed_in: dict[int, int] = {}  # the last minute in which an attempt failed, by subscription

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
                forgotten, _ = self._counts.popitem(last=False)
                self._failed_in.pop(forgotten, None)  # type: ignore[arg-type]  # None is not among its keys
        self._counts.move_to_end(subscription)
        counts.count(minute, ok=ok)
        if not ok:
            self._failed_in[subscription] = max(minute, self._failed_in.get(subscription, 0))
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
        """The newest attempts of a subscription, or of all, that meet `where`; newest first."""
        self._fit(now)
        numbers = self._kept if subscription_id is None else self._of.get(subscription_id, ())
        attempts = (self._kept[number][0] for number in numbers)
        return nlargest(limit, attempts if where is None else filter(where, attempts), key=attrgetter("at"))

    def summary(self, subscription_id: int | None, now: float) -> list[Minute]:
        """The last sixty minutes, the current one included, oldest first; of a subscription, or of all."""
        counts = self._all_counts if subscription_id is None else self._counts.get(subscription_id)
        last = int(now // 60)
        minutes = range(last - MINUTES + 1, last + 1)
        return [Minute(minute * 60, *(counts.of(minute) if counts is not None else (0, 0))) for minute in minutes]

    def most_failed(self, minutes: int, limit: int, now: float) -> list[Tried]:
        """The subscriptions with the most failed attempts in the last `minutes`, the current one included."""
        last = int(now // 60)
        recent = [each for each, minute in self._failed_in.items() if minute > last - minutes]
        tried = []
        for each in recent:
            counted = [self._counts[each].of(minute) for minute in range(last - minutes + 1, last + 1)]
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

    __slots__ = ("_failed", "_minutes", "_ok")

    def __init__(self) -> None:
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

    def of(self, minute: int) -> tuple[int, int]:
        place = minute % MINUTES
        return (self._ok[place], self._failed[place]) if self._minutes[place] == minute else (0, 0)
