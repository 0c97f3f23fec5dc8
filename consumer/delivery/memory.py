"""Counts the bytes of the events that all parts of this process hold, and decides whether more may come in.

It counts the bodies, keys and headers of

- unsettled records: in the inbox, fanned out, queued, open, waiting, to be stored, or dead letters. Each record counts
  once, however many subscriptions get it, until it is settled;
- stored deliveries that were taken up; deliveries that were read together share the event of their record;
- rendered bodies of open requests: envelopes, projections, batches. A body that is sent as it came is the record's own,
  and the sender makes no copy of it, unless it is small and the receiver does not read it (measured: 5 KiB for an open
  request of 450 bytes).

Intake stops at three quarters of `most`, so that there is always room to render the events that are in.
"""

# Lanes hold 64 MiB, empty lanes 64 MiB more, and open requests 64 MiB, by their slots (`limits`): 192 MiB, where intake
# stops. Requests that hang hold half of the slots at most, which leaves 32 MiB to other receivers. Events in the inbox
# and events to be stored are part of the same 192 MiB. The remaining 64 MiB are for rendered bodies: as much as their
# events take, since envelopes and batches add little. Where bodies grow much (projections, base64), fewer start.
MOST = 256 * 2**20
LARGEST = 2**20  # bytes of one body that is an event


class Memory:
    """Used on the loop's thread. One event and one request may always come in, however large they are."""

    def __init__(self, most: int = MOST) -> None:
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
