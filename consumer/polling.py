"""How many records a worker takes in, and when it pauses its partitions: it polls at all times, or Kafka evicts it."""

from collections.abc import Callable

from consumer.intake.record import Record
from consumer.intake.source import Source

MOST_RECORDS = 500  # of one poll
PAUSE_AFTER = 1.0  # seconds without room, before partitions are paused: a pause drops what librdkafka has prefetched
IDLE_WAIT = 0.1  # seconds


class Polling:
    """Asks `room` how many more records may come before each poll."""

    def __init__(self, source: Source, room: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._source = source
        self._room = room
        self._monotonic = monotonic
        self._paused = False
        self._full_since: float | None = None

    def records(self, *, idle: bool) -> list[Record]:
        """New records. Without room for a second, partitions are paused and polled on. Waits a little while `idle`."""
        room = self._room()
        if room > 0:
            if self._paused:
                self._source.resume()
            self._full_since, self._paused = None, False
            return self._source.poll(min(room, MOST_RECORDS), IDLE_WAIT if idle else 0.0)
        if self._full_since is None:
            self._full_since = self._monotonic()
        if not self._paused:
            if self._monotonic() - self._full_since < PAUSE_AFTER:
                return []
            self._source.pause()
            self._paused = True
        return self._source.poll(1, 0.0)
