"""Carries out the step after an attempt: settle the record, wait in memory for a retry, or store the delivery."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from http.client import MULTIPLE_CHOICES
from math import inf
from typing import Literal

import structlog
from requests import RequestException, Response, Timeout

from consumer.delivery.attempt_reports import exhausted, fields, secrets_of
from consumer.delivery.delivery import QUEUE_SECONDS, Delivery, Lane, OpenRecord, StoredRow
from consumer.delivery.failing import Failing
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.outcome import (
    Delivered,
    Failed,
    Gone,
    Outcome,
    Rejected,
    Undeliverable,
    Unsendable,
    judge,
    unavailable,
)
from consumer.delivery.parking import Parking
from consumer.delivery.retry import policy_for, wait_after
from consumer.events.event import Event, TopicPartition
from consumer.ledger.rows import AttemptFailure, AttemptResult, DueKey, NewDelivery, OrderingKey, due_key_of
from consumer.matching.selection import PAUSE, Budget
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import Effect, OptionProblem
from consumer.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_CLASSES = tuple(f"{digit}xx" for digit in range(10))
UNKNOWN = Failed("stopped while the request was open: its outcome is unknown")
Clock = Callable[[], float]
# Takes the attempt's delivery, the outcome's name in the metrics, the outcome, its end (unix seconds) and its seconds.
AttemptReport = Callable[[Delivery, str, Outcome, float, float], None]
# Calls its argument once Kafka has the attempts that were reported so far, or does not take them.
AnswerReport = Callable[[Delivery, Response, Callable[[], Sequence[str]], float, float], None]
OnceReported = Callable[[Callable[[], object]], None]


def at_once(then: Callable[[], object]) -> None:
    """Nothing waits for reports."""
    then()


class Settling:
    """Takes each result of an attempt. Deliveries of partitions that are given up do not wait in memory."""

    def __init__(
        self,
        lanes: Lanes,
        parking: Parking,
        failing: Failing,
        metrics: Metrics,
        rows: TakenUp,
        budget: Budget,
        *,
        schedule: tuple[float, ...],
        jitter: float,
        in_memory: float,
        operations_topic: str,
        owns: Callable[[TopicPartition], bool],
        report: AttemptReport | None = None,
        report_answer: AnswerReport | None = None,
        once_reported: OnceReported = at_once,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        """`owns`: whether this worker sends the deliveries of a partition, and is not giving it up.

        `report`, if given, gets each attempt of each delivery, and `report_answer` each answer that a subscription
        wants reported; they must not raise. `once_reported` delays what follows a
        success until its report cannot be lost.
        """
        self._lanes = lanes
        self._parking = parking
        self._failing = failing
        self._metrics = metrics
        self._schedule = schedule
        self._jitter = jitter
        self._in_memory = in_memory
        self._operations_topic = operations_topic
        self._owns = owns
        self._report, self._report_answer, self.once_reported = report, report_answer, once_reported
        self._log_delivered = log.is_enabled_for(logging.DEBUG)
        self._clock = clock
        self._monotonic = monotonic
        self._rows = rows
        self._budget = budget

    def on_result(self, delivery: Delivery, result: Response | RequestException) -> None:
        """A request has ended with `result`, which is an attempt of each delivery that it carried.

        The request counts once for its receiver (attempt metrics, circuit breaker, days of failure). All else is
        decided for each delivery.
        """
        now, moment = self._clock(), self._monotonic()
        took = moment - delivery.started_at
        lane = delivery.lane
        endpoint = lane.endpoint
        outcome = self._judged(delivery, result, now, took)
        if isinstance(outcome, Unsendable):
            self._not_sent(delivery, outcome, now)
            return
        metrics = self._metrics
        metrics.attempt_seconds.observe(took)
        metrics.attempts[_CLASSES[outcome.status // 100] if outcome.status else "error"] += 1
        deliveries = delivery.split()
        # Else the result says nothing about the lane's present receiver.
        of_lane = delivery.sent_to is endpoint or _is_of_lane(delivery)
        if of_lane and lane.timed_out is not (timed_out := isinstance(result, Timeout)):
            self._lanes.ended(lane, timed_out=timed_out)
        if isinstance(outcome, Delivered):
            if of_lane:
                lane.succeeded(moment, delivery.started_at, self._lanes.slots.total)
                if self._failing.remembers(lane.endpoint):
                    self._failing.succeeded(lane.endpoint, now, quietly=self._are_operational(*deliveries))
            for each in deliveries:
                self._delivered(each, outcome, now, took, len(deliveries))
            return
        is_over = of_lane and self._counts_against(delivery, outcome, deliveries, now, moment)
        if not of_lane and isinstance(outcome, Rejected | Gone):  # final for the former receiver only
            outcome = Failed(outcome.error, outcome.status, response=outcome.response)
        self._failed(deliveries, outcome, now, took)
        if is_over:
            self.leave_alone(lane)

    def _judged(
        self, delivery: Delivery, result: Response | RequestException, now: float, took: float
    ) -> Delivered | Failed | Rejected | Gone | Unsendable:
        """The outcome. An answer that is kept or reported is searched for secrets, which is charged."""
        lane, endpoint, secrets = delivery.lane, delivery.lane.endpoint, partial(secrets_of, delivery, result)
        report = None if endpoint.answer_headers is None else self._report_answer
        if not isinstance(result, Response) or (report is None and result.status_code < MULTIPLE_CHOICES):
            return judge(result, now, endpoint.final_statuses)
        began = time.thread_time()
        outcome = judge(result, now, endpoint.final_statuses, secrets)
        if report is not None:
            report(delivery, result, secrets, now, took)
        self.charge(lane, time.thread_time() - began)
        return outcome

    def _counts_against(
        self, first: Delivery, outcome: Failed | Rejected | Gone, carried: Sequence[Delivery], now: float, moment: float
    ) -> bool:
        """Count a failed request for its receiver. True if nothing more is sent to it for now."""
        lane, started = first.lane, first.started_at
        endpoint, quietly = lane.endpoint, self._are_operational(*carried)
        self._failing.failed(endpoint, now, [each.event.webhook_id for each in carried], quietly=quietly)
        if isinstance(outcome, Failed) and outcome.unavailable:
            opened = lane.breaker.failed(moment, started, outcome.retry_after)
        else:
            opened = lane.refused(moment, started, self._lanes.slots.total)
        if opened:
            log.warning(
                "circuit breaker opened; the subscription's deliveries are stored",
                subscription=endpoint.subscription_id,
                error=outcome.error,
                seconds=round((lane.breaker.open_until or moment) - moment, 1),
            )
        if isinstance(outcome, Gone):
            self._failing.disable(endpoint, outcome.error, now, quietly=quietly)
        return opened or isinstance(outcome, Gone)

    def _not_sent(self, delivery: Delivery, outcome: Unsendable, now: float) -> None:
        """No request can be sent, so this is no attempt for the deliveries that it would have carried.

        Unless the subscription has another url by now, the lane's circuit breaker opens and its deliveries are stored.
        Now and then a delivery is tried again: only a request shows whether the name has another address.
        """
        lane = delivery.lane
        stays = _is_of_lane(delivery)
        if stays and lane.could_not_send(self._monotonic(), delivery.started_at, outcome.error):
            problem = OptionProblem("url", outcome.error, Effect.STORED)
            number = lane.endpoint.subscription_id
            log.error("a subscription is broken", subscription=number, reason=str(problem))
        failure = AttemptFailure(outcome.error, None, None, now)
        for each in delivery.split():
            if isinstance(each.origin, OpenRecord):
                self._park(each, self._opens_at(lane), now, each.last or failure)
            else:
                self._put_back(each)
            if each.ordering_key is not None:
                self._put_all_back(self._lanes.cut(lane, each.ordering_key))
        if stays:
            self.leave_alone(lane)

    def on_not_tried(self, delivery: Delivery) -> None:
        """This process could open no connection, which is no attempt: queue the deliveries again."""
        for each in reversed(delivery.split()):
            if self._owns(each.event.record.topic_partition):
                self._lanes.give_back((each,))
                continue
            self.on_revoked(each)
            if each.ordering_key is not None:
                self._put_all_back(self._lanes.cut(each.lane, each.ordering_key))

    def give_way(self, ordering_key: OrderingKey, offset: int, lane: Lane) -> float:
        """The delivery at this offset goes right behind the current one of its key: store later ones that are here.

        Returns the offset of the first one stored; inf if there is none.
        """
        chain = lane.chains.get(ordering_key)
        if not chain or chain[-1].event.record.offset < offset:
            return inf
        behind = self._lanes.cut(lane, ordering_key)
        lane.chains[ordering_key] = deque()  # the current one stays
        self._put_all_back(behind)
        return behind[0].event.record.offset

    def on_undeliverable(self, delivery: Delivery, error: str) -> None:
        """No request can be built from the delivery: give it up. This does not count against its receiver."""
        self._failed((delivery,), Undeliverable(error), self._clock(), 0.0)

    def on_cancelled(self, deliveries: Sequence[Delivery], took: float) -> None:
        """Partitions are given up while a request is open, after `took` seconds: an attempt with unknown outcome.

        The deliveries are stored, as exhausted if that was the last attempt.
        """
        self._failed(deliveries, UNKNOWN, self._clock(), took)

    def on_lost(self, delivery: Delivery) -> None:
        """The delivery's partition is lost: forget it. The deliveries behind it in order were withdrawn before."""
        if isinstance(delivery.origin, StoredRow):
            self._rows.remove(delivery.origin.id)
        if delivery.ordering_key is not None:
            self._lanes.cut(delivery.lane, delivery.ordering_key)

    def may_postpone(self) -> bool:
        """The database keeps up, so deliveries may be stored."""
        return not self._parking.full

    def is_due_within(self, seconds: float, due_key: DueKey) -> bool:
        """A stored delivery of the due key is due, or soon will be."""
        return self._parking.due_keys.get(due_key, inf) <= self._clock() + seconds

    def goes_behind_rows(self, ordering_key: OrderingKey) -> bool:
        """An earlier delivery with this ordering key is in the database."""
        return ordering_key in self._parking.ordering_keys

    def postpone(
        self,
        event: Event,
        endpoint: Endpoint,
        record: OpenRecord,
        ordering_key: OrderingKey | None,
        lane: Lane | None = None,
        *,
        asked: bool = True,
    ) -> None:
        """Store a delivery without an attempt. It is due at once, or when the lane's circuit breaker allows a request.

        `asked`: the subscription's filter, if any, has accepted the event; else the filter is evaluated before the
        delivery is sent.
        """
        due = self._clock() if lane is None else self._opens_at(lane)
        self._metrics.deliveries["parked"] += 1
        to, pending = (endpoint.subscription_id, endpoint.url), not asked
        row = NewDelivery(
            event, *to, 0, "parked", due, ordering_key=ordering_key, filter_pending=pending, replay=record.replay
        )
        self._parking.park(row, record.settle_one)

    def on_unwanted(self, delivery: Delivery, row: StoredRow) -> None:
        """The filter refuses a stored delivery that it had not yet seen: end it without an attempt."""
        key, now = delivery.ordering_key, self._clock()
        result = AttemptResult(
            row.id, delivery.attempts, "unwanted", None, None, None, now, key, None, row.schedule_start
        )
        self._resolve(delivery, row, result)

    def on_revoked(self, delivery: Delivery) -> None:
        """A delivery was queued, or waited for a retry, and its partition is given up.

        Store it if a receiver may have seen its record, so that the next owner does not repeat the record's other
        deliveries. An untouched record stays unsettled, and the next owner reads it again.
        """
        origin = delivery.origin
        if isinstance(origin, StoredRow) or delivery.last is not None or origin.started:
            self._put_back(delivery)

    def _put_back(self, delivery: Delivery) -> None:
        """Give a delivery that has no open request to the database."""
        origin = delivery.origin
        if isinstance(origin, StoredRow):
            if (due_key := self._rows.remove(origin.id)) is not None:
                self._parking.due_keys.note(due_key, 0.0)
        elif delivery.last is not None:
            self._park(delivery, delivery.due_at, self._clock(), delivery.last)
        else:
            lane = delivery.lane
            self.postpone(delivery.event, lane.endpoint, origin, delivery.ordering_key, lane)

    def _park(self, delivery: Delivery, due: float, now: float, failure: AttemptFailure) -> None:
        """Store a delivery until `due` (unix seconds) without another attempt."""
        self._metrics.deliveries["parked"] += 1
        self._write(delivery, "parked", due, now, failure)

    def _opens_at(self, lane: Lane) -> float:
        """When the lane's circuit breaker allows a request (unix seconds): now, or later."""
        open_until = lane.breaker.open_until
        return self._clock() + (0.0 if open_until is None else max(0.0, open_until - self._monotonic()))

    def is_over_budget(self, lane: Lane) -> bool:
        """The lane's subscription has taken too much CPU time of late."""
        return self._budget.is_over(lane.endpoint.subscription_id)

    def charge(self, lane: Lane, seconds: float) -> None:
        """Charge CPU time to the lane's subscription. Over its budget, its deliveries are stored."""
        self._budget.charge(lane.endpoint.subscription_id, seconds)
        open_until, now = lane.breaker.open_until, self._monotonic()
        if self.is_over_budget(lane) and (open_until is None or open_until <= now):
            lane.breaker.trip(now, PAUSE)
            self.leave_alone(lane)

    def leave_alone(self, lane: Lane) -> None:
        """Store all deliveries that wait in this lane (there may be thousands): nothing is sent to it for a while."""
        if lane.held:
            self._put_all_back(self._lanes.clear(lane))

    def _put_all_back(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self._put_back(delivery)

    def _delivered(self, delivery: Delivery, outcome: Delivered, now: float, took: float, size: int) -> None:
        delivery.attempts += 1
        metrics = self._metrics
        metrics.deliveries["delivered"] += 1
        timestamp = delivery.event.record.timestamp
        if timestamp >= 0:  # a producer may set none, or one of the future: the sum must neither leap nor fall
            metrics.delivery_latency_seconds.observe(max(0.0, now - timestamp / 1000))
        if self._log_delivered:
            log.debug("attempt", **fields(delivery, took, size), status=outcome.status, outcome="delivered")
        origin, key = delivery.origin, delivery.ordering_key
        settle: Callable[[], object]
        if isinstance(origin, OpenRecord):
            settle = origin.settle_one
        else:
            made, begun = delivery.attempts - 1, origin.schedule_start
            result = AttemptResult(origin.id, made, "delivered", None, outcome.status, None, now, key, None, begun)
            settle = partial(self._resolve, delivery, origin, result)
        if self._report is not None:
            self._report(delivery, "delivered", outcome, now, took)
        self.once_reported(settle)
        if key is not None:
            self._lanes.go_on(delivery.lane, key)

    def _failed(self, deliveries: Sequence[Delivery], outcome: Outcome, now: float, took: float) -> None:
        """Decide on each delivery. Deliveries with equally many attempts share a verdict, and so a batch again."""
        assert not isinstance(outcome, Delivered)  # noqa: S101 (for the type checker: `on_result` handles it)
        failure = AttemptFailure(outcome.error, outcome.status, outcome.response, now)
        shared = len(deliveries) > 1 and isinstance(outcome, Failed | Rejected) and not unavailable(outcome.status)
        # A probe of a paused subscription gives nothing up: days of probes would use up the schedules of its events.
        spared = shared or (deliveries[0].lane.endpoint.paused and isinstance(outcome, Failed))
        waits: dict[int, float | None] = {}
        for delivery in deliveries:
            delivery.attempts += 1
            delivery.first = delivery.first or failure
            begun = delivery.origin.schedule_start if isinstance(delivery.origin, StoredRow) else 0
            made = delivery.attempts - begun
            if made not in waits:
                own = delivery.lane.endpoint.retry_schedule
                policy = policy_for(self._schedule if own is None else own, self._jitter)
                waits[made] = wait_after(outcome, made, policy, spared=spared)
            wait = waits[made]
            what = self._go_on(delivery, wait, now, failure)
            self._metrics.deliveries[what] += 1
            if self._report is not None and not isinstance(outcome, Undeliverable):
                self._report(delivery, what, outcome, now, took)
            log.warning(
                "attempt",
                **fields(delivery, took, len(deliveries)),
                status=outcome.status,
                outcome=what,
                error=outcome.error,
                retry_in=None if wait is None else round(wait, 3),
            )

    def _go_on(
        self, delivery: Delivery, wait: float | None, now: float, failure: AttemptFailure
    ) -> Literal["retried", "parked", "exhausted"]:
        """Retry a delivery after `wait` seconds, from memory or from the database; None: give it up.

        Returns the delivery's outcome. Nothing else retries or stores after a failure.
        """
        if wait is not None and wait <= self._in_memory and self._may_stay(delivery):
            delivery.last = failure
            delivery.due_at = now + wait
            self._lanes.wait(delivery, self._monotonic() + wait)
            return "retried"
        status: Literal["parked", "exhausted"] = "exhausted" if wait is None else "parked"
        self._write(delivery, status, None if wait is None else now + wait, now, failure)
        if delivery.ordering_key is not None:  # the deliveries behind it go once the database has this one
            self._put_all_back(self._lanes.cut(delivery.lane, delivery.ordering_key))
        return status

    def _are_operational(self, *deliveries: Delivery) -> bool:
        """The deliveries carry operational events; their outcome is not published as another one."""
        return all(each.event.record.topic == self._operations_topic for each in deliveries)

    def _may_stay(self, delivery: Delivery) -> bool:
        """The delivery may wait in memory for its next attempt."""
        return (
            isinstance(delivery.origin, OpenRecord)
            and not delivery.lane.endpoint.paused  # it was a probe
            and delivery.lane.breaker.open_until is None
            and delivery.lane.sends_within(QUEUE_SECONDS, self._monotonic())
            and self._owns(delivery.event.record.topic_partition)
        )

    def _write(
        self,
        delivery: Delivery,
        status: Literal["parked", "exhausted"],
        due: float | None,
        now: float,
        failure: AttemptFailure,
    ) -> None:
        """Store a delivery after a failure, or the result of the attempt at a stored one."""
        origin, endpoint = delivery.origin, delivery.lane.endpoint
        key, made, operation = delivery.ordering_key, delivery.attempts, None
        if status == "exhausted" and not self._are_operational(delivery):
            operation = exhausted(delivery, failure)
        if isinstance(origin, StoredRow):
            begun = origin.schedule_start
            self._resolve(
                delivery,
                origin,
                AttemptResult(origin.id, made - 1, status, due, failure.status, failure, now, key, operation, begun),
            )
        else:
            to, first = (endpoint.subscription_id, endpoint.url), delivery.first
            row = NewDelivery(delivery.event, *to, made, status, due, first, failure, key, operation, origin.replay)
            self._parking.park(row, origin.settle_one)

    def _resolve(self, delivery: Delivery, row: StoredRow, result: AttemptResult) -> None:
        due_key = due_key_of(delivery.event, delivery.lane.endpoint.subscription_id)
        self._parking.resolve(result, due_key, partial(self._rows.remove, row.id))


def _is_of_lane(delivery: Delivery) -> bool:
    """The delivery's request went to the present url of its lane."""
    return delivery.sent_to is None or delivery.sent_to.url == delivery.lane.endpoint.url
