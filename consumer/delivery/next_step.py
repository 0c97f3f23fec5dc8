"""What follows from an attempt, as a value: decided here, and carried out by `settling`. Pure."""

from typing import Literal, NamedTuple

from consumer.delivery.outcome import Failed, Outcome
from consumer.delivery.retry import GiveUp, Retry, RetryPolicy, asked_for


class Done(NamedTuple):
    """The delivery is settled, and nothing is written."""


class RetryIn(NamedTuple):
    """It waits in memory, so many seconds, for its next attempt."""

    seconds: float


class Store(NamedTuple):
    """The database is told: it is delivered, given up (`exhausted`), or waits there until `due` (unix seconds)."""

    status: Literal["delivered", "parked", "exhausted"]
    due: float | None = None


NextStep = Done | RetryIn | Store
_DONE, _DELIVERED = Done(), Store("delivered")  # made once: each delivery takes one


def after_success(*, is_row: bool) -> Done | Store:
    """`is_row`: it came from the database, which has to know."""
    return _DELIVERED if is_row else _DONE


def after_failure(verdict: Retry | GiveUp, now: float, *, in_memory: float) -> RetryIn | Store:
    """At `now` (unix seconds) the `verdict` is known; the delivery may wait `in_memory` seconds here, or not at all."""
    if isinstance(verdict, GiveUp):
        return Store("exhausted")
    if verdict.wait <= in_memory:
        return RetryIn(verdict.wait)
    return Store("parked", now + verdict.wait)


def verdict_on(outcome: Outcome, attempts: int, policy: RetryPolicy, *, shared: bool) -> Retry | GiveUp:
    """Whether a delivery whose attempt has failed is tried again; `attempts` were made on its schedule.

    `shared`: the failure may be about another event of the same batch. It ends none of them; each goes alone, and then
    it shows.
    """
    verdict = policy.decide(attempts, outcome) if isinstance(outcome, Failed) else GiveUp()
    return Retry(asked_for(outcome)) if shared and isinstance(verdict, GiveUp) else verdict
