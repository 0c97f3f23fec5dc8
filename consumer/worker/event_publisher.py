"""Operational events on a topic of their own, as structured CloudEvents in JSON.

Events stay in the database until they are acknowledged here. So this module neither keeps nor repeats any: the outbox
relay reads a failed event again.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import structlog
from confluent_kafka import KafkaException

from consumer.config.settings import KafkaSettings
from consumer.events.cloud_event import rfc3339
from consumer.kafka.producer import AcknowledgedTopic, Purpose
from consumer.ledger.rows import OperationalEvent

log = structlog.get_logger(__name__)

_PURPOSE = Purpose("operations topic", "KAFKA_OPERATIONS_TOPIC", "operational events")
# 0: no limit. If librdkafka gave up one event and the next one got through, the two would change places.
_DEFAULTS: dict[str, Any] = {"delivery.timeout.ms": 0}
_CONTENT_TYPE: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]

Announcement = tuple[int, OperationalEvent, float]  # id of its row, what happened, when (unix seconds)


class EventPublisher:
    """Publishes one batch at a time; used by one thread. If events do not get through, the log says what to do."""

    def __init__(self, kafka: KafkaSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """SettingsError: librdkafka refuses a setting."""
        self._source = kafka.event_source
        self._topic = AcknowledgedTopic(kafka, kafka.operations_topic, _PURPOSE, _DEFAULTS, clock)
        self._sent: set[int] = set()
        self._on_acknowledged: Callable[[list[int]], None] = _nobody

    @property
    def pending(self) -> int:
        """How many events of the batch have neither been acknowledged nor failed."""
        return len(self._sent)

    def send(self, batch: Sequence[Announcement], on_acknowledged: Callable[[list[int]], None]) -> None:
        """Publish, in order. RuntimeError while the last batch is pending.

        Later calls of `poll` give `on_acknowledged` the ids of events that all in-sync replicas have. When none is
        pending, the events whose ids it has not received have failed. An event of which no record can be made is
        logged, fails, and does not stop the others.
        """
        if self._sent:
            raise RuntimeError("one batch at a time")
        self._on_acknowledged = on_acknowledged
        for number, operation, at in batch:
            try:
                subscription = operation.data.get("subscription_id")
                # The key keeps one subscription's events in order.
                key = None if subscription is None else str(subscription).encode()
                self._topic.write(number, _cloudevent(self._source, operation, at), key, _CONTENT_TYPE)
            except BufferError:
                return
            except KafkaException as error:
                self._topic.failed(error.args[0])
                return
            except Exception:
                log.exception("an operational event could not be sent", row=number, event_id=operation.event_id)
                continue
            self._sent.add(number)

    def poll(self) -> None:
        """Serve acknowledgements. Errors of `on_acknowledged` propagate."""
        self._topic.poll()
        answers = self._topic.answers
        stored = []
        while answers:
            number, error = answers.popleft()
            if number not in self._sent:
                continue
            self._sent.discard(number)
            if error is None:
                self._topic.got_through()
                stored.append(number)
            else:
                self._topic.failed(error)
        if stored:
            self._on_acknowledged(stored)

    def close(self) -> None:
        """Drop pending events: they stay in the database, and are published again."""
        self._topic.close()
        self._sent.clear()


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


def _nobody(_acknowledged: list[int]) -> None:
    """No batch was sent yet."""
