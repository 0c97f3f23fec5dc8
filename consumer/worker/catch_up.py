"""Brings subscriptions that are behind up to the live stream: reads the log for their cursors, and feeds their lanes.

A *pass* reads a partition for the cursors whose positions are near each other; each of them takes the records from its
own position on. A cursor whose lane has no room leaves the pass, and another pass goes on from there. Passes of a
partition take turns, so that a far cursor does not keep a near one waiting.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from math import inf
from typing import NamedTuple

import structlog

from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.errors import Tombstone, Undecodable
from consumer.events.event import Event, TopicPartition
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.record import Record
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import DueKey
from consumer.loop.part import Part
from consumer.matching.catalog import Pattern, patterns_of
from consumer.matching.selection import FILTER_TOO_LARGE, FilterResult, Selector
from consumer.matching.subscribers import Subscriber

log = structlog.get_logger(__name__)

SAVE_EVERY = 1.0  # seconds between two saves of positions
SAVE_AFTER = 100  # events of all cursors that have settled since
MOST_UNSAVED = 400  # events of all cursors that are on their way or not saved: a crash may repeat them
NEAR = 2_000  # offsets within which cursors share a pass; and the records of a pass before another one has its turn
PASSES = 8  # partitions that are read at once
RECORDS = 100  # of one turn, so that catching up does not slow the live stream
LOOK_EVERY = 5.0  # seconds between two looks at idle cursors
LOOKED_AT = 256  # subscriptions of one look
REST = 0.5  # seconds without a record after which a pass ends
AGAIN = 0.1  # seconds until a cursor whose lane had no room is tried again


class LookUp(NamedTuple):
    """The subscriptions and the cursors of the due keys that were looked at."""

    subscribers: Mapping[int, Subscriber]
    kept: Mapping[DueKey, list[KeptCursor]]
    due_keys: frozenset[DueKey]
    stored: Mapping[DueKey, set[tuple[int, int, int]]]
    began: int


class _Pass:
    """The cursors that read a partition together; `pending` events were read and not yet offered."""

    def __init__(self, members: Mapping[Cursor, Subscriber], begin: int, now: float) -> None:
        self.members = dict(members)
        self.pending: deque[Record] = deque()
        self.position = begin  # the records before it were offered
        self.until = begin + NEAR
        self.moved_at = now
        self._by_pattern: dict[Pattern, list[Cursor]] = {}
        for cursor, subscriber in members.items():
            self._by_pattern.setdefault(subscriber.pattern, []).append(cursor)

    def getting(self, event: Event) -> list[Cursor]:
        """The members whose subscription's type and tenant fit, and that have not read this event yet."""
        offset = event.record.offset
        return [
            cursor
            for pattern in patterns_of((event.type, event.tenant))
            for cursor in self._by_pattern.get(pattern, ())
            if cursor in self.members and cursor.read_to <= offset
        ]

    def leave(self, cursor: Cursor) -> None:
        """The cursor has read the records before `position`, and goes on from there in another pass."""
        del self.members[cursor]
        cursor.passed(self.position if cursor.end is None else min(self.position, cursor.end))

    def keep(self, due_key: DueKey, cursors: Collection[Cursor]) -> None:
        """The due key has these cursors now: others read no more."""
        for cursor in [each for each in self.members if each.due_key == due_key and each not in cursors]:
            del self.members[cursor]

    def advance(self, position: int) -> None:
        """All members have read the records before this offset; the ones that end there leave."""
        self.position = max(self.position, position)
        for cursor in list(self.members):
            cursor.passed(self.position if cursor.end is None else min(self.position, cursor.end))
            if cursor.end is not None and cursor.read_to >= cursor.end:
                del self.members[cursor]

    def is_over(self, now: float) -> bool:
        """Another pass of the partition may have its turn."""
        rested = not self.pending and (self.position >= self.until or now >= self.moved_at + REST)
        return rested or not self.members


class CatchUp(Part):
    """Runs the cursors of this worker's partitions."""

    def __init__(
        self,
        backlog: Backlog,
        open_reader: Callable[[], CursorReader],
        read_event: Callable[[Record], Event | None],
        look_up: Callable[[Collection[DueKey], Collection[DueKey], int], LookUp],
        looks: ThreadJob[LookUp],
        lanes: Lanes,
        settling: Settling,
        selector: Selector,
        memory: Memory,
        owns: Callable[[TopicPartition], bool],
        given_out: Callable[[TopicPartition], Callable[[int], bool]],
        live_at: Callable[[TopicPartition], int | None],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`read_event` decodes a record; None: its schema is not known yet. It raises Tombstone and Undecodable.

        `live_at`: the first offset of a partition that the live stream has not yet fanned out; `given_out`: a predicate
        on offsets, whether it has fanned out everything up to there.
        """
        self._backlog = backlog
        self._open_reader = open_reader
        self._reader: CursorReader | None = None
        self._read_event = read_event
        self._look_up, self._looks = look_up, looks
        self._lanes = lanes
        self._settling = settling
        self._selector = selector
        self._memory = memory
        self._owns = owns
        self._given_out = given_out
        self._live_at = live_at
        self._clock = clock
        self._monotonic = monotonic
        self._passes: dict[TopicPartition, _Pass] = {}
        self._subscribers: dict[int, Subscriber] = {}
        self._urgent: dict[DueKey, None] = {}  # to be looked at soon
        self._idle: dict[DueKey, None] = {}  # to be looked at in turn: they may not move now
        self._moving: dict[DueKey, None] = {}  # their subscriptions may get events
        self._not_before: dict[Cursor, float] = {}
        self._served: dict[Cursor, float] = {}
        self._looked = self._saved = -inf
        self._open = self._unsaved = 0
        self._rebalances = 0
        self._assigned_at: dict[TopicPartition, int] = {}

    @property
    def busy(self) -> bool:
        """A partition is read."""
        return bool(self._passes)

    @property
    def fault(self) -> str | None:
        """Why cursors make no progress."""
        reader = self._reader
        return self._looks.fault or (reader.fault if reader is not None and self._passes else None)

    def assigned(self, partition: TopicPartition, kept: Iterable[KeptCursor]) -> None:
        """Take a partition's cursors, before its first record is matched."""
        self._rebalances += 1
        self._assigned_at[partition] = self._rebalances
        self._backlog.load(partition, kept)

    def stop(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions no more."""
        for partition in partitions:
            self._passes.pop(partition, None)
        if self._reader is not None:
            self._reader.drop(partitions)

    def look_at(self, due_keys: Iterable[DueKey]) -> None:
        """Somebody has begun, paused or resumed something there."""
        self._urgent.update(dict.fromkeys(due_keys))

    def poll(self, now: float) -> None:
        """Look up subscriptions and cursors, offer events to lanes, read on, meet the live stream, and save."""
        self._look(now)
        for partition, each in list(self._passes.items()):
            self._offer(partition, each, now)
        self._begin_passes(now)
        self._read(now)
        self._meet()
        self._save(now)

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions that have left."""
        self.stop(partitions)
        self._backlog.forget(partitions)
        for partition in partitions:
            self._assigned_at.pop(partition, None)
        for several in (self._urgent, self._idle, self._moving):
            for due_key in [each for each in several if each[:2] in partitions]:
                del several[due_key]

    def save(self, partitions: Collection[TopicPartition]) -> None:
        """Store the positions of partitions that are given up."""
        for cursor in self._active():
            if cursor.due_key[:2] in partitions:
                self._backlog.save(cursor)

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()

    # Looking.

    def _look(self, now: float) -> None:
        news, self._backlog.news = self._backlog.news, {}
        self._urgent |= news
        if not self._looks.ready:
            return
        wanted = list(islice(self._urgent, LOOKED_AT))
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            wanted += islice(chain(self._moving, self._idle), LOOKED_AT)
        for due_key in wanted:
            self._urgent.pop(due_key, None)
        if wanted:
            new = [key for key in wanted if not all(cursor.knows_rows for cursor in self._backlog.here(key))]
            look = partial(self._look_up, wanted, new, self._rebalances)
            self._looks.start(look, self._found, partial(self._not_found, wanted))

    def _not_found(self, wanted: Iterable[DueKey], _error: Exception) -> None:
        self.look_at(wanted)

    def _found(self, answer: LookUp) -> None:
        for due_key in answer.due_keys:
            self._idle.pop(due_key, None)
            self._moving.pop(due_key, None)
            if due_key[:2] not in self._assigned_at:
                continue
            if self._assigned_at[due_key[:2]] > answer.began:  # read for an earlier assignment
                self._urgent[due_key] = None
                continue
            self._backlog.merge(due_key, answer.kept.get(due_key, ()))
            if (reading := self._passes.get(due_key[:2])) is not None:
                reading.keep(due_key, self._backlog.here(due_key))
            subscriber = answer.subscribers.get(due_key[2])
            if subscriber is None:
                self._subscribers.pop(due_key[2], None)
            else:
                self._subscribers[due_key[2]] = subscriber
            for cursor in self._backlog.here(due_key):
                if not cursor.knows_rows and due_key in answer.stored:
                    rows = answer.stored[due_key]
                    cursor.has_rows({(offset, at) for replay, offset, at in rows if replay == cursor.replay})
            if not all(cursor.finished for cursor in self._backlog.here(due_key)):
                self._sort(due_key, subscriber)

    def _sort(self, due_key: DueKey, subscriber: Subscriber | None) -> None:
        """Move the cursors of a due key, or look at them again in turn."""
        endpoint = None if subscriber is None else subscriber.endpoint
        if endpoint is not None and not endpoint.paused and endpoint.fault is None:
            self._moving[due_key] = None
            return
        self._idle[due_key] = None
        if subscriber is not None and not subscriber.enabled:
            self._close_open_ones(due_key)

    def _close_open_ones(self, due_key: DueKey) -> None:
        """A disabled subscription wants no events: it is owed those from before, as its stored deliveries are."""
        live = self._live_at(due_key[:2])
        for cursor in self._backlog.here(due_key):
            if cursor.end is None and cursor.id is not None and live is not None:
                cursor.meet(max(cursor.read_to, live))
                self._backlog.save(cursor)

    def _active(self) -> Iterator[Cursor]:
        return (cursor for due_key in self._moving for cursor in self._backlog.owing(due_key) if not cursor.astray)

    # Passes.

    def _begin_passes(self, now: float) -> None:
        if len(self._passes) >= PASSES or not self._memory.room:
            return
        ready: dict[TopicPartition, list[Cursor]] = {}
        for cursor in self._active():
            partition = cursor.due_key[:2]
            if partition not in self._passes and self._may_read(cursor, now):
                ready.setdefault(partition, []).append(cursor)
        longest = sorted(ready.items(), key=lambda item: min(self._served.get(each, -inf) for each in item[1]))
        for partition, cursors in longest[: PASSES - len(self._passes)]:
            first = min(cursors, key=lambda cursor: (self._served.get(cursor, -inf), cursor.read_to))
            near = [each for each in cursors if first.read_to <= each.read_to < first.read_to + NEAR]
            for each in near:
                self._served[each] = now
            members = {each: self._subscribers[each.due_key[2]] for each in near}
            self._passes[partition] = _Pass(members, first.read_to, now)
            if self._reader is None:
                self._reader = self._open_reader()
            self._reader.seek(partition, first.read_to)

    def _may_read(self, cursor: Cursor, now: float) -> bool:
        """Whether the cursor's subscription may get events now, and the live stream is past its beginning."""
        partition, subscription = cursor.due_key[:2], cursor.due_key[2]
        subscriber = self._subscribers.get(subscription)
        if subscriber is None or now < self._not_before.get(cursor, -inf) or cursor.id is None:
            return False
        endpoint = subscriber.endpoint
        return (
            endpoint is not None
            and not endpoint.paused
            and endpoint.fault is None
            and cursor.knows_rows
            and (cursor.end is None or cursor.read_to < cursor.end)
            and self._open + self._unsaved < MOST_UNSAVED
            and self._owns(partition)
            and not self._selector.is_over(subscription)
            and self._lanes.room(subscription, now) > 0
            and self._given_out(partition)(cursor.first - 1)
        )

    def _read(self, now: float) -> None:
        reader = self._reader
        if reader is None or not self._passes or not self._memory.room:
            return
        if any(each.pending for each in self._passes.values()):  # one that waits for its schema holds the others up
            return
        for record in reader.read(RECORDS):
            if (each := self._passes.get(record.partition.topic_partition)) is not None:
                each.pending.append(record)
                each.moved_at = now
        for removed in reader.removed:
            log.error("retention removed records before a subscription got them", **removed._asdict())
        reader.removed.clear()

    def _offer(self, partition: TopicPartition, each: _Pass, now: float) -> None:
        """Offer the events that were read, until one has to wait for its schema, or the pass has ended."""
        self._selector.begin(0.005)
        while each.pending and each.members:
            record = each.pending[0]
            try:
                event = self._read_event(record)
            except (Tombstone, Undecodable):  # the live stream has made a dead letter of it
                event = None
            else:
                if event is None:
                    return
            each.position = record.offset
            if event is not None:
                for cursor in each.getting(event):
                    if not self._takes(cursor, each.members[cursor], event, now):
                        each.leave(cursor)
                        self._not_before[cursor] = now + AGAIN
            each.pending.popleft()
            each.position = record.offset + 1
            if self._selector.is_spent():
                break
        reader = self._reader
        each.advance(0 if reader is None or each.pending else reader.positions.get(partition, 0))
        if each.is_over(now):
            del self._passes[partition]

    def _takes(self, cursor: Cursor, subscriber: Subscriber, event: Event, now: float) -> bool:
        """Queue an event for a cursor's subscription, unless its filter refuses it. False: the cursor has to wait."""
        endpoint, offset = subscriber.endpoint, event.record.offset
        assert endpoint is not None  # noqa: S101 (for mypy: the cursor would not read)
        if cursor.end is not None and offset >= cursor.end:
            return False
        if cursor.replay and not self._given_out(cursor.due_key[:2])(offset):
            return False
        answer = self._selector.ask(endpoint, event)
        if answer is FilterResult.UNWANTED:
            return True
        if answer is FilterResult.NOT_ASKED or self._open + self._unsaved >= MOST_UNSAVED:
            return False
        lane = self._lanes.lane(endpoint)
        key = ordering_key_of(event, endpoint)
        behind_rows = key is not None and self._settling.goes_behind_rows(key)
        if behind_rows and not self._backlog.may_store(cursor.due_key):
            return False
        if not behind_rows and self._lanes.admit(lane, event.size, now) is not Admission.QUEUE:
            return False
        if not cursor.take(offset, event.record.timestamp):
            return True
        record = self._opened(cursor, event)
        if answer is FilterResult.TOO_LARGE:
            self._settling.on_undeliverable(Delivery(event, lane, record, key), FILTER_TOO_LARGE)
        elif behind_rows:
            self._settling.postpone(event, endpoint, record, key, lane)
        else:
            self._lanes.enqueue(Delivery(event, lane, record, key), now)
        return True

    def _opened(self, cursor: Cursor, event: Event) -> OpenRecord:
        self._memory.keep(event, event.size)
        self._open += 1

        def settle(offset: int) -> None:
            self._memory.drop(event)
            cursor.settle(offset)

        return OpenRecord(settle, event.record.offset, 1, replay=cursor.replay)

    # Meeting the live stream, and saving.

    def _meet(self) -> None:
        """End the cursors that have read all that the live stream has fanned out."""
        for cursor in self._active():
            if cursor.end is None and cursor.id is not None and self._is_reading(cursor):
                live = self._live_at(cursor.due_key[:2])
                if live is not None and cursor.read_to >= live:
                    cursor.meet(cursor.read_to)
                    self._backlog.save(cursor)

    def _is_reading(self, cursor: Cursor) -> bool:
        each = self._passes.get(cursor.due_key[:2])
        return each is not None and cursor in each.members

    def _save(self, now: float) -> None:
        due = now - self._saved >= SAVE_EVERY
        self._open = sum(cursor.open for cursor in self._active())
        self._unsaved = sum(cursor.unsaved for cursor in self._active())
        if due or self._unsaved >= SAVE_AFTER:
            self._saved = now
            for cursor in self._active():
                self._backlog.save(cursor)
        if due:
            over = [each for each in self._moving if all(cursor.finished for cursor in self._backlog.here(each))]
            for due_key in over:
                del self._moving[due_key]
            self._served = {each: at for each, at in self._served.items() if not each.finished}
            self._not_before = {each: at for each, at in self._not_before.items() if not each.finished}
