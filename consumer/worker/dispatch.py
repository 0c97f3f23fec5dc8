"""Turns events into deliveries: takes the inbox's next event and fans it out to the lanes of its subscriptions."""

from collections.abc import Callable

from consumer.delivery.delivery import OpenRecord
from consumer.delivery.fanout import Fanout
from consumer.delivery.lanes import Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import Event, TopicPartition
from consumer.loop.part import Part
from consumer.matching.inbox import Inbox, Matched
from consumer.matching.selection import TURN, Selector
from consumer.schemas.translation import Translation
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Tracer


class Dispatch(Part):
    """Fans events out, one after the other; at most one is fanned out in part."""

    def __init__(
        self,
        inbox: Inbox,
        lanes: Lanes,
        settling: Settling,
        selector: Selector,
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
        self._tracer = tracer
        self._arrived = 0.0  # when the event that is being fanned out arrived
        self._fanout: Fanout | None = None
        self._counted = False
        self._pressed = False

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
        while True:
            if self._fanout is None:
                matched = self._inbox.next()
                if matched is None:
                    return
                self._fanout = self._opened(matched)
                continue
            over = self._fanout.advance(self._lanes, self._settling, now)
            self._count(self._fanout, over=over)
            if not over:
                self._pressed = self._selector.spent
                return
            if self._tracer is not None:
                refused = self._fanout.refused
                self._trace(self._tracer, self._fanout.event, self._fanout.position - refused, refused)
            self._fanout = None

    def first_offset(self, topic_partition: TopicPartition) -> int | None:
        """The lowest offset of a partition that is not yet fanned out; None if none of its events waits here."""
        if self._fanout is not None and self._fanout.event.record.topic_partition == topic_partition:
            return self._fanout.event.record.offset
        first = self._inbox.first_offset(topic_partition)
        if first is None and self._translation is not None:  # its records come after all events of their partition
            return self._translation.first_offset(topic_partition)
        return first

    def discard(self, topic_partitions: set[TopicPartition]) -> Fanout | None:
        """Forget revoked partitions and their events. Returns the partly fanned-out event, if it is one of them."""
        if self._translation is not None:
            self._translation.discard(topic_partitions)
        self._inbox.discard(topic_partitions)
        fanout = self._fanout
        if fanout is None or fanout.event.record.topic_partition not in topic_partitions:
            return None
        self._fanout = None
        return fanout

    def _opened(self, matched: Matched) -> Fanout | None:
        event, endpoints, settle, self._arrived, stored = matched
        if stored or not endpoints:
            self._metrics.events["matched" if stored else "unmatched"] += 1
        if not endpoints:
            if self._tracer is not None:
                self._trace(self._tracer, event, 0, 0)
            settle(event.record.offset)
            return None
        self._counted = stored
        return Fanout(event, endpoints, OpenRecord(settle, event.record.offset, len(endpoints)), self._selector)

    def _count(self, fanout: Fanout, *, over: bool) -> None:
        """Count each event once: as matched as soon as a subscription gets it, or else as unmatched at the end."""
        if self._counted:
            return
        if fanout.position > fanout.refused:
            self._metrics.events["matched"] += 1
            self._counted = True
        elif over:
            self._metrics.events["unmatched"] += 1

    def _trace(self, tracer: Tracer, event: Event, matched: int, refused: int) -> None:
        """Record the span of an event's match: look-up, filters, and the wait for room, until now."""
        ago, attributes = self._monotonic() - self._arrived, {"webhooks.event.type": event.type}
        span = tracer.start("match", "internal", event.traceparent, attributes, ago=ago)
        span.end({"webhooks.subscriptions.matched": matched, "webhooks.subscriptions.refused": refused})
