"""Feeds lanes with the events that cursors read, within bounds on what a crash would repeat."""

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

MOST_UNSAVED = 200  # settled events of all cursors whose positions are not saved: a crash sends them again


class Feeder:
    """Decides whether a cursor takes an event now.

    `exposed` are the cursors with events that are open, or that have settled since their last save: `unsaved` ones.
    """

    def __init__(self, backlog: Backlog, lanes: Lanes, settling: Settling, selector: Selector, memory: Memory) -> None:
        self._backlog = backlog
        self._lanes = lanes
        self._settling = settling
        self._selector = selector
        self._memory = memory
        self.unsaved = 0
        self.exposed: dict[Cursor, None] = {}

    def count(self) -> None:
        """Count the unsaved events; call it once a turn."""
        self.unsaved = 0
        for cursor in list(self.exposed):
            if not cursor.open and not cursor.unsaved:
                del self.exposed[cursor]
            self.unsaved += cursor.unsaved

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
        if answer is FilterResult.NOT_ASKED or not self.has_room(endpoint.subscription_id, now):
            return False
        lane, key = self._lanes.lane(endpoint), ordering_key_of(event, endpoint)
        # Events behind a stored one of their ordering key are stored too, as far as the subscription may have rows.
        behind_rows = key is not None and self._settling.goes_behind_rows(key)
        if not (self._backlog.may_store(cursor.due_key) if behind_rows else self._may_queue(lane, event, now)):
            return False
        if not cursor.take(event.record.offset, event.record.timestamp):
            return True  # settled before a restart
        record = self._opened(cursor, event)
        if answer is FilterResult.TOO_LARGE:
            self._settling.on_undeliverable(Delivery(event, lane, record, key), FILTER_TOO_LARGE)
        elif behind_rows:
            self._settling.postpone(event, endpoint, record, key, lane)
        else:
            self._lanes.enqueue(Delivery(event, lane, record, key), now)
        return True

    def _may_queue(self, lane: Lane, event: Event, now: float) -> bool:
        return self._lanes.admit(lane, event.size, now) is Admission.QUEUE

    def _opened(self, cursor: Cursor, event: Event) -> OpenRecord:
        self._memory.keep(event, event.size)
        self.exposed[cursor] = None

        def settle(offset: int) -> None:
            self._memory.drop(event)
            cursor.settle(offset)

        return OpenRecord(settle, event.record.offset, 1, replay=cursor.replay)
