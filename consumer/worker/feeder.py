"""Feeds lanes with the events that cursors read, within bounds on what a crash would repeat."""

from collections import Counter
from collections.abc import Collection, Iterable
from math import inf

from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import CursorRecord, Delivery, Lane, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.events.event import Event, TopicPartition
from consumer.ledger.rows import OrderingKey
from consumer.matching.selection import FILTER_TOO_LARGE, FilterResult, Selector
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker.replaying import Replays

REPLAYS_PART = 4  # replays take one place of so many in a lane: the others are for new events
MOST_UNSAVED = 400  # settled events of all cursors whose positions are not saved: a crash sends them again
MOST_OF_ONE = 300  # of one cursor
MOST_AT_RISK = 500  # of one cursor, with its events on their way: they may settle when no position can be saved
STILL = 1.0  # seconds in which no stored delivery was to be sent SOON: a cursor's events wait no longer for them
SOON = 5.0  # seconds, and those for which a cursor waits all the same that may hold no more events
LOOK_EVERY = 1.0  # seconds between two looks at cursors that hold events: going back often, they would come to nothing
STUCK = 1.0  # seconds after which a save counts as refused, if others could succeed; that cursor alone waits then


class _Held:
    """An event that counts as held in memory until each cursor that took it has settled it."""

    __slots__ = ("takers",)

    def __init__(self) -> None:
        self.takers = 0


class Feeder:
    """Decides whether a cursor takes an event now.

    `unsaved` counts the events that have settled since the saves of their cursors, which are `dirty`.
    """

    def __init__(
        self,
        backlog: Backlog,
        lanes: Lanes,
        settling: Settling,
        selector: Selector,
        memory: Memory,
        replaying: Replays,
    ) -> None:
        self._backlog = backlog
        self._lanes = lanes
        self._settling = settling
        self._selector = selector
        self._memory = memory
        self._replays = replaying
        self._replaying: dict[Cursor, None] = {}  # cursors of replays with open events
        self._replayed = Counter[int]()  # open events of replays, by subscription
        self._assignments: dict[TopicPartition, object] = {}
        self._event: Event | None = None  # the last one that was taken
        self._held = _Held()
        self._saving: dict[Cursor, float] = {}  # since when saves are under way
        self._holding: dict[Cursor, float] = {}  # since when no stored delivery is to be sent soon
        self._looked = -inf
        self._saves, self._saved_at = 0, -inf
        self.unsaved = 0
        self.dirty: dict[Cursor, None] = {}

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions have left: their events are held no more, settled or not."""
        for partition in partitions:
            self._memory.leave(self._assignments.pop(partition, None))
        for several in (self.dirty, self._replaying, self._saving, self._holding):
            for cursor in [each for each in several if each.due_key[:2] in partitions]:
                del several[cursor]

    def count(self, now: float) -> None:
        """Count the unsaved events; call it once a turn."""
        if self._backlog.saves != self._saves:
            self._saves, self._saved_at = self._backlog.saves, now
        succeeds = now - self._saved_at < STUCK or self._backlog.is_refused
        self.unsaved = 0
        for cursor in list(self.dirty):
            if not cursor.unsaved:
                del self.dirty[cursor]
            if not cursor.is_saving:
                self._saving.pop(cursor, None)
            elif now - self._saving.setdefault(cursor, now) >= STUCK and succeeds:
                continue
            self.unsaved += cursor.unsaved
        self._replayed.clear()
        for cursor in list(self._replaying):
            if not cursor.open:
                del self._replaying[cursor]
            self._replayed[cursor.due_key[2]] += cursor.open

    def has_room(self, cursor: Cursor, now: float) -> bool:
        """A cursor's subscription may get an event."""
        subscription_id = cursor.due_key[2]
        return (
            self._may_take(cursor)
            and not self._selector.is_over(subscription_id)
            and self._lanes.room_for_backlog(subscription_id, now) > 0
        )

    def moves(self, cursor: Cursor) -> bool:
        """Its receiver is not known to be down, so that room for another event may come at any moment."""
        return not self._lanes.is_down(cursor.due_key[2])

    def takes(
        self, cursor: Cursor, endpoint: Endpoint, event: Event, answers: dict[Cursor, FilterResult], now: float
    ) -> bool:
        """Queue an event for a cursor's subscription, unless its filter refuses it. False: the cursor has to wait.

        `answers`: those of the filters of cursors that wait with this event. Their time is charged once.
        """
        answer = answers.pop(cursor, None) or self._selector.ask(endpoint, event)
        if answer is FilterResult.UNWANTED:
            return True
        if answer is FilterResult.NOT_ASKED:
            return False
        if self._takes(cursor, endpoint, event, answer, now):
            return True
        answers[cursor] = answer
        return False

    def _takes(self, cursor: Cursor, endpoint: Endpoint, event: Event, answer: FilterResult, now: float) -> bool:
        if not self._may_take(cursor):
            return False
        lane = self._lanes.lane(endpoint)
        is_ordered = not cursor.replay or self._replays.is_ordered(cursor.replay)
        key = ordering_key_of(event, endpoint, cursor.replay) if is_ordered else None
        behind_rows = key is not None and (key in cursor.held or self._settling.goes_behind_rows(key))
        if key is not None and behind_rows and not self._stores(cursor, key, event.record.offset, now):
            if not cursor.is_full:  # it is passed by, so that it stops no other key
                cursor.hold(event.record.offset, event.record.timestamp, key)
                self._holding.setdefault(cursor, now)
                return True
            return False
        if not behind_rows and not self._may_queue(cursor, lane, event, now):
            return False
        if not cursor.take(event.record.offset, event.record.timestamp):
            return True  # settled before a restart
        if cursor.replay:
            self._replays.took(cursor.replay, now)
        record = self._opened(cursor, event)
        if answer is FilterResult.TOO_LARGE:
            self._settling.on_undeliverable(Delivery(event, lane, record, key), FILTER_TOO_LARGE)
        elif behind_rows:
            self._settling.postpone(event, endpoint, record, key, lane)
        else:
            self._lanes.enqueue(Delivery(event, lane, record, key), now)
        return True

    def settle(self, cursors: Iterable[Cursor], offset: int) -> None:
        """These cursors have taken the record at this offset, and it is delivered or stored."""
        for cursor in cursors:
            cursor.settle(offset)
            self.dirty[cursor] = None

    def _stores(self, cursor: Cursor, key: OrderingKey, offset: int, now: float) -> bool:
        """Whether an event behind a stored one of its ordering key is stored too. First it is held for a while."""
        is_next = offset < cursor.stores_to and key not in cursor.held and self._may_store(cursor, now)
        return is_next or cursor.is_before_rows(offset)

    def _may_store(self, cursor: Cursor, now: float) -> bool:
        """A receiver that is perhaps down gets few rows; one key that fails does not stop the others."""
        works = self._lanes.works(cursor.due_key[2], now) and self._settling.may_postpone()
        return works or self._backlog.may_store(cursor.due_key)

    def returning(self, now: float) -> list[Cursor]:
        """Cursors that are to go back for events that they hold: these may be sent or stored now."""
        if now < self._looked + LOOK_EVERY:
            return []
        self._looked = now
        back = [each for each in self._holding if each.gone or each.astray or self._returns(each, now)]
        for cursor in back:
            del self._holding[cursor]
        return [cursor for cursor in back if cursor.held and not (cursor.gone or cursor.astray)]

    def _returns(self, cursor: Cursor, now: float) -> bool:
        if not all(map(self._settling.goes_behind_rows, cursor.held)):
            return True
        is_due = self._settling.is_due_within(SOON, cursor.due_key)
        if (is_due or cursor.holds_many) and not cursor.is_full:
            self._holding[cursor] = now
        if now < self._holding[cursor] + (SOON if is_due else STILL) or not self._may_store(cursor, now):
            return False
        cursor.stores_to = cursor.read_to
        return True

    @property
    def may_take(self) -> bool:
        """A cursor may take an event: not too many have settled since the last saves."""
        return self.unsaved < MOST_UNSAVED

    def _may_take(self, cursor: Cursor) -> bool:
        """The cursor's events would not make too many that a crash sends again."""
        at_risk = cursor.unsaved + cursor.open
        return self.may_take and cursor.unsaved < MOST_OF_ONE and at_risk < MOST_AT_RISK

    def _may_queue(self, cursor: Cursor, lane: Lane, event: Event, now: float) -> bool:
        if cursor.replay and self._replayed[cursor.due_key[2]] >= max(1, lane.capacity // REPLAYS_PART):
            return False
        may_send = (
            self._backlog.may_send(cursor.due_key, lane.held)
            and self._lanes.room_for_backlog(cursor.due_key[2], now) > 0
        )
        return may_send and self._lanes.admit(lane, event.size, now) is Admission.QUEUE

    def _opened(self, cursor: Cursor, event: Event) -> OpenRecord:
        if cursor.replay:
            self._replaying[cursor] = None
            self._replayed[cursor.due_key[2]] += 1
        if event is not self._event:
            self._event, self._held = event, _Held()
        assignment, held, size = self._assignments.setdefault(cursor.due_key[:2], object()), self._held, event.size
        if not held.takers:
            self._memory.hold(assignment, size)
        held.takers += 1

        def settle(offset: int) -> None:
            self.settle((cursor,), offset)
            held.takers -= 1
            if not held.takers:
                self._memory.release(assignment, size)

        return CursorRecord(settle, event.record.offset, 1, replay=cursor.replay)
