"""The limits of a worker: the process's slots and memory, and a receiver's rate. Pure.

Times are monotonic seconds.
"""

from collections.abc import Callable

OPEN_BYTES = 64 * 2**20  # of events in open requests; with 1,000 slots each stands for 65 KB
MANY = 1000  # requests in a quarter of a second: at 4,000 a second receivers are fast, however many slots there are
TIMED_OUT = 4  # lanes whose last result was a time-out share one slot in so many
BURST = 0.1  # seconds' worth of requests to a receiver with a rate that may start at once; at least one request

Share = Callable[[frozenset[str] | None], float]  # by the topics that events come from; None: any

# Lanes hold 64 MiB, empty lanes 64 MiB more, and open requests 64 MiB, by their slots: 192 MiB, where intake
# stops. Requests that hang hold half of the slots at most, which leaves 32 MiB to other receivers. Events in the inbox
# and events to be stored are part of the same 192 MiB. The remaining 64 MiB are for rendered bodies: as much as their
# events take, since envelopes and batches add little. Where bodies grow much (projections, base64), fewer start.
MEMORY = 256 * 2**20
LARGEST = 2**20  # bytes of one body


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


class TokenBucket:
    """Allows `rate` (above 0) requests a second: in any t seconds at most `rate * t`, plus one burst.

    The bucket is full at the beginning. Its only state is the time at which it is full again (the "theoretical arrival
    time" of the generic cell rate algorithm, ITU-T I.371). Nothing is refilled, so nothing drifts, and `ready_at` is
    exact.
    """

    __slots__ = ("_burst", "_full_at", "_rate", "_seconds")

    def __init__(self, rate: float, now: float, burst: float = BURST) -> None:
        """`burst`: seconds' worth of requests that may start at once."""
        self._rate = rate
        self._seconds = burst
        self._burst = max(1.0, rate * burst)
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
        self._burst = max(1.0, rate * self._seconds)
        self._full_at = now + (self._burst - tokens) / rate


class Memory:
    """Counts the bytes of the events that all parts of this process hold, and decides whether more may come in.

    It counts the bodies, keys and headers of

    - unsettled records: in the inbox, fanned out, queued, open, waiting, to be stored, or dead letters. Each record
      counts once, however many subscriptions get it, until it is settled;
    - stored deliveries that were taken up; deliveries that were read together share the event of their record;
    - rendered bodies of open requests: envelopes, projections, batches. A body that is sent as it came is the record's
      own, and the sender makes no copy of it, unless it is small and the receiver does not read it (measured: 5 KiB for
      an open request of 450 bytes).

    Intake stops at three quarters of `most`, so that there is always room to render the events that are in. One event
    and one request may always come in, however large they are.
    """

    def __init__(self, most: int = MEMORY) -> None:
        self.held = 0
        self._most = most
        self._records: dict[object, int] = {}  # bytes, by assignment of a partition
        self._shared: dict[int, tuple[int, int]] = {}  # by identity: number of holders, and size

    @property
    def room(self) -> int:
        """How many more events of the largest size may be taken in; 0 if memory is used up."""
        left = self._most * 3 // 4 - self.held
        return max(1, left // LARGEST) if left > 0 else 0

    @property
    def full(self) -> bool:
        """No request should start that needs more memory."""
        return self.held >= self._most

    def hold(self, partition: object, size: int) -> None:
        """Count a record of so many bytes of this assignment of a partition."""
        self._records[partition] = self._records.get(partition, 0) + size
        self.held += size

    def release(self, partition: object, size: int) -> None:
        """A record of so many bytes is settled; ignored if the assignment has ended."""
        if partition in self._records:
            self._records[partition] -= size
            self.held -= size

    def leave(self, partition: object) -> None:
        """Forget this assignment's records: it has ended."""
        self.held -= self._records.pop(partition, 0)

    def keep(self, thing: object, size: int) -> None:
        """Count a thing of so many bytes once, until every holder has called `drop`."""
        holders, _ = self._shared.get(id(thing), (0, size))
        self._shared[id(thing)] = holders + 1, size
        if not holders:
            self.held += size

    def drop(self, thing: object) -> None:
        """One holder no longer needs a thing."""
        holders, size = self._shared.pop(id(thing))
        if holders > 1:
            self._shared[id(thing)] = holders - 1, size
        else:
            self.held -= size
