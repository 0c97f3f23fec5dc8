"""Derives the group's leader, a worker's share of limits and the partitions that are gone from cluster metadata.

`TopicWatch` asks the cluster, on a thread of its own; `ClusterView` evaluates the answers on the loop, without I/O.
Both group protocols work alike: a worker owns the partitions that the client or the broker has assigned to it.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from math import inf
from threading import Event, Thread

import structlog
from confluent_kafka import IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaTopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # not said to be exported
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    OffsetSpec,
)

from consumer.config.settings import KafkaSettings
from consumer.config.types import topic_pattern
from consumer.events.event import TopicPartition
from consumer.kafka.client import allow, made, onlooker
from consumer.loop.part import Part

log = structlog.get_logger(__name__)

EVERY = 30.0  # seconds between two requests
AGAIN = 5.0  # seconds after a failed request
TIMEOUT = 5.0
MARGIN = 1.0  # seconds above TIMEOUT in which librdkafka reports that a request timed out
GONE_AFTER = 600.0  # seconds: time enough to recreate a topic
CONTINUOUS = 90.0  # seconds between two answers, two lost ones allowed; a longer gap counts as unobserved time
QUIET_AFTER = 900.0  # seconds without a new record after which a topic counts as quiet
FOR_QUIET = 0.1  # part of a limit that all partitions share; partitions of topics that are not quiet share the rest

Counts = Mapping[str, int | None]  # topic to its number of partitions; None: the topic exists, its metadata is an error
Ends = Mapping[TopicPartition, int]  # the next offset of partitions, as far as the brokers report it
Retentions = Mapping[str, float]  # seconds for which topics keep a record; infinite if nothing is removed for its age


def hidden(kafka: KafkaSettings, names: Collection[str]) -> list[str]:
    """Patterns of topics that no pattern of KAFKA_TOPICS matches: written ones, Kafka's own, and users' blacklists."""
    internal = [] if any(name.startswith("__") for name in names) else ["^__"]
    users = filter(None, kafka.properties.get("topic.blacklist", "").split(","))
    written = [f"^{topic.replace('.', '[.]')}$" for topic in kafka.never_consumed]
    return [*written, *internal, *users]


def hides(kafka: KafkaSettings, names: Collection[str]) -> Callable[[str], bool]:
    """A predicate on topic names: whether a topic is hidden. With KIP-848, the broker still assigns hidden topics."""
    patterns = _compiled(hidden(kafka, names))
    return lambda topic: any(pattern.search(topic) for pattern in patterns)


def consumes(kafka: KafkaSettings, names: Collection[str]) -> Callable[[str], bool]:
    """A predicate on topic names: whether the group consumes a topic; `names` as in KAFKA_TOPICS.

    Python's patterns stand in for POSIX's and RE2's.
    """
    # Classic: librdkafka searches (`^a|b` also finds `xb`). KIP-848: the broker wants the whole name to match.
    whole = kafka.properties.get("group.protocol") == "consumer"
    exact = frozenset(name for name in names if not name.startswith("^"))
    patterns = [each.fullmatch if whole else each.search for each in _compiled(n for n in names if n not in exact)]
    is_hidden = hides(kafka, names)
    return lambda topic: (topic in exact or any(match(topic) for match in patterns)) and not is_hidden(topic)


class ClusterView:
    """Evaluates the cluster's answers. Times are seconds of the caller's clock."""

    def __init__(self, kafka: KafkaSettings, names: Collection[str]) -> None:
        """`names` as in KAFKA_TOPICS."""
        self.consumed = consumes(kafka, names)
        self._counts: Mapping[str, int] = {}
        self._ours: Mapping[str, int] = {}  # the counts of consumed topics that have partitions
        self._ends: Ends = {}
        self._written_at: dict[str, float] = {}  # when a topic's ends were last seen to move
        self._busy: Mapping[str, int] = {}  # the part of `_ours` that is not quiet
        self.revision = 0  # counts changes of the results of `share`
        self.retentions: dict[str, float] = {}  # as far as they were asked for and reported
        self._answered_at: float | None = None
        # A clock that runs only while answers come, so that silence makes no topic look gone; 0 is the first answer.
        self._watched = 0.0
        # When partitions went missing, by that clock. Partitions not in here, never seen or long gone, count from 0.
        self._missing: dict[TopicPartition, float] = {}
        self.lowest: TopicPartition | None = None

    def learn(self, answer: Counts, now: float, ends: Ends | None = None, retentions: Retentions | None = None) -> None:
        """Take the cluster's answer for all its topics, received at `now`, and what it says of some of them."""
        self.retentions |= retentions or {}
        silence = now - self._answered_at if self._answered_at is not None else 0.0
        self._answered_at = now
        self._watched += silence if silence <= CONTINUOUS else 0.0
        counts = {topic: self._counts.get(topic, 0) if number is None else number for topic, number in answer.items()}
        if counts != self._counts:
            self._change_to(counts)
        for topic_partition, end in (ends or {}).items():
            if self._ends.get(topic_partition, end) != end:
                self._written_at[topic_partition[0]] = now
        self._ends = {
            topic_partition: end
            for topic_partition, end in {**self._ends, **(ends or {})}.items()
            if topic_partition[1] < counts.get(topic_partition[0], 0)
        }
        self._written_at = {
            topic: at for topic, at in self._written_at.items() if topic in counts and now - at < QUIET_AFTER
        }
        busy = {topic: number for topic, number in self._ours.items() if topic in self._written_at}
        if busy != self._busy:
            self._busy = busy
            self.revision += 1
        self._missing = {
            topic_partition: since
            for topic_partition, since in self._missing.items()
            if not self._long_missing(*topic_partition)
        }

    def leads(self, owned: Collection[TopicPartition]) -> bool:
        """Whether `owned` includes the lowest of all consumed partitions that exist; False while unknown.

        The leader does work that one worker of a group should do, and none must. While partitions move there may be two
        leaders, or none.
        """
        if self._answered_at is None or not owned:
            return False
        # A partition below the lowest is of a topic newer than the answer. Without a lowest, two leaders beat none.
        return self.lowest is None or min(owned) <= self.lowest

    def share(self, owned: Collection[TopicPartition], topics: Collection[str] | None = None) -> float:
        """The share of a subscription's limits for the owner of these partitions: above 0, 1 while unknown.

        `topics` are the subscription's topics; None: all consumed ones. The shares of all workers add up to 1, except
        that a worker without any of these partitions gets the share of one partition. Quiet topics count little, on
        each worker: all workers learn from the brokers which topics are quiet, but none knows which topics have events
        for which subscription.
        """
        ours = {topic: number for topic, number in self._ours.items() if topics is None or topic in topics}
        if not ours:
            return 1.0
        busy = {topic: number for topic, number in ours.items() if topic in self._busy}
        part = _part(owned, ours)
        if busy:
            part = FOR_QUIET * part + (1 - FOR_QUIET) * _part(owned, busy)
        return min(1.0, part) or 1 / sum(ours.values())

    def gone(self, partitions: Iterable[TopicPartition], now: float) -> list[TopicPartition]:
        """Those of `partitions` that no worker can own: for `GONE_AFTER` or longer, no answer has listed them.

        A topic recreated with fewer partitions has such partitions beside the owned ones. The result is empty if the
        last answer is old or lists no consumed topic: this account may have lost the right to see them.
        """
        if self._answered_at is None or now - self._answered_at > CONTINUOUS or self.lowest is None:
            return []
        return [
            (topic, number)
            for topic, number in partitions
            if number >= self._counts.get(topic, 0) and self._long_missing(topic, number)
        ]

    def _long_missing(self, topic: str, number: int) -> bool:
        return self._watched - self._missing.get((topic, number), 0.0) >= GONE_AFTER

    def _change_to(self, counts: Mapping[str, int]) -> None:
        for topic, number in self._counts.items():
            self._missing |= {(topic, each): self._watched for each in range(counts.get(topic, 0), number)}
        self._counts = counts
        self._ours = {topic: number for topic, number in counts.items() if number and self.consumed(topic)}
        self.lowest = (min(self._ours), 0) if self._ours else None
        self.revision += 1


class TopicWatch(Part):
    """Asks the cluster for its topics, at once and every half a minute; `learn` gets the answers, on the loop.

    A failed request changes nothing.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        post: Callable[[Callable[[], None]], None],
        learn: Callable[[Counts, float, Ends, Retentions], None],
        consumed: Callable[[str], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        """`post` takes a callback from any thread and runs it on the loop. SettingsError: a setting is refused.

        Ends are requested for `consumed` topics only.
        """
        self._post, self._learn, self._consumed, self._clock, self._every = post, learn, consumed, clock, every
        self._behind: Callable[[], Collection[str]] = frozenset
        self._failing = False
        self._untold: set[str] = set()  # topics whose retention this user may not see
        self._says_none = kafka.properties.get("group.protocol") == "consumer"  # else librdkafka names missing topics
        self._fault: str | None = None
        admin = made(AdminClient, onlooker(kafka), kafka)
        self._closing = Event()
        # A daemon: an outstanding request must not keep a stopped process alive.
        self._asking = Thread(target=self._work, args=(admin,), name="topics", daemon=True)
        self._asking.start()

    def ask_retention(self, topics: Callable[[], Collection[str]]) -> None:
        """Ask for the retention of these topics too, from the next request on; `topics` is called on another thread."""
        self._behind = topics

    @property
    def fault(self) -> str | None:
        """With KIP-848: that there is no topic to consume."""
        return self._fault

    def close(self, timeout: float = 1.0) -> bool:
        """Stop asking. False if a request is outstanding after `timeout` seconds; it is left to end by itself."""
        self._closing.set()
        self._asking.join(timeout)
        return not self._asking.is_alive()

    def _work(self, admin: AdminClient) -> None:
        """Ask until the end. `admin` ends with it: a garbage collection on its own thread would abort the process."""
        while not self._closing.is_set():
            answered = False
            try:
                answered = self._ask(admin)
            except Exception:  # a bug; without this thread there would be no leader
                log.exception("asking Kafka for its topics failed; asking again")
            self._closing.wait(self._every if answered else min(AGAIN, self._every))

    def _ask(self, admin: AdminClient) -> bool:
        try:
            cluster = admin.list_topics(timeout=TIMEOUT)
        except KafkaException as error:
            if not self._failing:
                log.warning("Kafka does not list its topics; keeping the last known list", error=error.args[0].str())
            self._failing = True
            return False
        finally:
            admin.poll(0)  # delivers librdkafka's log lines
        if self._failing:
            log.info("Kafka lists its topics again")
        self._failing = False
        counts = _counts(cluster)
        none = self._says_none and not any(map(self._consumed, counts))
        self._fault = "no topic of KAFKA_TOPICS exists" if none else None
        retentions = self._retentions(admin)
        self._post(partial(self._learn, counts, self._clock(), self._ends(admin, counts), retentions))
        return True

    def _ends(self, admin: AdminClient, counts: Counts) -> Ends:
        """The ends that the brokers report in time. Without them, new records of a topic go unnoticed."""
        asked = {
            KafkaTopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka's
            for topic, partitions in counts.items()
            if self._consumed(topic)
            for number in range(partitions or 0)
        }
        ends: dict[TopicPartition, int] = {}
        try:
            # Without records of open transactions, which nobody can read yet.
            level = IsolationLevel.READ_COMMITTED
            answers = admin.list_offsets(asked, isolation_level=level, request_timeout=TIMEOUT) if asked else {}
        except KafkaException:  # the same for all; the next answer may have them
            return ends
        wait(answers.values(), TIMEOUT + MARGIN)
        for topic_partition, answer in answers.items():
            with suppress(KafkaException, TimeoutError):  # the partition keeps its last known end
                ends[topic_partition.topic, topic_partition.partition] = answer.result(0).offset
        return ends

    def _retentions(self, admin: AdminClient) -> Retentions:
        """For how long topics keep their records, as far as the brokers report it in time. A refusal is logged once."""
        found: dict[str, float] = {}
        asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in sorted(self._behind())]
        try:
            answers = admin.describe_configs(asked, request_timeout=TIMEOUT) if asked else {}
        except KafkaException:
            return found
        wait(answers.values(), TIMEOUT + MARGIN)
        for resource, answer in answers.items():
            topic = resource.name
            try:
                settings = answer.result(0)
            except TimeoutError:
                continue
            except KafkaException as error:
                refused = error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
                if refused and topic not in self._untold:
                    self._untold.add(topic)
                    log.warning(
                        "Kafka does not report how long it keeps the events of subscriptions that are behind",
                        topic=topic,
                        advice=allow("DescribeConfigs", topic),
                    )
                continue
            self._untold.discard(topic)
            milliseconds = int(settings["retention.ms"].value)
            expires = "delete" in settings["cleanup.policy"].value and milliseconds >= 0
            found[topic] = milliseconds / 1000 if expires else inf
        return found


def _counts(cluster: ClusterMetadata) -> Counts:
    return {
        name: None if topic.error is not None else max(topic.partitions, default=-1) + 1
        for name, topic in cluster.topics.items()
    }


def _part(owned: Collection[TopicPartition], partitions: Mapping[str, int]) -> float:
    return sum(topic in partitions for topic, _ in owned) / sum(partitions.values())


def _compiled(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(topic_pattern(pattern))
        except ValueError as error:  # of `topic.blacklist`; a setting of ours is refused before
            log.warning("cannot tell which topics a pattern matches", pattern=pattern, reason=str(error))
    return compiled
