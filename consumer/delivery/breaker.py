"""A receiver that is down is left alone, asked now and then, and loaded slowly when it answers again. Pure.

    closed ── 10 failures in a row, or half of 50 attempts ──▶ open ── its time is over ──▶ half-open ─┐
      ▲                                                         ▲ ▲                                    │
      │                                                         │ └────────── the probe fails ─────────┤
      └── the window is wider than the lane ── slow start ──────┘                                      │
                                                   ▲  (as closed, unless a halved window helps)        │
                                                   └─────────────────────── the probe succeeds ────────┘

A hundred answers in a row that are no 2xx open it too, and keep it open until one is; one request that could not be
sent at all opens it at once. Times are monotonic seconds and come with the call. The caller decides what counts as a
failure (`Failed.unavailable`) and keeps no more requests open than `window` says. A result names the time at which its
request was started: one that was started before the last probe could be, or before the window was last halved, tells
nothing new, and is ignored. So a request that is cancelled needs no word either: the next one is the probe.

A breaker without failures holds nothing and counts nothing. Counting begins with a failure, so that successes from
before an outage do not put off its being noticed.
"""

from collections.abc import Callable

IN_A_ROW = 10  # failures that open
REFUSED_IN_A_ROW = 100  # answers other than 2xx that open, whatever they say: each costs an attempt and a row's update
RATE_ATTEMPTS = 50  # attempts, half of which failed, that open
BUCKET = 10.0  # seconds; the attempts looked at are those of this bucket and the one before
FIRST_OPEN = 1.0  # seconds; doubled up to LONGEST_OPEN as long as the receiver does not recover
LONGEST_OPEN = 60.0  # about sixty probes in an hour
STRETCH = 0.2  # the random part, so that receivers behind one broken proxy are not asked at the same moment
LONGEST_ASKED = 600.0  # seconds; the most that a Retry-After keeps open: it may be about one event alone
STEP = 1.0  # seconds that slow start looks at before it changes the window
TOLERATED = 5  # one failure in so many answers does not hold slow start back: some receivers always have a few
CREEP = 8  # by such a part of the window it grows near what the receiver can take: about six seconds to double
MEMORY = 600.0  # seconds without a failure or a probe after which what is known is worth nothing


class _Recent:
    """The failures in a row, and the attempts of the last 10 to 20 s, in two buckets."""

    __slots__ = ("_all", "_bad", "_ends", "_old_all", "_old_bad", "_row")

    def __init__(self, now: float) -> None:
        self._ends = now + BUCKET
        self._row = self._all = self._bad = self._old_all = self._old_bad = 0

    def add(self, now: float, *, failed: bool) -> None:
        late = now - self._ends
        if late >= 0:
            self._old_all, self._old_bad = (self._all, self._bad) if late < BUCKET else (0, 0)
            self._all = self._bad = 0
            self._ends = self._ends + BUCKET if late < BUCKET else now + BUCKET
        self._all += 1
        if failed:
            self._bad += 1
            self._row += 1
        else:
            self._row = 0

    def clean(self) -> bool:
        return not (self._row or self._bad or self._old_bad)

    def broken(self) -> bool:
        attempts = self._all + self._old_all
        return self._row >= IN_A_ROW or (attempts >= RATE_ATTEMPTS and 2 * (self._bad + self._old_bad) >= attempts)


class _SlowStart:
    """A window that grows each second in which it was used up and few failed, and is halved where too many did.

    It doubles until it is halved for the first time, and creeps from then on: what the receiver can take is near. A
    receiver that took some since the last time and then fails is asked for too much, rather than down.
    """

    __slots__ = ("_answered", "_bad", "_good", "_halved", "_looks_at", "since", "window")

    def __init__(self, now: float, since: float) -> None:
        self.since = since  # requests started before are of the time before it opened, or of a wider window
        self.window = 1
        self._looks_at = now + STEP
        self._good = self._bad = 0
        self._answered = self._halved = False

    def add(self, now: float, *, failed: bool, broken: bool) -> bool:
        """Take note of a result, with which the receiver looks `broken` or not. Whether the window was halved."""
        if failed:
            self._bad += 1
        else:
            self._good += 1
            self._answered = True
        many_failed = self._bad * TOLERATED > self._bad + self._good
        looks = now >= self._looks_at
        if (broken or (looks and many_failed)) and self._answered and self.window > 1:
            self.window //= 2
            self.since = now
            self._answered, self._halved = False, True
            self._step(now)
            return True
        if looks and many_failed:
            self._step(now)
        elif looks and self._good >= self.window:  # else nothing shows that the receiver can take more
            self.window += max(1, self.window // CREEP) if self._halved else self.window
            self._step(now)
        return False

    def _step(self, now: float) -> None:
        self._looks_at = now + STEP
        self._good = self._bad = 0


class Breaker:
    """One receiver's. `random` gives a number from 0 to 1.

    `open_until`: until then nothing may be started; past it, the breaker is half-open. None: closed, or slow start.
    `restrains`: there is a window; an attribute, since every delivery asks.
    """

    __slots__ = ("_failed_at", "_open_for", "_random", "_recent", "_refused", "_slow_start", "open_until", "restrains")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._refused = 0  # answers since the last 2xx, all of another status
        self._forget()

    def _forget(self) -> None:
        self.open_until: float | None = None
        self.restrains = False
        self._recent: _Recent | None = None  # None: closed, and no failure known
        self._slow_start: _SlowStart | None = None
        self._open_for = FIRST_OPEN
        self._failed_at = 0.0

    def window(self, now: float) -> int | None:
        """How many requests may be open at once: 0 while open, 1 for the probe, more in slow start; None: no bound."""
        if self.open_until is not None:
            return 0 if now < self.open_until else 1
        return None if self._slow_start is None else self._slow_start.window

    def idle(self, now: float) -> bool:
        """It may be dropped: no failure is known, or the last failure or chance for a probe is ten minutes ago."""
        if self._recent is None:
            return True
        return now >= (self._failed_at if self.open_until is None else self.open_until) + MEMORY

    def succeeded(self, now: float, started: float, most: int) -> None:
        """A request that was started at `started` was taken. `most`: how many the lane would have open at once."""
        self._refused = 0
        if self._recent is not None:  # else healthy: nothing to count
            self._succeeded(self._recent, now, started, most)

    def refused(self, now: float, started: float, most: int) -> bool:
        """It was answered by a receiver that works and did not take it: 401, 404. Whether this opened the breaker.

        A few are about their events, and show that the receiver is there. A hundred in a row are about the receiver.
        """
        self._refused += 1
        if self._refused < REFUSED_IN_A_ROW:
            if self._recent is not None:
                self._succeeded(self._recent, now, started, most)
            return False
        if self.open_until is not None and started < self.open_until:
            return False
        self._open(now, None)
        return True

    def _succeeded(self, recent: _Recent, now: float, started: float, most: int) -> None:
        if self.open_until is not None:
            if started >= self.open_until:
                self._slow_start = _SlowStart(now, self.open_until)
                self.open_until = None
            return
        slow_start = self._slow_start
        if slow_start is None:
            recent.add(now, failed=False)
            if recent.clean():
                self._forget()
        elif started >= slow_start.since:
            recent.add(now, failed=False)
            if slow_start.add(now, failed=False, broken=False):
                self._recent = _Recent(now)
            elif slow_start.window > most or now >= self._failed_at + MEMORY:
                self._forget()

    def failed(self, now: float, started: float, retry_after: float | None = None) -> bool:
        """A request that was started at `started` failed. Whether this opened the breaker, for the first time or again.

        It stays open for as long as the receiver asked (`retry_after`, seconds), if that is longer than it would be.
        """
        slow_start = self._slow_start
        if self.open_until is not None:
            if started < self.open_until:
                return False
        elif slow_start is not None and started < slow_start.since:
            return False
        else:
            self._failed_at = now
            self._recent = recent = self._recent or _Recent(now)
            recent.add(now, failed=True)
            broken = recent.broken()
            if slow_start is not None and slow_start.add(now, failed=True, broken=broken):
                self._recent = _Recent(now)
                return False
            if not broken:
                return False
        self._open(now, retry_after)
        return True

    def trip(self, now: float, seconds: float) -> None:
        """Open it for so long, whatever its receiver does."""
        self._open(now, seconds)

    def unsendable(self, now: float, started: float) -> None:
        """A request that was started at `started` could not be sent, nor could another: it opens at once, or again."""
        if self.open_until is None or started >= self.open_until:
            self._open(now, None)

    def _open(self, now: float, retry_after: float | None) -> None:
        stays = self._open_for * (1 + STRETCH * self._random())
        self.open_until = now + max(stays, min(retry_after or 0.0, LONGEST_ASKED))
        self.restrains = True
        self._open_for = min(2 * self._open_for, LONGEST_OPEN)
        self._recent = _Recent(now)
        self._slow_start = None
        self._failed_at = now
