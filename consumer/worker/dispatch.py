"""Turns events into deliveries: takes the inbox's next event and fans it out to the lanes of its subscriptions."""

from collections.abc import Callable

from consumer.delivery.delivery import OpenRecord
from consumer.delivery.fanout import Fanout
from consumer.delivery.lanes import Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.loop.part import Part
from consumer.matching.inbox import Inbox, Matched
from consumer.matching.selection import TURN, Selector
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Tracer
from consumer.worker.record_spans import trace_match


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
        tracer: Tracer | None = None,
    ) -> None:
        self._inbox = inbox
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
                seconds, refused = self._monotonic() - self._arrived, self._fanout.refused
                trace_match(self._tracer, self._fanout.event, seconds, self._fanout.position - refused, refused)
            self._fanout = None

    def first_offset(self, topic_partition: TopicPartition) -> int | None:
        """The lowest offset of a partition that is not yet fanned out; None if none of its events waits here."""
        if self._fanout is not None and self._fanout.event.record.topic_partition == topic_partition:
            return self._fanout.event.record.offset
        return self._inbox.first_offset(topic_partition)

    def discard(self, topic_partitions: set[TopicPartition]) -> Fanout | None:
        """Forget revoked partitions and their events. Returns the partly fanned-out event, if it is one of them."""
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
                trace_match(self._tracer, event, self._monotonic() - self._arrived, 0)
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
