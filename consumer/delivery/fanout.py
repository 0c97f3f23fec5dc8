"""One event, many subscriptions: a cursor, so that ten thousand of them are not ten thousand objects."""

from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.lanes import Admission, Lanes
from consumer.delivery.order import pair_of
from consumer.delivery.settling import Settling
from consumer.endpoint import Endpoint
from consumer.event import Event


class Fanout:
    """An event's deliveries, of which those before `position` are queued or stored."""

    __slots__ = ("endpoints", "event", "position", "record")

    def __init__(self, event: Event, endpoints: tuple[Endpoint, ...], record: OpenRecord) -> None:
        self.event = event
        self.endpoints = endpoints
        self.record = record
        self.position = 0

    def advance(self, lanes: Lanes, settling: Settling, now: float) -> bool:
        """Queue deliveries, or store them where the lane takes no more; False when the rest has to wait."""
        event, endpoints = self.event, self.endpoints
        size = len(event.body)
        while self.position < len(endpoints):
            endpoint = endpoints[self.position]
            pair = pair_of(event, endpoint) if endpoint.ordered else None
            # Owed, and stored until it can be signed: an operator's missing key must not make an event one for nobody.
            stored = endpoint.fault is not None or (pair is not None and settling.goes_behind_rows(pair))
            lane = None if stored else lanes.lane(endpoint)
            admission = lanes.admit(lane, size, now) if lane is not None else Admission.PARK
            if lane is not None and admission is Admission.QUEUE:
                lanes.enqueue(Delivery(event, lane, self.record, pair), now)
            elif admission is Admission.HOLD or not settling.may_postpone():
                return False
            else:
                settling.postpone(event, endpoint, self.record, pair, lane)
            self.position += 1
        return True

    def abandon(self, settling: Settling) -> None:
        """Its partition leaves: store the rest if a receiver may have seen the event, else the next owner sends it."""
        if self.record.started:
            for endpoint in self.endpoints[self.position :]:
                settling.postpone(self.event, endpoint, self.record, pair_of(self.event, endpoint))
