"""Carries operational events from the database, where they are written with what they tell of, to their topic.

A row is removed after its event is acknowledged and never before. So each event is published at least once; what is
published again, after a crash or by another leader, has the same CloudEvents id.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Engine

from consumer.database.backoff import Backoff
from consumer.database.engine import DatabaseThread
from consumer.kafka.producer import FIRST_WAIT, LONGEST_WAIT
from consumer.ledger import outbox
from consumer.worker.event_publisher import Announcement, EventPublisher

EVENTS_AT_ONCE = 100
SOON, SELDOM = 1.0, 10.0  # seconds between two looks: after one was written in this process, and otherwise


class OutboxRelay:
    """One batch at a time, while this worker leads its group. All methods belong to the loop's thread."""

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
        """`leads` is asked when there may be something to do."""
        self._engine, self._thread, self._group = engine, thread, group
        self._announcer, self._leads, self._clock = announcer, leads, clock
        self._asking = False  # the database is; one job at a time
        self._unanswered = 0  # of the last batch
        self._acknowledged: list[int] = []  # published, and still in the database
        self._woken = False
        self._not_before = self._look_at = clock()
        self._wait = FIRST_WAIT
        self._database = Backoff(clock)

    @property
    def busy(self) -> bool:
        """An answer is awaited, of the database or of Kafka."""
        return self._asking or bool(self._announcer.pending or self._acknowledged)

    def wake(self) -> None:
        """An operational event was written in this process: look within a second."""
        self._woken = True

    def turn(self) -> None:
        """Serve answers and start what is due; returns at once."""
        self._announcer.poll()
        now = self._clock()
        if self._asking or not self._database.ready:
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
        """Publish nothing more; what is not acknowledged stays in the database."""
        self._announcer.close()

    def _look(self, now: float) -> None:
        self._look_at, self._woken = now + SELDOM, False

        def found(batch: Sequence[Announcement] | Exception) -> None:
            self._asking = False
            if isinstance(batch, Exception):
                self._not_before = self._look_at = now  # as soon as the back-off is over
                self._database.failed(batch, "could not read operational events")
                return
            self._database.succeeded()
            if len(batch) == EVENTS_AT_ONCE:
                self._not_before = self._look_at = now  # there may be more
            self._unanswered = len(batch)
            self._announcer.send(batch, self._published)

        self._asking = True
        self._thread.submit(partial(outbox.pending, self._engine, self._group, EVENTS_AT_ONCE), found)

    def _published(self, ids: list[int]) -> None:
        self._acknowledged += ids
        self._unanswered -= len(ids)
        if not self._unanswered:
            self._wait = FIRST_WAIT

    def _forget(self) -> None:
        ids, self._acknowledged = self._acknowledged, []

        def forgotten(result: Exception | None) -> None:
            self._asking = False
            if result is None:
                self._database.succeeded()
            else:
                self._acknowledged += ids
                self._database.failed(result, "could not remove published operational events")

        self._asking = True
        self._thread.submit(partial(outbox.forget, self._engine, ids), forgotten)

    def _judge(self, now: float) -> None:
        """Nothing is pending: what is not acknowledged did not get through, and is read again after a back-off."""
        if self._unanswered:
            self._unanswered = 0
            self._not_before = self._look_at = now + self._wait
            self._wait = min(self._wait * 2, LONGEST_WAIT)
