"""Asks the cluster for the identities of topics. A topic that is deleted and made anew gets another identity.

Offsets of the old topic say nothing about the new topic's records, but Kafka accepts them: it checks this neither for a
commit nor for a position. An identity is the topic's id and a digest of the cluster's id. The digest reveals commits
that a mirror has copied from another cluster: they name another topic too, but their translated offsets count.
"""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection
from concurrent.futures import wait
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable
from consumer.kafka.client import LibrdkafkaLog, onlooker

TIMEOUT = 1.0  # seconds
STEADY_AFTER = 1.0  # seconds; a broker's metadata may lag behind that of the others
_SLICE = 0.05  # seconds
_NONE = "A" * 22  # the id of a topic whose cluster has no ids


class TopicIdentity(NamedTuple):
    """A topic's identity now: 30 characters. `steady`: all answers since `STEADY_AFTER` ago or longer gave the same."""

    text: str
    steady: bool


class TopicIds:
    """Asks for identities. Its calls block, so it needs a thread of its own."""

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._kafka, self._clock = kafka, clock
        self._admin: AdminClient | None = None
        self._cluster = ""  # its digest, once it is known
        self._since: dict[str, tuple[str, float]] = {}  # by topic: its last identity, and when that was first seen

    def ask(self, topics: Collection[str], patient: Callable[[], bool] = lambda: True) -> dict[str, TopicIdentity]:
        """The identities that the cluster reports within a second and while `patient` holds; others are missing."""
        if not topics:
            return {}
        found: dict[str, TopicIdentity] = {}
        with suppress(KafkaException, KafkaUnavailable):
            if self._admin is None:
                self._admin = AdminClient(onlooker(self._kafka), logger=LibrdkafkaLog())
            if not self._cluster:
                self._cluster = digest(self._admin.list_topics(next(iter(topics)), TIMEOUT).cluster_id or "")
            answers = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=TIMEOUT)
            end = self._clock() + TIMEOUT
            while wait(answers.values(), _SLICE).not_done and patient() and self._clock() < end:
                pass
            for topic, answer in answers.items():
                with suppress(KafkaException):
                    found |= self.learn(topic, str(answer.result(0).topic_id), self._cluster) if answer.done() else {}
        if self._admin is not None:
            self._admin.poll(0)  # delivers librdkafka's log lines
        return found

    def close(self) -> None:
        """End the client, on this thread: a garbage collection on the client's own one would abort the process."""
        self._admin = None

    def learn(self, topic: str, topic_id: str, cluster: str) -> dict[str, TopicIdentity]:
        """Take one answer."""
        if topic_id == _NONE:
            return {}
        now, identity = self._clock(), topic_id + cluster
        last, since = self._since.get(topic, ("", now))
        if last != identity:
            since = now
        self._since[topic] = identity, since
        return {topic: TopicIdentity(identity, now - since >= STEADY_AFTER)}


def digest(cluster_id: str) -> str:
    """Eight characters that stand for a cluster's id, which may be any text."""
    return urlsafe_b64encode(blake2b(cluster_id.encode(), digest_size=6).digest()).decode()
