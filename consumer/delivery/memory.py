"""How many bytes of events this process holds, and whether it may hold more: one account for all of its parts.

Counted are the bodies, keys and headers of

- records that are not settled: in the inbox, fanned out, queued, open, waiting, to be stored, or dead letters. Each
  counts once, to however many subscriptions it goes, and for as long as its offset waits;
- stored deliveries that are taken up; those that were read together share the event of their record;
- what was rendered for open requests: an envelope, a projection, a batch. A body that goes as it came is the record's
  own, of which the sender makes no copy (measured: 5 KiB for an open request of 450 bytes), unless it is small and the
  receiver does not read it.

Taking in stops at three quarters of `most`, so that there is always room for what is rendered: what is in can leave.
"""

from collections.abc import Iterator

from consumer.events.event import Event
from consumer.ledger.rows import DueKey

# Queues of lanes hold 64 MiB, and as much again of lanes that were empty; open requests 64 MiB, by the slots that they
# take (lanes): 192 MiB, at which nothing more is taken in. Of the open ones those that hang hold half at most, so that
# receivers that hang leave 32 MiB to the others, whose events come in, go out and are stored. What waits in the inbox
# or to be stored is part of the same 192 MiB. 64 MiB are left to what is rendered for open requests: as much as their
# events, and envelopes and batches add little to these. What makes much of little (a projection, base64) starts less.
MOST = 256 * 2**20
LARGEST = 2**20  # bytes of one body that is an event


class Memory:
    """Used on the loop's thread. One event, and one request, may always come, however large it is."""

    def __init__(self, most: int = MOST) -> None:
        self.held = 0
        self._most = most
        self._records: dict[object, int] = {}  # of each assignment of a partition
        self._shared: dict[int, tuple[int, int]] = {}  # by identity: how many hold it, and its size

    @property
    def room(self) -> int:
        """How many more events may be taken in, the largest that there are: none, or at least one."""
        left = self._most * 3 // 4 - self.held
        return max(1, left // LARGEST) if left > 0 else 0

    @property
    def full(self) -> bool:
        """No request should be begun that takes more."""
        return self.held >= self._most

    def hold(self, partition: object, size: int) -> None:
        """A record of so many bytes is in, of this assignment of a partition."""
        self._records[partition] = self._records.get(partition, 0) + size
        self.held += size

    def release(self, partition: object, size: int) -> None:
        """It is settled. Of an assignment that has ended nothing is held any more."""
        if partition in self._records:
            self._records[partition] -= size
            self.held -= size

    def leave(self, partition: object) -> None:
        """This assignment has ended, and nothing of it is in any more."""
        self.held -= self._records.pop(partition, 0)

    def keep(self, thing: object, size: int) -> None:
        """Somebody holds this, perhaps as others do, and it with them until `drop`."""
        holders, _ = self._shared.get(id(thing), (0, size))
        self._shared[id(thing)] = holders + 1, size
        if not holders:
            self.held += size

    def drop(self, thing: object) -> None:
        """One of them holds it no more."""
        holders, size = self._shared.pop(id(thing))
        if holders > 1:
            self._shared[id(thing)] = holders - 1, size
        else:
            self.held -= size


class TakenUp:
    """The stored deliveries that this process has taken up, by id, each with its head.

    Until the result is written the row looks due, also when its partition has left and come back meanwhile.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._rows: dict[int, tuple[DueKey, Event]] = {}

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def due_keys(self) -> Iterator[tuple[int, DueKey]]:
        """Each with its head."""
        return ((row, due_key) for row, (due_key, _) in self._rows.items())

    def add(self, row: int, due_key: DueKey, event: Event) -> None:
        """It is here from now on."""
        self._rows[row] = due_key, event
        self._memory.keep(event, event.size)

    def remove(self, row: int) -> DueKey | None:
        """It is the database's again, or done with."""
        due_key, event = self._rows.pop(row, (None, None))
        if event is not None:
            self._memory.drop(event)
        return due_key
