"""Whether the system clock can be trusted: it is compared with one that never jumps."""

from collections.abc import Callable

from consumer.loop.part import Part

JUMP = 5.0  # seconds between two looks; NTP slews by 0.5 ms a second at most
_FAULT_SECONDS = 60.0


class ClockWatch(Part):
    """Sees when the system clock is set. Look often: a jump is told from the time between two looks.

    `clock` gives unix seconds, `monotonic` seconds that only go forward. `fault` may be read by another thread.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._difference = clock() - monotonic()
        self._jumped: tuple[str, float] | None = None

    def jump(self) -> float | None:
        """Seconds that the system clock was set forward, or back (negative), since the last look; None: it was not."""
        now = self._monotonic()
        difference = self._clock() - now
        drift, self._difference = difference - self._difference, difference
        if abs(drift) <= JUMP:
            return None
        self._jumped = _meaning(drift), now + _FAULT_SECONDS
        return drift

    @property
    def fault(self) -> str | None:
        """What the last jump means, for a minute after it was seen."""
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
