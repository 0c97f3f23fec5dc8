"""How long to wait before something that has failed is tried again."""

from typing import cast

from tenacity import BaseRetrying, RetryCallState, wait_exponential


def seconds_after(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row (at least 1): `first`, doubled each time, at most `longest`."""
    state = RetryCallState(cast("BaseRetrying", None), None, (), {})  # the policy reads the number alone
    state.attempt_number = failures
    return wait_exponential(multiplier=first, max=longest)(state)
