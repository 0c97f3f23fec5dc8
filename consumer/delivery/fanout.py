"""One event, many subscriptions: a cursor over them.

A turn of the loop advances it by some subscriptions. Deliveries that wait for room are not yet objects.
"""

from consumer.delivery.delivery import QUEUE_SECONDS, Delivery, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import Event
from consumer.matching.selection import FILTER_TOO_LARGE, FilterResult, Selector
from consumer.subscriptions.endpoint import Endpoint

LOOK_EVERY = 32  # subscriptions between two checks of the clock: 0.1 ms, or 2 ms where each needs a new lane
LEAVING = 1.0  # seconds that filters may take while a partition is revoked: all members of the group wait


class Fanout:
    """An event's deliveries. Those before `position` are queued or stored, or a filter `refused` them.

    A refused delivery is settled at once. After a crash the filter is evaluated again.
    """

    __slots__ = ("_answer", "_selector", "endpoints", "event", "position", "record", "refused")

    def __init__(self, event: Event, endpoints: tuple[Endpoint, ...], record: OpenRecord, selector: Selector) -> None:
        self.event = event
        self.endpoints = endpoints
        self.record = record
        self.position = 0
        self.refused = 0
        self._answer = (-1, FilterResult.WANTED)  # the last evaluated position and its result, for the next turn
        self._selector = selector

    def advance(self, lanes: Lanes, settling: Settling, now: float) -> bool:
        """Queue deliveries, or store them if their lane is full; False if the rest has to wait.

        It waits for room, or for the next turn if the selector's time is spent.
        """
        event, endpoints = self.event, self.endpoints
        size = event.size
        while self.position < len(endpoints):
            if not self.position % LOOK_EVERY and self._selector.is_spent():
                return False
            endpoint = endpoints[self.position]
            if endpoint.selection is not None and self._answer[0] != self.position:
                if self._selector.spent:
                    return False
                if not self._is_owed(endpoint, lanes, settling):
                    continue
            asked = endpoint.selection is None or self._answer[1] is not FilterResult.NOT_ASKED
            ordering_key = ordering_key_of(event, endpoint) if endpoint.ordered else None
            # A fault, such as an unusable secret, stops the sending: events are stored until the fault is mended.
            stored = (
                endpoint.fault is not None
                or not asked
                or (ordering_key is not None and settling.goes_behind_rows(ordering_key))
            )
            lane = None if stored else lanes.lane(endpoint)
            slow = lane is not None and lane.pace is not None and not lane.sends_within(QUEUE_SECONDS, now)
            admission = Admission.STORE if lane is None or slow else lanes.admit(lane, size, now)
            if lane is not None and admission is Admission.QUEUE:
                lanes.enqueue(Delivery(event, lane, self.record, ordering_key), now)
            elif admission is Admission.BACKPRESSURE or not settling.may_postpone():
                return False
            else:
                settling.postpone(event, endpoint, self.record, ordering_key, lane, asked=asked)
            self.position += 1
        return True

    def abandon(self, lanes: Lanes, settling: Settling) -> bool:
        """The partition is revoked: store the rest if a receiver may have seen the event; else the next owner sends it.

        False if the database has to catch up first: call it again after a turn. Deliveries for which the time does not
        suffice, as with slow filters, stay unsettled: the next owner reads the record again, and sends the deliveries
        that are not stored.
        """
        if not self.record.started:
            return True
        self._selector.begin(LEAVING)
        while self.position < len(self.endpoints):
            if not settling.may_postpone():
                return False
            if self._selector.spent or (not self.position % LOOK_EVERY and self._selector.is_spent()):
                return True
            endpoint = self.endpoints[self.position]
            if self._is_owed(endpoint, lanes, settling):
                asked = self._answer[1] is not FilterResult.NOT_ASKED
                settling.postpone(self.event, endpoint, self.record, ordering_key_of(self.event, endpoint), asked=asked)
                self.position += 1
        return True

    def _is_owed(self, endpoint: Endpoint, lanes: Lanes, settling: Settling) -> bool:
        """Whether the next subscription gets the event, or may get it. If not, its delivery is settled here.

        If the event is too large for the filter, the delivery is given up with that reason, which operators see.
        """
        answer = self._selector.ask(endpoint, self.event)
        self._answer = (self.position, answer)
        match answer:
            case FilterResult.WANTED | FilterResult.NOT_ASKED:
                return True
            case FilterResult.UNWANTED:
                self.refused += 1
                self.record.settle_one()
            case FilterResult.TOO_LARGE:
                settling.on_undeliverable(Delivery(self.event, lanes.lane(endpoint), self.record), FILTER_TOO_LARGE)
        self.position += 1
        return False
