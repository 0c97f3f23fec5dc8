"""The slots of a worker: how many requests may be open, how much of them is taken, and how fast they turn over.

No I/O; times are monotonic.
"""

OPEN_BYTES = 64 * 2**20  # of events in open requests: all slots together; at 1,000 a request has 65 KB in one
MANY = 1000  # requests that end in a quarter of a second: 4,000 a second, whatever the number of slots
TIMED_OUT = 4  # of the slots one in so many is for lanes whose last result was a time-out, all of them together


class Slots:
    """`in_flight` requests have `taken` slots of `total`; a large request takes several, so that bytes are bounded too.

    `quick`: in the last `seconds` that were counted, as many requests ended as there are slots, or MANY. Receivers as a
    whole are fast then: a delivery that could have begun has waited for the process, not for its receiver.
    """

    __slots__ = ("_ended", "_of_each", "_seconds", "_since", "_timed_out", "in_flight", "quick", "taken", "total")

    def __init__(self, total: int, seconds: float) -> None:
        self.total = total
        self.taken = self.in_flight = 0
        self.quick = False
        self._of_each = max(1, OPEN_BYTES // total)  # bytes
        self._timed_out = 0  # those of lanes whose last result was a time-out
        self._seconds = seconds
        self._ended, self._since = 0, 0.0

    @property
    def is_capped(self) -> bool:
        """Lanes that timed out have taken all of their part."""
        return self._timed_out >= max(1, self.total // TIMED_OUT)

    def is_scarce(self, own: int) -> bool:
        """Nearly all are taken, and half of them by others than the lane that has `own` of them."""
        return 8 * self.taken >= 7 * self.total and 2 * own <= self.taken

    def take(self, size: int, *, timed_out: bool) -> int:
        """A request that carries `size` bytes begins; how many slots it takes."""
        number = 1 if size <= self._of_each else -(-size // self._of_each)
        self.in_flight += 1
        self.taken += number
        if timed_out:
            self._timed_out += number
        return number

    def free(self, number: int, *, timed_out: bool) -> None:
        """A request that took so many has ended."""
        self._ended += 1
        self.in_flight -= 1
        self.taken -= number
        if timed_out:
            self._timed_out -= number

    def changed(self, number: int, *, timed_out: bool) -> None:
        """A lane that has taken so many has timed out, or no longer does."""
        self._timed_out += number if timed_out else -number

    def look(self, now: float) -> None:
        """A turn begins. What took twice the `seconds` or longer is not counted: the process stood still or idle."""
        passed = now - self._since
        if passed >= self._seconds:
            self.quick = self._ended >= min(self.total, MANY) and passed < 2 * self._seconds
            self._ended, self._since = 0, now
