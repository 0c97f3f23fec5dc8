"""Carries the events of deliveries that were given up from the database to the exhausted topic.

A row counts as published only after the acknowledgement: each is published at least once, also by another leader.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.database.engine import DatabaseThread
from consumer.database.job import ThreadJob
from consumer.intake.dead_letters import Letters
from consumer.intake.exhausted import OURS, PURPOSE, render
from consumer.ledger import given_up
from consumer.ledger.admin import StoredDetail
from consumer.loop.part import Part

log = structlog.get_logger(__name__)

AT_ONCE = 100  # deliveries in memory
LOOK_EVERY = 5.0  # seconds between two looks that find none


def exhausted_topic(kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> Letters | None:
    """The topic of a relay; None: there is none. SettingsError: librdkafka refuses a setting."""
    topic = kafka.exhausted_topic
    return None if topic is None else Letters(kafka, topic, PURPOSE, OURS, clock)


class ExhaustedRelay(Part):
    """Publishes one batch at a time, while this worker leads its group. `letters` keeps trying what Kafka refuses."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        letters: Letters,
        leads: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._engine, self._group, self._letters, self._leads = engine, group, letters, leads
        self._jobs = ThreadJob[Sequence[StoredDetail]](
            thread.submit, "could not read or note deliveries that were given up", clock
        )
        self._acknowledged: list[StoredDetail] = []  # not noted in the database yet
        self._failed: set[int] = set()  # rows that cannot be published: the others go first
        self._look_at = clock()

    @property
    def pending(self) -> int:
        """How many deliveries Kafka has not acknowledged; those behind them wait in the database."""
        return self._letters.pending

    @property
    def busy(self) -> bool:
        """A statement or an acknowledgement is outstanding, or acknowledgements are to be noted."""
        return self._jobs.busy or self._letters.busy or bool(self._acknowledged)

    @property
    def fault(self) -> str | None:
        """Why Kafka or the database does not take what is under way."""
        return self._letters.fault or self._jobs.fault

    def poll(self, now: float) -> None:
        """Take acknowledgements; after the last one of a batch note them, and read the next batch."""
        self._letters.poll(now)
        if self._letters.busy or not self._jobs.ready:
            return
        if self._acknowledged or (now >= self._look_at and self._leads()):
            self._look_at = now + LOOK_EVERY
            self._start(self._acknowledged, reads=self._leads())

    def close(self) -> None:
        """Publish no more: what is not acknowledged stays owed in the database."""
        self._letters.close()

    def _start(self, acknowledged: Sequence[StoredDetail], *, reads: bool) -> None:
        self._acknowledged = []

        def job() -> Sequence[StoredDetail]:
            if acknowledged:
                given_up.note_published(self._engine, acknowledged)
            return given_up.unpublished(self._engine, self._group, AT_ONCE, self._failed) if reads else ()

        def failed(_error: Exception) -> None:
            self._acknowledged, self._look_at = [*acknowledged], 0.0  # again as soon as the back-off is over

        self._jobs.start(job, self._publish, failed)

    def _publish(self, found: Sequence[StoredDetail]) -> None:
        for each in found:
            try:
                record, headers = render(each)
                self._letters.write(record, headers, partial(self._acknowledged.append, each))
            except Exception:  # the others go on
                self._failed.add(each.delivery.id)
                log.exception("a delivery that was given up could not be published", row=each.delivery.id)
