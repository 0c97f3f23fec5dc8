"""Callbacks that never raise: an exception goes to the part that can answer it."""

from collections.abc import Callable
from typing import Any


def guarded(keep: Callable[[Exception], object], handler: Callable[..., None]) -> Callable[..., None]:
    """Wrap `handler` so that it never raises: `keep` gets its exception.

    Inside librdkafka's poll an exception loses fetched records; in a turn of the poller it ends the worker.
    """

    def callback(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception as error:  # noqa: BLE001 (`keep` answers it)
            keep(error)

    return callback
