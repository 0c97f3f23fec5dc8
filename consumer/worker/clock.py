"""Detects jumps of the system clock, by comparison with the monotonic clock."""

from collections.abc import Callable

from consumer.loop.part import Part

JUMP = 5.0  # seconds between two calls that count as a jump; NTP slews by 0.5 ms a second at most
_FAULT_SECONDS = 60.0


class ClockWatch(Part):
    """Notices when the system clock is set. Call `jump` often: it compares the time since the last call.

    `clock` gives unix seconds, `monotonic` seconds that only go forward. Another thread may read `fault`.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._difference = clock() - monotonic()
        self._jumped: tuple[str, float] | None = None

    def jump(self) -> float | None:
        """Seconds by which the system clock was set forward, or back (negative), since the last call; None if not."""
        now = self._monotonic()
        difference = self._clock() - now
        drift, self._difference = difference - self._difference, difference
        if abs(drift) <= JUMP:
            return None
        self._jumped = _meaning(drift), now + _FAULT_SECONDS
        return drift

    @property
    def fault(self) -> str | None:
        """The effect of the last jump, for a minute after it was seen."""
        if self._jumped is None:
            return None
        text, until = self._jumped
        return text if self._monotonic() < until else None


def _meaning(drift: float) -> str:
    way, sent = ("forward", "early") if drift > 0 else ("back", "late")
    return (
        f"the system clock went {way} by {abs(drift):.0f} s: stored deliveries are sent by it and go out {sent}, "
        "receivers may refuse signatures; check NTP"
    )
