"""Carries deliveries between the loop and the ledger: in batches, one job at a time, until the database has them.

The loop calls `park`, `resolve` and `note`, which only say what is to be written, and `pump` in each turn. Nothing is
settled before its transaction is committed; when the database fails, the batch is kept and written again after a
back-off, which the ledger's statements allow (they are repeatable).
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple

import structlog
from sqlalchemy import Engine

from consumer.database import DatabaseThread
from consumer.delivery.order import StoredPairs
from consumer.errors import DatabaseTooSlow, DatabaseUnavailable
from consumer.event import Place
from consumer.ledger import due, store
from consumer.ledger.heads import Head
from consumer.ledger.rows import AttemptResult, NewDelivery, Pair
from consumer.trouble import Trouble

log = structlog.get_logger(__name__)

BATCH = 500  # rows in one transaction: 0.5 MB of bodies, some 20 ms on the database thread
BACKLOG = 5000  # deliveries not yet written, above which nothing is taken in that could add to them
BACKLOG_BYTES = 64 * 2**20  # of their bodies

Stored = Callable[[], object]
StoredKeys = set[tuple[int, int, int]]  # offset, timestamp, subscription
Loaded = Callable[[StoredKeys], None]


@dataclass(slots=True, eq=False)
class Note:
    """Something else to write, as it is; repeatable, and not repeated once it is `written`."""

    write: Callable[[Engine], object]
    written: bool = False


class _Entry(NamedTuple):
    item: NewDelivery | AttemptResult | Note
    on_stored: Stored
    head: Head | None = None


class _Load(NamedTuple):
    """Of a partition: at most so many pairs, and to `loaded` what is settled; without that, its pairs once more."""

    place: Place
    most: int
    from_offset: int
    loaded: Loaded | None


class Parking:
    """What is to be written, and what of it is being written. All methods are called on the loop's thread.

    `heads`: of which partition and subscription rows are known to wait, and when the first of them is due (unix
    seconds, or earlier). `pairs`: the ordered ones among them.
    """

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_operation: Callable[[], None],
    ) -> None:
        """`on_operation` is called when an operational event may have been written."""
        self._on_operation = on_operation
        self._clock = clock
        self._monotonic = monotonic
        self._engine = engine
        self._thread = thread
        self._group = group
        self._to_write: deque[_Entry] = deque()
        self._batch = BATCH
        self._bytes = 0  # of the bodies that are to be written
        self._writing: Sequence[_Entry] = ()
        self._refused: _Entry | None = None  # what the database takes from nobody: the others go first
        self._forgotten: set[Place] = set()
        self._loading = False
        self._to_load: deque[_Load] = deque()
        self._writes, self._reads = Trouble(monotonic), Trouble(monotonic)
        self.heads: dict[Head, float] = {}
        self.pairs = StoredPairs()

    @property
    def fault(self) -> str | None:
        """Why something is not written or read, for /readyz."""
        return self._writes.fault or self._reads.fault

    @property
    def backlog(self) -> int:
        """What is not written yet."""
        return len(self._to_write) + len(self._writing)

    @property
    def full(self) -> bool:
        """Nothing should be taken in that could add to the backlog."""
        return self.backlog >= BACKLOG or self._bytes >= BACKLOG_BYTES

    @property
    def busy(self) -> bool:
        """An answer of the database is awaited."""
        return bool(self._writing or self._to_load)

    def holds(self, places: Collection[Place]) -> bool:
        """Something of these partitions is not written yet, or of none: a subscription's mark, which a stop would lose.

        That is all that can still settle a record of theirs, and the results of their rows, which others would repeat.
        """
        entries = chain(self._writing, self._to_write)
        return any(entry.head is None or entry.head[:2] in places for entry in entries)

    def park(self, delivery: NewDelivery, on_stored: Stored) -> None:
        """Store a delivery; `on_stored` runs on the loop once it is committed."""
        if delivery.pair is not None:
            self.pairs.began(delivery.pair, delivery.event.record.offset)
        self._bytes += delivery.event.size
        head = (*delivery.event.record[:2], delivery.subscription_id)
        self._to_write.append(_Entry(delivery, on_stored, head))

    def resolve(self, result: AttemptResult, head: Head, on_stored: Stored) -> None:
        """Write what came of an attempt of a stored delivery."""
        self._to_write.append(_Entry(result, on_stored, head))

    def note(self, write: Callable[[Engine], object], on_stored: Stored) -> None:
        """Write something else: `write` gets the engine, on the database thread, and may be called again."""
        self._to_write.append(_Entry(Note(write), on_stored))

    def forget(self, places: Collection[Place]) -> None:
        """Drop what is asked and not being written of partitions that have left: their next owner reads them again."""
        self._to_write = deque(entry for entry in self._to_write if not self._dropped(entry, places))
        if self._writing:
            self._forgotten |= set(places)
        self._to_load = deque(load for load in self._to_load if load.place not in places)
        self.pairs.leave(places)
        self.heads = {head: due_at for head, due_at in self.heads.items() if head[:2] not in places}

    def pump(self) -> None:
        """Start the next read and the next batch, unless they are under way or a back-off is running."""
        if self._to_load and not self._loading and self._reads.over:
            self._load()
        if self._writing or not self._to_write or not self._writes.over:
            return
        self._writing = batch = [self._to_write.popleft() for _ in range(min(self._batch, len(self._to_write)))]
        self._thread.submit(partial(self._write, [entry.item for entry in batch]), partial(self._written, batch))

    def ask_again(self) -> None:
        """Load the pairs of partitions that had too many of them: there may be fewer now."""
        asked = {load.place for load in self._to_load}
        for place, most in self.pairs.unknown.items():
            if place not in asked:
                self._to_load.append(_Load(place, most, 0, None))

    def load_stored(self, place: Place, from_offset: int, loaded: Loaded) -> None:
        """Ask which deliveries of a partition, from an offset on, are stored in any state; asked until answered.

        Its pairs are known then too.
        """
        self._to_load.append(_Load(place, self.pairs.most, from_offset, loaded))

    def _load(self) -> None:
        load = place, most, from_offset, loaded = self._to_load[0]

        def job() -> tuple[StoredKeys, frozenset[Pair] | None]:
            pairs = due.open_pairs(self._engine, self._group, *place, most)
            if loaded is None:
                return set(), pairs
            return due.settled_keys(self._engine, self._group, *place, from_offset), pairs

        def done(answer: tuple[StoredKeys, frozenset[Pair] | None] | Exception) -> None:
            self._loading = False
            if not self._reads.judge(answer, "could not load the stored deliveries of a partition; it is held"):
                return
            if not self._to_load or self._to_load[0] is not load:
                return  # the partition has left
            self._to_load.popleft()
            keys, pairs = answer
            if loaded is None:
                if pairs is not None:
                    self.pairs.loaded(place, pairs)
                return
            self.pairs.loaded(place, pairs)
            loaded(keys)

        self._loading = True
        self._thread.submit(job, done)

    def _write(self, items: Sequence[NewDelivery | AttemptResult | Note]) -> frozenset[Pair]:
        new = [item for item in items if isinstance(item, NewDelivery)]
        results = [item for item in items if isinstance(item, AttemptResult)]
        if new:
            store.park(self._engine, self._group, new, self._clock())
        cleared = store.record(self._engine, self._group, results) if results else frozenset[Pair]()
        for item in items:
            if isinstance(item, Note) and not item.written:
                item.write(self._engine)
                item.written = True  # what others do meanwhile is not undone by what fails behind it
        return cleared

    def _written(self, batch: Sequence[_Entry], answer: frozenset[Pair] | Exception) -> None:
        self._writing = ()
        gone, self._forgotten = self._forgotten, set()
        if not isinstance(answer, Exception):
            self._batch = min(self._batch * 2, BATCH)
            if self._refused is None or self._refused in batch:
                self._refused = None
                self._writes.ended()
            for entry in batch:
                self._bytes -= _size(entry)
                self._note_due(entry, gone)
                entry.on_stored()
            self.pairs.cleared(answer)
            if any(isinstance(entry.item, Note) or entry.item.operation is not None for entry in batch):
                self._on_operation()
            return
        self._writes.began(answer, "could not store deliveries; their offsets are held")
        kept = [entry for entry in batch if not self._dropped(entry, gone)]
        if isinstance(answer, DatabaseUnavailable) or len(kept) > 1:
            self._to_write.extendleft(reversed(kept))
        else:
            self._refused = kept[0] if kept else None
            self._to_write.extend(kept)
        if isinstance(answer, DatabaseTooSlow) or not isinstance(answer, DatabaseUnavailable):
            self._batch = max(1, len(batch) // 2)

    def _dropped(self, entry: _Entry, places: Collection[Place]) -> bool:
        item = entry.item
        if not isinstance(item, NewDelivery) or item.event.record[:2] not in places:
            return False
        self._bytes -= _size(entry)
        if entry is self._refused:
            self._refused = None
        return True

    def _note_due(self, entry: _Entry, gone: Collection[Place]) -> None:
        item = entry.item
        if isinstance(item, Note) or entry.head is None or entry.head[:2] in gone:
            return
        if item.pair is not None:
            if isinstance(item, NewDelivery):
                note = self.pairs.written if item.status == "parked" else self.pairs.given_up
                note(item.pair, item.event.record.offset)
            due_at = 0.0  # the pair's next one may be due now
        elif item.status == "parked" and item.next_attempt_at is not None:
            due_at = item.next_attempt_at
        else:
            return
        self.heads[entry.head] = min(due_at, self.heads.get(entry.head, due_at))


def _size(entry: _Entry) -> int:
    return entry.item.event.size if isinstance(entry.item, NewDelivery) else 0
