"""Writes to topics, with acknowledgement by all in-sync replicas: for a worker, and for a command."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable, WebhooksError
from consumer.kafka.client import client_properties, explained, made

log = structlog.get_logger(__name__)

BACK_OFF = (0.5, 30.0)  # seconds before a failed record is sent again: the first wait, the longest
SLOW = 10.0  # seconds; an acknowledgement takes milliseconds. librdkafka keeps trying silently, perhaps for ever

Headers = list[tuple[str, str | bytes | None]]
_DEFAULTS: dict[str, Any] = {
    "client.id": "kafka-webhooks",
    # How long a topic may be unknown before its records fail, which shows in `fault`.
    "topic.metadata.propagation.max.ms": 5_000,
}
_FIXED: dict[str, Any] = {"acks": "all", "enable.idempotence": True}
TIMEOUT = 15.0  # seconds until a command's unacknowledged record is given up
_AT_ONCE = 1_000  # records of a command that wait for their acknowledgement
_NOT_REACHED = {KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}  # noqa: SLF001 (the binding's public names)
_DENIED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class Purpose(NamedTuple):
    """Words for messages: the `kind` of topic ("dead-letter topic"), its `setting`, its `content` ("records")."""

    kind: str
    setting: str
    content: str


class AcknowledgedTopic:
    """Writes to one topic. Used by one thread, except for `fault`. No code of the caller runs inside librdkafka.

    `answers` holds, for each answered record, its number and None or the error; the caller of `poll` removes them.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        purpose: Purpose,
        defaults: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Users' properties override `defaults`. Raises SettingsError if librdkafka refuses a property."""
        self.answers: deque[tuple[int, KafkaError | None]] = deque()
        self._topic, self._purpose, self._clock = topic, purpose, clock
        properties = client_properties(kafka)  # Source has warned of the unknown ones
        self._config = {
            **_DEFAULTS,
            **defaults,
            **properties,
            **_FIXED,
            "bootstrap.servers": kafka.bootstrap_servers,
        }
        self._sent_at: dict[int, float] = {}
        self._failure: KafkaError | None = None
        self._fatal: KafkaError | None = None
        self._slow = False
        self._said = False  # whether the log says that the topic is slow or fails
        self._again_at = 0.0
        self._kafka = kafka
        self._producer = made(Producer, self._config, kafka)

    @property
    def fault(self) -> str | None:
        """Why records do not get through, with advice; None while they do."""
        kind, _, content = self._purpose
        failure = self._failure
        if failure is not None:
            return f"{kind} {self._topic}: {failure.str()}; {_advice(self._purpose, failure)}"
        if self._slow:
            return f"{kind} {self._topic}: no acknowledgement for {SLOW:.0f} s; {content} wait for it"
        return None

    def write(self, number: int, value: bytes | None, key: bytes | None, headers: Headers) -> None:
        """Send a record; its number comes back in `answers`.

        Raises KafkaException if it is refused at once and BufferError if too many records are unacknowledged; no answer
        follows then.
        """
        answered = partial(self._answered, number)
        self._producer.produce(self._topic, value, key, headers=headers, on_delivery=answered)
        self._sent_at[number] = self._clock()

    def poll(self) -> None:
        """Collect the answers that have arrived, without waiting."""
        try:
            self._producer.poll(0)
        except KafkaException as failure:  # the binding raises errors that are fatal to this producer
            self._fatal = failure.args[0]
        if self._fatal is not None:
            self._begin_again(self._fatal)
        oldest = next(iter(self._sent_at.values()), None)
        self._slow = oldest is not None and self._clock() - oldest > SLOW
        if self._slow and not self._said:
            self._said = True
            log.warning("Kafka has not acknowledged a record yet; still waiting", **self._whose(), seconds=SLOW)

    def failed(self, error: KafkaError) -> None:
        """Take note that a record has to be sent again. Logs it once, and sets `fault`."""
        if self._failure is None:
            self._said = True
            advice = _advice(self._purpose, error)
            log.warning("not stored; it is sent again", **self._whose(), error=error.str(), advice=advice)
        self._failure = error

    def got_through(self) -> None:
        """Take note that a record is stored. Clears `fault`, and logs recovery once if no record waits for too long."""
        self._failure = None
        if self._said and not self._slow:
            self._said = False
            log.info("records get through again", **self._whose())

    def _whose(self) -> dict[str, str]:
        return {"to": self._purpose.kind, "topic": self._topic}

    def close(self) -> None:
        """Drop unacknowledged records; no further answer follows."""
        self._producer.purge()
        self._producer.poll(0)
        self._sent_at.clear()
        self.answers.clear()

    def _answered(self, number: int, error: KafkaError | None, _message: Message) -> None:
        # Only noted: an exception here, inside librdkafka's poll, would drop the answers that follow.
        self._sent_at.pop(number, None)
        self.answers.append((number, error))

    def _begin_again(self, error: KafkaError) -> None:
        """Replace the producer after a fatal error. Its unacknowledged records fail, for the caller to send again."""
        self.answers.extend((number, error) for number in self._sent_at)
        self._sent_at.clear()
        if self._clock() >= self._again_at:
            self._again_at = self._clock() + BACK_OFF[1]
            self._fatal = None
            self._producer = made(Producer, self._config, self._kafka)


def _advice(purpose: Purpose, error: KafkaError) -> str:
    create = f"create it, or set {purpose.setting} to one that exists"
    allow = "allow this service's user to write to it"
    codes = {
        KafkaError._UNKNOWN_TOPIC: create,  # noqa: SLF001 (the binding's public name for it)
        KafkaError.UNKNOWN_TOPIC_OR_PART: create,
        KafkaError.TOPIC_AUTHORIZATION_FAILED: allow,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED: f"{allow}; before Kafka 2.8, also IdempotentWrite",
        KafkaError.NOT_ENOUGH_REPLICAS: "bring its replicas back, or lower its min.insync.replicas",
    }
    return codes.get(error.code(), f"{purpose.content} wait until it takes them")


class Outgoing(NamedTuple):
    """A record that a command publishes."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, str | bytes | None]] = ()


class Published(NamedTuple):
    """The place of an acknowledged record."""

    partition: int
    offset: int


Answers = list[Published | WebhooksError]


class Publisher:
    """Publishes the records of a command."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """SettingsError: librdkafka refuses a setting."""
        self._servers = kafka.bootstrap_servers
        self._detail = ""  # the last error of a connection
        config = {
            "message.max.bytes": 10_000_000,  # high enough that the broker's own limit applies
            **client_properties(kafka, warns=True),
            **_FIXED,
            "bootstrap.servers": kafka.bootstrap_servers,
            "delivery.timeout.ms": int(TIMEOUT * 1000),
            "topic.metadata.propagation.max.ms": 10_000,  # a topic may have to be created first
            "error_cb": self._failed,
        }
        self._producer = made(Producer, config, kafka)

    def publish(self, records: Sequence[Outgoing]) -> Answers:
        """Publish, and wait for the answer to each record: its place, or why Kafka does not have it.

        The error is KafkaUnavailable if a record is not acknowledged within 15 s. Raises WebhooksError if this user may
        write to no topic at all.
        """
        answers: Answers = [KafkaUnavailable("not sent")] * len(records)
        for number, (topic, value, key, headers) in enumerate(records):
            told = partial(self._answered, answers, number, topic)
            try:
                self._producer.produce(topic, value, key, headers=list(headers), on_delivery=told)
            except KafkaException as error:
                answers[number] = _not_taken(topic, error.args[0])
        try:
            while len(self._producer):  # after a fatal error `flush` would run more callbacks, with its exception set
                self._producer.poll(0.1)
        except KafkaException as error:
            raise _not_taken(records[0].topic, error.args[0]) from None
        return answers

    def _answered(self, answers: Answers, number: int, topic: str, error: KafkaError | None, message: Message) -> None:
        if error is None:
            answers[number] = Published(message.partition() or 0, message.offset() or 0)
        elif error.code() in _NOT_REACHED:
            answers[number] = KafkaUnavailable(f"no acknowledgement from Kafka at {self._servers}{self._detail}")
        else:
            answers[number] = _not_taken(topic, error)

    def _failed(self, error: KafkaError) -> None:
        self._detail = f" ({explained(error)})"


def publish(kafka: KafkaSettings, records: Iterable[Outgoing]) -> Iterator[Published]:
    """Publish; yields the place of each record when it is acknowledged. Raises the first error of `Publisher`."""
    publisher, rest = Publisher(kafka), iter(records)
    while batch := list(islice(rest, _AT_ONCE)):
        for answer in publisher.publish(batch):
            if isinstance(answer, WebhooksError):
                raise answer
            yield answer


def _not_taken(topic: str, error: KafkaError) -> WebhooksError:
    advice = f"; allow this user Write on the topic {topic}" if error.code() in _DENIED else ""
    return WebhooksError(f"Kafka refuses the record: {error.str()}{advice}")
