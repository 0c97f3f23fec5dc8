"""The requests that are open: started as lanes allow, each ending in a call of `Settling.attempted`."""

from collections.abc import Callable
from functools import partial

from requests import RequestException, Response
from requests.exceptions import InvalidHeader

from consumer.delivery.delivery import Delivery, OpenRecord, StoredRow
from consumer.delivery.lanes import Lanes
from consumer.delivery.settling import Settling
from consumer.sending.request import build
from consumer.sending.transport import CurlAdapter

GROWTH = 64  # requests that one turn starts beyond those that ended: a burst is spread over turns


class Sender:
    """`open` are the deliveries whose request is."""

    def __init__(
        self,
        lanes: Lanes,
        settling: Settling,
        transport: CurlAdapter,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.open: set[Delivery] = set()
        self._lanes = lanes
        self._settling = settling
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._ended = 0  # requests that ended in the last turn

    def start(self) -> None:
        """Send what may start now."""
        allowance, self._ended = GROWTH + self._ended, 0
        now, timestamp = self._monotonic(), int(self._clock())
        while allowance and (delivery := self._lanes.next(now)) is not None:
            allowance -= 1
            lane = delivery.lane
            delivery.started_at = now
            delivery.sent_to = lane.endpoint
            self.open.add(delivery)
            if isinstance(delivery.origin, OpenRecord):
                delivery.origin.started = True
            if isinstance(lane.prepared, RequestException):
                self._completed(delivery, lane.prepared)
                continue
            try:
                request = build(lane.prepared, lane.endpoint, delivery.event, timestamp)
            except ValueError as error:  # a stored row whose header somebody has edited
                self._completed(delivery, InvalidHeader(error))
                continue
            delivery.transfer = self._transport.submit(request, partial(self._completed, delivery))

    def cancel(self, delivery: Delivery) -> None:
        """Cut an open request off; nothing follows from it."""
        self.open.discard(delivery)
        lane = delivery.lane
        self._lanes.finished(lane)
        if delivery.pair is not None:
            self._lanes.cut(delivery.pair)  # those behind it have been withdrawn, as they are of the same partition
        if delivery.transfer is not None:
            self._transport.cancel(delivery.transfer)
        if isinstance(delivery.origin, StoredRow):
            self._settling.rows.pop(delivery.origin.id, None)

    def _completed(self, delivery: Delivery, result: Response | RequestException) -> None:
        self.open.discard(delivery)
        self._ended += 1
        if delivery.transfer is not None:
            delivery.lane.connects = delivery.transfer.connected
        self._lanes.finished(delivery.lane)
        self._settling.attempted(delivery, result)
