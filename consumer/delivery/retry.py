"""When a failed delivery is tried again, or that it is given up. Pure.

A tenacity policy decides (`iter`), and the loop waits, in memory or, for long waits, in the database. The policy reads
only the number of attempts, so a stored delivery continues where it was. A success never reaches the policy.

An attempt may be late, because no worker ran, the circuit breaker was open or the subscription was disabled. The next
wait is the next entry of the schedule all the same, counted from the end of this attempt: no entry is skipped to catch
up, and none is repeated, so a receiver that was down together with the workers still gets the whole schedule.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from tenacity import BaseRetrying, DoSleep, RetryCallState, retry_if_result, stop_after_attempt
from tenacity.wait import wait_base, wait_chain, wait_fixed, wait_none, wait_random

from consumer.delivery.outcome import Failed, Outcome

MOST_RETRY_AFTER = 86400.0  # seconds; a receiver may push its next attempt back by a day, not out of the schedule


def asked_for(outcome: object) -> float:
    """The seconds of the receiver's `Retry-After`, at most MOST_RETRY_AFTER; 0 without one."""
    return min(outcome.retry_after or 0.0, MOST_RETRY_AFTER) if isinstance(outcome, Failed) else 0.0


class wait_at_least_retry_after(wait_base):  # noqa: N801 (tenacity's naming: it reads as a word in a sentence)
    """Another wait, lengthened to the receiver's `Retry-After`, and never shortened."""

    def __init__(self, wait: wait_base) -> None:
        self.wait = wait

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait before the next attempt."""
        wait = self.wait(retry_state)
        return max(wait, asked_for(retry_state.outcome.result()) if retry_state.outcome else 0.0)


class RetryPolicy(BaseRetrying):
    """`schedule`: seconds before the second, third, … attempt; each stretched by a random part of up to `jitter`."""

    def __init__(self, schedule: Sequence[float], jitter: float) -> None:
        waits = [wait_fixed(seconds) + wait_random(0, seconds * jitter) for seconds in schedule]
        super().__init__(
            retry=retry_if_result(lambda outcome: isinstance(outcome, Failed)),
            stop=stop_after_attempt(len(schedule) + 1),
            wait=wait_at_least_retry_after(wait_chain(*waits)) if waits else wait_none(),
            retry_error_callback=lambda _: None,
        )

    def decide(self, attempts: int, failed: Failed) -> float | None:
        """Seconds to wait now that the last of `attempts` (1 or more) attempts of the current schedule has `failed`.

        None: no further attempt. A redelivery begins a new schedule. If the schedule was changed, the count continues
        in the new one.
        """
        state = RetryCallState(self, fn=None, args=(), kwargs={})
        state.attempt_number = attempts
        state.set_result(failed)
        self.begin()
        action = self.iter(state)
        return float(action) if isinstance(action, DoSleep) else None

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refused: this policy never sleeps, so it cannot run a function."""
        raise TypeError("a RetryPolicy decides; the loop waits")


@lru_cache(maxsize=1024)  # for subscriptions with their own schedules; a policy takes 7 µs to construct
def policy_for(schedule: tuple[float, ...], jitter: float) -> RetryPolicy:
    """The policy of this schedule; it has no state, so all subscriptions with the schedule share it."""
    return RetryPolicy(schedule, jitter)


def wait_after(outcome: Outcome, attempts: int, policy: RetryPolicy, *, spared: bool) -> float | None:
    """Seconds until a delivery is tried again whose attempt has failed, the last of `attempts` on its schedule.

    None: it is given up, unless it is `spared`, as when the failure may concern another event of the same batch.
    """
    wait = policy.decide(attempts, outcome) if isinstance(outcome, Failed) else None
    return asked_for(outcome) if spared and wait is None else wait
