"""Work that blocks and that no database thread should wait for: each piece has a thread of its own."""

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def beside(
    work: Callable[[], T], done: Callable[[T | Exception], None], post: Callable[[Callable[[], None]], None], name: str
) -> None:
    """Run `work` on a thread of this `name`, then `done` with its result or exception on the loop, by `post`."""

    def run() -> None:
        answer: T | Exception
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 (every failure is handed to the loop, which raises bugs)
            answer = error
        post(partial(done, answer))

    # A daemon: a request that hangs must not keep a stopped process alive.
    Thread(target=run, name=name, daemon=True).start()
