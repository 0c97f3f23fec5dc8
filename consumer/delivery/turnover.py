"""How fast the slots of a process are used and freed again. No I/O; times are monotonic."""


class Turnover:
    """`quick`: in the last `seconds` that were counted, as many requests ended as there are slots.

    Receivers as a whole are fast then: a delivery that could have begun has waited for the process, not for its
    receiver.
    """

    __slots__ = ("_ended", "_seconds", "_since", "_slots", "quick")

    def __init__(self, slots: int, seconds: float) -> None:
        self._slots = slots
        self._seconds = seconds
        self._ended = 0
        self._since = 0.0
        self.quick = False

    def ended(self) -> None:
        """A request has."""
        self._ended += 1

    def look(self, now: float) -> None:
        """A turn begins. What took twice the `seconds` or longer is not counted: the process stood still or idle."""
        passed = now - self._since
        if passed >= self._seconds:
            self.quick = self._ended >= self._slots and passed < 2 * self._seconds
            self._ended, self._since = 0, now
