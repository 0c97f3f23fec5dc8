"""Workers of one group that join, leave, die and change their protocol while events flow, and the results."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic  # the admin package does not export it to type checkers

from tests.end_to_end.service_rig import Deployment, Worker
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, unique
from tests.waiting import eventually

PATH = "/count"
PER_SECOND = 300.0
LONG_SESSION = "45000"  # milliseconds; a worker that restarts on a busy machine is back in time
# Prints the partitions that the group assigns and revokes, and the broker from which each partition is fetched.
TALKATIVE = """
import json, sys
from consumer.intake.source import Source

def telling(name):
    called = getattr(Source, name)

    def tell(self, consumer, partitions):
        numbers = sorted(each.partition for each in partitions)
        print(json.dumps({"group": name, "partitions": numbers}), flush=True)
        return called(self, consumer, partitions)

    setattr(Source, name, tell)

for name in ("_on_assign", "_on_revoke", "_on_lost"):
    telling(name)

noted = Source._on_statistics

def note(self, document):
    brokers = {}
    for topic in json.loads(document)["topics"].values():
        for number, each in topic["partitions"].items():
            if each["desired"]:
                brokers[number] = [each["broker"], each["leader"], each["rxmsgs"]]
    print(json.dumps({"fetched": brokers}), flush=True)
    return noted(self, document)

Source._on_statistics = note
"""


class Count(NamedTuple):
    """The result of a scenario. `pause` is the longest time without a delivery, in seconds, while events flowed."""

    scenario: str
    protocol: str
    records: int
    lost: int
    repeated: int
    pause: float

    def line(self) -> str:
        """A row under HEADER."""
        return f"| {' | '.join(map(str, self[:5]))} | {self.pause:.1f} |"


HEADER = (
    "| scenario | group protocol | records | lost | repeated | longest pause, s |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


class Fleet:
    """A topic of `partitions`, one subscription, and workers that the test starts and stops.

    `common` are settings of all workers. `rounds` is the number of times a scenario repeats its moves.
    """

    def __init__(
        self, deployment: Deployment, rounds: int, *, replicas: int = 1, brokers: KafkaBroker | None = None
    ) -> None:
        self.deployment = deployment
        self.rounds = rounds
        self.replicas = replicas
        self._cluster = brokers
        self.common: dict[str, str] = {}
        self.workers: dict[str, Worker] = {}  # by name
        self._flowed: list[tuple[float, float]] = []  # when events were published
        self.admin = AdminClient({"bootstrap.servers": deployment.servers, **QUIET})
        deployment.alter(TALKATIVE)
        deployment.topic = unique("membership")
        self.make_topic()
        deployment.subscribe("a", PATH)

    @property
    def brokers(self) -> KafkaBroker:
        """The three brokers of the cluster, which a scenario may kill."""
        assert self._cluster is not None
        return self._cluster

    # The topic.

    def make_topic(self) -> None:
        """Create the topic. Waits for brokers that still know an earlier one of this name."""
        topic = NewTopic(self.deployment.topic, self.deployment.partitions, self.replicas)
        eventually(lambda: self._made(topic))

    def _made(self, topic: NewTopic) -> bool:
        return self.admin.create_topics([topic])[topic.topic].exception(15) is None

    def delete_topic(self) -> None:
        """Delete the topic."""
        self.admin.delete_topics([self.deployment.topic])[self.deployment.topic].result(15)

    def long_session(self) -> None:
        """Let members with KIP-848 be silent for longer. This is a group setting on the broker."""
        kafka = Kafka(self.deployment.servers, real=True)
        kafka.configure(self.deployment.group, "GROUP", consumer_session_timeout_ms=LONG_SESSION)

    def add_partitions(self, number: int) -> None:
        """Add partitions, and publish to them too."""
        topic, more = self.deployment.topic, self.deployment.partitions + number
        self.admin.create_partitions([NewPartitions(topic, more)])[topic].result(15)
        # The producer must know them before it can write to them.
        eventually(lambda: len(self.deployment.producer.list_topics(topic, 10).topics[topic].partitions) == more)
        self.deployment.partitions = more

    # Workers.

    def start(self, name: str, **settings: str) -> Worker:
        """Start a worker, and wait until it has joined."""
        worker = self.deployment.start(**self.common, **settings)
        self.workers[name] = worker
        eventually(worker.ready, timeout=60)
        return worker

    def start_all(self, *names: str, **settings: str) -> None:
        """Start several workers at once."""
        for name in names:
            self.workers[name] = self.deployment.start(**self.common, **settings)
        eventually(lambda: all(self.workers[name].ready() for name in names), timeout=60)

    def stop(self, name: str) -> None:
        """Stop a worker by SIGTERM, in order."""
        self.workers.pop(name).stop()

    def kill(self, name: str) -> None:
        """Kill a worker by SIGKILL."""
        self.workers.pop(name).kill()

    def roll(self, settings: Mapping[str, str]) -> None:
        """Replace the workers one after the other, with these settings."""
        for name in sorted(self.workers):
            self.stop(name)
            self.start(name, **settings)

    # Events.

    @contextmanager
    def flow(self) -> Iterator[None]:
        """Publish all the time within this context."""
        begin = time.time()
        with self.deployment.publishing("a", per_second=PER_SECOND):
            yield
        self._flowed.append((begin, time.time()))

    def quiesce(self, timeout: float = 60.0) -> None:
        """Wait until every event that is not lost is delivered and committed."""
        eventually(lambda: not self.deployment.lag(), timeout, every=0.2)

    def delivered(self, more: int = 100) -> None:
        """Wait for some more deliveries."""
        wanted = len(self.deployment.receiver.requests) + more
        eventually(lambda: len(self.deployment.receiver.requests) >= wanted, timeout=60)

    # Results.

    def told(self, name: str) -> list[tuple[str, list[int]]]:
        """The partitions assigned to this worker and revoked, in order."""
        lines = [json.loads(line) for line in self.workers[name].log.splitlines() if line.startswith('{"group"')]
        return [(line["group"], line["partitions"]) for line in lines]

    def fetched(self, name: str) -> dict[str, tuple[int, int, int]]:
        """From the worker's last statistics, by partition: the broker fetched from, the leader, and the records."""
        lines = [line for line in self.workers[name].log.splitlines() if line.startswith('{"fetched"')]
        found: dict[str, tuple[int, int, int]] = json.loads(lines[-1])["fetched"] if lines else {}
        return found

    def count(self, scenario: str, protocol: str) -> Count:
        """Stop all workers, and compare the published events with the received ones."""
        for name in list(self.workers):
            self.stop(name)
        deployment = self.deployment
        deployment.assert_true_to_what_was_published()
        return Count(
            scenario, protocol, len(deployment.published), deployment.missing(), deployment.duplicates(), self._pause()
        )

    def _pause(self) -> float:
        times = [request.at for request in list(self.deployment.receiver.requests)]
        longest = 0.0
        for begin, end in self._flowed:
            within = [begin, *(at for at in times if begin < at < end), end]
            longest = max(longest, *(after - before for before, after in pairwise(within)))
        return longest
