"""Runs one piece of work at a time on a database thread, with back-off after failures, and logs the failures."""

from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

from consumer.loop.backoff import seconds_after

log = structlog.get_logger(__name__)

BACK_OFF = (0.1, 5.0)  # seconds: the first wait, the longest
SLOW = 5.0  # seconds without an answer until /readyz says so; a statement ends after 30
W = TypeVar("W")
T = TypeVar("T")

Submit = Callable[[W, Callable[[T | Exception], None]], None]


class Batch:
    """How many things one piece of work takes: half as many once that was too much, twice as many once it was not.

    The first failure of a statement that is too slow would otherwise be followed by the same statement for ever.
    """

    def __init__(self, most: int) -> None:
        self.most = self.size = most

    def was_too_large(self, number: int) -> None:
        """A piece with so many things took too long, or was refused. 0: something else in it was the cause."""
        if number:
            self.size = max(1, min(number, self.size) // 2)

    def succeeded(self, number: int) -> None:
        """A piece with so many things succeeded."""
        if number >= self.size:
            self.size = min(2 * self.size, self.most)


class Backoff:
    """The failures of one kind of database work since its last success. Times are monotonic seconds."""

    def __init__(self, monotonic: Callable[[], float], longest: float = BACK_OFF[1]) -> None:
        """`longest`: the longest wait, in seconds."""
        self._monotonic = monotonic
        self._longest = longest
        self._failures = 0
        self._retry_at = 0.0
        self.seconds = 0.0  # the present wait; 0: the last try succeeded
        self.fault: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the work may be tried again."""
        return self._monotonic() >= self._retry_at

    def failed(self, error: Exception, what: str) -> None:
        """Note a failure; logs `what` if the reason is new."""
        self._failures += 1
        self.seconds = seconds_after(self._failures, BACK_OFF[0], self._longest)
        self._retry_at = self._monotonic() + self.seconds
        text = f"database: {error}"
        if text != self.fault:
            log.error(what, error=str(error))
        self.fault = text

    def succeeded(self) -> None:
        """Note a success, which resets the back-off."""
        if self.fault is not None:
            log.info("the database answers again")
        self._failures, self.seconds, self.fault = 0, 0.0, None


def _always(_error: Exception) -> bool:
    return True


def _nothing(_error: Exception) -> None:
    """Do nothing: the failure is logged and visible in `fault`; the owner starts again once the job is ready."""


class DatabaseJob(Generic[W, T]):
    """One kind of work, with at most one piece in progress. Used on the loop's thread.

    `busy`: a piece is in progress. `ready`: the next one may start, since none is in progress and no back-off runs.
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

        `failure` is the log event of a failed piece. An error for which `backs_off` is false concerns that piece alone
        and is left to its owner: it neither delays the next piece nor shows in `fault`.
        """
        self._submit = submit
        self._failure = failure
        self._backs_off = backs_off
        self._backoff = Backoff(monotonic)
        self._monotonic = monotonic
        self._since = 0.0  # when the piece in progress was handed over
        self.busy = False

    @property
    def ready(self) -> bool:
        """Whether `start` may be called."""
        return not self.busy and self._backoff.ready

    @property
    def fault(self) -> str | None:
        """The reason why the last piece failed, or that one has no answer for SLOW seconds, for /readyz."""
        seconds = self._monotonic() - self._since if self.busy else 0.0
        return self._backoff.fault or (f"database: no answer for {seconds:.0f} s" if seconds >= SLOW else None)

    @property
    def backoff(self) -> float:
        """Seconds between the last try, which failed, and the next one; 0 after a success."""
        return self._backoff.seconds

    def start(self, work: W, done: Callable[[T], object], failed: Callable[[Exception], object] = _nothing) -> None:
        """Hand a piece over. Either `done` gets its result or `failed` its error, on the loop.

        RuntimeError: a piece is in progress.
        """

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

        if self.busy:
            raise RuntimeError("a piece of this job is in progress: ask `ready` before")
        self._since, self.busy = self._monotonic(), True
        self._submit(work, answered)


ThreadJob = DatabaseJob[Callable[[], T], T]  # whose pieces are functions that a DatabaseThread runs
