"""Publishes records to Kafka, each acknowledged by all in-sync replicas."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable, WebhooksError
from consumer.kafka.client import LibrdkafkaLog, client_properties, refused
from consumer.kafka.remedies import explained

_TIMEOUT = 15.0  # seconds until an unacknowledged record is given up
_MOST_WAITING = 10_000  # unacknowledged records
_NOT_REACHED = {KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}  # noqa: SLF001 (the binding's public names)


_DENIED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}


class Published(NamedTuple):
    """The place of an acknowledged record."""

    partition: int
    offset: int


class Outgoing(NamedTuple):
    """A record to publish."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def publish(
    kafka: KafkaSettings,
    topic: str,
    values: Iterable[bytes | None],
    *,
    key: bytes | None = None,
    headers: Iterable[tuple[str, bytes | None]] = (),
) -> Iterator[Published]:
    """Publish `values`; yields the place of each record when it is acknowledged.

    Raises KafkaUnavailable if a record is not acknowledged within 15 s, and WebhooksError if Kafka refuses one.
    """
    answers: deque[Published | WebhooksError] = deque()
    detail: list[str] = []

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        answers.append(_answer(kafka, topic, detail, error, message))

    producer = _producer(kafka, detail)
    waiting = 0
    fields: list[tuple[str, str | bytes | None]] = list(headers)
    for value in values:
        while waiting >= _MOST_WAITING:
            _serve(producer, topic, 0.1)
            while answers:
                waiting -= 1
                yield _place(answers.popleft())
        try:
            producer.produce(topic, value, key, headers=fields, on_delivery=acknowledged)
        except KafkaException as error:
            raise _refused(topic, error.args[0]) from None
        waiting += 1
        _serve(producer, topic, 0)
    while waiting:
        _serve(producer, topic, 0.1)
        while answers:
            waiting -= 1
            yield _place(answers.popleft())


def publish_batches(
    kafka: KafkaSettings, batches: Iterable[Sequence[Outgoing]]
) -> Iterator[list[Published | WebhooksError]]:
    """Publish batches one after another; yields the answers to each batch, in its order, once all are there.

    A batch has to fit into memory. Each error is one that `publish` raises.
    """
    detail: list[str] = []
    producer = _producer(kafka, detail)
    for batch in batches:
        answers: dict[int, Published | WebhooksError] = {}

        def note(
            number: int,
            topic: str,
            error: KafkaError | None,
            message: Message,
            answers: dict[int, Published | WebhooksError] = answers,
        ) -> None:
            answers[number] = _answer(kafka, topic, detail, error, message)

        for number, record in enumerate(batch):
            fields: list[tuple[str, str | bytes | None]] = list(record.headers)
            told = partial(note, number, record.topic)
            try:
                producer.produce(record.topic, record.value, record.key, headers=fields, on_delivery=told)
            except KafkaException as error:
                answers[number] = _refused(record.topic, error.args[0])
        while len(answers) < len(batch):
            _serve(producer, batch[-1].topic, 0.1)
        yield [answers[number] for number in range(len(batch))]


def _answer(
    kafka: KafkaSettings, topic: str, detail: Sequence[str], error: KafkaError | None, message: Message
) -> Published | WebhooksError:
    if error is None:
        return Published(message.partition() or 0, message.offset() or 0)
    if error.code() in _NOT_REACHED:
        reason = f" ({detail[-1]})" if detail else ""
        return KafkaUnavailable(f"no acknowledgement from Kafka at {kafka.bootstrap_servers}{reason}")
    return _refused(topic, error)


def _serve(producer: Producer, topic: str, seconds: float) -> None:
    """Take answers. WebhooksError if the producer cannot go on: this user may write to no topic at all."""
    try:
        producer.poll(seconds)
    except KafkaException as error:
        raise _refused(topic, error.args[0]) from None


def _refused(topic: str, error: KafkaError) -> WebhooksError:
    advice = f"; allow this user Write on the topic {topic}" if error.code() in _DENIED else ""
    return WebhooksError(f"Kafka refuses the record: {error.str()}{advice}")


def _place(answer: Published | WebhooksError) -> Published:
    if isinstance(answer, WebhooksError):
        raise answer
    return answer


def _producer(kafka: KafkaSettings, detail: list[str]) -> Producer:
    properties = client_properties(kafka, warns=True)
    try:
        return Producer(
            {
                "message.max.bytes": 10_000_000,  # high enough that the broker's own limit applies
                **properties,
                "bootstrap.servers": kafka.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "delivery.timeout.ms": int(_TIMEOUT * 1000),
                "topic.metadata.propagation.max.ms": 10_000,  # a topic may have to be created first
                "error_cb": lambda error: detail.append(explained(error)),
            },
            logger=LibrdkafkaLog(),
        )
    except KafkaException as error:
        raise refused(error, kafka.properties) from None
