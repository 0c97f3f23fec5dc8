"""Asks a Kafka cluster, outside any group: for its topics, this user's rights, and the lag of a consumer group."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without saying so
    AclOperation,
    AdminClient,
    ClusterMetadata,
    ConfigResource,
)

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable, WebhooksError
from consumer.events.event import TopicPartition
from consumer.intake.log_reader import offsets_at
from consumer.intake.topics import consumes
from consumer.kafka.client import IS_IT_UP, explained, made, onlooker, remedy

TIMEOUT = 10.0  # seconds for each request
_SOON = 3.0  # seconds for a broker to answer: an overview waits five in all
_AGAIN = 0.2  # seconds between two tries
_QUICK = 1.0  # seconds of the first try: a coordinator that knows the group takes milliseconds
# A fresh cluster creates the coordinator for its first group, which takes one to three seconds.
_COORDINATOR_COMES = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}


class Lag(NamedTuple):
    """A group's position in a partition.

    `committed` is the offset that it has committed, None without one; the log has the offsets from `first` to before
    `end`. A start now begins at `start`.
    """

    topic: str
    partition: int
    committed: int | None
    first: int
    end: int
    start: int

    @property
    def records(self) -> int:
        """Records that a start now would read. 0 while the committed offset is one of an earlier topic of the name."""
        return max(0, self.end - max(self.start, self.first))

    @property
    def overtaken(self) -> int:
        """Records that retention has dropped before they were settled."""
        return max(0, self.first - self.start)


def lags(kafka: KafkaSettings, partitions: Collection[TopicPartition]) -> list[Lag]:
    """The lag of the group in each partition, in their order.

    Raises KafkaException if Kafka does not answer, and WebhooksError if the group may not be seen.
    """
    with _onlooking(kafka) as (consumer, _):
        return _lags(kafka, consumer, partitions)


def waiting_long(kafka: KafkaSettings, admin: AdminClient, found: Collection[Lag], before: float) -> list[Lag]:
    """Those of `found` whose first record to send is older than `before` (unix seconds), if the group has members.

    Ask for the `found` ones first: AdminClient crashes as a coordinator loads. Raises KafkaException.
    """
    behind = {(each.topic, each.partition): each for each in found if each.records}
    group = kafka.group_id
    if not behind or not admin.describe_consumer_groups([group], request_timeout=TIMEOUT / 2)[group].result().members:
        return []
    with _onlooking(kafka) as (consumer, _):
        newer = offsets_at(consumer, behind, round(before * 1000))
    return [each for place, each in behind.items() if not 0 <= newer[place] <= max(each.start, each.first)]


def committed_offsets(kafka: KafkaSettings, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The offsets that the group has committed, without the partitions where it has none. Raises as `lags`."""
    with _onlooking(kafka) as (consumer, _):
        return _committed(kafka, consumer, partitions)


def group_lag(kafka: KafkaSettings, topics: Sequence[str]) -> list[Lag]:
    """The lag in each partition that the group consumes now: of `topics`, names or patterns, the ones that exist.

    Raises SettingsError, KafkaUnavailable or KafkaException.
    """
    consumed = consumes(kafka, topics)
    with _onlooking(kafka) as (consumer, reasons):
        found = _cluster(kafka, consumer, reasons, _SOON).topics.items()
        partitions = [(name, number) for name, topic in found if consumed(name) for number in topic.partitions]
        return _lags(kafka, consumer, partitions) if partitions else []


def connected(kafka: KafkaSettings, seconds: float = TIMEOUT / 2) -> tuple[AdminClient, ClusterMetadata]:
    """A client, and the cluster's brokers and topics.

    Raises SettingsError for a property that librdkafka refuses, and KafkaUnavailable if no broker answers in time.
    """
    reasons = list[str]()
    admin = made(AdminClient, {**onlooker(kafka), "error_cb": lambda error: reasons.append(explained(error))}, kafka)
    return admin, _cluster(kafka, admin, reasons, seconds)


def without(operation: AclOperation, topics: Collection[str], admin: AdminClient) -> list[str]:
    """The topics on which this user lacks a right; a topic that it may not even see is one of them.

    If brokers do not report it, or a topic does not exist, the right counts as given.
    """
    if not topics:
        return []
    asked = admin.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=TIMEOUT / 2
    )
    found = []
    for topic, answer in asked.items():
        try:
            allowed = answer.result().authorized_operations
        except KafkaException as error:
            denied = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        else:
            denied = allowed is not None and operation not in allowed
        if denied:
            found.append(topic)
    return found


def knows_kip_848(config: Mapping[str, str]) -> bool:
    """Whether brokers with this configuration know KAFKA_GROUP_PROTOCOL=consumer. True if it may not be read."""
    # Kafka 4.0 has removed this. From 3.7 on brokers may have a preview, which librdkafka does not speak.
    older = "inter.broker.protocol.version" in config
    return not older and "consumer" in config.get("group.coordinator.rebalance.protocols", "consumer")


def broker_config(admin: AdminClient, cluster: ClusterMetadata) -> Mapping[str, str]:
    """The configuration of a broker; empty if it may not be read."""
    broker = ConfigResource(ConfigResource.Type.BROKER, str(next(iter(cluster.brokers))))
    try:
        config = admin.describe_configs([broker], request_timeout=TIMEOUT)[broker].result()
    except KafkaException:
        return {}
    return {name: entry.value for name, entry in config.items()}


@contextmanager
def _onlooking(kafka: KafkaSettings) -> Iterator[tuple[Consumer, list[str]]]:
    """A client that has the group's name and does not join it, and the reasons of its errors."""
    reasons = list[str]()
    config = {
        **onlooker(kafka),
        "group.id": kafka.group_id,
        "enable.auto.commit": False,
        "error_cb": lambda error: reasons.append(explained(error)),
    }
    consumer = made(Consumer, config, kafka)
    try:
        yield consumer, reasons
    finally:
        consumer.close()


def _cluster(
    kafka: KafkaSettings, client: AdminClient | Consumer, reasons: list[str], seconds: float
) -> ClusterMetadata:
    try:
        return client.list_topics(timeout=seconds)
    except KafkaException:
        client.poll(0)  # serves its errors
        reason = f" ({reasons[0]})" if reasons else ""
        raise KafkaUnavailable(f"no broker reachable at {kafka.bootstrap_servers}{reason}: {IS_IT_UP}") from None


def _lags(kafka: KafkaSettings, consumer: Consumer, partitions: Collection[TopicPartition]) -> list[Lag]:
    ordered = sorted(set(partitions))
    committed = _committed(kafka, consumer, ordered)
    first, end = offsets_at(consumer, ordered, OFFSET_BEGINNING), offsets_at(consumer, ordered, OFFSET_END)
    begins = kafka.properties.get("auto.offset.reset", "earliest") in {"earliest", "smallest", "beginning"}
    reset = first if begins else end
    return [
        Lag(*place, committed.get(place), first[place], end[place], committed.get(place, reset[place]))
        for place in ordered
    ]


def _committed(
    kafka: KafkaSettings, consumer: Consumer, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The group's committed offsets, from a consumer that does not join: AdminClient crashes as a coordinator loads.

    If the user may not describe the group, librdkafka retries until the time-out; `poll` returns the reason.
    """
    places = [KafkaTopicPartition(*partition) for partition in sorted(partitions)]
    end, patience = time.monotonic() + TIMEOUT * 0.9, _QUICK
    while True:
        left = end - time.monotonic()
        try:
            found = consumer.committed(places, timeout=max(_AGAIN, min(patience, left)))
            return {(place.topic, place.partition): place.offset for place in found if place.offset >= 0}
        except KafkaException as error:
            _raise_refusal(consumer, kafka)
            quick = patience < left and error.args[0].code() == KafkaError._TIMED_OUT  # noqa: SLF001 (its public name)
            patience = TIMEOUT
            if not quick and (error.args[0].code() not in _COORDINATOR_COMES or left <= _AGAIN):
                raise
        time.sleep(_AGAIN)


def _raise_refusal(consumer: Consumer, kafka: KafkaSettings) -> None:
    message = consumer.poll(0)  # it has no partitions, so that a message is never a record
    error = message.error() if message is not None else None
    if error is not None and (advice := remedy(error, group=kafka.group_id)) is not None:
        raise WebhooksError(f"{error.str()}; {advice}")
