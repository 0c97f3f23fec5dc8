"""The next step after an attempt, as a value that `settling` carries out. Pure."""

from typing import Literal, NamedTuple

from consumer.delivery.outcome import Failed, Outcome
from consumer.delivery.retry import GiveUp, Retry, RetryPolicy, asked_for


class Done(NamedTuple):
    """The delivery is settled, and nothing is written."""


class RetryIn(NamedTuple):
    """The delivery waits in memory for its next attempt, so many seconds."""

    seconds: float


class Store(NamedTuple):
    """The database gets its status: delivered, given up (`exhausted`), or waiting there until `due` (unix seconds)."""

    status: Literal["delivered", "parked", "exhausted"]
    due: float | None = None


NextStep = Done | RetryIn | Store
_DONE, _DELIVERED = Done(), Store("delivered")  # made once: each delivery takes one


def after_success(*, is_row: bool) -> Done | Store:
    """`is_row`: the delivery came from the database, which must learn of the success."""
    return _DELIVERED if is_row else _DONE


def after_failure(verdict: Retry | GiveUp, now: float, *, in_memory: float | None) -> RetryIn | Store:
    """The delivery may wait `in_memory` seconds for a retry in memory; None: not at all. `now` is in unix seconds."""
    if isinstance(verdict, GiveUp):
        return Store("exhausted")
    if in_memory is not None and verdict.wait <= in_memory:
        return RetryIn(verdict.wait)
    return Store("parked", now + verdict.wait)


def verdict_on(outcome: Outcome, attempts: int, policy: RetryPolicy, *, shared: bool) -> Retry | GiveUp:
    """Whether a delivery whose attempt has failed is tried again; `attempts` were made on its schedule.

    `shared`: the failure may concern another event of the same batch. No delivery is given up for a failure that it may
    not have caused; each is retried alone.
    """
    verdict = policy.decide(attempts, outcome) if isinstance(outcome, Failed) else GiveUp()
    return Retry(asked_for(outcome)) if shared and isinstance(verdict, GiveUp) else verdict
