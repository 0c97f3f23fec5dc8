"""The back-off of a kind of database job, and the reason of its failures."""

from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

BACK_OFF = (0.1, 5.0)  # seconds: the first wait, the longest


class Backoff:
    """The failures of one kind of database job since its last success. Times are monotonic seconds."""

    def __init__(self, monotonic: Callable[[], float], longest: float = BACK_OFF[1]) -> None:
        """`longest`: the longest wait, in seconds."""
        self._monotonic = monotonic
        self._longest = longest
        self._wait = BACK_OFF[0]
        self._retry_at = 0.0
        self.seconds = 0.0  # the present wait; 0: the last try succeeded
        self.fault: str | None = None

    @property
    def ready(self) -> bool:
        """Whether the job may be tried again."""
        return self._monotonic() >= self._retry_at

    def failed(self, error: Exception, what: str) -> None:
        """Note a failure; logs `what` if the reason is new."""
        self.seconds = self._wait
        self._retry_at = self._monotonic() + self._wait
        self._wait = min(self._wait * 2, self._longest)
        text = f"database: {error}"
        if text != self.fault:
            log.error(what, error=str(error))
        self.fault = text

    def succeeded(self) -> None:
        """Note a success, which resets the back-off."""
        if self.fault is not None:
            log.info("the database answers again")
        self._wait = BACK_OFF[0]
        self.seconds = 0.0
        self.fault = None
