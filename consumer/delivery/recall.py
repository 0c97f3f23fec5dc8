"""Brings stored deliveries back into their lanes when they are due.

Rows are found by their *due key*: partition and subscription. This process knows the due keys with rows from a scan of
the index when partitions are assigned, from the rows that it stores itself, and from the marks of commands, the API and
other workers that make rows due. Rows that somebody has made due by SQL, and other changes, are found by a slow scan.
Rows are fetched only for a due key that is due and whose lane has room. So nothing ever reads through a million rows
behind an open circuit breaker, or through rows of other workers' partitions.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage, translated
from consumer.database.job import Batch, ThreadJob
from consumer.delivery.delivery import Delivery, StoredRow
from consumer.delivery.known_rows import RowsReading, TakenUp
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.parking import Parking
from consumer.delivery.settling import Settling
from consumer.errors import DatabaseTooSlow
from consumer.events.event import TopicPartition
from consumer.ledger.assigned import SEEKS, Scanned, scan
from consumer.ledger.due import POSTPONED, Fetched, FetchRequest, postpone
from consumer.ledger.marks import RecentMarks, recent
from consumer.ledger.rows import DueDelivery, DueKey, OrderingKey, due_key_of
from consumer.loop.part import Part
from consumer.matching.selection import FILTER_TOO_LARGE, TURN, FilterResult, Selector

log = structlog.get_logger(__name__)

LOOK_EVERY = 5.0  # seconds between two looks for marks, and between two steps of a later scan
SOON = 0.1  # seconds between two looks at the due keys, in memory
LOOKING = 9  # pause after a look, in times of its own length: going through half a million due keys blocks the loop
EARLY = 0.5  # seconds until a due key whose rows may not go yet is tried again: each try reads them in vain
DUE_KEYS = 128  # due keys in one job, with ROWS and SEEKS; in the same proportion fewer if that was too slow
ROWS = 500  # rows in one job


Fetch = Callable[[Sequence[FetchRequest], float], Fetched]


class _Answer(NamedTuple):
    marks: RecentMarks | None
    scanned: Scanned | None
    fetched: Fetched | None
    unchanged: str | None  # why the faulty rows are not postponed; empty if it was not tried


class Recall(Part):
    """Looks for rows of this worker's partitions, which `partitions` gives. `fetch` runs on the database thread.

    `given_out(partition)` returns a predicate on offsets: whether all records up to the offset were fanned out. An
    ordered row waits for that: an earlier delivery of its key that was unsettled before a crash may still come.
    `on_marked` is called with the due keys that another process has marked: it may have changed their cursors, too.
    """

    def __init__(
        self,
        engine: Engine,
        group: str,
        fetch: Fetch,
        thread: DatabaseThread,
        parking: Parking,
        lanes: Lanes,
        settling: Settling,
        rows: TakenUp,
        selector: Selector,
        memory: Memory,
        is_behind: Callable[[DueKey, int, int, OrderingKey], bool],
        partitions: Callable[[], Collection[TopicPartition]],
        given_out: Callable[[TopicPartition], Callable[[int], bool]],
        on_marked: Callable[[Collection[DueKey]], object],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine, self._group = engine, group
        self._fetch = fetch
        self._most = Batch(DUE_KEYS)
        self.looks = ThreadJob[_Answer](thread.submit, "could not look for due deliveries", monotonic)
        self._parking = parking
        self._lanes = lanes
        self._settling = settling
        self._rows = rows
        self._selector = selector
        self._memory = memory
        self._is_behind = is_behind
        self._partitions = partitions
        self._given_out = given_out
        self._on_marked = on_marked
        self._clock = clock
        self._monotonic = monotonic
        self._next = self._next_scan = self._next_marks = 0.0
        self._scanned_to: DueKey | None = None
        self._scanned_all = False  # since the last assignment
        self._seen = RecentMarks({}, None)  # the marks that were recent at the last look
        self._begun_anew = False  # a new scan was requested while a look was under way
        self._unreadable: dict[int, str] = {}  # the errors of unreadable rows, by id, of the last look that met any
        self._unreadable_until = 0.0
        self._unchanged = ""  # why faulty rows could not be postponed
        self._next_postponing = -inf

    @property
    def busy(self) -> bool:
        """A look is under way on the database thread."""
        return self.looks.busy

    @property
    def fault(self) -> str | None:
        """Why looks fail, or which rows cannot be read or postponed, for /readyz."""
        now = self._monotonic()
        if self.looks.fault is not None:
            return self.looks.fault
        if now < self._unreadable_until:
            row, error = next(iter(self._unreadable.items()))
            more = f" and {len(self._unreadable) - 1} more" if len(self._unreadable) > 1 else ""
            return f"database: {error}; a stored delivery cannot be read: row {row}{more}"
        if now < self._next_postponing + POSTPONED:  # until the next try, which may take half a minute, has ended
            return f"database: {self._unchanged}; stored deliveries cannot be postponed"
        return None

    def within(self, seconds: float) -> None:
        """Partitions were assigned: begin a scan within so many seconds."""
        now = self._monotonic()
        if not now < self._next_scan <= now + seconds:
            self._next_scan = now + seconds
        self._scanned_to = None
        self._scanned_all = False
        self._begun_anew = True

    def send(self, rows: Sequence[DueDelivery], reading: RowsReading) -> None:
        """Take these rows up, unless there is no room or they have to wait. `reading` began before they were read."""
        self._found(rows, self._partitions(), reading)

    def poll(self, _now: float) -> None:
        """Look for due rows, recent marks and rows to scan, as far as it is time."""
        now = self._monotonic()
        if now < self._next or self._parking.full or not self.looks.ready:
            return
        self._next = now + SOON
        owned = self._partitions()
        wants = self._wants(now, owned) if self._memory.room else []
        # If many due keys are due, ask for the next ones at once, unless looking through them would block the loop.
        self._next = (now if len(wants) == self._most.size else self._next) + LOOKING * (self._monotonic() - now)
        if marking := bool(owned) and now >= self._next_marks:
            self._next_marks = now + LOOK_EVERY
        if scanning := bool(owned) and now >= self._next_scan:
            self._next_scan = now + LOOK_EVERY
        if not (wants or marking or scanning):
            return
        reading = self._parking.ordering_keys.begin_reading()
        self._begun_anew = False
        clock, after, since, postpones = self._clock(), self._scanned_to, self._seen.until, now >= self._next_postponing
        number = self._most.size if scanning else len(wants)
        seeks = SEEKS * self._most.size // DUE_KEYS

        def job() -> _Answer:  # marks first: marks written during the scan are seen the next time
            marks = recent(self._engine, self._group, since) if marking else None
            scanned = scan(self._engine, self._group, sorted(owned), after, seeks) if scanning else None
            fetched = self._fetch(wants, clock) if wants else None
            if fetched is None or not fetched.faulty:
                return _Answer(marks, scanned, fetched, None)
            return _Answer(marks, scanned, fetched, self._postpone(fetched, clock) if postpones else "")

        self.looks.start(job, partial(self._answered, reading, number), partial(self._failed, reading, number, wants))

    def _postpone(self, fetched: Fetched, now: float) -> str | None:
        """Postpone the faulty rows, on the database thread. Returns the error if one of them cannot be changed."""
        try:
            postpone(self._engine, fetched.faulty, now + POSTPONED)
        except Exception as error:
            cause = translated(error)
            if is_outage(cause):
                raise
            return str(cause)
        return None

    def _failed(self, reading: RowsReading, number: int, wants: Sequence[FetchRequest], error: Exception) -> None:
        if isinstance(error, DatabaseTooSlow):
            self._most.was_too_large(number)
        self._parking.ordering_keys.end_reading(reading)
        self._note(dict.fromkeys((want.due_key for want in wants), 0.0))
        self._next_scan = self._next_marks = 0.0

    def _answered(self, reading: RowsReading, number: int, answer: _Answer) -> None:
        self._most.succeeded(number)
        partitions = self._partitions()  # they may have changed since they were looked at
        if answer.marks is not None:
            self._marked(answer.marks, partitions)
        if answer.scanned is not None:
            self._note(answer.scanned.due_keys)
            if not self._begun_anew:
                self._scanned_to = answer.scanned.end
                self._scanned_all = self._scanned_all or answer.scanned.end is None
            if not self._scanned_all:
                self._next_scan = 0.0
        if answer.fetched is not None:
            if answer.fetched.unreadable:  # each is tried again in a minute, and shown until then
                self._unreadable = answer.fetched.unreadable
                self._unreadable_until = self._monotonic() + POSTPONED + LOOK_EVERY
            self._note(answer.fetched.next_due)
            self._note_faulty(answer.fetched.faulty, answer.unchanged)
            self._found(answer.fetched.rows, partitions, reading)
        self._parking.ordering_keys.end_reading(reading)

    def _note_faulty(self, faulty: Mapping[int, DueKey], unchanged: str | None) -> None:
        """Leave due keys alone whose faulty rows are not postponed: a locked row would cost half a minute each time."""
        now = self._monotonic()
        if unchanged:
            log.error("stored deliveries cannot be postponed; tried again in a minute", error=unchanged)
            self._unchanged, self._next_postponing = unchanged, now + POSTPONED
        elif unchanged is None and faulty:
            self._next_postponing = -inf  # no fault any more
        if unchanged is not None:
            self._parking.due_keys.postpone(faulty.values(), self._clock() + self._next_postponing - now)

    def _marked(self, seen: RecentMarks, partitions: Collection[TopicPartition]) -> None:
        """Act on the marks that are new among the recent ones."""
        before, self._seen = self._seen.due_keys, seen
        news = (due_key for due_key, asked in seen.due_keys.items() if before.get(due_key) != asked)
        mine = [due_key for due_key in news if due_key[:2] in partitions]
        self._note(dict.fromkeys(mine, 0.0))
        self._on_marked(mine)

    def _wants(self, now: float, partitions: Collection[TopicPartition]) -> list[FetchRequest]:
        """Due keys that are due, with room for their rows. They are removed until the answer puts them back."""
        clock, due_keys = self._clock(), self._parking.due_keys
        rooms: dict[int, int] = {}  # by subscription, which may have due keys in all partitions
        chosen: dict[DueKey, int] = {}
        out: list[DueKey] = []
        for due_key, due_at in due_keys.items():
            if due_at > clock:
                continue
            if (room := rooms.get(due_key[2])) is None:
                room = rooms[due_key[2]] = (
                    0 if self._selector.is_over(due_key[2]) else self._lanes.room(due_key[2], now)
                )
            if room <= 0:
                continue
            out.append(due_key)
            if due_key[:2] in partitions:
                chosen[due_key] = room
            if len(chosen) == self._most.size:
                break
        for due_key in out:
            del due_keys[due_key]
        here: dict[DueKey, set[int]] = {due_key: set() for due_key in chosen}
        for row, due_key in self._rows.due_keys() if here else ():
            if due_key in here:
                here[due_key].add(row)
        share = ROWS * self._most.size // DUE_KEYS // max(1, len(chosen))
        due_keys_of = Counter(due_key[2] for due_key in chosen)
        return [
            FetchRequest(due_key, min(max(1, room // due_keys_of[due_key[2]]), share), frozenset(here[due_key]))
            for due_key, room in chosen.items()
        ]

    def _note(self, due: Mapping[DueKey, float]) -> None:
        for due_key, due_at in due.items():
            self._parking.due_keys.note(due_key, due_at)

    def _found(self, rows: Sequence[DueDelivery], partitions: Collection[TopicPartition], reading: RowsReading) -> None:
        now = self._monotonic()
        self._selector.begin(TURN)
        given_out: dict[TopicPartition, Callable[[int], bool]] = {}
        ends: dict[OrderingKey, float] = {}  # the offset from which on an ordering key's rows must wait
        later: set[DueKey] = set()
        for row in rows:
            partition, offset = row.event.record.topic_partition, row.event.record.offset
            due_key = due_key_of(row.event, row.endpoint.subscription_id)
            if row.id in self._rows or partition not in partitions:
                continue
            early = row.ordering_key is not None and (
                self._is_early(row.ordering_key, offset, reading, given_out, ends)
                or self._is_behind(due_key, offset, row.replay, row.ordering_key)
            )
            if not early and row.filter_pending and not self._is_wanted(row, due_key):
                if row.ordering_key is not None and row.id not in self._rows:
                    ends[row.ordering_key] = offset
                continue
            lane = self._lanes.lane(row.endpoint)
            if early or self._lanes.admit(lane, row.event.size, now) is not Admission.QUEUE:
                if row.ordering_key is not None:  # later rows must not overtake it
                    ends[row.ordering_key] = offset
                if early:
                    later.add(due_key)
                else:
                    self._note({due_key: 0.0})
                continue
            self._rows.add(row.id, due_key, row.event)
            if row.ordering_key is not None:  # a redelivery goes before later deliveries that are here
                first_stored = self._settling.give_way(row.ordering_key, offset, lane)
                ends[row.ordering_key] = min(first_stored, ends[row.ordering_key])
            self._lanes.enqueue(Delivery.of_row(row, lane), now)
        self._parking.due_keys.postpone(later, self._clock() + EARLY)

    def _is_early(
        self,
        ordering_key: OrderingKey,
        offset: int,
        reading: RowsReading,
        given_out: dict[TopicPartition, Callable[[int], bool]],
        ends: dict[OrderingKey, float],
    ) -> bool:
        """An earlier delivery of the key may still come. `given_out` and `ends` are caches for this look."""
        partition = (ordering_key.topic, ordering_key.partition)
        if partition not in given_out:
            given_out[partition] = self._given_out(partition)
        if ordering_key not in ends:
            self._parking.ordering_keys.seen(ordering_key)  # the key of an adopted row was not known
            ends[ordering_key] = self._parking.ordering_keys.first_unseen(ordering_key, reading)
        return offset >= ends[ordering_key] or not given_out[partition](offset)

    def _is_wanted(self, row: DueDelivery, due_key: DueKey) -> bool:
        """Evaluate the filter, which was not evaluated when the row was stored. False: the row has ended, or waits."""
        if self._selector.spent:
            self._note({due_key: 0.0})
            return False
        match self._selector.ask(row.endpoint, row.event):
            case FilterResult.WANTED:
                return True
            case FilterResult.NOT_ASKED:  # broken or over its budget since this look began
                self._note({due_key: 0.0})
            case FilterResult.UNWANTED:
                self._rows.add(row.id, due_key, row.event)
                delivery = Delivery.of_row(row, self._lanes.lane(row.endpoint))
                self._settling.on_unwanted(delivery, StoredRow(row.id, row.schedule_start))
            case FilterResult.TOO_LARGE:
                lane = self._lanes.lane(row.endpoint)
                if row.ordering_key in lane.chains:  # an earlier delivery of its key is under way here
                    self._note({due_key: 0.0})
                    return False
                self._rows.add(row.id, due_key, row.event)
                self._settling.on_undeliverable(Delivery.of_row(row, lane), FILTER_TOO_LARGE)
        return False
