"""The one way in which tests wait: for a condition, with a bound that only a broken program exceeds."""

import time
from collections.abc import Callable

LIMIT = 120.0  # seconds


def eventually(
    condition: Callable[[], object],
    timeout: float = LIMIT,
    every: float = 0.05,
    *,
    meanwhile: Callable[[], object] | None = None,
    otherwise: Callable[[], object] = str,
) -> None:
    """Waits until `condition` holds, and calls `meanwhile` between two looks. The failure shows `otherwise`."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {otherwise()}"
        if meanwhile is None:
            time.sleep(every)
        else:
            meanwhile()
