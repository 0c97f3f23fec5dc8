"""What follows from an attempt: settled, waiting here for the next one, or stored for later."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import structlog
from requests import RequestException, Response

from consumer.delivery.lanes import Delivery, Lane, Lanes, OpenRecord, StoredRow
from consumer.delivery.ledger import AttemptResult, NewDelivery
from consumer.delivery.outcome import Delivered, Failed, Gone, Hopeless, Outcome, judge
from consumer.delivery.parking import Parking
from consumer.delivery.retry import Retry, RetryPolicy
from consumer.endpoint import Endpoint
from consumer.event import Event
from consumer.telemetry import Metrics

log = structlog.get_logger(__name__)

UNKNOWN = Failed("stopped while the request was open: its outcome is unknown")
Clock = Callable[[], float]


class Settling:
    """Takes each attempt's result to its end. `leaving` partitions keep nothing in memory: their next owner sends."""

    def __init__(
        self,
        lanes: Lanes,
        parking: Parking,
        policy: RetryPolicy,
        metrics: Metrics,
        *,
        in_memory: float,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._lanes = lanes
        self._parking = parking
        self._policy = policy
        self._metrics = metrics
        self._in_memory = in_memory
        self._log_delivered = log.is_enabled_for(logging.DEBUG)
        self._clock = clock
        self._monotonic = monotonic
        self.rows: set[int] = set()  # stored deliveries that this process has taken up and not written back
        self.leaving: set[tuple[str, int]] = set()

    def attempted(self, delivery: Delivery, result: Response | RequestException) -> None:
        """An attempt has ended with `result`."""
        now = self._clock()
        took = self._monotonic() - delivery.started_at
        outcome = judge(result, now)
        metrics = self._metrics
        metrics.attempt_seconds.observe(took)
        metrics.attempts[f"{outcome.status // 100}xx" if outcome.status else "error"] += 1
        delivery.attempts += 1
        if isinstance(outcome, Delivered):
            metrics.deliveries["delivered"] += 1
            metrics.delivery_latency_seconds.observe(now - delivery.event.record.timestamp / 1000)
            if self._log_delivered:
                log.debug("attempt", **_fields(delivery, took), status=outcome.status, outcome="delivered")
            if isinstance(delivery.origin, OpenRecord):
                delivery.origin.settle_one()
            else:
                self._resolve(delivery.origin, delivery.attempts, "delivered", now, outcome)
            return
        self._failed(delivery, outcome, now, took)

    def abandoned(self, delivery: Delivery) -> None:
        """The process stops while the request is open: it counts as an attempt of unknown outcome, the last one too."""
        delivery.attempts += 1
        self._failed(delivery, UNKNOWN, self._clock(), self._monotonic() - delivery.started_at)

    def may_postpone(self) -> bool:
        """The database keeps up with what is stored."""
        return not self._parking.full

    def postpone(self, event: Event, endpoint: Endpoint, record: OpenRecord) -> None:
        """Store a delivery that was never tried, due at once: its receiver is too slow, or its partition leaves."""
        now = self._clock()
        self._metrics.deliveries["parked"] += 1
        self._parking.park(
            NewDelivery(event, endpoint.subscription_id, endpoint.url, 0, "parked", now, None, None, None),
            record.settle_one,
        )

    def withdrawn(self, delivery: Delivery) -> None:
        """A delivery of a leaving partition was queued here or waited for its retry.

        It is stored if a receiver may have seen its record, so that the next owner does not send the rest of it again;
        an untouched record stays unsettled, and the next owner reads it afresh.
        """
        origin = delivery.origin
        if isinstance(origin, StoredRow):
            self.rows.discard(origin.id)
        elif delivery.failed is not None:
            self._store(delivery, "parked", self._clock(), delivery.due_at, delivery.failed)
        elif origin.started:
            self.postpone(delivery.event, delivery.lane.endpoint, origin)

    def _leave_alone(self, lane: Lane) -> None:
        """Its receiver wants no more: what is here is stored, to be held with the subscription's other rows."""
        if lane.held:
            for delivery in self._lanes.withdraw(lambda each: each.lane is lane):
                if isinstance(delivery.origin, OpenRecord) and delivery.failed is None:
                    self.postpone(delivery.event, lane.endpoint, delivery.origin)
                else:
                    self.withdrawn(delivery)

    def _failed(self, delivery: Delivery, outcome: Failed | Gone | Hopeless, now: float, took: float) -> None:
        if delivery.first_attempt_at is None:
            delivery.first_attempt_at = now - took
        verdict = self._policy.decide(delivery.attempts, outcome) if isinstance(outcome, Failed) else None
        if not isinstance(verdict, Retry):
            what = "exhausted"
            if isinstance(outcome, Gone):
                self._parking.disable(delivery.lane.endpoint.subscription_id, outcome.error)
                self._leave_alone(delivery.lane)
            self._store(delivery, "exhausted", now, None, outcome)
        elif self._stays(delivery, verdict.wait):
            what = "retried"
            delivery.failed = outcome if isinstance(outcome, Failed) else None
            delivery.due_at = now + verdict.wait
            self._lanes.wait(delivery, self._monotonic() + verdict.wait)
        else:
            what = "parked"
            self._store(delivery, "parked", now, now + verdict.wait, outcome)
        self._metrics.deliveries[what] += 1
        log.warning(
            "attempt",
            **_fields(delivery, took),
            status=outcome.status,
            outcome=what,
            error=outcome.error,
            retry_in=round(verdict.wait, 3) if isinstance(verdict, Retry) else None,
        )

    def _stays(self, delivery: Delivery, wait: float) -> bool:
        record = delivery.event.record
        return (
            isinstance(delivery.origin, OpenRecord)
            and wait <= self._in_memory
            and (record.topic, record.partition) not in self.leaving
        )

    def _store(
        self,
        delivery: Delivery,
        status: Literal["parked", "exhausted"],
        now: float,
        next_at: float | None,
        outcome: Failed | Gone | Hopeless,
    ) -> None:
        origin = delivery.origin
        if isinstance(origin, StoredRow):
            self._resolve(origin, delivery.attempts, status, now, outcome, next_at)
            return
        endpoint = delivery.lane.endpoint
        self._parking.park(
            NewDelivery(
                delivery.event,
                endpoint.subscription_id,
                endpoint.url,
                delivery.attempts,
                status,
                next_at,
                delivery.first_attempt_at,
                outcome.error,
                outcome.status,
            ),
            origin.settle_one,
        )

    def _resolve(
        self,
        row: StoredRow,
        attempts: int,
        status: Literal["delivered", "parked", "exhausted"],
        now: float,
        outcome: Outcome,
        next_at: float | None = None,
    ) -> None:
        error = None if isinstance(outcome, Delivered) else outcome.error
        self._parking.resolve(
            AttemptResult(row.id, attempts - 1, status, next_at, error, outcome.status, now),
            partial(self.rows.discard, row.id),
        )


def _fields(delivery: Delivery, took: float) -> dict[str, object]:
    event = delivery.event
    return {
        "topic": event.record.topic,
        "partition": event.record.partition,
        "offset": event.record.offset,
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        "subscription": delivery.lane.endpoint.subscription_id,
        "attempt": delivery.attempts,
        "seconds": round(took, 4),
    }
