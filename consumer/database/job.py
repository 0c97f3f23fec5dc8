"""Work for a database thread, one at a time: run, backed off where it fails, and its failure said."""

from collections.abc import Callable
from typing import Generic, TypeVar

from consumer.database.backoff import Backoff

W = TypeVar("W")
T = TypeVar("T")

Submit = Callable[[W, Callable[[T | Exception], None]], None]


def _always(_error: Exception) -> bool:
    return True


def _nothing(_error: Exception) -> None:
    """The failure is logged and shown; the owner starts the work again once the job is ready."""


class DatabaseJob(Generic[W, T]):
    """One kind of work, of which one piece is under way at most. Used on the loop's thread.

    `busy` while a piece is under way; `ready` when the next one may start: nothing is under way, and no back-off runs.
    """

    def __init__(
        self,
        submit: Submit[W, T],
        failure: str,
        monotonic: Callable[[], float],
        *,
        backs_off: Callable[[Exception], bool] = _always,
    ) -> None:
        """`submit(work, answered)` hands a piece over, as `DatabaseThread.submit` does.

        `failure` is the log line where one fails. Errors for which `backs_off` is false are about one piece alone, and
        its owner's business: they neither delay the next piece nor show in `fault`.
        """
        self._submit = submit
        self._failure = failure
        self._backs_off = backs_off
        self._backoff = Backoff(monotonic)
        self.busy = False

    @property
    def ready(self) -> bool:
        """`start` may be called."""
        return not self.busy and self._backoff.ready

    @property
    def fault(self) -> str | None:
        """Why the last piece failed, for /readyz; None after a success."""
        return self._backoff.fault

    def start(self, work: W, done: Callable[[T], object], failed: Callable[[Exception], object] = _nothing) -> None:
        """Hand a piece over. `done` gets its result, or `failed` its error; both run on the loop."""

        def answered(answer: T | Exception) -> None:
            self.busy = False
            if not isinstance(answer, Exception):
                self._backoff.succeeded()
                done(answer)
                return
            if self._backs_off(answer):
                self._backoff.failed(answer, self._failure)
            else:
                self._backoff.succeeded()
            failed(answer)

        self.busy = True
        self._submit(work, answered)
