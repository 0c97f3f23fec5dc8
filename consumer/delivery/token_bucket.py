"""The rate limiter of a receiver: a token bucket. Pure.

Its only state is the time at which the bucket is full again (the "theoretical arrival time" of the generic cell rate
algorithm, ITU-T I.371). Nothing is refilled, so nothing drifts, and `ready_at` is exact.
"""

BURST = 0.1  # seconds' worth of requests that may start at once; at least one request


class TokenBucket:
    """Allows `rate` (above 0) requests a second: in any t seconds at most `rate * t`, plus one burst.

    Times are monotonic seconds. The bucket is full at the beginning.
    """

    __slots__ = ("_burst", "_full_at", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST)
        self._full_at = now

    def ready_at(self, now: float) -> float:
        """When the next request may start: `now`, or later."""
        return max(now, self._full_at - (self._burst - 1) / self._rate)

    def is_full(self, now: float) -> bool:
        """The bucket is full, as at the beginning."""
        return self._full_at <= now

    def take(self, now: float) -> None:
        """Start a request. If it was not ready, later requests wait longer."""
        self._full_at = max(now, self._full_at) + 1 / self._rate

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate. Tokens are kept as far as they fit into the new bucket."""
        tokens = self._burst - max(0.0, self._full_at - now) * self._rate
        self._rate = rate
        self._burst = max(1.0, rate * BURST)
        self._full_at = now + (self._burst - tokens) / rate
