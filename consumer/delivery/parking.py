"""Carries deliveries between the loop and the ledger: in batches, one job at a time, until the database has them.

The loop calls `park` and `resolve`, which only note what is to be written, and `pump` in each turn. Nothing is settled
before its transaction is committed; when the database fails, the batch is kept and written again after a back-off,
which the ledger's statements allow (they are repeatable).
"""

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
        self._writing = 0
        self._retry_at = 0.0
        self._wait = BACK_OFF[0]
        self._looking = self._loading = False
        self._to_load: deque[tuple[tuple[str, int], int, Callable[[StoredKeys], None]]] = deque()
        self.fault: str | None = None
        self.next_due: float | None = None  # unix seconds: the earliest of what was stored since the last look

    @property
    def backlog(self) -> int:
        """Deliveries that are not written yet."""
        return len(self._to_write) + self._writing

    @property
    def busy(self) -> bool:
        """An answer of the database is awaited."""
        return bool(self._writing or self._to_load or self._looking)

    def park(self, delivery: NewDelivery, on_stored: Stored) -> None:
        """Store a delivery; `on_stored` runs on the loop once it is committed."""
        self._to_write.append((delivery, on_stored))

    def resolve(self, result: AttemptResult, on_stored: Stored) -> None:
        """Note what came of an attempt of a stored delivery."""
        self._to_write.append((result, on_stored))

    def disable(self, subscription_id: int, reason: str) -> None:
        """Disable a subscription; its stored deliveries are held."""
        self._to_write.append((Disable(subscription_id, reason), lambda: None))

    def pump(self) -> None:
        """Start the next read and the next batch, unless they are under way or a back-off is running."""
        if self._clock() < self._retry_at:
            return
        if self._to_load and not self._loading:
            self._load()
        if self._writing or not self._to_write:
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
                self._back_off(due, "could not look for due deliveries")
            else:
                self._recovered()
                found(due)

        self._thread.submit(job, done)

    def keep_house(self, marks: Mapping[tuple[str, int], int], now: float, counted: Callable[[int], None]) -> None:
        """Let rows follow their subscriptions, drop what is delivered and committed, count what is parked.

        `marks` are committed offsets, below which a restart asks for nothing.
        """

        def job() -> int:
            ledger.reconcile(self._engine, now)
            for (topic, partition), mark in marks.items():
                while ledger.prune(self._engine, self._group, topic, partition, mark) == ledger.BATCH:
                    pass
            return ledger.counts(self._engine, self._group)["parked"]

        def done(parked: int | Exception) -> None:
            if isinstance(parked, Exception):
                self._back_off(parked, "could not tidy the stored deliveries")
            else:
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
                self._back_off(keys, "could not load the stored deliveries of a partition; it is held")
                return
            self._to_load.popleft()
            self._recovered()
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
        for item in items:
            if isinstance(item, Disable):
                ledger.disable_subscription(self._engine, item.subscription_id, item.reason)

    def _written(self, batch: Sequence[Entry], error: Exception | None) -> None:
        self._writing = 0
        if error is None:
            self._recovered()
            self._batch = min(self._batch * 2, BATCH)
            for item, on_stored in batch:
                self._note_due(item)
                on_stored()
            return
        self._back_off(error, "could not store deliveries; their offsets are held")
        if isinstance(error, DatabaseUnavailable) or len(batch) > 1:
            self._to_write.extendleft(reversed(batch))
        else:
            self._to_write.extend(batch)  # the one row that the database refuses: the others first
        if not isinstance(error, DatabaseUnavailable):
            self._batch = max(1, len(batch) // 2)

    def _note_due(self, item: Item) -> None:
        if not isinstance(item, Disable) and item.status == "parked" and item.next_attempt_at is not None:
            self.next_due = min(item.next_attempt_at, self.next_due or item.next_attempt_at)

    def _back_off(self, error: Exception, what: str) -> None:
        self._retry_at = self._clock() + self._wait
        self._wait = min(self._wait * 2, BACK_OFF[1])
        text = f"database: {error}"
        if text != self.fault:
            log.error(what, error=str(error), waiting=self.backlog)
        self.fault = text

    def _recovered(self) -> None:
        if self.fault is not None:
            log.info("the database answers again", waiting=self.backlog)
        self._wait = BACK_OFF[0]
        self.fault = None
