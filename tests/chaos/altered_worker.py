"""A worker with one thing changed: `python -m tests.chaos.altered_worker CHANGE run`.

The broken ones are what the checks must find; `lost_answers` is a fault of the database that a sound worker bears.
All of them give filters so little of the processor that a slow one is over its budget most of the time.
"""

import os
import sqlite3
import sys
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from consumer.__main__ import main
from consumer.database import engine
from consumer.delivery import settling
from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.delivery.parking import Parking
from consumer.delivery.retry import RetryPolicy
from consumer.delivery.set_aside import SetAside
from consumer.delivery.settling import Settling
from consumer.intake import unreadable
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.offsets import OffsetTracker
from consumer.intake.source import Source
from consumer.matching import budget
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker import committer, polling

Change = Callable[[], None]

LITTLE = {
    "OWN": 0.001,
    "BURST": 5.0,
    "PAUSE": 1.0,
    "LONGEST_PAUSE": 1.0,
}  # of consumer.matching.budget: an evaluation or two, and a pause
LOST_ANSWERS = 0.2  # the part of commits whose answer is lost
STARTED = 300  # deliveries, before the worker that stops starting them


def command(change: Change) -> tuple[str, ...]:
    """What starts a worker with this change, but for its last word."""
    return sys.executable, "-m", "tests.chaos.altered_worker", change.__name__


def none() -> None:
    """As it is, and started in the same way."""


def commits_too_early() -> None:
    """A record is settled as soon as its deliveries are opened."""

    def at_once(begin: Any, self: OpenRecord, settle: Callable[[int], None], offset: int, deliveries: int) -> None:
        settle(offset)
        begin(self, lambda _: None, offset, deliveries)

    _wrap(OpenRecord, "__init__", at_once)


def drops_a_parked_insert() -> None:
    """What is to be stored counts as stored, and is not."""
    _wrap(Parking, "park", lambda _park, _self, _delivery, on_stored: on_stored())


def drops_what_is_set_aside() -> None:
    """What the database refuses alone counts as stored."""
    _wrap(SetAside, "add", lambda _add, _self, entry, _error: entry.on_stored())


def drops_what_no_filter_was_asked_about() -> None:
    """What comes for a filter that is over its budget is wanted by nobody."""

    def unwanted(
        postpone: Any, self: Settling, event: Any, endpoint: Any, record: OpenRecord, *rest: Any, **named: Any
    ) -> None:
        if named.get("asked", True):
            postpone(self, event, endpoint, record, *rest, **named)
        else:
            record.settle_one()

    _wrap(Settling, "postpone", unwanted)


def drops_what_a_lock_keeps() -> None:
    """As that, where the database does not refuse a row and lets it wait."""
    impatient()
    drops_what_is_set_aside()


def drops_what_cannot_be_read() -> None:
    """A batch that cannot be decompressed is passed, and no letter tells of it."""

    def quietly(send: Any, self: DeadLetters, record: Any, reason: str, detail: str, on_stored: Any) -> None:
        if reason == "unreadable":
            on_stored()
        else:
            send(self, record, reason, detail, on_stored)

    _wrap(DeadLetters, "send", quietly)


def reads_for_ever() -> None:
    """A batch that cannot be decompressed is read again and again."""
    unreadable.READS = sys.maxsize


def uses_an_id_again() -> None:
    """Each third event goes out under one and the same webhook-id."""

    def decode(decode: Any, record: Any, *rules: Any) -> Any:
        event = decode(record, *rules)
        return event._replace(webhook_id="msg_again") if record.offset % 3 == 0 else event

    _wrap(polling, "decode", decode)


def settles_another_offset() -> None:
    """What is settled is the first open record of the partition, not the one that was delivered."""
    _wrap(OffsetTracker, "settle", lambda settle, self, _offset: settle(self, next(iter(self._open))))


def moves_an_offset_back() -> None:
    """Each tenth commit names the offset before the right one."""
    calls = count(1)

    def less(committable: Any, self: OffsetTracker) -> tuple[int, str] | None:
        mark, metadata = committable(self) or (0, "")
        return (mark - 1, metadata) if next(calls) % 10 == 0 and mark > 1 else (mark, metadata)

    _wrap(OffsetTracker, "committable", less)


def forgets_attempts() -> None:
    """Each failure is decided as the first."""
    _wrap(RetryPolicy, "decide", lambda decide, self, _attempts, failed: decide(self, 1, failed))


def keeps_a_batch_together() -> None:
    """What was refused in a batch goes in that batch again."""
    Delivery.goes_alone = property(lambda _: False)  # type: ignore[method-assign, assignment]


def announces_nothing() -> None:
    """What is given up is given up quietly."""
    _wrap(settling, "exhausted", lambda _exhausted, _delivery, _failure: None)


def ignores_order() -> None:
    """A subscription with `ordering = 'key'` is served like any other."""

    def unordered(begin: Any, self: Endpoint, *values: Any, **named: Any) -> None:
        begin(self, *values, **named | {"ordered": False})

    _wrap(Endpoint, "__init__", unordered)


def commits_nothing_when_it_leaves() -> None:
    """Who stops, or gives partitions up, leaves the last round of commits out."""
    _wrap(Source, "commit_now", lambda _now, _self, _partitions: True)
    _wrap(Source, "commit", lambda commit, self: None if self._paused else commit(self))


def commits_rarely() -> None:
    """Every ten seconds, not four times a second, whatever was settled."""
    committer.COMMIT_EVERY = 10.0
    committer.COMMIT_RECORDS = 1_000_000


def stops_after_a_while() -> None:
    """Deliveries are taken in and not started any more."""
    calls = count()
    _wrap(Lanes, "next", lambda following, *rest: following(*rest) if next(calls) < STARTED else None)


def impatient() -> None:
    """A call to Oracle may take two seconds, not thirty."""
    engine.CALL_TIMEOUT = 2.0


def lost_answers() -> None:
    """The database commits, and the connection breaks before it says so."""
    random = Random(os.getpid())

    def broken_off(commit: Any, self: DefaultDialect, connection: Any) -> None:
        commit(self, connection)
        if random.random() < LOST_ANSWERS:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    _wrap(DefaultDialect, "do_commit", broken_off)


def _wrap(owner: Any, name: str, changed: Callable[..., Any]) -> None:
    """In place of a function of `owner`, call `changed` with that function before its own arguments."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *values, **named: changed(original, *values, **named))


if __name__ == "__main__":
    vars(budget).update(LITTLE)
    globals()[sys.argv.pop(1)]()
    main()
