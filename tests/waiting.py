"""The one way in which tests wait: for a condition, with a bound that only a broken program exceeds."""

import time
from collections.abc import Callable

LIMIT = 120.0  # seconds


def eventually(
    condition: Callable[[], object],
    timeout: float = LIMIT,
    every: float | None = None,
    *,
    meanwhile: Callable[[], object] | None = None,
    otherwise: Callable[[], object] = str,
) -> None:
    """Waits until `condition` holds, and calls `meanwhile` between two looks. The failure shows `otherwise`.

    `every`: seconds between two looks; by default 0.05, or none if there is a `meanwhile`, which may wait itself.
    """
    pause = every if every is not None else 0.0 if meanwhile else 0.05
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {otherwise()}"
        if meanwhile is not None:
            meanwhile()
        time.sleep(pause)
