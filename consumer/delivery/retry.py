"""When a failed attempt is made again: a tenacity policy that a loop drives.

tenacity decides (`iter`), the loop waits: in memory or, for long waits, in the database. A stored delivery goes on
where it was, since all that the policy reads is the number of attempts made. A delivery that succeeds never comes here.

A delivery's age is its attempts, not the time since its first one. An attempt may be made late: no worker ran for
hours, the breaker was open, the subscription was disabled. It is still that attempt: the next wait is the next entry of
the schedule and counts from the end of this attempt. No entry is skipped to catch up, so a receiver that was down
together with the workers still gets the whole schedule, and none is repeated, whatever process makes the attempt. So a
schedule may take longer than the sum of its waits, never shorter.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, NoReturn

from tenacity import BaseRetrying, DoSleep, RetryCallState, retry_if_result, stop_after_attempt
from tenacity.wait import wait_base, wait_chain, wait_fixed, wait_none, wait_random

from consumer.delivery.outcome import Failed

MOST_RETRY_AFTER = 86400.0  # seconds; a receiver may push its next attempt back by a day, not out of the schedule


class Retry(NamedTuple):
    """Again, `wait` seconds from now."""

    wait: float


class GiveUp(NamedTuple):
    """The schedule is used up."""


def asked_for(outcome: object) -> float:
    """Seconds that a receiver wants to be left alone before the next attempt."""
    return min(outcome.retry_after or 0.0, MOST_RETRY_AFTER) if isinstance(outcome, Failed) else 0.0


class wait_at_least_retry_after(wait_base):  # noqa: N801 (tenacity's naming: it reads as a word in a sentence)
    """Another wait, made later, never earlier, by what the receiver asked for."""

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
            retry_error_callback=lambda _: GiveUp(),
        )

    def decide(self, attempts: int, failed: Failed) -> Retry | GiveUp:
        """What follows now that the last of `attempts` (1 or more) attempts of the current schedule has `failed`.

        A redelivery begins a new schedule. If the schedule was changed meanwhile, the count goes on in the new one.
        """
        state = RetryCallState(self, fn=None, args=(), kwargs={})
        state.attempt_number = attempts
        state.set_result(failed)
        self.begin()
        action = self.iter(state)
        return Retry(float(action)) if isinstance(action, DoSleep) else GiveUp()

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refused: this policy never sleeps, so it cannot run a function."""
        raise TypeError("a RetryPolicy decides; the loop waits")


@lru_cache(maxsize=1024)  # schedules that subscriptions have of their own; making one costs 7 µs
def policy_for(schedule: tuple[float, ...], jitter: float) -> RetryPolicy:
    """The policy of this schedule, shared by all that have it: it keeps no state."""
    return RetryPolicy(schedule, jitter)
