"""Writes a record for each attempt at a delivery to the attempts topic.

A delivery that succeeded leaves no row: its attempt is the only proof of it. So it is settled only once all in-sync
replicas have its attempt, and no crash loses it. Deliveries go on without this proof if Kafka does not take attempts.
"""

import os
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from requests import Response

from consumer.config.settings import KafkaSettings
from consumer.delivery.delivery import Delivery
from consumer.delivery.outcome import Delivered, Outcome, reported
from consumer.events.attempt import WRITTEN_WITHIN, Attempt, ReportedAnswer, key_of, render, render_answer
from consumer.kafka.client import client_properties, made
from consumer.ledger.rows import escaped
from consumer.loop.part import Part

log = structlog.get_logger(__name__)

RESPONSE = 256  # characters of an answer, escaped to ASCII
ANSWERS = 2 * 2**20  # bytes of answers in a round; the rest of a producer's memory is for attempts
FLUSH = 1.0  # seconds at the end for records to be acknowledged
POLL_EVERY = 0.01  # seconds: librdkafka counts a record as queued until its answer is served
SAY_EVERY = 60.0  # seconds between two lines in the log
_CONTENT_TYPE: list[tuple[str, str | bytes | None]] = [("content-type", b"application/cloudevents+json")]
_DEFAULTS: dict[str, str | int] = {
    "client.id": "kafka-webhooks-attempts",
    # One request carries the attempts of this time. They are alike: lz4 leaves a fifth of their bytes.
    "linger.ms": 20,
    "batch.num.messages": 10_000,
    "compression.type": "lz4",
    "topic.metadata.propagation.max.ms": 5_000,
}
_FIXED: dict[str, str | int | bool] = {
    "acks": "all",
    # Limits of memory and time for each of two producers; beyond them, attempts are dropped. The time is longer than a
    # broker's restart: what succeeds meanwhile is proven after it.
    "queue.buffering.max.messages": 25_000,
    "queue.buffering.max.kbytes": 8_192,
    "delivery.timeout.ms": int(WRITTEN_WITHIN * 1000),
    # A reader computes the partition of a subscription.
    "partitioner": "consistent",
    "delivery.report.only.error": True,
}


class _Round:
    """Attempts of one producer, and what is to be done once all of them are acknowledged.

    Only a producer's count of open records tells cheaply that all are: a report of each costs more than the record.
    """

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.then: list[Callable[[], object]] = []
        self.answers = 0  # bytes

    def end(self) -> None:
        then, self.then = self.then, []
        for each in then:
            each()


class AttemptLog(Part):
    """Writes the attempts of one worker, in rounds: while one is sent, the next one fills. It waits only in `close`.

    `dropped` counts attempts that Kafka has not taken, and `answers_dropped` answers. A failure is no `fault`:
    deliveries go on.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """SettingsError: librdkafka refuses a setting. Sends no request yet."""
        self.dropped = self.answers_dropped = 0
        self._topic = topic
        self._source = kafka.event_source
        self._prefix = os.urandom(8).hex()  # makes the ids of this process's records unique
        self._number = 0
        self._poll_at = self._say_at = 0.0
        self._said = 0, 0  # the values of `dropped` and `answers_dropped` in the last log line
        self._missed = 0  # the value of `dropped` when the last round began
        self._late = False  # Kafka has not taken all attempts of the last round: nothing waits for it
        self._reason = ""
        config = {
            **_DEFAULTS,
            **client_properties(kafka),  # Source has warned of the unknown ones
            **_FIXED,
            "bootstrap.servers": kafka.bootstrap_servers,
            "on_delivery": self._written,
        }
        self._fills, self._sent = (_Round(made(Producer, config, kafka)) for _ in range(2))

    @property
    def busy(self) -> bool:
        """Something waits for attempts to be acknowledged."""
        return bool(self._fills.then or self._sent.then)

    def report(self, delivery: Delivery, what: str, outcome: Outcome, at: float, seconds: float) -> None:
        """Write an attempt that ended `at` (unix seconds) after `seconds`. `what` is its outcome's name in the metrics.

        Call it after the attempt is counted. Drops the attempt if Kafka cannot take it at once. Never raises.
        """
        event, subscription_id = delivery.event, delivery.lane.endpoint.subscription_id
        self._number = number = self._number + 1
        try:
            if isinstance(outcome, Delivered):
                error = response = None
            else:
                error, response = outcome.error, escaped(outcome.response, RESPONSE)
            topic, partition, offset, _ = event.record
            attempt = Attempt(
                at,
                subscription_id,
                event.webhook_id,
                event.type,
                event.tenant,
                topic,
                partition,
                offset,
                delivery.attempts,
                what,
                outcome.status,
                error,
                seconds,
                response,
            )
            value = render(attempt, self._source, f"{self._prefix}-{number}")
            self._fills.producer.produce(self._topic, value, key_of(subscription_id), headers=_CONTENT_TYPE)
        except Exception as failure:  # noqa: BLE001 (an observer never fails a delivery)
            self._drop(_reason_of(failure))

    def report_answer(
        self, delivery: Delivery, result: Response, secrets: Callable[[], Sequence[str]], at: float, seconds: float
    ) -> None:
        """Write the answer to an attempt, under the event's key; call it before the attempt is counted.

        `secrets`, which the answer may echo, are masked. Drops the answer as `report`, and never raises.
        """
        event, endpoint = delivery.event, delivery.lane.endpoint
        self._number = number = self._number + 1
        try:
            assert endpoint.answer_headers is not None  # noqa: S101 (for the type checker: else it is not called)
            self._size_with(result.content or b"")  # before it is searched for secrets
            headers, body = reported(result, endpoint.answer_headers, secrets())
            attempt, status = delivery.attempts + 1, result.status_code
            answer = ReportedAnswer(at, endpoint.subscription_id, attempt, status, seconds, headers, body)
            value = render_answer(answer, event, self._source, f"{self._prefix}-{number}")
            size = self._size_with(value)
            key = event.key or event.webhook_id.encode("ascii")  # all records without a key would go to one partition
            self._fills.producer.produce(
                self._topic, value, key, headers=_CONTENT_TYPE, on_delivery=self._answer_written
            )
            self._fills.answers = size
        except Exception as failure:  # noqa: BLE001 (an observer never fails a delivery)
            self._drop_answer(_reason_of(failure))

    def _size_with(self, answer: bytes) -> int:
        if (size := self._fills.answers + len(answer)) > ANSWERS:
            raise BufferError("more answers than may wait for Kafka")
        return size

    def once_written(self, then: Callable[[], object]) -> None:
        """Call `then` on the loop once Kafka has the attempts that were reported so far; at once if it takes none."""
        if self._late:
            then()
        else:
            self._fills.then.append(then)

    def poll(self, now: float) -> None:
        """Serve answers at intervals, and begin the next round. Logs dropped attempts once a minute."""
        if now < self._poll_at:
            return
        self._poll_at = now + POLL_EVERY
        try:
            self._fills.producer.poll(0)
            self._sent.producer.poll(0)
        except KafkaException as failure:  # the binding raises errors that concern the whole client
            self._reason = str(failure.args[0].str())
        if not len(self._sent.producer):
            self._late, self._missed = self.dropped > self._missed, self.dropped
            self._sent.end()
            self._sent.answers = 0
            if self.busy or len(self._fills.producer):
                self._fills, self._sent = self._sent, self._fills
        if self._late:
            self._sent.end()
            self._fills.end()
        if (self.dropped, self.answers_dropped) != self._said and now >= self._say_at:
            self._say_at = now + SAY_EVERY
            self._say()

    def close(self) -> None:
        """Wait at most a second for acknowledgements, then drop the rest. What waits for these is never done."""
        try:
            for each in (self._sent, self._fills):
                each.producer.flush(FLUSH / 2)
                each.producer.purge()
                each.producer.poll(0)
        except KafkaException as failure:
            self._reason = str(failure.args[0].str())
        if (self.dropped, self.answers_dropped) != self._said:
            self._say()

    def _written(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._drop(error.str())

    def _answer_written(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._drop_answer(error.str())

    def _drop(self, why: str) -> None:
        self.dropped += 1
        self._reason = why

    def _drop_answer(self, why: str) -> None:
        """Apart from attempts, whose proof others wait for: one tenant's receiver decides on its answers."""
        self.answers_dropped += 1
        self._reason = why

    def _say(self) -> None:
        attempts, answers = self._said
        self._said = self.dropped, self.answers_dropped
        log.warning(
            "attempts are missing from the attempt history; deliveries go on"
            if self.dropped != attempts
            else "answers are missing from the attempt history; deliveries go on",
            topic=self._topic,
            attempts=self.dropped - attempts,
            answers=self.answers_dropped - answers,
            error=self._reason,
        )


def _reason_of(failure: Exception) -> str:
    cause = failure.args[0] if failure.args else ""
    return cause.str() if isinstance(cause, KafkaError) else f"{type(failure).__name__}: {cause}"
