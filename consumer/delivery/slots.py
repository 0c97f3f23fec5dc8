"""The slots of a worker: how many requests may be open, how many are, and how fast slots turn over.

No I/O; times are monotonic.
"""

OPEN_BYTES = 64 * 2**20  # of events in open requests; with 1,000 slots each stands for 65 KB
MANY = 1000  # requests in a quarter of a second: at 4,000 a second receivers are fast, however many slots there are
TIMED_OUT = 4  # lanes whose last result was a time-out share one slot in so many


class Slots:
    """`in_flight` requests have `taken` slots of `total`; a large request takes several, so that bytes are bounded too.

    Receivers as a whole are `quick` if, in the last interval of `seconds`, as many requests ended as there are slots,
    or MANY. A delivery that may start then waits for the process, not for its receiver.
    """

    __slots__ = ("_ended", "_of_each", "_seconds", "_since", "_timed_out", "in_flight", "quick", "taken", "total")

    def __init__(self, total: int, seconds: float) -> None:
        self.total = total
        self.taken = self.in_flight = 0
        self.quick = False
        self._of_each = max(1, OPEN_BYTES // total)  # bytes
        self._timed_out = 0  # slots taken by lanes whose last result was a time-out
        self._seconds = seconds
        self._ended, self._since = 0, 0.0

    @property
    def is_capped(self) -> bool:
        """Lanes that timed out have taken all slots that they share."""
        return self._timed_out >= max(1, self.total // TIMED_OUT)

    def is_scarce(self, own: int) -> bool:
        """Nearly all slots are taken, at least half of them by lanes other than the one with `own` slots."""
        return 8 * self.taken >= 7 * self.total and 2 * own <= self.taken

    def take(self, size: int, *, timed_out: bool) -> int:
        """Start a request that carries `size` bytes; return how many slots it takes."""
        number = 1 if size <= self._of_each else -(-size // self._of_each)
        self.in_flight += 1
        self.taken += number
        if timed_out:
            self._timed_out += number
        return number

    def free(self, number: int, *, timed_out: bool) -> None:
        """A request that took so many slots has ended."""
        self._ended += 1
        self.in_flight -= 1
        self.taken -= number
        if timed_out:
            self._timed_out -= number

    def changed(self, number: int, *, timed_out: bool) -> None:
        """A lane that holds so many slots has begun to time out, or has stopped."""
        self._timed_out += number if timed_out else -number

    def look(self, now: float) -> None:
        """Begin a turn. An interval of twice the `seconds` or longer says nothing: the process was paused or idle."""
        passed = now - self._since
        if passed >= self._seconds:
            self.quick = self._ended >= min(self.total, MANY) and passed < 2 * self._seconds
            self._ended, self._since = 0, now
