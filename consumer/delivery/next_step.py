"""The next step after an attempt, as a value that `settling` carries out, and what it writes. Pure."""

from typing import Literal, NamedTuple

from consumer.delivery.delivery import Delivery, StoredRow
from consumer.delivery.outcome import Failed, Outcome
from consumer.delivery.retry import GiveUp, Retry, RetryPolicy, asked_for
from consumer.ledger.rows import AttemptFailure, AttemptResult, NewDelivery, OperationalEvent


class Finished(NamedTuple):
    """The delivery is settled, and nothing is written."""


class RetryIn(NamedTuple):
    """The delivery waits in memory for its next attempt, so many seconds."""

    seconds: float


class WriteResult(NamedTuple):
    """The database gets the result: delivered, given up (`exhausted`), or waiting there until `due` (unix seconds)."""

    status: Literal["delivered", "parked", "exhausted"]
    due: float | None = None


NextStep = Finished | RetryIn | WriteResult
_FINISHED, _DELIVERED = Finished(), WriteResult("delivered")  # made once: each delivery takes one


def after_success(*, is_row: bool) -> Finished | WriteResult:
    """`is_row`: the delivery came from the database, which must learn of the success."""
    return _DELIVERED if is_row else _FINISHED


def after_failure(verdict: Retry | GiveUp, now: float, *, in_memory: float | None) -> RetryIn | WriteResult:
    """The delivery may wait `in_memory` seconds for a retry in memory; None: not at all. `now` is in unix seconds."""
    if isinstance(verdict, GiveUp):
        return WriteResult("exhausted")
    if in_memory is not None and verdict.wait <= in_memory:
        return RetryIn(verdict.wait)
    return WriteResult("parked", now + verdict.wait)


def verdict_on(outcome: Outcome, attempts: int, policy: RetryPolicy, *, shared: bool) -> Retry | GiveUp:
    """Whether a delivery whose attempt has failed is tried again; `attempts` were made on its schedule.

    `shared`: the failure may concern another event of the same batch. No delivery is given up for a failure that it may
    not have caused; each is retried alone.
    """
    verdict = policy.decide(attempts, outcome) if isinstance(outcome, Failed) else GiveUp()
    return Retry(asked_for(outcome)) if shared and isinstance(verdict, GiveUp) else verdict


def new_delivery(
    delivery: Delivery, step: WriteResult, failure: AttemptFailure | None, operation: OperationalEvent | None
) -> NewDelivery:
    """The row of a delivery that came from a record. `failure` is its last attempt; `operation` is written with it."""
    assert step.status != "delivered"  # noqa: S101 (for the type checker: that is Finished)
    endpoint = delivery.lane.endpoint
    return NewDelivery(
        delivery.event,
        endpoint.subscription_id,
        endpoint.url,
        delivery.attempts,
        step.status,
        step.due,
        delivery.first,
        failure,
        delivery.ordering_key,
        operation,
    )


def attempt_result(
    delivery: Delivery,
    row: StoredRow,
    step: WriteResult,
    now: float,
    failure: AttemptFailure | None,
    status: int | None,
    operation: OperationalEvent | None,
) -> AttemptResult:
    """The result of an attempt that ended at `now` (unix seconds), with this `status` where it has not failed."""
    return AttemptResult(
        row.id,
        delivery.attempts - 1,
        step.status,
        step.due,
        status if failure is None else failure.status,
        failure,
        now,
        delivery.ordering_key,
        operation,
        row.schedule_start,
    )
