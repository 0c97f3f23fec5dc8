"""Asks the cluster for the ids of topics: a topic that was deleted and made anew has another id than before.

Offsets of the old topic say nothing about the new one's records, and Kafka takes them all the same: it checks neither a
commit nor a position for that.
"""

import time
from collections.abc import Callable, Collection
from concurrent.futures import wait
from contextlib import suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from consumer.config.settings import KafkaSettings
from consumer.kafka.client import LibrdkafkaLog, known_properties

TIMEOUT = 1.0  # seconds
STEADY_AFTER = 1.0  # seconds; a broker may lag behind the others with what it knows of topics
_SLICE = 0.05  # seconds
_NONE = "A" * 22  # the id of a topic whose cluster has no ids


class TopicId(NamedTuple):
    """A topic's id now. `steady`: earlier answers, from `STEADY_AFTER` ago on, said the same."""

    id: str
    steady: bool


class TopicIds:
    """Blocks, and so is for a thread of its own."""

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._kafka, self._clock = kafka, clock
        self._admin: AdminClient | None = None
        self._since: dict[str, tuple[str, float]] = {}  # by topic: its last id, and when that was first seen

    def ask(self, topics: Collection[str], patient: Callable[[], bool] = lambda: True) -> dict[str, TopicId]:
        """Ids of these topics, without those that the cluster does not tell within a second, or while `patient`."""
        if not topics:
            return {}
        if self._admin is None:
            properties, _unknown = known_properties(self._kafka.properties)
            config: dict[str, Any] = {"client.id": "kafka-webhooks", **properties}
            config["bootstrap.servers"] = self._kafka.bootstrap_servers
            self._admin = AdminClient(config, logger=LibrdkafkaLog())
        found: dict[str, TopicId] = {}
        with suppress(KafkaException):
            answers = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT)
            end = self._clock() + TIMEOUT
            while wait(answers.values(), _SLICE).not_done and patient() and self._clock() < end:
                pass
            for topic, answer in answers.items():
                with suppress(KafkaException):
                    found |= self.learn(topic, str(answer.result(0).topic_id)) if answer.done() else {}
        self._admin.poll(0)  # delivers librdkafka's log lines
        return found

    def learn(self, topic: str, topic_id: str) -> dict[str, TopicId]:
        """Take one answer."""
        if topic_id == _NONE:
            return {}
        now = self._clock()
        last, since = self._since.get(topic, ("", now))
        if last != topic_id:
            since = now
        self._since[topic] = topic_id, since
        return {topic: TopicId(topic_id, now - since >= STEADY_AFTER)}
