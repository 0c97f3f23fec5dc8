"""What a stored delivery waits for, as far as the database knows: for the command line, the API and the console."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from consumer.ledger import ordering
from consumer.ledger.admin import StoredDelivery
from consumer.ops.changes import Deployment
from consumer.subscriptions import repository
from consumer.subscriptions.options import Effect
from consumer.subscriptions.subscribed import Subscribed
from models import Status

_TIME = "%Y-%m-%dT%H:%M:%SZ"
Reason = Literal["schedule", "receiver", "order", "disabled", "paused", "problem", "removed", "worker"]


class Wait(NamedTuple):
    """What a delivery waits for: in a word, and in sentences.

    It is sent at `until` (unix seconds) at the earliest, and after the delivery `behind`, if these are known.
    """

    reason: Reason
    text: str
    until: float | None = None
    behind: int | None = None


def waits_for(deployment: Deployment, item: StoredDelivery) -> Wait | None:
    """What a stored delivery waits for now, as `wait_of`: its subscription is read, and what goes before it."""
    where = deployment
    receiver = repository.get(where.engine, item.subscription_id, where.vault, where.rules)
    return wait_of(item, receiver, where.clock(), partial(ordering.ahead, where.engine))


def wait_of(
    item: StoredDelivery, receiver: Subscribed | None, now: float, ahead: Callable[[int], int | None]
) -> Wait | None:
    """What a delivery waits for at `now` (unix seconds); None if it is delivered or given up.

    `receiver` is its subscription; None: that was removed. `ahead`: as `ordering.ahead`, for a blocked delivery.
    """
    if item.status in {Status.DELIVERED, Status.EXHAUSTED}:
        return None
    if (hindered := _of_receiver(receiver)) is not None or receiver is None:
        return hindered
    if item.status == Status.BLOCKED and (behind := ahead(item.id)) is not None:
        return Wait("order", f"Delivery {behind} goes first: an earlier event of its key.", behind=behind)
    until = item.next_attempt_at if item.status == Status.PARKED and (item.next_attempt_at or now) > now else None
    failing = receiver.failing_since
    if failing is not None:
        return Wait(
            "receiver", f"No attempt at its receiver has succeeded since {failing:{_TIME}}: it is probed.", until
        )
    if until is None:
        return Wait("worker", "It is due: a worker sends it as soon as limits and circuit breaker permit.")
    return Wait("schedule", f"Attempt {item.attempt + 1} follows by its retry schedule.", until)


def _of_receiver(receiver: Subscribed | None) -> Wait | None:
    """What keeps a subscription from being sent anything."""
    if receiver is None:
        return Wait("removed", "Its subscription was removed: a worker gives it up within a minute.")
    if receiver.mode == "disabled":
        why = receiver.disabled_reason or "no reason was given"
        return Wait("disabled", f"Its subscription is disabled ({why}). It is sent once that is enabled.")
    if receiver.pause is not None:
        return Wait("paused", f"Its subscription is {receiver.pause}. It is sent once that is resumed.")
    stored = next((problem for problem in receiver.problems if problem.effect is Effect.STORED), None)
    return stored and Wait("problem", f"Its subscription has to be corrected. {stored}.")
