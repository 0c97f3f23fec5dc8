"""Writes what no record waits for to the database: a subscription is failing, recovered or disabled, an event says so.

Notes are written one at a time, on a thread for which storing does not wait. A note that the database refuses, or whose
row is locked, has its own back-off, and the others go on.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage
from consumer.database.job import Backoff, ThreadJob
from consumer.loop.part import Part

LONGEST_BACK_OFF = 60.0  # seconds
FAILED = "could not write a subscription's new state, or an operational event"


@dataclass(slots=True, eq=False)
class _Note:
    write: Callable[[Engine], object]
    on_written: Callable[[], object]
    backoff: Backoff


def _nothing() -> None:
    """A note settles no record."""


class Notes(Part):
    """Used on the loop's thread."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        monotonic: Callable[[], float],
        on_operation: Callable[[], None],
    ) -> None:
        """`on_operation` is called when an operational event may have been written."""
        self._engine, self._monotonic = engine, monotonic
        self._on_operation = on_operation
        self._notes: deque[_Note] = deque()  # without the note that is being written
        self._writes = ThreadJob[object](thread.submit, FAILED, monotonic, backs_off=is_outage)

    @property
    def pending(self) -> int:
        """How many notes are not yet written; a stop loses them."""
        return len(self._notes) + self._writes.busy

    @property
    def fault(self) -> str | None:
        """Why a note is not written, for /readyz."""
        own = (note.backoff.fault for note in list(self._notes) if note.backoff.fault is not None)
        return self._writes.fault or next(own, None)

    @property
    def backoff(self) -> float:
        """Seconds that writing pauses after an error; 0 after a success."""
        return self._writes.backoff

    def add(self, write: Callable[[Engine], object], on_written: Callable[[], object] = _nothing) -> None:
        """`write` gets the engine, on the database thread, and may be called again; then `on_written`, on the loop."""
        self._notes.append(_Note(write, on_written, Backoff(self._monotonic, longest=LONGEST_BACK_OFF)))

    @property
    def writable(self) -> bool:
        """A note is being written, or may be at once: a stop waits for it."""
        return self._writes.busy or any(note.backoff.ready for note in self._notes)

    @property
    def busy(self) -> bool:
        """Notes are pending."""
        return self.pending > 0

    def poll(self, _now: float) -> None:
        """Start to write the next note, unless one is under way."""
        if not self._writes.ready:
            return
        for note in self._notes:
            if note.backoff.ready:
                self._notes.remove(note)
                self._writes.start(
                    partial(note.write, self._engine), partial(self._written, note), partial(self._failed, note)
                )
                return

    def _written(self, note: _Note, _answer: object) -> None:
        note.backoff.succeeded()
        note.on_written()
        self._on_operation()

    def _failed(self, note: _Note, error: Exception) -> None:
        if is_outage(error):
            self._notes.appendleft(note)
        else:
            note.backoff.failed(error, FAILED)
            self._notes.append(note)
