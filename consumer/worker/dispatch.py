"""Turns events into deliveries: fans the inbox's next event out to the lanes of its subscriptions.

A turn of the loop advances an event by some subscriptions. Deliveries that wait for room are not yet objects.
"""

from collections.abc import Callable
from math import inf

from consumer.delivery.backlog import Backlog
from consumer.delivery.delivery import QUEUE_SECONDS, Delivery, OpenRecord
from consumer.delivery.known_rows import ordering_key_of
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import Event, TopicPartition
from consumer.loop.part import Part
from consumer.matching.inbox import Inbox
from consumer.matching.selection import FILTER_TOO_LARGE, TURN, FilterResult, Selector
from consumer.schemas.translation import Translation
from consumer.subscriptions.endpoint import Endpoint
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Tracer

LOOK_EVERY = 32  # subscriptions between two checks of the clock: 0.1 ms, or 2 ms where each needs a new lane
LEAVING = 1.0  # seconds that filters may take while a partition is revoked: all members of the group wait


class Fanout:
    """A cursor over an event's subscriptions. Those before `position` are queued or stored, or a filter `refused` them.

    `queued`: the last advance has queued some.

    A refused delivery is settled at once. After a crash the filter is evaluated again.
    """

    __slots__ = (
        "_answer",
        "_backlog",
        "_covered",
        "_selector",
        "_size",
        "endpoints",
        "event",
        "position",
        "queued",
        "record",
        "refused",
    )

    def __init__(
        self,
        event: Event,
        endpoints: tuple[Endpoint, ...],
        record: OpenRecord,
        selector: Selector,
        backlog: Backlog,
        size: int,
    ) -> None:
        self._backlog = backlog
        self._covered = backlog.of(event.record[:2])
        self._size = size
        self.event = event
        self.endpoints = endpoints
        self.record = record
        self.position = 0
        self.queued = False
        self.refused = 0
        self._answer = (-1, FilterResult.WANTED)  # the last evaluated position and its result, for the next turn
        self._selector = selector

    def advance(self, lanes: Lanes, settling: Settling, now: float) -> bool:
        """Queue deliveries, or store them if their lane is full; False if the rest has to wait.

        It waits for room, or for the next turn if the selector's time is spent.
        """
        event, endpoints = self.event, self.endpoints
        size, self.queued = self._size, False
        while self.position < len(endpoints):
            if self.position and not self.position % LOOK_EVERY and self._selector.is_spent():
                return False
            endpoint = endpoints[self.position]
            apart = endpoint.paused or endpoint.starts or endpoint.subscription_id in self._covered
            if apart and self._backlog.leaves(event, endpoint, self.record):
                self.position += 1
                continue
            if endpoint.selection is not None and self._answer[0] != self.position:
                if self._selector.spent:
                    return False
                if not self._is_owed(endpoint, lanes, settling):
                    continue
            asked = endpoint.selection is None or self._answer[1] is not FilterResult.NOT_ASKED
            ordering_key = ordering_key_of(event, endpoint) if endpoint.ordered else None
            behind = (ordering_key is not None and settling.goes_behind_rows(ordering_key)) or (
                endpoint.subscription_id in self._covered and self._backlog.is_met(event, endpoint)
            )
            # A fault, such as an unusable secret, stops the sending: events are stored until the fault is mended.
            stored = behind or not asked or endpoint.fault is not None
            lane = None if stored else lanes.lane(endpoint)
            slow = lane is not None and lane.pace is not None and not lane.sends_within(QUEUE_SECONDS, now)
            admission = Admission.STORE if lane is None or slow else lanes.admit(lane, size, now)
            if lane is not None and admission is Admission.QUEUE:
                lanes.enqueue(Delivery(event, lane, self.record, ordering_key, size), now)
                self.queued = True
            elif admission is Admission.BACKPRESSURE or not settling.may_postpone():
                return False
            elif (
                # Events of other ordering keys need not wait for a cursor because of this one.
                behind and endpoint.fault is None and lanes.works(endpoint.subscription_id, now)
            ) or not self._backlog.takes(event, endpoint, self.record, lane):
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
            if self._backlog.leaves(self.event, endpoint, self.record):
                self.position += 1
            elif self._is_owed(endpoint, lanes, settling):
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


class Dispatch(Part):
    """Fans events out, one after the other; at most one is fanned out in part.

    `queued_at`: when the last delivery was queued (monotonic seconds).
    """

    def __init__(
        self,
        inbox: Inbox,
        lanes: Lanes,
        settling: Settling,
        selector: Selector,
        backlog: Backlog,
        metrics: Metrics,
        monotonic: Callable[[], float],
        translation: Translation | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`translation` holds records that become events later."""
        self._inbox = inbox
        self._translation = translation
        self._lanes = lanes
        self._settling = settling
        self._metrics = metrics
        self._monotonic = monotonic
        self._selector = selector
        self._backlog = backlog
        self._tracer = tracer
        self._arrived = 0.0  # when the event that is being fanned out arrived
        self._fanout: Fanout | None = None
        self._stored = False  # some of its deliveries are stored: it has matched
        self._pressed = False
        self.queued_at = -inf

    @property
    def ready(self) -> bool:
        """The last turn ran out of time, and there is more to do."""
        return self._pressed

    @property
    def busy(self) -> bool:
        """Events wait for room or for the database."""
        return bool(self._inbox or self._fanout)

    def poll(self, now: float) -> None:
        """Fan events out until one has to wait, or this turn's time is over."""
        self._selector.begin(TURN)
        self._pressed = False
        looked = 0  # subscriptions since the last check of the clock
        while True:
            if looked >= LOOK_EVERY:
                looked = 0
                if self._selector.is_spent():
                    self._pressed = self.busy
                    return
            fanout = self._fanout
            if fanout is None:
                matched = self._inbox.next()
                if matched is None:
                    return
                event, size, endpoints, settle, self._arrived, self._stored = matched
                looked += len(endpoints)
                if not endpoints:
                    self._ended(event, 0, 0)
                    settle(event.record.offset)
                    continue
                record = OpenRecord(settle, event.record.offset, len(endpoints))
                fanout = self._fanout = Fanout(event, endpoints, record, self._selector, self._backlog, size)
            is_over = fanout.advance(self._lanes, self._settling, now)
            if fanout.queued:
                self.queued_at = now
            if not is_over:
                self._pressed = self._selector.spent
                return
            self._fanout = None
            self._ended(fanout.event, fanout.position - fanout.refused, fanout.refused)

    def first_offset(self, topic_partition: TopicPartition) -> int | None:
        """The lowest offset of a partition that is not yet fanned out; None if none of its events waits here."""
        if self._fanout is not None and self._fanout.event.record.topic_partition == topic_partition:
            return self._fanout.event.record.offset
        first = self._inbox.first_offset(topic_partition)
        if first is None and self._translation is not None:  # its records come after all events of their partition
            return self._translation.first_offset(topic_partition)
        return first

    def untouched(self, topic_partition: TopicPartition) -> int | None:
        """The lowest offset that was read and that no subscription has got; None if there is none."""
        if self._fanout is not None and self._fanout.event.record.topic_partition == topic_partition:
            return self._fanout.event.record.offset + 1
        return self.first_offset(topic_partition)

    def discard(self, topic_partitions: set[TopicPartition]) -> Fanout | None:
        """Forget revoked partitions and their events. Returns the partly fanned-out event, if it is one of them."""
        if self._translation is not None:
            self._translation.discard(topic_partitions)
        self._inbox.discard(topic_partitions)
        fanout = self._fanout
        if fanout is None or fanout.event.record.topic_partition not in topic_partitions:
            return None
        self._fanout = None
        if fanout.position > fanout.refused:
            self._metrics.events["matched"] += 1
        return fanout

    def _ended(self, event: Event, matched: int, refused: int) -> None:
        """Count an event, and record the span of its match: look-up, filters, and the wait for room, until now."""
        self._metrics.events["matched" if matched or self._stored else "unmatched"] += 1
        if self._tracer is None or self._tracer.unsampled(event.traceparent) is not None:
            return
        ago, attributes = self._monotonic() - self._arrived, {"webhooks.event.type": event.type}
        span = self._tracer.start("match", "internal", event.traceparent, attributes, ago=ago)
        span.end({"webhooks.subscriptions.matched": matched, "webhooks.subscriptions.refused": refused})
