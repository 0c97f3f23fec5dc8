"""Feeds lanes with the events that cursors read, within bounds on what a crash would repeat."""

from collections import Counter

from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Delivery, Lane, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.events.event import Event
from consumer.matching.selection import FILTER_TOO_LARGE, FilterResult, Selector
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker.replaying import Replays

REPLAYS_PART = 4  # replays take one place of so many in a lane: the others are for new events
MOST_UNSAVED = 400  # settled events of all cursors whose positions are not saved: a crash sends them again


class Feeder:
    """Decides whether a cursor takes an event now.

    `exposed` are the cursors with events that are open, or that have settled since their last save: `unsaved` ones.
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
        self._replayed = Counter[int]()  # open events of replays, by subscription
        self.unsaved = 0
        self.exposed: dict[Cursor, None] = {}

    def count(self) -> None:
        """Count the unsaved events; call it once a turn."""
        self.unsaved = 0
        self._replayed.clear()
        for cursor in list(self.exposed):
            if not cursor.open and not cursor.unsaved:
                del self.exposed[cursor]
            self.unsaved += cursor.unsaved
            if cursor.replay:
                self._replayed[cursor.due_key[2]] += cursor.open

    def has_room(self, subscription_id: int, now: float) -> bool:
        """A subscription may get an event."""
        return (
            self.unsaved < MOST_UNSAVED
            and not self._selector.is_over(subscription_id)
            and self._lanes.room(subscription_id, now) > 0
        )

    def takes(self, cursor: Cursor, endpoint: Endpoint, event: Event, now: float) -> bool:
        """Queue an event for a cursor's subscription, unless its filter refuses it. False: the cursor has to wait."""
        answer = self._selector.ask(endpoint, event)
        if answer is FilterResult.UNWANTED:
            return True
        if answer is FilterResult.NOT_ASKED or self.unsaved >= MOST_UNSAVED:
            return False
        lane = self._lanes.lane(endpoint)
        is_ordered = not cursor.replay or self._replays.is_ordered(cursor.replay)
        key = ordering_key_of(event, endpoint, cursor.replay) if is_ordered else None
        # Events behind a stored one of their ordering key are stored too, as far as the subscription may have rows.
        behind_rows = key is not None and self._settling.goes_behind_rows(key)
        if not (self._backlog.may_store(cursor.due_key) if behind_rows else self._may_queue(cursor, lane, event, now)):
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

    def _may_queue(self, cursor: Cursor, lane: Lane, event: Event, now: float) -> bool:
        if cursor.replay and self._replayed[cursor.due_key[2]] >= max(1, lane.capacity // REPLAYS_PART):
            return False
        return self._lanes.admit(lane, event.size, now) is Admission.QUEUE

    def _opened(self, cursor: Cursor, event: Event) -> OpenRecord:
        self._memory.keep(event, event.size)
        self.exposed[cursor] = None
        if cursor.replay:
            self._replayed[cursor.due_key[2]] += 1

        def settle(offset: int) -> None:
            self._memory.drop(event)
            cursor.settle(offset)

        return OpenRecord(settle, event.record.offset, 1, replay=cursor.replay)
