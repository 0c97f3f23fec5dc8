"""Entries that the database refuses while it stores others. Each one has its own back-off.

The database refused the entry alone: another session locks its row, or a constraint rejects it. Its offset is held
until the entry is stored or an operator decides otherwise. No I/O; times are monotonic seconds.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from consumer.events.event import TopicPartition
from consumer.ledger.marks import Subject
from consumer.ledger.rows import AttemptResult, DueKey, NewDelivery
from models import Wish

log = structlog.get_logger(__name__)

MOST_SAID = 10  # entries that are logged one by one
LATELY = 5.0  # seconds
WAITS = (1.0, 60.0)  # seconds until an entry is tried again: the first wait, the longest

OnStored = Callable[[], object]


class Entry(NamedTuple):
    """Something to write since `queued_at`, and a callback for when it is written."""

    item: NewDelivery | AttemptResult
    on_stored: OnStored
    due_key: DueKey
    queued_at: float

    @property
    def subject(self) -> Subject | None:
        """The delivery that an operator's decision names; None for a stored row, which operators can see and mend."""
        if not isinstance(self.item, NewDelivery):
            return None
        return Subject(*self.item.event.record[:3], self.item.subscription_id)


class Decided(NamedTuple):
    """A delivery that is not stored because an operator has decided on it, and why it could not be stored."""

    item: NewDelivery
    wish: Wish
    error: str


@dataclass(slots=True, eq=False)
class Aside:
    """An entry and the time of its next try; inf while a decision on it is carried out."""

    entry: Entry
    error: str
    since: float
    retry_at: float
    wait: float = WAITS[0]


class SetAside:
    """The entries that are set aside, oldest first."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._all: list[Aside] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Aside]:
        return iter(self._all)

    @property
    def fault(self) -> str | None:
        """The first entry, the number of others, and what to do, for /readyz."""
        first = next(iter(self._all), None)
        if first is None:
            return None
        where = ", ".join(f"{name} {value}" for name, value in _fields(first.entry).items())
        more = f" and {len(self._all) - 1} more" if len(self._all) > 1 else ""
        fault = f"database: {first.error}; not stored, and tried again: the delivery of {where}{more}"
        if (subject := first.entry.subject) is None:
            return fault
        topic, partition, offset, subscription = subject
        command = f"kafka-webhooks deliveries settle {topic} {partition} {offset} --subscription {subscription}"
        return f"{fault}; if it can never be stored, settle it: {command}"

    def add(self, entry: Entry, error: Exception) -> Aside:
        """Set an entry aside that was refused alone."""
        now = self._monotonic()
        self._all.append(aside := Aside(entry, str(error), now, now + WAITS[0]))
        if len(self._all) <= MOST_SAID:
            what = "could not store a delivery; it is set aside, and its offset is held"
            log.error(what, **_fields(entry), error=str(error))
        return aside

    def has_lately(self, partitions: Collection[TopicPartition]) -> bool:
        """An entry of these partitions was set aside a moment ago, so the database may soon accept it."""
        begin = self._monotonic() - LATELY
        return any(each.since > begin and each.entry.due_key[:2] in partitions for each in self._all)

    def next(self) -> Aside | None:
        """An entry that is due for another try; None if there is none."""
        now = self._monotonic()
        return next((each for each in self._all if each.retry_at <= now), None)

    def refused(self, each: Aside, error: Exception) -> None:
        """Back off: the entry was refused again."""
        each.error, each.retry_at = str(error), self._monotonic() + each.wait
        each.wait = min(2 * each.wait, WAITS[1])

    def hurry(self, subject: Subject) -> None:
        """Try entries of this delivery at once: an operator decided on it, or on its whole record."""
        for each in self._all:
            mine = each.entry.subject
            if mine is not None and mine[:3] == subject[:3] and each.retry_at < float("inf"):
                each.retry_at = 0.0

    def hold(self, each: Aside) -> None:
        """Do not try the entry: a decision on it is being carried out."""
        each.retry_at = float("inf")

    def remove(self, each: Aside) -> bool:
        """Forget an entry; False if it is no longer here."""
        if each not in self._all:
            return False
        self._all.remove(each)
        return True

    def keep(self, stays: Callable[[Aside], bool]) -> None:
        """Drop all other entries: their partitions have been revoked."""
        self._all = [each for each in self._all if stays(each)]


def _fields(entry: Entry) -> dict[str, object]:
    """Fields that identify the delivery in a log line."""
    topic, partition, subscription = entry.due_key
    item = entry.item
    which = {"offset": item.event.record.offset} if isinstance(item, NewDelivery) else {"row": item.id}
    return {"topic": topic, "partition": partition, **which, "subscription": subscription}
