"""Writes that the database refuses alone: another session locks the row, or a constraint rejects it.

Each one has its own back-off. The offset of a new delivery is held until it is stored, or is on the dead-letter topic.
No I/O; times are monotonic seconds.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import structlog

from consumer.events.event import TopicPartition
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.rows import AttemptResult, DueKey, NewDelivery

log = structlog.get_logger(__name__)

MOST_SAID = 10  # writes that are logged one by one
LATELY = 5.0  # seconds
WAITS = (1.0, 60.0)  # seconds until a write is tried again: the first wait, the longest

OnStored = Callable[[], object]
Written = NewDelivery | AttemptResult | NewCursor | CursorMove


def _nothing() -> None:
    """Only a cursor can be moved by others."""


class PendingWrite(NamedTuple):
    """Something to write since `queued_at`, and a callback for when it is written, or (a cursor) cannot be any more."""

    item: Written
    on_stored: OnStored
    due_key: DueKey
    queued_at: float
    on_astray: OnStored = _nothing


@dataclass(slots=True, eq=False)
class Aside:
    """A write and the time of its next try; None: there is none, and its record goes to the dead-letter topic."""

    pending: PendingWrite
    error: str
    since: float
    retry_at: float | None = 0.0
    wait: float = WAITS[0]


class SetAside:
    """The writes that are set aside, oldest first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all: list[Aside] = []
        self._accepted_at = -inf

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Aside]:
        return iter(self._all)

    @property
    def fault(self) -> str | None:
        """The first write, the number of others, and what becomes of it, for /readyz."""
        first = next(iter(self._all), None)
        if first is None:
            return None
        where = ", ".join(f"{name} {value}" for name, value in _fields(first.pending).items())
        more = f" and {len(self._all) - 1} more" if len(self._all) > 1 else ""
        if first.retry_at is None:
            return f"database: {first.error}; its record goes to the dead-letter topic: the delivery of {where}{more}"
        return f"database: {first.error}; not stored, and tried again: the delivery of {where}{more}"

    def add(self, pending: PendingWrite, error: Exception) -> Aside:
        """Set a write aside that was refused alone."""
        now = self._monotonic()
        self._all.append(aside := Aside(pending, str(error), now))
        if len(self._all) <= MOST_SAID:
            what = "could not store a delivery; it is set aside, and its offset waits"
            log.error(what, **_fields(pending), error=str(error))
        return aside

    def has_lately(self, partitions: Collection[TopicPartition]) -> bool:
        """A write of these partitions was set aside a moment ago, so the database may soon accept it."""
        begin = self._monotonic() - LATELY
        return any(each.since > begin and each.pending.due_key[:2] in partitions for each in self._all)

    def accepted(self) -> None:
        """The database has just stored a new delivery."""
        self._accepted_at = self._monotonic()

    @property
    def are_all(self) -> bool:
        """The database has refused deliveries of several subscriptions, and stored none since: it fails, not they."""
        return len({each.pending.due_key[2] for each in self._all}) > 1 and self._accepted_at < self._all[0].since

    def next(self) -> Aside | None:
        """A write that is due for another try; None if there is none."""
        now = self._monotonic()
        return next((each for each in self._all if each.retry_at is not None and each.retry_at <= now), None)

    def refused(self, each: Aside, error: Exception) -> None:
        """Back off: the write was refused, and is tried again later."""
        each.error, each.retry_at = str(error), self._monotonic() + each.wait
        each.wait = min(2 * each.wait, WAITS[1])

    def hold(self, each: Aside, error: Exception) -> None:
        """Try the write no more: its record goes to the dead-letter topic."""
        each.error, each.retry_at = str(error), None

    def remove(self, each: Aside) -> bool:
        """Forget a write; False if it is no longer here."""
        before = len(self._all)
        self.keep(lambda other: other is not each)
        return len(self._all) < before

    def keep(self, stays: Callable[[Aside], bool]) -> None:
        """Drop all other writes: their partitions have been revoked."""
        self._all = [each for each in self._all if stays(each)]


def _fields(pending: PendingWrite) -> dict[str, object]:
    """Fields that identify the delivery in a log line."""
    topic, partition, subscription = pending.due_key
    item = pending.item
    match item:
        case NewDelivery():
            which = {"offset": item.event.record.offset}
        case AttemptResult():
            which = {"row": item.id}
        case NewCursor():
            which = {"cursor_from": item.first}
        case CursorMove():
            which = {"cursor": item.id}
    return {"topic": topic, "partition": partition, **which, "subscription": subscription}
