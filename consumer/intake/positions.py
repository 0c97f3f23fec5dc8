"""Looks up the positions of assigned partitions: committed offsets, and the topics' ids.

A consumer that joins no group repeats each request until Kafka answers, on a thread of its own. So neither the loop nor
the group waits for a broker that does not answer. AdminClient's request, which returns a future, would crash the
process while a coordinator loads: librdkafka 2.16 has to retry there, and has no request to repeat.

A topic that is deleted and made anew gets another identity: its id, and a digest of the cluster's id. Offsets of the
old topic say nothing about the new topic's records, but Kafka accepts them: it checks this neither for a commit nor for
a position. The digest reveals commits that a mirror has copied from another cluster: they name another topic too, but
their translated offsets count.
"""

import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import wait
from functools import partial
from hashlib import blake2b
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import AdminClient

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable
from consumer.intake.offsets import identity_of, same_cluster
from consumer.intake.record import AssignedPartition
from consumer.kafka.client import LibrdkafkaLog, made, onlooker
from consumer.loop.backoff import seconds_after

log = structlog.get_logger(__name__)

COMMITTED_TIMEOUT = 5.0  # seconds for one request, which is then repeated
IDS_TIMEOUT = 1.0  # seconds
_SLICE = 0.05  # seconds
STEADY_AFTER = 1.0  # seconds; a broker's metadata may lag behind that of the others
_NONE = "A" * 22  # the id of a topic whose cluster has no ids
_IDLE = 5.0  # seconds between two checks of the topics' ids, and polls for librdkafka's log lines
_AGAIN = 1.0  # seconds until the next check after one that found another id
BACK_OFF = (0.1, 2.0)  # seconds until an unanswered request is repeated: the first wait, the longest


class Committed(NamedTuple):
    """The position a group has committed for a partition. `offset` None: none. `epoch` None: leader epoch unknown.

    `identity`: that of the present topic, if it was asked for. `former`: the group has committed for an earlier topic
    of this name, up to this offset.
    """

    offset: int | None
    metadata: str
    epoch: int | None
    identity: str | None = None
    former: int | None = None


class TopicIdentity(NamedTuple):
    """A topic's identity now: 30 characters, or none if its cluster has no ids.

    `steady`: all answers since `STEADY_AFTER` ago or longer gave the same.
    """

    text: str
    steady: bool


class TopicIds:
    """Asks for identities. Its calls block, so it needs a thread of its own."""

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._kafka, self._clock = kafka, clock
        self._admin: AdminClient | None = None
        self._cluster = ""  # its digest, once it is known
        self._failing = False
        self._since: dict[str, tuple[str, float]] = {}  # by topic: its last identity, and when that was first seen

    def ask(self, topics: Collection[str], patient: Callable[[], bool] = lambda: True) -> dict[str, TopicIdentity]:
        """The identities that the cluster reports within a second and while `patient` holds; others are missing."""
        if not topics:
            return {}
        found: dict[str, TopicIdentity] = {}
        try:
            if self._admin is None:
                self._admin = AdminClient(onlooker(self._kafka), logger=LibrdkafkaLog())
            if not self._cluster:
                self._cluster = digest(self._admin.list_topics(next(iter(topics)), IDS_TIMEOUT).cluster_id or "")
            answers = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=IDS_TIMEOUT)
            end = self._clock() + IDS_TIMEOUT
            while wait(answers.values(), _SLICE).not_done and patient() and self._clock() < end:
                pass
            for topic, answer in answers.items():
                if answer.done() and answer.exception() is None:
                    found |= self.learn(topic, str(answer.result().topic_id), self._cluster)
            self._failing = False
        except (KafkaException, KafkaUnavailable) as error:
            if not self._failing:
                log.warning(
                    "Kafka does not report topics' ids; a topic that is made anew is noticed later", error=str(error)
                )
            self._failing = True
        if self._admin is not None:
            self._admin.poll(0)  # delivers librdkafka's log lines
        return found

    def close(self) -> None:
        """End the client, on this thread: a garbage collection on the client's own one would abort the process."""
        self._admin = None

    def learn(self, topic: str, topic_id: str, cluster: str) -> dict[str, TopicIdentity]:
        """Take one answer."""
        now, identity = self._clock(), "" if topic_id == _NONE else topic_id + cluster
        last, since = self._since.get(topic, ("", now))
        if last != identity:
            since = now
        self._since[topic] = identity, since
        return {topic: TopicIdentity(identity, now - since >= STEADY_AFTER)}


def digest(cluster_id: str) -> str:
    """Eight characters that stand for a cluster's id, which may be any text."""
    return urlsafe_b64encode(blake2b(cluster_id.encode(), digest_size=6).digest()).decode()


OnCommitted = Callable[[list[tuple[AssignedPartition, Committed]]], None]
OnIdentity = Callable[[AssignedPartition, str], None]


class Positions:
    """Asks for positions; `on_committed` gets the answers, on the loop. `fault` names a missing answer.

    `on_identity` gets the identity of a partition's topic if the partition's tracker has none, or another one: some
    seconds after the topic was made anew. Requests for a partition end when it leaves; an answer may still come
    afterwards.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        post: Callable[[Callable[[], None]], None],
        owned: Callable[[], list[AssignedPartition]],
        on_committed: OnCommitted,
        on_identity: OnIdentity,
    ) -> None:
        """`post` takes a callback from any thread and runs it on the loop. Any thread may call `owned`."""
        self.fault: str | None = None
        self._owned, self._on_identity = owned, on_identity
        self._ids = TopicIds(kafka)
        self._look_at = time.monotonic() + _IDLE
        self._post, self._on_committed = post, on_committed
        self._questions: SimpleQueue[Sequence[AssignedPartition] | None] = SimpleQueue()
        config = {**onlooker(kafka), "group.id": kafka.group_id, "enable.auto.commit": False}
        self._consumer = made(Consumer, config, kafka)
        # A daemon: an outstanding request must not keep a stopped process alive.
        self._thread = Thread(target=self._run, name="positions", daemon=True)
        self._thread.start()

    def ask(self, partitions: Sequence[AssignedPartition]) -> None:
        """Ask for the committed offsets of these partitions, and for the identities that they need."""
        self._questions.put(partitions)

    def close(self, timeout: float = 1.0) -> bool:
        """Stop asking. False if a request is outstanding after `timeout` seconds; it is left to end by itself."""
        self._questions.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 (a bug: the loop raises it, and does not wait for ever)
            self._post(partial(_raise, error))

    def _work(self) -> None:
        unknown: list[AssignedPartition] = []
        failed = 0  # requests in a row
        while self._heard(unknown, seconds_after(max(1, failed), *BACK_OFF)):
            unknown[:] = [each for each in unknown if each.owned]
            failure = self._learn_committed(unknown) if unknown else None
            self._say(failure, unknown)
            if self._questions.empty() and time.monotonic() >= self._look_at:
                self._look()
            failed = failed + 1 if failure is not None else 0
        self._consumer.close()
        self._ids.close()

    def _heard(self, unknown: list[AssignedPartition], wait: float) -> bool:
        """Take new requests; waits for them, `wait` seconds at most if old ones are unanswered. False: closed."""
        try:
            idle = max(0.0, self._look_at - time.monotonic())
            question = self._questions.get(timeout=wait if unknown else idle)
            while question is not None:
                unknown += question
                self._look_at = time.monotonic()
                question = self._questions.get(block=False)
        except Empty:
            return True
        return False

    def _learn_committed(self, unknown: list[AssignedPartition]) -> str | None:
        """Ask for committed offsets; takes those that came out of `unknown`. Returns why others are missing."""
        asked = [KafkaTopicPartition(*each.topic_partition) for each in unknown]
        try:
            answers = self._consumer.committed(asked, COMMITTED_TIMEOUT)
        except KafkaException as error:
            return f"the committed offset of {unknown[0]}: {error.args[0].str()}"
        failure = next((each.error.str() for each in answers if each.error is not None), None)
        known = {(each.topic, each.partition): each for each in answers if each.error is None}
        # Requested after the committed offsets, which therefore belong to no later topic than these ids.
        needed = {each.topic for each in unknown if each.needs_identity}
        ids = self._ids.ask(needed | {topic for (topic, _), each in known.items() if identity_of(each.metadata or "")})
        found = [
            (each, committed)
            for each in unknown
            if (answer := known.get(each.topic_partition)) is not None
            and (not each.needs_identity or each.topic in ids)
            and (committed := _valid(answer, ids.get(each.topic))) is not None
        ]
        if found:
            self._post(partial(self._on_committed, found))
        learnt = {each for each, _ in found}
        unknown[:] = [each for each in unknown if each not in learnt]
        if failure is None:
            return next((f"the id of the topic {each}" for each in needed - ids.keys()), None)
        return f"the committed offset of {unknown[0]}: {failure}"

    def _look(self) -> None:
        """Compare the topics' ids with the ids that their partitions began with."""
        watched = self._owned()
        self._look_at = time.monotonic() + _IDLE
        ids = self._ids.ask({each.topic for each in watched}, self._questions.empty)
        for each in watched:
            current, known = ids.get(each.topic), each.tracker.identity
            if current is None or current.text in {"", known}:
                continue
            if known is None or current.steady:
                self._post(partial(self._on_identity, each, current.text))
            else:
                self._look_at = time.monotonic() + _AGAIN

    def _say(self, failure: str | None, waiting: Sequence[AssignedPartition]) -> None:
        self._consumer.poll(0)  # delivers librdkafka's log lines
        if failure is not None:
            if self.fault is None:
                log.warning("Kafka does not report a partition's position; it waits", detail=failure)
            self.fault = f"Kafka does not report {failure}"
        elif not waiting and self.fault is not None:
            log.info("Kafka reports partitions' positions again")
            self.fault = None


def _raise(error: Exception) -> None:
    raise error


def _valid(answer: KafkaTopicPartition, current: TopicIdentity | None) -> Committed | None:
    """The committed offset. None if it may belong to an earlier topic of the same name: the caller asks again."""
    metadata, offset = answer.metadata or "", answer.offset if answer.offset >= 0 else None
    identity = identity_of(metadata)
    if current is None or not current.text:
        return Committed(offset, metadata, answer.leader_epoch)
    if identity is None or identity == current.text:
        return Committed(offset, metadata, answer.leader_epoch, current.text)
    if not same_cluster(identity, current.text):  # a mirror has translated the offset, but not the metadata
        return Committed(offset, "", None, current.text)
    return Committed(None, "", None, current.text, answer.offset) if current.steady else None
