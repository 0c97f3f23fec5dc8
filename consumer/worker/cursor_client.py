"""The Kafka client of the cursors: made once a cursor may read, and made again after it has failed."""

from collections.abc import Callable
from math import inf

import structlog
from confluent_kafka import KafkaException

from consumer.errors import WebhooksError
from consumer.intake.cursor_reader import CursorReader

log = structlog.get_logger(__name__)

LATER = 5.0  # seconds until another client is made for one that has failed

Made = Callable[[CursorReader | Exception], None]


class CursorClient:
    """`reader`: the client, if there is one."""

    def __init__(self, make: Callable[[Made], None], monotonic: Callable[[], float]) -> None:
        """`make` gives a new client, or why there is none, on the loop; it may take seconds, as for a first token."""
        self._make, self._monotonic = make, monotonic
        self.reader: CursorReader | None = None
        self._not_before = -inf
        self._failure: str | None = None

    @property
    def fault(self) -> str | None:
        """Why there is no client, or why it reads nothing."""
        reader = self.reader  # another thread may ask
        return self._failure if reader is None else reader.fault

    def open(self) -> CursorReader | None:
        """The client; None: it is being made, or is made a little later."""
        if self.reader is None and self._monotonic() >= self._not_before:
            self._not_before = inf
            self._make(self._made)
        return self.reader

    def failed(self, error: Exception) -> None:
        """The client cannot be made, or cannot go on."""
        self._not_before = self._monotonic() + LATER
        if self._failure is None:
            bug = None if isinstance(error, KafkaException | WebhooksError) else error
            log.error("the cursors have no Kafka client; another one is made", error=str(error), exc_info=bug)
        self._failure = f"subscriptions that are behind wait: {error}"
        self.close()

    def close(self) -> None:
        """Close the client."""
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.close()

    def _made(self, answer: CursorReader | Exception) -> None:
        if isinstance(answer, Exception):
            self.failed(answer)
        else:
            self.reader, self._failure = answer, None
