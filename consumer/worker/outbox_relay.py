"""Carries operational events from the outbox in the database to their topic.

A row is removed only after its event is acknowledged, so each event is published at least once. An event that is
published again, after a crash or by another leader, has the same CloudEvents id.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.job import ThreadJob
from consumer.kafka.producer import BACK_OFF
from consumer.ledger import outbox
from consumer.loop.backoff import seconds_after
from consumer.loop.part import Part
from consumer.worker.event_publisher import Announcement, EventPublisher

EVENTS_AT_ONCE = 100
SOON, SELDOM = 1.0, 10.0  # seconds between two reads: after this process has written an event, and otherwise


class OutboxRelay(Part):
    """Publishes one batch at a time, while this worker leads its group."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        announcer: EventPublisher,
        leads: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`leads`: whether this worker leads the group."""
        self._engine, self._group = engine, group
        self._announcer, self._leads = announcer, leads
        self._reads = ThreadJob[Sequence[Announcement]](thread.submit, "could not read operational events", clock)
        self._removals = ThreadJob[None](thread.submit, "could not remove published operational events", clock)
        self._unanswered = 0  # events of the last batch without an acknowledgement
        self._unreadable: set[int] = set()  # rows that are logged and skipped; used by the database thread
        self._acknowledged: list[int] = []  # published, and still in the database
        self._woken = False
        self._not_before = self._look_at = clock()
        self._failures = 0  # in a row

    @property
    def busy(self) -> bool:
        """A statement or an acknowledgement is outstanding, or published events are to be removed."""
        return self._reads.busy or self._removals.busy or bool(self._announcer.pending or self._acknowledged)

    def wake(self) -> None:
        """This process has written an operational event: read the outbox within a second."""
        self._woken = True

    def poll(self, now: float) -> None:
        """Serve acknowledgements, and start the statement that is due. Returns at once."""
        self._announcer.poll()
        if not self._reads.ready or not self._removals.ready:
            return
        if self._acknowledged:
            self._forget()
        elif not self._announcer.pending:
            self._judge(now)
            if now >= self._not_before and (self._woken or now >= self._look_at):
                self._not_before = now + SOON
                if self._leads():
                    self._look(now)

    def close(self) -> None:
        """Publish no more; events without an acknowledgement stay in the database."""
        self._announcer.close()

    def _look(self, now: float) -> None:
        self._look_at, self._woken = now + SELDOM, False

        def found(batch: Sequence[Announcement]) -> None:
            if len(batch) == EVENTS_AT_ONCE:
                self._not_before = self._look_at = now  # there may be more
            self._unanswered = len(batch)
            self._announcer.send(batch, self._published)

        def failed(_error: Exception) -> None:
            self._not_before = self._look_at = now  # as soon as the back-off is over

        read = partial(outbox.pending, self._engine, self._group, EVENTS_AT_ONCE, self._unreadable)
        self._reads.start(read, found, failed)

    def _published(self, ids: list[int]) -> None:
        self._acknowledged += ids
        self._unanswered -= len(ids)
        if not self._unanswered:
            self._failures = 0

    def _forget(self) -> None:
        ids, self._acknowledged = self._acknowledged, []

        def failed(_error: Exception) -> None:
            self._acknowledged += ids

        self._removals.start(partial(outbox.forget, self._engine, ids), lambda _: None, failed)

    def _judge(self, now: float) -> None:
        """No event is pending: those without an acknowledgement have failed, and are read again after a back-off."""
        if self._unanswered:
            self._unanswered = 0
            self._failures += 1
            self._not_before = self._look_at = now + seconds_after(self._failures, *BACK_OFF)
