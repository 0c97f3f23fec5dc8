"""How many requests a second a receiver is sent. Pure.

A token bucket, kept as the one time at which it is full again (the "theoretical arrival time" of the generic cell rate
algorithm, ITU-T I.371): nothing is refilled, so nothing drifts, and the moment that `ready_at` names is exactly enough.
"""

BURST = 0.1  # seconds' worth of requests that may start at once; at least one request


class TokenBucket:
    """At most `rate` (more than 0) starts a second: in any t seconds, at most `rate * t` and one burst more.

    Times are monotonic seconds. It begins with a full bucket.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST)
        self._full_at = now

    def ready_at(self, now: float) -> float:
        """When the next may start; `now` if it may at once."""
        return max(now, self._full_at - (self._burst - 1) / self._rate)

    def is_full(self, now: float) -> bool:
        """It is as if it began now."""
        return self._full_at <= now

    def take(self, now: float) -> None:
        """One is started. If it was not ready, those after it wait for longer."""
        self._full_at = max(now, self._full_at) + 1 / self._rate

    def set_rate(self, rate: float, now: float) -> None:
        """Go on at another rate, with the tokens that are there, as far as they fit into the new bucket."""
        tokens = self._burst - max(0.0, self._full_at - now) * self._rate
        self._rate = rate
        self._burst = max(1.0, rate * BURST)
        self._full_at = now + (self._burst - tokens) / rate
