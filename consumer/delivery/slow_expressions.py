"""Takes subscriptions out of the loop if their filter or projection exceeds its budget of CPU time.

For a while the filter is not evaluated: deliveries are stored, and filtered before they are sent. Deliveries with a
projection are not sent meanwhile. Operators see it in the log, a metric and `subscriptions list --broken`.
"""

from collections.abc import Callable
from functools import partial

import structlog
from sqlalchemy import Engine

from consumer.delivery.lanes import Lanes
from consumer.delivery.notes import Notes
from consumer.delivery.settling import Settling
from consumer.ledger import upkeep

log = structlog.get_logger(__name__)


class SlowExpressions:
    """Call it with a subscription that has exceeded its budget."""

    def __init__(
        self, lanes: Lanes, settling: Settling, notes: Notes, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._lanes = lanes
        self._settling = settling
        self._notes = notes
        self._clock = clock
        self._monotonic = monotonic
        self._until: dict[int, float] = {}  # by subscription, being written: its row may be locked for long

    def __call__(self, subscription: int, seconds: float) -> None:
        """Log and note it, and send nothing for so many `seconds` if the subscription has a projection."""
        until = self._clock() + seconds
        log.error(
            "a subscription's filter or projection takes too much CPU time; its events are stored",
            subscription=subscription,
            seconds=seconds,
        )
        if subscription not in self._until:
            self._notes.add(partial(self._write, subscription), lambda: self._until.pop(subscription))
        self._until[subscription] = until
        lane = self._lanes.find(subscription)
        if lane is not None and lane.endpoint.projection is not None:
            lane.breaker.trip(self._monotonic(), seconds)
            self._settling.leave_alone(lane)

    def _write(self, subscription: int, engine: Engine) -> None:
        upkeep.slow(engine, subscription, self._until[subscription])
