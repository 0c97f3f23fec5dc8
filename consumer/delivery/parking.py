"""Carries deliveries between the loop and the ledger: in batches, one job at a time, until the database has them.

The loop calls `park` and `resolve`, which only note what is to be written, and `pump` in each turn. Nothing is settled
before its transaction is committed; when the database fails, the batch is kept and written again after a back-off,
which the ledger's statements allow (they are repeatable).
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy import Engine

from consumer.database import DatabaseThread
from consumer.delivery import ledger
from consumer.delivery.ledger import AttemptResult, DueDelivery, NewDelivery
from consumer.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

BATCH = 500  # rows in one transaction: 0.5 MB of bodies, some 20 ms on the database thread
DUE_ROWS = 500
BACKLOG = 5000  # deliveries not yet written, above which nothing is taken in that could add to them
BACKLOG_BYTES = 64 * 2**20  # of their bodies
TIDY_SECONDS = 1.0  # of pruning in one job: writes and loads wait for it
BACK_OFF = (0.1, 10.0)  # seconds: the first wait, the longest
Stored = Callable[[], None]
Owned = Mapping[str, Sequence[int]]  # topic to partitions
FindDue = Callable[[Owned, float, int, Collection[int], Collection[int]], list[DueDelivery]]
StoredKeys = set[tuple[int, int, int]]  # offset, timestamp, subscription


class Disable(NamedTuple):
    """A subscription that asked, by 410, to be left alone."""

    subscription_id: int
    reason: str


Item = NewDelivery | AttemptResult | Disable
Entry = tuple[Item, Stored]


class Due(NamedTuple):
    """Rows that are due, and when the next one will be (unix seconds)."""

    rows: list[DueDelivery]
    next_at: float | None


class Trouble:
    """Why a kind of job fails, and when it is tried again (the clock's seconds)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wait = BACK_OFF[0]
        self.retry_at = 0.0
        self.fault: str | None = None

    def began(self, error: Exception, what: str) -> None:
        """A job has failed."""
        self.retry_at = self._clock() + self._wait
        self._wait = min(self._wait * 2, BACK_OFF[1])
        text = f"database: {error}"
        if text != self.fault:
            log.error(what, error=str(error))
        self.fault = text

    def ended(self) -> None:
        """A job has succeeded."""
        if self.fault is not None:
            log.info("the database answers again")
        self._wait = BACK_OFF[0]
        self.fault = None


class Parking:
    """What is to be written, and what of it is being written. All methods are called on the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        find_due: FindDue,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._engine = engine
        self._thread = thread
        self._group = group
        self._find_due = find_due
        self._to_write: deque[Entry] = deque()
        self._batch = BATCH
        self._bytes = 0  # of the bodies that are to be written
        self._writing = 0
        self._refused: Entry | None = None  # what the database takes from nobody: the others go first
        self._forgotten: set[tuple[str, int]] = set()
        self._looking = self._loading = self._tidying = False
        self._to_load: deque[tuple[tuple[str, int], int, Callable[[StoredKeys], None]]] = deque()
        self._writes, self._reads = Trouble(clock), Trouble(clock)
        self.next_due: float | None = None  # unix seconds: the earliest of what was stored since the last look

    @property
    def fault(self) -> str | None:
        """Why something is not written or read, for /readyz."""
        return self._writes.fault or self._reads.fault

    @property
    def backlog(self) -> int:
        """Deliveries that are not written yet."""
        return len(self._to_write) + self._writing

    @property
    def full(self) -> bool:
        """Nothing should be taken in that could add to the backlog."""
        return self.backlog >= BACKLOG or self._bytes >= BACKLOG_BYTES

    @property
    def busy(self) -> bool:
        """An answer of the database is awaited."""
        return bool(self._writing or self._to_load or self._looking)

    def park(self, delivery: NewDelivery, on_stored: Stored) -> None:
        """Store a delivery; `on_stored` runs on the loop once it is committed."""
        self._to_write.append((delivery, on_stored))
        self._bytes += len(delivery.event.body)

    def resolve(self, result: AttemptResult, on_stored: Stored) -> None:
        """Note what came of an attempt of a stored delivery."""
        self._to_write.append((result, on_stored))

    def disable(self, subscription_id: int, reason: str) -> None:
        """Disable a subscription; its stored deliveries are held."""
        self._to_write.append((Disable(subscription_id, reason), lambda: None))

    def forget(self, places: Collection[tuple[str, int]]) -> None:
        """Drop what is not being written of partitions that have left: their next owner reads those records again."""
        self._to_write = deque(entry for entry in self._to_write if not self._dropped(entry, places))
        if self._writing:
            self._forgotten |= set(places)

    def pump(self) -> None:
        """Start the next read and the next batch, unless they are under way or a back-off is running."""
        now = self._clock()
        if self._to_load and not self._loading and now >= self._reads.retry_at:
            self._load()
        if self._writing or not self._to_write or now < self._writes.retry_at:
            return
        batch = [self._to_write.popleft() for _ in range(min(self._batch, len(self._to_write)))]
        self._writing = len(batch)
        self._thread.submit(partial(self._write, [item for item, _ in batch]), partial(self._written, batch))

    def look_for_due(
        self, owned: Owned, now: float, full: Collection[int], taken: Collection[int], found: Callable[[Due], None]
    ) -> None:
        """Ask for rows of the owned partitions that are due at `now` (unix seconds), oldest first.

        Left out: subscriptions in `full`, rows in `taken`. `found` is not called when the database fails: ask again.
        """
        if self._looking:
            return
        self._looking = True
        self.next_due = None

        def job() -> Due:
            rows = self._find_due(owned, now, DUE_ROWS, full, taken)
            return Due(rows, now if rows else ledger.next_due_at(self._engine, self._group, owned, now))

        def done(due: Due | Exception) -> None:
            self._looking = False
            if isinstance(due, Exception):
                self._reads.began(due, "could not look for due deliveries")
            else:
                self._reads.ended()
                found(due)

        self._thread.submit(job, done)

    def keep_house(self, marks: Mapping[tuple[str, int], int], now: float, counted: Callable[[int], None]) -> None:
        """Let rows follow their subscriptions, drop what is delivered and committed, count what is parked.

        `marks` are committed offsets, below which a restart asks for nothing.
        """
        if self._tidying:
            return
        self._tidying = True

        def job() -> int:
            end = time.monotonic() + TIDY_SECONDS
            ledger.reconcile(self._engine, now)
            for (topic, partition), mark in marks.items():
                while (
                    time.monotonic() < end
                    and ledger.prune(self._engine, self._group, topic, partition, mark) == ledger.BATCH
                ):
                    continue
            return ledger.counts(self._engine, self._group)["parked"]

        def done(parked: int | Exception) -> None:
            self._tidying = False
            if isinstance(parked, Exception):
                self._reads.began(parked, "could not tidy the stored deliveries")
            else:
                self._reads.ended()
                counted(parked)

        self._thread.submit(job, done)

    def load_stored(self, place: tuple[str, int], from_offset: int, loaded: Callable[[StoredKeys], None]) -> None:
        """Ask which deliveries of a partition, from an offset on, are stored in any state; asked until answered."""
        self._to_load.append((place, from_offset, loaded))

    def _load(self) -> None:
        place, from_offset, loaded = self._to_load[0]

        def done(keys: StoredKeys | Exception) -> None:
            self._loading = False
            if isinstance(keys, Exception):
                self._reads.began(keys, "could not load the stored deliveries of a partition; it is held")
                return
            self._to_load.popleft()
            self._reads.ended()
            loaded(keys)

        self._loading = True
        self._thread.submit(partial(ledger.settled_keys, self._engine, self._group, *place, from_offset), done)

    def _write(self, items: Sequence[Item]) -> None:
        new = [item for item in items if isinstance(item, NewDelivery)]
        results = [item for item in items if isinstance(item, AttemptResult)]
        if new:
            ledger.park(self._engine, self._group, new)
        if results:
            ledger.record(self._engine, results)
        for item in {item.subscription_id: item for item in items if isinstance(item, Disable)}.values():
            ledger.disable_subscription(self._engine, item.subscription_id, item.reason)

    def _written(self, batch: Sequence[Entry], error: Exception | None) -> None:
        self._writing = 0
        gone, self._forgotten = self._forgotten, set()
        if error is None:
            self._batch = min(self._batch * 2, BATCH)
            if self._refused is None or self._refused in batch:
                self._refused = None
                self._writes.ended()
            for item, on_stored in batch:
                self._bytes -= _size(item)
                self._note_due(item)
                on_stored()
            return
        self._writes.began(error, "could not store deliveries; their offsets are held")
        kept = [entry for entry in batch if not self._dropped(entry, gone)]
        if isinstance(error, DatabaseUnavailable) or len(kept) > 1:
            self._to_write.extendleft(reversed(kept))
        else:
            self._refused = kept[0] if kept else None
            self._to_write.extend(kept)
        if not isinstance(error, DatabaseUnavailable):
            self._batch = max(1, len(batch) // 2)

    def _dropped(self, entry: Entry, places: Collection[tuple[str, int]]) -> bool:
        item = entry[0]
        if not isinstance(item, NewDelivery) or item.event.record[:2] not in places:
            return False
        self._bytes -= _size(item)
        if entry is self._refused:
            self._refused = None
        return True

    def _note_due(self, item: Item) -> None:
        if not isinstance(item, Disable) and item.status == "parked" and item.next_attempt_at is not None:
            self.next_due = min(item.next_attempt_at, self.next_due or item.next_attempt_at)


def _size(item: Item) -> int:
    return len(item.event.body) if isinstance(item, NewDelivery) else 0
