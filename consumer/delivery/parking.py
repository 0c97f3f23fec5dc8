"""Writes deliveries to the database: in batches, one at a time, until the database has them.

If the database fails, the batch is kept and written again after a back-off; the ledger's statements are repeatable. If
it refuses a batch, or takes too long for it, the batch is halved until one write is left, which is set aside
(`set_aside`). It also refuses a batch that ends more than ENDED sessions one after another, while another session
answers: an internal error of Oracle (ORA-00600, ORA-07445) comes again with the value that causes it. If it has refused
a new delivery for `refused_after` seconds, or can never hold one of its characters, the delivery is handed to
`on_refused`.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread, ping
from consumer.database.errors import ended_session, is_outage, translated
from consumer.database.job import Batch, ThreadJob
from consumer.delivery.known_rows import DueKeys, OpenRows, StoredKeys
from consumer.delivery.set_aside import Aside, OnStored, PendingWrite, SetAside, Written
from consumer.errors import PartitionTaken, RefusedTooLong, SessionEnded, Unstorable
from consumer.events.event import TopicPartition, utc
from consumer.ledger import assigned, cursors, marks, store
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.rows import AttemptResult, DueKey, NewDelivery, OrderingKey, due_key_of
from consumer.loop.part import Part, first

log = structlog.get_logger(__name__)

STORE_BATCH = 500  # rows in one transaction: 0.5 MB of bodies, some 20 ms on the database thread
ENDED = 3  # sessions that may end one after another, before the batch and not the server is the cause
BACKLOG = 5000  # unwritten deliveries at which intake stops
BACKLOG_BYTES = 64 * 2**20  # of their bodies, at which intake stops
Loaded = Callable[[assigned.Settled], None]
OnRefused = Callable[[NewDelivery, Exception, Callable[[], None]], None]
_Known = tuple[assigned.Settled | None, frozenset[OrderingKey] | None, int | None]


class _Done(NamedTuple):
    """The ordering keys that have no open rows any more, and the cursors that others have moved, or that are gone.

    A cursor that has moved is named by its id, a new one by its due key and first offset.
    """

    cleared: frozenset[OrderingKey] = frozenset()
    astray: frozenset[object] = frozenset()


class _Load(NamedTuple):
    """A look-up for a partition: its ordering keys (at most `most`), its settled deliveries from an offset on, or both.

    `takes_over`: before it, the database notes that this worker owns the partition.
    """

    partition: TopicPartition
    most: int | None = None
    from_offset: int = 0
    loaded: Loaded | None = None
    takes_over: bool = False


class Parking(Part):
    """Writes that wait or are under way. All methods are called on the loop's thread.

    `due_keys` are the due keys of the rows that are known to wait, `ordering_keys` the ordering keys of such rows, and
    `open_rows` how many there are. `storing` and `loading` are the jobs of storing, and of loading what is stored.
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
        on_refused: OnRefused,
        refused_after: float,
    ) -> None:
        """`writer` and `reader` run the statements, so that neither waits for the other.

        `on_operation` is called when an operational event may have been written. `on_refused` is called with a delivery
        that will not be stored, with the reason, and with a callback that settles it.
        """
        self._on_operation = on_operation
        self._on_refused = on_refused
        self._refused_after = refused_after
        self._clock = clock
        self._monotonic = monotonic
        self._engine = engine
        self._group = group
        self._to_write: deque[PendingWrite] = deque()
        self._batch = Batch(STORE_BATCH)
        self._ended_sessions = 0  # since the last success
        self._bytes = 0  # of unwritten bodies
        self._writing: Sequence[PendingWrite] = ()
        self._aside = SetAside(monotonic)
        self._trying: Aside | None = None  # the write that was set aside and is being tried
        self._aside_next = False  # writes that were set aside take turns with batches
        self._forgotten: set[TopicPartition] = set()
        self._to_load: deque[_Load] = deque()
        self.storing = ThreadJob[_Done](
            writer.submit, "could not store deliveries; their offsets wait", monotonic, backs_off=_concerns_others
        )
        self.loading = ThreadJob[_Known](
            reader.submit, "could not load the stored deliveries of a partition; its events wait", monotonic
        )
        self.assignments: dict[TopicPartition, int] = {}  # as `marks.own` numbers them
        self._left = 0  # deliveries that wait until a cursor is stored
        self.due_keys = DueKeys()
        self.ordering_keys = StoredKeys()
        self.open_rows = OpenRows()

    @property
    def fault(self) -> str | None:
        """Why writes fail, or partitions not read, for /readyz."""
        return self.storing.fault or self._aside.fault or self.loading.fault

    @property
    def set_aside(self) -> int:
        """How many writes the database refuses while it stores others."""
        return len(self._aside)

    def being_stored(self) -> set[DueKey]:
        """The due keys of new deliveries whose write is under way or queued."""
        return {each.due_key for each in chain(self._writing, self._to_write) if isinstance(each.item, NewDelivery)}

    def refuses(self, due_key: DueKey) -> bool:
        """The database refuses a write of this due key while it stores others."""
        return any(each.pending.due_key == due_key for each in self._aside)

    @property
    def backlog(self) -> int:
        """How many writes are not done yet."""
        return len(self._to_write) + len(self._writing) + len(self._aside)

    @property
    def oldest(self) -> float | None:
        """Since when the first write waits to be stored, without those set aside; None if none does.

        Safe to call from another thread.
        """
        writing = () if self._trying is not None else self._writing
        heads = (next(iter(writing), None), first(self._to_write))
        return min((head.queued_at for head in heads if head is not None), default=None)

    @property
    def full(self) -> bool:
        """The backlog is too large to take in more events."""
        return self.backlog + self._left >= BACKLOG or self._bytes >= BACKLOG_BYTES

    @property
    def busy(self) -> bool:
        """Writes wait, or partitions are to be read."""
        return bool(self.backlog or self._to_load)

    def holds(self, partitions: Collection[TopicPartition]) -> bool:
        """Writes of these partitions wait and may soon be done; writes refused for long do not count.

        Such a write may settle one of their records, or hold the result of an attempt that the next owner would
        repeat.
        """
        return self.writes(partitions) or self._aside.has_lately(partitions)

    def writes(self, partitions: Collection[TopicPartition]) -> bool:
        """Writes of these partitions are under way or queued; writes set aside do not count."""
        return any(pending.due_key[:2] in partitions for pending in chain(self._writing, self._to_write))

    def park(self, delivery: NewDelivery, on_stored: OnStored) -> None:
        """Store a delivery; `on_stored` runs on the loop once it is committed."""
        if delivery.ordering_key is not None:
            self.ordering_keys.began(delivery.ordering_key, delivery.event.record.offset)
        self._bytes += delivery.event.size
        due_key = due_key_of(delivery.event, delivery.subscription_id)
        self.open_rows[due_key] += 1
        self._to_write.append(PendingWrite(delivery, on_stored, due_key, self._monotonic()))

    def resolve(self, result: AttemptResult, due_key: DueKey, on_stored: OnStored) -> None:
        """Write the result of an attempt at a stored delivery."""
        self._to_write.append(PendingWrite(result, on_stored, due_key, self._monotonic()))

    def begin(self, cursor: NewCursor, on_stored: OnStored, on_astray: OnStored) -> None:
        """Store a cursor; `on_stored` runs on the loop once it is committed.

        If it exists, and another owner has moved or ended it, `on_astray` runs instead.
        """
        self._to_write.append(PendingWrite(cursor, on_stored, cursor.due_key, self._monotonic(), on_astray))

    def waits(self, deliveries: int) -> None:
        """So many more deliveries, or fewer if negative, wait until a cursor is stored."""
        self._left += deliveries

    def move(self, move: CursorMove, due_key: DueKey, on_stored: OnStored, on_astray: OnStored) -> None:
        """Store a cursor's position. If another owner has moved the cursor, or it is gone, `on_astray` runs instead."""
        self._to_write.append(PendingWrite(move, on_stored, due_key, self._monotonic(), on_astray))

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Drop writes and look-ups of revoked partitions unless they are under way: the next owner repeats them."""
        self._to_write = deque(pending for pending in self._to_write if not self._dropped(pending, partitions))
        self._aside.keep(lambda each: each is self._trying or not self._dropped(each.pending, partitions))
        if self._writing:
            self._forgotten |= set(partitions)
        self._to_load = deque(load for load in self._to_load if load.partition not in partitions)
        self.ordering_keys.leave(partitions)
        self.due_keys.forget(partitions)
        self.open_rows.forget(partitions)
        for partition in partitions:
            self.assignments.pop(partition, None)

    def poll(self, _now: float) -> None:
        """Start the next read and the next batch, unless one is under way or backing off."""
        if self._to_load and self.loading.ready:
            self._load()
        if not self.storing.ready:
            return
        self._trying = self._aside.next() if self._aside_next or not self._to_write else None
        self._aside_next = self._trying is None
        if self._trying is not None:
            batch = [self._trying.pending]
            job: Callable[[], _Done] = partial(self._try, self._named(batch[0]))
        elif self._to_write:
            batch = [self._to_write.popleft() for _ in range(min(self._batch.size, len(self._to_write)))]
            job = partial(self._write, [self._named(pending) for pending in batch])
        else:
            return
        self._writing = batch
        self.storing.start(job, partial(self._written, batch), partial(self._failed, batch))

    def _named(self, pending: PendingWrite) -> Written:
        item = pending.item
        if isinstance(item, NewCursor):
            return item._replace(assignment=self.assignments.get(pending.due_key[:2]))
        return item

    def ask_again(self) -> None:
        """Load the ordering keys of partitions that had too many: there may be fewer now."""
        asked = {load.partition for load in self._to_load if load.most is not None}
        for partition, most in self.ordering_keys.unknown.items():
            if partition not in asked:
                self._to_load.append(_Load(partition, most))

    def load_stored(self, partition: TopicPartition, from_offset: int, loaded: Loaded, *, more: bool = False) -> None:
        """Look up which deliveries of an assigned partition are stored, from an offset on; repeated until it succeeds.

        The answer may cover the first offsets only: then ask for `more`, from a higher offset on. The first look-up of
        a partition reads its ordering keys too.
        """
        most = None if more else self.ordering_keys.most
        self._to_load.append(_Load(partition, most, from_offset, loaded, takes_over=not more))

    def _load(self) -> None:
        load = partition, most, from_offset, loaded, takes_over = self._to_load[0]

        def job() -> _Known:
            assignment = marks.own(self._engine, self._group, partition) if takes_over else None
            ordering_keys = None if most is None else assigned.open_keys(self._engine, self._group, *partition, most)
            if loaded is None:
                return None, ordering_keys, assignment
            settled = assigned.settled_keys(self._engine, self._group, *partition, from_offset)
            if most is not None:
                settled = settled._replace(cursors=tuple(cursors.of_partition(self._engine, self._group, partition)))
            return settled, ordering_keys, assignment

        def done(answer: _Known) -> None:
            self.ordering_keys.end_reading(reading)
            if not self._to_load or self._to_load[0] is not load:
                return  # the partition was revoked
            self._to_load.popleft()
            settled, ordering_keys, assignment = answer
            if assignment is not None:
                self.assignments[partition] = assignment
            if most is not None and (settled is not None or ordering_keys is not None):  # else they stay unknown
                self.ordering_keys.loaded(partition, ordering_keys, reading)
            if loaded is not None and settled is not None:
                loaded(settled)

        reading = self.ordering_keys.begin_reading()
        self.loading.start(job, done, lambda _error: self.ordering_keys.end_reading(reading))

    def _write(self, items: Sequence[Written]) -> _Done:
        """Write a batch. SessionEnded: the session has ended, while another one answers."""
        try:
            return self._store(items)
        except Exception as error:
            if not ended_session(error):
                raise
            ping(self._engine)
            raise SessionEnded(str(translated(error))) from error

    def _store(self, items: Sequence[Written]) -> _Done:
        new = [item for item in items if isinstance(item, NewDelivery)]
        results = [item for item in items if isinstance(item, AttemptResult)]
        begun = [item for item in items if isinstance(item, NewCursor)]
        moves = [item for item in items if isinstance(item, CursorMove)]
        now = self._clock()
        astray = set[object](cursors.begin(self._engine, self._group, begun, now))
        astray |= cursors.save(self._engine, moves, now) if moves else frozenset[int]()
        if new:
            store.park(self._engine, self._group, new, now)
        cleared = store.record(self._engine, self._group, results) if results else frozenset[OrderingKey]()
        return _Done(cleared, frozenset(astray))

    def _try(self, item: Written) -> _Done:
        """Write what was set aside once more. RefusedTooLong: the database has refused this delivery for too long."""
        try:
            return self._write([item])
        except Exception as error:
            cause = translated(error)
            if is_outage(cause) or isinstance(cause, Unstorable) or not isinstance(item, NewDelivery):
                raise
            now = self._clock()
            since = marks.refused_since(self._engine, self._group, item.event.record, item.subscription_id, now)
            if now - since < self._refused_after:
                raise
            raise RefusedTooLong(f"{cause} (refused since {utc(since):%Y-%m-%d %H:%M:%S} UTC)") from error

    def _ended(self) -> tuple[Aside | None, Collection[TopicPartition]]:
        """The batch has ended. Returns the write that was tried alone, and the partitions revoked meanwhile."""
        tried, self._writing, self._trying = self._trying, (), None
        gone, self._forgotten = self._forgotten, set()
        return tried, gone

    def _written(self, batch: Sequence[PendingWrite], done: _Done) -> None:
        tried, gone = self._ended()
        if tried is not None:
            self._aside.remove(tried)
        else:
            self._ended_sessions = 0
            self._batch.succeeded(len(batch))
        if any(isinstance(pending.item, NewDelivery) for pending in batch):
            self._aside.accepted()
        for pending in batch:
            self._bytes -= _size(pending)
            self._note_due(pending, gone)
            if done.astray and _cursor_of(pending.item) in done.astray:
                pending.on_astray()
            else:
                pending.on_stored()
        self.ordering_keys.cleared(done.cleared)
        if any(_has_operation(pending.item) for pending in batch):
            self._on_operation()

    def _failed(self, batch: Sequence[PendingWrite], error: Exception) -> None:
        tried, gone = self._ended()
        outage = is_outage(error)
        if tried is not None:
            if self._dropped(tried.pending, gone):
                self._aside.remove(tried)
            elif not outage:
                self._refused(tried, error)
                if isinstance(error, PartitionTaken):  # by one that no longer owns it: its note came late
                    self._to_load.append(_Load(tried.pending.due_key[:2], takes_over=True))
            return
        kept = [pending for pending in batch if not self._dropped(pending, gone)]
        self._ended_sessions = self._ended_sessions + 1 if isinstance(error, SessionEnded) else 0
        if not outage and not 0 < self._ended_sessions <= ENDED:
            self._batch.was_too_large(len(batch))
            if len(batch) == 1:
                for pending in kept:
                    self._refused(self._aside.add(pending, error), error)
                return
        self._to_write.extendleft(reversed(kept))

    def _refused(self, aside: Aside, error: Exception) -> None:
        """The database has refused a write alone: it is tried again later, unless there is no hope."""
        item = aside.pending.item
        hopeless = isinstance(error, Unstorable) or (isinstance(error, RefusedTooLong) and not self._aside.are_all)
        if hopeless and isinstance(item, NewDelivery):
            self._aside.hold(aside, error)
            self._on_refused(item, error, partial(self._settled, aside, item))
        else:
            self._aside.refused(aside, error)

    def _settled(self, aside: Aside, item: NewDelivery) -> None:
        """The record is on the dead-letter topic: settle the delivery as if it were stored as exhausted."""
        if self._aside.remove(aside):  # else its partition was revoked: the next owner repeats the dead letter
            self._bytes -= _size(aside.pending)
            self._note_due(aside.pending._replace(item=item._replace(status="exhausted")), ())
            aside.pending.on_stored()

    def _dropped(self, pending: PendingWrite, partitions: Collection[TopicPartition]) -> bool:
        if isinstance(pending.item, AttemptResult) or pending.due_key[:2] not in partitions:
            return False
        self._bytes -= _size(pending)
        return True

    def _note_due(self, pending: PendingWrite, gone: Collection[TopicPartition]) -> None:
        item = pending.item
        if pending.due_key[:2] in gone or isinstance(item, NewCursor | CursorMove):
            return
        self.open_rows.ended(pending.due_key, item)
        if item.ordering_key is not None:
            if isinstance(item, NewDelivery):
                offset = item.event.record.offset
                self.ordering_keys.written(item.ordering_key, offset, is_open=item.status == "parked")
            due_at = 0.0  # the next delivery of the ordering key may be due now
        elif item.status == "parked" and item.next_attempt_at is not None:
            due_at = item.next_attempt_at
        else:
            return
        self.due_keys.note(pending.due_key, due_at)


def _concerns_others(error: Exception) -> bool:
    return is_outage(error) or isinstance(error, SessionEnded)


def _cursor_of(item: Written) -> object:
    """A cursor that is written, as in `_Done.astray`; None: the item is none."""
    if isinstance(item, NewCursor):
        return item.due_key, item.first
    return item.id if isinstance(item, CursorMove) else None


def _size(pending: PendingWrite) -> int:
    return pending.item.event.size if isinstance(pending.item, NewDelivery) else 0


def _has_operation(item: Written) -> bool:
    return isinstance(item, NewDelivery | AttemptResult) and item.operation is not None
