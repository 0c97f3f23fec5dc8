"""The Kafka client of the cursors: made once a cursor may read, and made again after it has failed."""

from collections.abc import Callable
from math import inf
from typing import Protocol

import structlog

from consumer.intake.cursor_reader import CursorReader

log = structlog.get_logger(__name__)

LATER = 5.0  # seconds until another client is made for one that has failed


class Submit(Protocol):
    """As `DatabaseThread.submit`."""

    def __call__(
        self, job: Callable[[], CursorReader], done: Callable[[CursorReader | Exception], None], /
    ) -> None: ...


class CursorClient:
    """`reader`: the client, if there is one."""

    def __init__(self, make: Callable[[], CursorReader], submit: Submit) -> None:
        """`submit` runs `make` beside the loop: a client with OAuth waits some seconds for its first token."""
        self._make, self._submit = make, submit
        self.reader: CursorReader | None = None
        self._not_before = -inf
        self._failure: str | None = None
        self._closed = False

    @property
    def fault(self) -> str | None:
        """Why there is no client, or why it reads nothing."""
        return self._failure if self.reader is None else self.reader.fault

    def open(self, now: float) -> CursorReader | None:
        """The client; None: it is being made, or is made a little later."""
        if self.reader is None and now >= self._not_before:
            self._not_before = inf
            self._submit(self._make, lambda answer: self._made(answer, now))
        return self.reader

    def failed(self, error: Exception, now: float) -> None:
        """The client cannot go on."""
        log.error("the cursors' Kafka client has failed; another one is made", error=str(error))
        self._not_before = now + LATER
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.close()

    def close(self) -> None:
        """Close the client, also one that is being made."""
        self._closed = True
        if self.reader is not None:
            self.reader.close()

    def _made(self, answer: CursorReader | Exception, now: float) -> None:
        if isinstance(answer, Exception):
            self._not_before = now + LATER
            self._failure = f"subscriptions that are behind wait: {answer}"
            log.warning("the cursors have no Kafka client; another one is made", error=str(answer))
        elif self._closed:
            answer.close()
        else:
            self.reader, self._failure = answer, None
