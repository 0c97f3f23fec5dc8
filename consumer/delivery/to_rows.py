"""Turns a delivery into the row, or the result of an attempt, that is written to the database. Pure."""

from consumer.delivery.delivery import Delivery, StoredRow
from consumer.delivery.next_step import Store
from consumer.ledger.rows import AttemptResult, Failure, NewDelivery, OperationalEvent


def new_delivery(
    delivery: Delivery, step: Store, failure: Failure | None, operation: OperationalEvent | None
) -> NewDelivery:
    """The row of a delivery that came from a record. `failure` is its last attempt; `operation` is written with it."""
    assert step.status != "delivered"  # noqa: S101 (for the type checker: that is Done)
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
    step: Store,
    now: float,
    failure: Failure | None,
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
