"""Writes deliveries to the database: in batches, one at a time, until the database has them.

The loop calls `park` and `resolve` to add entries, and `poll` in each turn. A delivery is settled once its transaction
is committed. If the database fails, the batch is kept and written again after a back-off; the ledger's statements are
repeatable.

If the database refuses a batch, or takes too long for it, the batch is halved until one entry is left: another session
locks its row, or a constraint rejects it. That entry is set aside with its own back-off, and the others go on. Its
offset is held until the entry is stored or an operator decides otherwise.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage, translated
from consumer.database.job import ThreadJob
from consumer.delivery.due_keys import DueKeys
from consumer.delivery.order import StoredKeys
from consumer.delivery.set_aside import Aside, Decided, Entry, OnStored, SetAside
from consumer.errors import Unstorable
from consumer.events.event import TopicPartition
from consumer.ledger import assigned, marks, store
from consumer.ledger.marks import Subject
from consumer.ledger.rows import AttemptResult, DueKey, NewDelivery, OrderingKey, due_key_of
from consumer.loop.part import Part, first
from models import Wish

log = structlog.get_logger(__name__)

STORE_BATCH = 500  # rows in one transaction: 0.5 MB of bodies, some 20 ms on the database thread
BACKLOG = 5000  # unwritten deliveries at which intake stops
BACKLOG_BYTES = 64 * 2**20  # of their bodies, at which intake stops
Loaded = Callable[[assigned.Settled], None]
OnDecision = Callable[[Decided, Callable[[], None]], None]


class _Refused(NamedTuple):
    """The database has refused an entry alone, and an operator has decided on it."""

    error: str
    wish: Wish


_Written = frozenset[OrderingKey] | _Refused  # ordering keys that have no open rows any more
_Known = tuple[assigned.Settled | None, frozenset[OrderingKey] | None]


class _Load(NamedTuple):
    """A look-up for a partition: its ordering keys (at most `most`), its settled deliveries, or both."""

    partition: TopicPartition
    most: int | None
    from_offset: int
    loaded: Loaded | None


class Parking(Part):
    """Entries that are to be written or are being written. All methods are called on the loop's thread.

    `due_keys` are the due keys of the rows that are known to wait, `ordering_keys` the ordering keys of such rows.
    """

    def __init__(
        self,
        engine: Engine,
        writer: DatabaseThread,
        reader: DatabaseThread,
        group: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        on_operation: Callable[[], None],
        on_decision: OnDecision,
    ) -> None:
        """`writer` and `reader` run the statements, so that neither waits for the other.

        `on_operation` is called when an operational event may have been written. `on_decision` is called with a
        delivery on which an operator has decided, and with a callback for when the decision is carried out.
        """
        self._on_operation = on_operation
        self._on_decision = on_decision
        self._clock = clock
        self._monotonic = monotonic
        self._engine = engine
        self._group = group
        self._to_write: deque[Entry] = deque()
        self._batch = STORE_BATCH
        self._bytes = 0  # of unwritten bodies
        self._writing: Sequence[Entry] = ()
        self._aside = SetAside(monotonic)
        self._trying: Aside | None = None  # the entry that was set aside and is being written
        self._aside_next = False  # entries that were set aside take turns with batches
        self._forgotten: set[TopicPartition] = set()
        self._to_load: deque[_Load] = deque()
        self._writes = ThreadJob[_Written](
            writer.submit, "could not store deliveries; their offsets are held", monotonic, backs_off=is_outage
        )
        self._reads = ThreadJob[_Known](
            reader.submit, "could not load the stored deliveries of a partition; it is held", monotonic
        )
        self.due_keys = DueKeys()
        self.ordering_keys = StoredKeys()

    @property
    def fault(self) -> str | None:
        """Why entries are not written, or partitions not read, for /readyz."""
        return self._writes.fault or self._aside.fault or self._reads.fault

    @property
    def set_aside(self) -> int:
        """How many entries the database refuses while it stores others."""
        return len(self._aside)

    @property
    def backlog(self) -> int:
        """How many entries are not yet written."""
        return len(self._to_write) + len(self._writing) + len(self._aside)

    @property
    def oldest(self) -> float | None:
        """Since when the first entry waits to be stored, without those set aside; None if none does.

        Safe to call from another thread.
        """
        writing = () if self._trying is not None else self._writing
        heads = (next(iter(writing), None), first(self._to_write))
        return min((head.queued_at for head in heads if head is not None), default=None)

    @property
    def write_backoff(self) -> float:
        """Seconds that storing pauses after an error; 0 after a success."""
        return self._writes.backoff

    @property
    def read_backoff(self) -> float:
        """Seconds that loading stored deliveries pauses after an error; 0 after a success."""
        return self._reads.backoff

    @property
    def full(self) -> bool:
        """The backlog is too large to take in more events."""
        return self.backlog >= BACKLOG or self._bytes >= BACKLOG_BYTES

    @property
    def busy(self) -> bool:
        """Entries are to be written, or partitions to be read."""
        return bool(self.backlog or self._to_load)

    def holds(self, partitions: Collection[TopicPartition]) -> bool:
        """Entries of these partitions are unwritten and may soon be written; entries refused for long do not count.

        Such an entry may settle one of their records, or hold the result of an attempt that the next owner would
        repeat.
        """
        return self.writes(partitions) or self._aside.has_lately(partitions)

    def writes(self, partitions: Collection[TopicPartition]) -> bool:
        """Entries of these partitions are being written or queued for it; entries set aside do not count."""
        return any(entry.due_key[:2] in partitions for entry in chain(self._writing, self._to_write))

    def park(self, delivery: NewDelivery, on_stored: OnStored) -> None:
        """Store a delivery; `on_stored` runs on the loop once it is committed."""
        if delivery.ordering_key is not None:
            self.ordering_keys.began(delivery.ordering_key, delivery.event.record.offset)
        self._bytes += delivery.event.size
        due_key = due_key_of(delivery.event, delivery.subscription_id)
        self._to_write.append(Entry(delivery, on_stored, due_key, self._monotonic()))

    def resolve(self, result: AttemptResult, due_key: DueKey, on_stored: OnStored) -> None:
        """Write the result of an attempt at a stored delivery."""
        self._to_write.append(Entry(result, on_stored, due_key, self._monotonic()))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drop entries and look-ups of revoked partitions unless they are under way: the next owner repeats them."""
        self._to_write = deque(entry for entry in self._to_write if not self._dropped(entry, partitions))
        self._aside.keep(lambda each: each is self._trying or not self._dropped(each.entry, partitions))
        if self._writing:
            self._forgotten |= set(partitions)
        self._to_load = deque(load for load in self._to_load if load.partition not in partitions)
        self.ordering_keys.leave(partitions)
        self.due_keys.forget(partitions)

    def poll(self, _now: float) -> None:
        """Start the next read and the next batch, unless one is under way or backing off."""
        if self._to_load and self._reads.ready:
            self._load()
        if not self._writes.ready:
            return
        self._trying = self._aside.next() if self._aside_next or not self._to_write else None
        self._aside_next = self._trying is None
        if self._trying is not None:
            batch = [self._trying.entry]
            job: Callable[[], _Written] = partial(self._try, batch[0])
        elif self._to_write:
            batch = [self._to_write.popleft() for _ in range(min(self._batch, len(self._to_write)))]
            job = partial(self._write, [entry.item for entry in batch])
        else:
            return
        self._writing = batch
        self._writes.start(job, partial(self._written, batch), partial(self._failed, batch))

    def hurry(self, subject: Subject) -> None:
        """Try entries of this delivery at once: an operator has decided on it."""
        self._aside.hurry(subject)

    def ask_again(self) -> None:
        """Load the ordering keys of partitions that had too many: there may be fewer now."""
        asked = {load.partition for load in self._to_load if load.most is not None}
        for partition, most in self.ordering_keys.unknown.items():
            if partition not in asked:
                self._to_load.append(_Load(partition, most, 0, None))

    def load_stored(self, partition: TopicPartition, from_offset: int, loaded: Loaded) -> None:
        """Look up which deliveries of an assigned partition are stored, from an offset on; repeated until it succeeds.

        The answer includes the partition's ordering keys. It may cover the first offsets only.
        """
        self._to_load.append(_Load(partition, self.ordering_keys.most, from_offset, loaded))

    def load_more(self, partition: TopicPartition, from_offset: int, loaded: Loaded) -> None:
        """Look up the stored deliveries from a higher offset on."""
        self._to_load.append(_Load(partition, None, from_offset, loaded))

    def _load(self) -> None:
        load = partition, most, from_offset, loaded = self._to_load[0]

        def job() -> _Known:
            ordering_keys = None if most is None else assigned.open_keys(self._engine, self._group, *partition, most)
            if loaded is None:
                return None, ordering_keys
            return assigned.settled_keys(self._engine, self._group, *partition, from_offset), ordering_keys

        def done(answer: _Known) -> None:
            take(answer)
            self.ordering_keys.load_ends()

        def take(answer: _Known) -> None:
            if not self._to_load or self._to_load[0] is not load:
                return  # the partition was revoked
            self._to_load.popleft()
            settled, ordering_keys = answer
            if most is not None and (settled is not None or ordering_keys is not None):  # else they stay unknown
                self.ordering_keys.loaded(partition, ordering_keys)
            if loaded is not None and settled is not None:
                loaded(settled)

        self.ordering_keys.load_begins()
        self._reads.start(job, done, lambda _error: self.ordering_keys.load_ends())

    def _write(self, items: Sequence[NewDelivery | AttemptResult]) -> frozenset[OrderingKey]:
        new = [item for item in items if isinstance(item, NewDelivery)]
        results = [item for item in items if isinstance(item, AttemptResult)]
        if new:
            store.park(self._engine, self._group, new, self._clock())
        return store.record(self._engine, self._group, results) if results else frozenset[OrderingKey]()

    def _try(self, entry: Entry) -> _Written:
        """Write an entry once more; if it is refused again, look for an operator's decision."""
        try:
            return self._write([entry.item])
        except Exception as error:
            cause = translated(error)
            if is_outage(cause) or entry.subject is None:
                raise
            decision = marks.decision(self._engine, self._group, entry.subject)
            if decision is None:
                raise
            return _Refused(str(cause), decision.wish)

    def _ended(self) -> tuple[Aside | None, Collection[TopicPartition]]:
        """The batch has ended. Returns the entry that was tried alone, and the partitions revoked meanwhile."""
        tried, self._writing, self._trying = self._trying, (), None
        gone, self._forgotten = self._forgotten, set()
        return tried, gone

    def _written(self, batch: Sequence[Entry], answer: _Written) -> None:
        tried, gone = self._ended()
        if isinstance(answer, _Refused):
            if tried is not None:
                self._decided(tried, gone, answer)
            return
        if tried is not None:
            self._aside.remove(tried)
        else:
            self._batch = min(self._batch * 2, STORE_BATCH)
        for entry in batch:
            self._bytes -= _size(entry)
            self._note_due(entry, gone)
            entry.on_stored()
        self.ordering_keys.cleared(answer)
        if any(entry.item.operation is not None for entry in batch):
            self._on_operation()

    def _failed(self, batch: Sequence[Entry], error: Exception) -> None:
        tried, gone = self._ended()
        outage = is_outage(error)
        if tried is not None:
            if isinstance(error, Unstorable):
                self._decided(tried, gone, _Refused(str(error), Wish.DEAD_LETTER))
            elif self._dropped(tried.entry, gone):
                self._aside.remove(tried)
            elif not outage:
                self._aside.refused(tried, error)
            return
        kept = [entry for entry in batch if not self._dropped(entry, gone)]
        if not outage:
            self._batch = max(1, len(batch) // 2)
            if len(batch) == 1:
                for entry in kept:
                    aside = self._aside.add(entry, error)
                    if isinstance(error, Unstorable):  # no later try and no operator can change that
                        self._decided(aside, gone, _Refused(str(error), Wish.DEAD_LETTER))
                return
        self._to_write.extendleft(reversed(kept))

    def _decided(self, tried: Aside, gone: Collection[TopicPartition], refused: _Refused) -> None:
        item = tried.entry.item
        if self._dropped(tried.entry, gone):
            self._aside.remove(tried)
        elif isinstance(item, NewDelivery):
            self._aside.hold(tried)
            self._on_decision(Decided(item, refused.wish, refused.error), partial(self._settled, tried, item))

    def _settled(self, tried: Aside, item: NewDelivery) -> None:
        """A decision is carried out: settle the entry as if it were stored as exhausted, if it is still here."""
        if self._aside.remove(tried):
            self._bytes -= _size(tried.entry)
            self._note_due(tried.entry._replace(item=item._replace(status="exhausted")), ())
            tried.entry.on_stored()

    def _dropped(self, entry: Entry, partitions: Collection[TopicPartition]) -> bool:
        item = entry.item
        if not isinstance(item, NewDelivery) or item.event.record.topic_partition not in partitions:
            return False
        self._bytes -= _size(entry)
        return True

    def _note_due(self, entry: Entry, gone: Collection[TopicPartition]) -> None:
        item = entry.item
        if entry.due_key[:2] in gone:
            return
        if item.ordering_key is not None:
            if isinstance(item, NewDelivery):
                note = self.ordering_keys.written if item.status == "parked" else self.ordering_keys.given_up
                note(item.ordering_key, item.event.record.offset)
            due_at = 0.0  # the next delivery of the ordering key may be due now
        elif item.status == "parked" and item.next_attempt_at is not None:
            due_at = item.next_attempt_at
        else:
            return
        self.due_keys.note(entry.due_key, due_at)


def _size(entry: Entry) -> int:
    return entry.item.event.size if isinstance(entry.item, NewDelivery) else 0
