"""Events become deliveries: the inbox's next event, fanned out to the lanes of its subscriptions."""

from collections.abc import Callable

from consumer.delivery.delivery import OpenRecord
from consumer.delivery.fanout import Fanout
from consumer.delivery.lanes import Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.matching.inbox import Inbox, Matched
from consumer.matching.selection import TURN, Selector
from consumer.telemetry.metrics import Metrics


class Dispatch:
    """`waiting_since`: since when the next event has waited for an answer of the database (monotonic seconds).

    `pressed`: a turn's time was over, and there is more.
    """

    def __init__(
        self,
        inbox: Inbox,
        lanes: Lanes,
        settling: Settling,
        selector: Selector,
        metrics: Metrics,
        monotonic: Callable[[], float],
    ) -> None:
        self._inbox = inbox
        self._lanes = lanes
        self._settling = settling
        self._metrics = metrics
        self._monotonic = monotonic
        self._selector = selector
        self._fanout: Fanout | None = None
        self._counted = False
        self._until = 0.0
        self.pressed = False
        self.waiting_since: float | None = None

    @property
    def busy(self) -> bool:
        """Something waits here for room or for the database."""
        return bool(self._inbox or self._fanout)

    def go_on(self) -> None:
        """Fan events out until one has to wait, or this turn's time for it is over."""
        now = self._monotonic()
        self._until = now + TURN
        self._selector.begin(TURN)
        self.pressed = False
        while True:
            if self._fanout is None:
                matched = self._inbox.next()
                if matched is None:
                    self.waiting_since = (self.waiting_since or now) if self._inbox else None
                    return
                self.waiting_since = None
                self._fanout = self._opened(matched)
                continue
            over = self._fanout.advance(self._lanes, self._settling, now, self._is_over)
            self._count(self._fanout, over=over)
            if not over:
                self.pressed = self.pressed or self._selector.spent
                return
            self._fanout = None

    def first_offset(self, place: TopicPartition) -> int | None:
        """The lowest offset of a partition that is not fanned out yet; None where nothing of it waits here."""
        if self._fanout is not None and self._fanout.event.record[:2] == place:
            return self._fanout.event.record.offset
        return self._inbox.first_offset(place)

    def discard(self, places: set[TopicPartition]) -> Fanout | None:
        """Forget partitions and their events; their next owner reads them again. Gives what is fanned out in part."""
        self._inbox.discard(places)
        fanout = self._fanout
        if fanout is None or fanout.event.record[:2] not in places:
            return None
        self._fanout = None
        return fanout

    def _is_over(self) -> bool:
        self.pressed = self._monotonic() >= self._until
        return self.pressed

    def _opened(self, matched: Matched) -> Fanout | None:
        event, endpoints, settle, stored = matched
        if stored or not endpoints:
            self._metrics.events["matched" if stored else "unmatched"] += 1
        if not endpoints:
            settle(event.record.offset)
            return None
        self._counted = stored
        return Fanout(event, endpoints, OpenRecord(settle, event.record.offset, len(endpoints)), self._selector)

    def _count(self, fanout: Fanout, *, over: bool) -> None:
        """Each event once: as soon as somebody wants it, or at the end, if nobody does."""
        if self._counted:
            return
        if fanout.position > fanout.refused:
            self._metrics.events["matched"] += 1
            self._counted = True
        elif over:
            self._metrics.events["unmatched"] += 1
