"""Carries operational events from the outbox in the database to their topic, as structured CloudEvents in JSON.

A row is removed only after its event is acknowledged, so each event is published at least once. An event that is
published again, after a crash or by another leader, has the same CloudEvents id.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import structlog
from confluent_kafka import KafkaException
from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.database.engine import DatabaseThread
from consumer.database.job import ThreadJob
from consumer.events.cloud_event import rfc3339
from consumer.kafka.producer import BACK_OFF, AcknowledgedTopic, Purpose
from consumer.ledger import outbox
from consumer.ledger.rows import OperationalEvent
from consumer.loop.backoff import seconds_after
from consumer.loop.part import Part

log = structlog.get_logger(__name__)

EVENTS_AT_ONCE = 100
SOON, SELDOM = 1.0, 10.0  # seconds between two reads: after this process has written an event, and otherwise
_PURPOSE = Purpose("operations topic", "KAFKA_OPERATIONS_TOPIC", "operational events")
# 0: no limit. If librdkafka gave up one event and the next one got through, the two would change places.
_DEFAULTS: dict[str, Any] = {"delivery.timeout.ms": 0}
_CONTENT_TYPE: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]

Announcement = tuple[int, OperationalEvent, float]  # id of its row, what happened, when (unix seconds)


def operations_topic(kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> AcknowledgedTopic:
    """The topic of a relay. SettingsError: librdkafka refuses a setting."""
    return AcknowledgedTopic(kafka, kafka.operations_topic, _PURPOSE, _DEFAULTS, clock)


class OutboxRelay(Part):
    """Publishes one batch at a time, while this worker leads its group."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        topic: AcknowledgedTopic,
        source: str,
        leads: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source`: that of the CloudEvents. `leads`: whether this worker leads the group."""
        self._engine, self._group, self._topic, self._source = engine, group, topic, source
        self._leads = leads
        failure = "could not read operational events, or remove published ones"
        self._jobs = ThreadJob[Sequence[Announcement]](thread.submit, failure, clock)
        self._sent: set[int] = set()  # rows of the batch whose events have neither been acknowledged nor failed
        self._left = 0  # events of the batch without an acknowledgement
        self._acknowledged: list[int] = []  # rows that are published, and still in the database
        self._woken = False
        self._not_before = self._look_at = clock()
        self._failures = 0  # batches in a row that did not get through

    @property
    def busy(self) -> bool:
        """A statement or an acknowledgement is outstanding, or published events are to be removed."""
        return self._jobs.busy or bool(self._sent or self._acknowledged)

    def wake(self) -> None:
        """This process has written an operational event: read the outbox within a second."""
        self._woken = True

    def poll(self, now: float) -> None:
        """Take acknowledgements, and start the statement that is due. Returns at once."""
        self._take_answers()
        if self._sent or not self._jobs.ready:
            return
        if self._left:  # the events without an acknowledgement have failed
            self._left, self._failures = 0, self._failures + 1
            self._not_before = self._look_at = now + seconds_after(self._failures, *BACK_OFF)
        reads = now >= self._not_before and (self._woken or now >= self._look_at)
        if reads:
            self._not_before = now + SOON
            reads = self._leads()
        if reads or self._acknowledged:
            self._start(now, self._acknowledged, reads=reads)

    def close(self) -> None:
        """Publish no more; events without an acknowledgement stay in the database."""
        self._topic.close()
        self._sent.clear()

    def _start(self, now: float, published: list[int], *, reads: bool) -> None:
        """Remove the events that are published, and read the next ones."""
        self._acknowledged = []
        if reads:
            self._look_at, self._woken = now + SELDOM, False

        def job() -> Sequence[Announcement]:
            if published:
                outbox.forget(self._engine, published)
            return outbox.pending(self._engine, self._group, EVENTS_AT_ONCE) if reads else ()

        def done(batch: Sequence[Announcement]) -> None:
            if len(batch) == EVENTS_AT_ONCE:
                self._not_before = self._look_at = now  # there may be more
            self._left = len(batch)
            self._publish(batch)

        def failed(_error: Exception) -> None:
            self._acknowledged = published
            if reads:
                self._not_before = self._look_at = now  # as soon as the back-off is over

        self._jobs.start(job, done, failed)

    def _publish(self, batch: Sequence[Announcement]) -> None:
        """Publish in order. An event of which no record can be made is logged, and does not stop the others."""
        for row, operation, at in batch:
            try:
                subscription = operation.data.get("subscription_id")
                # The key keeps one subscription's events in order.
                key = None if subscription is None else str(subscription).encode()
                self._topic.write(row, _cloudevent(self._source, operation, at), key, _CONTENT_TYPE)
            except BufferError:
                return
            except KafkaException as error:
                self._topic.failed(error.args[0])
                return
            except Exception:
                log.exception("an operational event could not be sent", row=row, event_id=operation.event_id)
                continue
            self._sent.add(row)

    def _take_answers(self) -> None:
        self._topic.poll()
        answers = self._topic.answers
        while answers:
            row, error = answers.popleft()
            if row not in self._sent:
                continue
            self._sent.discard(row)
            if error is not None:
                self._topic.failed(error)
                continue
            self._topic.got_through()
            self._acknowledged.append(row)
            self._left -= 1
            if not self._left:
                self._failures = 0


def _cloudevent(source: str, operation: OperationalEvent, at: float) -> bytes:
    """CloudEvents 1.0, structured mode, JSON format. The id is the row's: the same each time it is published."""
    subscription = operation.data.get("subscription_id")
    subject = {} if subscription is None else {"subject": f"subscriptions/{subscription}"}
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": operation.event_id,
            "source": source,
            "type": operation.type,
            "time": rfc3339(at),
            **subject,
            "datacontenttype": "application/json",
            "data": dict(operation.data),
        }
    )
