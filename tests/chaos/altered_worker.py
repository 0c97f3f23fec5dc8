"""A worker with one thing changed: `python -m tests.chaos.altered_worker CHANGE run`.

The checks must find the broken workers. `lost_answers` is a fault of the database that a correct worker survives.
All changes reduce the CPU budget of filters so that a slow one is over its budget most of the time.
"""

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from itertools import count
from math import inf
from random import Random
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from consumer.__main__ import main
from consumer.database import engine
from consumer.delivery import settling
from consumer.delivery.backlog import Backlog
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.delivery.parking import Parking
from consumer.delivery.retry import RetryPolicy
from consumer.intake import commits
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.offsets import OffsetTracker
from consumer.intake.source import Source
from consumer.ledger import cursors
from consumer.matching import selection
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker import attempt_log, catch_up, feeder, polling, saver
from consumer.worker.attempt_log import AttemptLog

Change = Callable[[], None]

LITTLE = {"OWN": 0.02, "PAUSE": 1.0}  # of consumer.matching.selection: a few evaluations, and a pause
LOST_ANSWERS = 0.2  # fraction of commits with a lost answer
STORED_AFTER = 2.0  # seconds
STARTED = 300  # deliveries that the worker starts before it stops starting them


def command(change: Change) -> tuple[str, ...]:
    """The command that starts a worker with this change, without its last word."""
    return sys.executable, "-m", "tests.chaos.altered_worker", change.__name__


def none() -> None:
    """No change; started like the others."""


def commits_too_early() -> None:
    """A record is settled as soon as its deliveries are opened."""

    def at_once(begin: Any, self: OpenRecord, settle: Callable[[int], None], offset: int, deliveries: int) -> None:
        settle(offset)
        begin(self, lambda _: None, offset, deliveries)

    _wrap(OpenRecord, "__init__", at_once)


def drops_a_parked_insert() -> None:
    """Deliveries to store count as stored, but are not."""
    _wrap(Parking, "park", lambda _park, _self, _delivery, on_stored: on_stored())


def settles_before_a_cursor_is_stored() -> None:
    """A delivery that is left to a cursor settles at once. The cursor is stored seconds later."""

    def late(begin: Any, *values: Any) -> None:
        time.sleep(STORED_AFTER)
        begin(*values)

    _wrap(cursors, "begin", late)
    _wrap(Cursor, "leave", lambda _leave, _self, left: left.record.settle_one() or 0)


def forgets_the_end_of_a_cursor() -> None:
    """The live stream leaves deliveries to a cursor that ends before them, as long as the worker runs."""
    _wrap(Cursor, "covers", lambda _covers, self, offset: not self.replay and self.first <= offset)
    _wrap(Backlog, "drop", lambda _drop, _self, _cursor: [])


def saves_no_position() -> None:
    """The positions of cursors are saved only when their partition leaves, however many events have settled."""
    saver.SAVE_EVERY = catch_up.SAVE_AFTER = inf  # type: ignore[assignment]
    feeder.MOST_UNSAVED = feeder.MOST_OF_ONE = feeder.MOST_AT_RISK = inf  # type: ignore[assignment]


def drops_what_a_cursor_reads() -> None:
    """An event that a cursor reads counts as settled."""
    _wrap(Cursor, "take", lambda take, self, *place: take(self, *place) and self.settle(place[0]))


def drops_what_a_replay_reads() -> None:
    """The same, of replays alone."""
    _wrap(Cursor, "take", lambda take, self, *place: take(self, *place) and (not self.replay or self.settle(place[0])))


def ignores_pauses() -> None:
    """A paused subscription is served like any other."""
    _wrap(Endpoint, "__init__", lambda begin, *values, **named: begin(*values, **named | {"paused": False}))


def drops_what_is_set_aside() -> None:
    """Rows that the database refuses alone count as stored."""
    _wrap(Parking, "_refused", lambda _refused, _self, aside, _error: aside.pending.on_stored())


def drops_what_cannot_be_read() -> None:
    """A batch that cannot be decompressed is skipped without dead letters."""

    def quietly(send: Any, self: DeadLetters, record: Any, reason: str, detail: str, on_stored: Any) -> None:
        if reason == "unreadable":
            on_stored()
        else:
            send(self, record, reason, detail, on_stored)

    _wrap(DeadLetters, "send", quietly)


def uses_an_id_again() -> None:
    """Each third event goes out with the same webhook-id."""

    def decode(decode: Any, record: Any, *rules: Any) -> Any:
        event = decode(record, *rules)
        return event._replace(webhook_id="msg_again") if record.offset % 3 == 0 else event

    _wrap(polling, "decode", decode)


def moves_an_offset_back() -> None:
    """Each tenth commit has an offset one below the right one."""
    calls = count(1)

    def less(committable: Any, self: OffsetTracker) -> tuple[int, str] | None:
        mark, metadata = committable(self) or (0, "")
        return (mark - 1, metadata) if next(calls) % 10 == 0 and mark > 1 else (mark, metadata)

    _wrap(OffsetTracker, "committable", less)


def settles_before_its_attempt_is_written() -> None:
    """A success settles while its attempt waits to be sent."""
    attempt_log._DEFAULTS["linger.ms"] = 30_000  # longer than it lives: what it has settled has no record yet
    _wrap(AttemptLog, "once_written", lambda _wait, _self, then: then())


def forgets_attempts() -> None:
    """Each failure is treated as the first."""
    _wrap(RetryPolicy, "decide", lambda decide, self, _attempts, failed: decide(self, 1, failed))


def announces_nothing() -> None:
    """Exhausted deliveries are not announced."""
    _wrap(settling, "exhausted", lambda _exhausted, _delivery, _failure: None)


def ignores_order() -> None:
    """A subscription with `ordering = 'key'` is served like any other."""

    def unordered(begin: Any, self: Endpoint, *values: Any, **named: Any) -> None:
        begin(self, *values, **named | {"ordered": False})

    _wrap(Endpoint, "__init__", unordered)


def commits_nothing_when_it_leaves() -> None:
    """At a stop or a revoke, the last round of commits is left out."""
    _wrap(Source, "commit_now", lambda _now, _self, _partitions: True)
    _wrap(Source, "commit", lambda commit, self: None if self._paused else commit(self))


def commits_rarely() -> None:
    """Commits are made every ten seconds, not four times a second, whatever is settled."""
    commits.COMMIT_EVERY = 10.0
    commits.COMMIT_RECORDS = 1_000_000


def stops_after_a_while() -> None:
    """Deliveries are queued but no longer started."""
    calls = count()
    _wrap(Lanes, "next", lambda following, *rest: following(*rest) if next(calls) < STARTED else None)


def impatient() -> None:
    """A call to Oracle may take two seconds instead of thirty."""
    engine.CALL_TIMEOUT = 2.0


def lost_answers() -> None:
    """The database commits, and the connection breaks before the answer."""
    random = Random(os.getpid())

    def broken_off(commit: Any, self: DefaultDialect, connection: Any) -> None:
        commit(self, connection)
        if random.random() < LOST_ANSWERS:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    _wrap(DefaultDialect, "do_commit", broken_off)


def _wrap(owner: Any, name: str, changed: Callable[..., Any]) -> None:
    """Replace a function of `owner` by `changed`, which gets that function before the other arguments."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *values, **named: changed(original, *values, **named))


if __name__ == "__main__":
    vars(selection).update(LITTLE)
    globals()[sys.argv.pop(1)]()
    main()
