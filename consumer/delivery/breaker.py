"""A circuit breaker: leave a receiver alone while it is down, probe it, and load it slowly when it recovers. Pure.

    closed ── 10 failures in a row, or half of 50 attempts ──▶ open ── its time is over ──▶ half-open ─┐
      ▲                                                         ▲ ▲                                    │
      │                                                         │ └────────── the probe fails ─────────┤
      └── the window is wider than the lane ── slow start ──────┘                                      │
                                                   ▲  (as closed, unless a halved window helps)        │
                                                   └─────────────────────── the probe succeeds ────────┘

A hundred answers in a row without a 2xx open it too, until a 2xx comes. Such a receiver works, so several probes go at
once: deliveries that it never accepts must not hold up deliveries that it would accept.

Times are monotonic seconds and come with the call. The caller decides which results are failures (`Failed.unavailable`)
and keeps at most `window` requests open. Results of requests from before the last probe, or from before the window was
last halved, are ignored. A cancelled request therefore needs no report: the next request is the probe. A healthy
breaker has no state: successes from before an outage do not delay its detection.
"""

from collections.abc import Callable

IN_A_ROW = 10  # failures in a row that open the breaker
REFUSED_IN_A_ROW = 100  # answers in a row other than 2xx that open it: each costs an attempt and the update of a row
REFUSED_PROBES = 10  # probes at once for a receiver that works and refuses
RATE_ATTEMPTS = 50  # attempts of which half failed that open it
BUCKET = 10.0  # seconds; attempts are counted in the current bucket and the one before
FIRST_OPEN = 1.0  # seconds; doubled up to LONGEST_OPEN as long as the receiver does not recover
LONGEST_OPEN = 60.0  # about sixty probes in an hour
STRETCH = 0.2  # random part, so that receivers behind one broken proxy are not probed at the same moment
LONGEST_ASKED = 600.0  # seconds for which a Retry-After keeps it open at most: it may concern one event alone
STEP = 1.0  # seconds between two changes of slow start's window
TOLERATED = 5  # slow start tolerates one failure in so many answers: some receivers always have a few
CREEP = 8  # near the receiver's limit the window grows by 1/8 a step: about six seconds to double
MEMORY = 600.0  # seconds without a failure or a probe after which the state is forgotten


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
    """A window that grows each second in which it was used up and few requests failed, and is halved if too many did.

    It doubles until it is first halved; after that the receiver's limit is near, and it grows slowly. A receiver that
    accepts some requests and then fails is overloaded rather than down.
    """

    __slots__ = ("_answered", "_bad", "_good", "_halved", "_looks_at", "since", "window")

    def __init__(self, now: float, since: float) -> None:
        self.since = since  # requests started earlier belong to the time before it opened, or to a wider window
        self.window = 1
        self._looks_at = now + STEP
        self._good = self._bad = 0
        self._answered = self._halved = False

    def add(self, now: float, *, failed: bool, broken: bool) -> bool:
        """Count a result, after which the receiver looks `broken` or not. True if that halved the window."""
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
        elif looks and self._good >= self.window:  # a window that was not used up proves nothing
            self.window += max(1, self.window // CREEP) if self._halved else self.window
            self._step(now)
        return False

    def _step(self, now: float) -> None:
        self._looks_at = now + STEP
        self._good = self._bad = 0


class Breaker:
    """The circuit breaker of one receiver. `random` gives a number from 0 to 1.

    No request may start before `open_until`; after that the breaker is half-open. None means closed, or slow start.
    `restrains` says that there is a window; it is an attribute because every delivery reads it.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._refused = 0  # answers since the last 2xx
        self._forget()

    def _forget(self) -> None:
        self.open_until: float | None = None
        self.restrains = False
        self._recent: _Recent | None = None  # None: closed, and no failure known
        self._slow_start: _SlowStart | None = None
        self._open_for = FIRST_OPEN
        self._failed_at = 0.0
        self._probes = 1  # requests at once while half-open

    def window(self, now: float) -> int | None:
        """How many requests may be open at once: 0 while open, a few for the probe, then slow start; None: no bound."""
        if self.open_until is not None:
            return 0 if now < self.open_until else self._probes
        return None if self._slow_start is None else self._slow_start.window

    @property
    def is_long_open(self) -> bool:
        """It has opened again and again for about a minute, and no probe has succeeded."""
        return self.open_until is not None and self._open_for >= LONGEST_OPEN

    def idle(self, now: float) -> bool:
        """The state may be dropped: it has no failure, or the last failure or possible probe is ten minutes old."""
        if self._recent is None:
            return True
        return now >= (self._failed_at if self.open_until is None else self.open_until) + MEMORY

    def succeeded(self, now: float, started: float, most: int) -> None:
        """The receiver accepted a request that started at `started`. The lane has at most `most` open at once."""
        if self._probes > 1 and self.open_until is not None:  # one of several probes, perhaps after others were refused
            self._slow_start, self.open_until = _SlowStart(now, now), None
        self._refused, self._probes = 0, 1
        if self._recent is not None:  # a healthy breaker counts nothing
            self._succeeded(self._recent, now, started, most)

    def refused(self, now: float, started: float, most: int) -> bool:
        """The receiver answered without accepting the request (401, 404). True if that opened the breaker.

        A few such answers concern their events, and show that the receiver works. A hundred in a row concern the
        receiver.
        """
        self._refused += 1
        if self._refused < REFUSED_IN_A_ROW:
            if self._recent is not None:
                self._succeeded(self._recent, now, started, most)
            return False
        if self.open_until is not None and started < self.open_until:
            return False
        self._open(now, None)
        self._probes = REFUSED_PROBES
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
        """A request that started at `started` failed. True if that opened the breaker, for the first time or again.

        The receiver's `retry_after` (seconds) keeps it open for longer, never shorter.
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
        """Open the breaker for so many seconds, whatever the receiver does."""
        self._open(now, seconds)

    def unsendable(self, now: float, started: float) -> None:
        """A request that started at `started` showed that none can be sent: open at once, or again."""
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
        self._probes = 1
