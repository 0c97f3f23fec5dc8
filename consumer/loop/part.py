"""The protocol of the parts of the worker's loop, callbacks that never raise, and work on threads beside it."""

from collections import deque
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

RECORDS_WAIT = 0.1  # seconds that the loop waits for records at most; parts that are not `busy` get answers as late


class Part:
    """A part of the loop. It runs on the loop's thread, except `fault`, which is safe to read from another thread.

    A part overrides the members that it needs; the defaults mean that there is nothing to do.
    """

    @property
    def ready(self) -> bool:
        """The part can make progress at once: the loop must not wait at all."""
        return False

    @property
    def busy(self) -> bool:
        """The part waits for an event that wakes the poller, or for a time that comes soon: not only for records."""
        return False

    @property
    def fault(self) -> str | None:
        """Why the part cannot do its work now, for /readyz."""
        return None

    def poll(self, now: float) -> None:
        """Make progress, and return at once; `polling` alone waits, for records. `now` is in monotonic seconds."""

    def close(self) -> object:
        """The worker ends: start nothing more, and release resources within seconds."""


def first(queue: deque[T]) -> T | None:
    """The first entry of a queue, or None. Safe to call from another thread than the loop's."""
    try:
        return queue[0]
    except IndexError:
        return None


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


def beside(
    work: Callable[[], T], done: Callable[[T | Exception], None], post: Callable[[Callable[[], None]], None], name: str
) -> None:
    """Run `work` on a thread of this `name`, then `done` with its result or exception on the loop, by `post`."""

    def run() -> None:
        answer: T | Exception
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 (every failure is handed to the loop)
            answer = error
        post(partial(done, answer))

    # A daemon: a request that hangs must not keep a stopped process alive.
    Thread(target=run, name=name, daemon=True).start()
