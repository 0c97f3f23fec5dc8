"""A deployment for chaos: receivers with tempers, a stream of events, workers that start and stop, and the book."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from math import inf
from random import Random
from signal import SIGTERM
from typing import Any

from consumer.config.settings import KafkaSettings
from consumer.crypto.vault import Vault
from consumer.delivery.settling import UNKNOWN
from consumer.ops import changes
from consumer.ops.changes import Changes
from consumer.ops.delivery_audit import audit
from consumer.ops.replay_request import Log
from consumer.worker.feeder import MOST_UNSAVED
from tests.chaos import altered_worker
from tests.chaos.book import COMMIT_INTERVAL, Book, Disruption, Rule, Subscription
from tests.chaos.stream import Stream
from tests.chaos.tempers import Temper
from tests.chaos.watch import WITHOUT_PROGRESS, Watch
from tests.end_to_end.deployed_database import DatabaseAway
from tests.end_to_end.service_rig import SLOW_FILTER, Deployment, Worker
from tests.intake.raw_producer import SMALL_READS
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import Kafka, read_all

PARTITIONS = 4
TIMEOUT = 2.0  # seconds that a worker waits for a receiver
OPEN = 60  # requests of a worker
IN_MEMORY = 0.4  # the schedule's first wait is in memory, later ones are stored
SCHEDULE = (0.3, 0.5, 0.5, 0.5, 1.0, 1.0)
DRAINED_WITHIN = 120.0  # seconds after the last fault in which fewer are owed; held rows are checked each minute
READY_WITHIN = 10.0  # seconds; a broken worker may never be
REJOINS_WITHIN = 10.0  # seconds: a session of 6, and the rebalance after it
CACHED = 1.0  # seconds that a worker may use cached subscriptions
STOPS_WITHIN = 30.0  # seconds: the drain, the database's limits, Kafka's, leaving the group, and a shared machine
# confluentinc/librdkafka#5541: a member that was expelled may rejoin with a heartbeat that brokers refuse (2.16.0).
FATAL_IN_LIBRDKAFKA = "ConsumerGroupHeartbeat fatal error: Broker: Invalid request"
SETTINGS = {
    "WEBHOOK_TIMEOUT": f"{TIMEOUT}s",
    "WEBHOOK_RETRY_SCHEDULE": ",".join(f"{wait}s" for wait in SCHEDULE),
    "WEBHOOK_MAX_IN_FLIGHT": f"{OPEN}",
    "WEBHOOK_DRAIN": "5s",
    "WEBHOOK_BACKLOG_ROWS": "20",  # a moment's failure leaves events to cursors
    "KAFKA_MAX_POLL_INTERVAL_MS": "7000",  # a frozen worker exceeds it; Kafka requires at least the session timeout
    "KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS": "300",
    **{f"KAFKA_{name.upper()}": value for name, value in SMALL_READS.items()},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a world.

    `program` starts a worker other than the unchanged product. `slow` is the additional time to settle a record.
    `profile` is the emulated Oracle's, if the database is not SQLite. `audited`: workers write attempts, and in the end
    the audit has to find each delivery. `processes`: each worker is a command that runs so many.
    """

    seed: int
    protocol: str = "classic"
    workers: int = 3
    per_second: float = 60.0
    program: Sequence[str] = ()
    slow: float = 0.0
    profile: str = ""
    in_memory: bool = True
    without_progress: float = WITHOUT_PROGRESS
    audited: bool = False
    processes: int = 1


def with_lost_answers(shape: Shape) -> Shape:
    """Some of the database's commits are made and not acknowledged: after some in a row, a worker backs off for 5 s."""
    changed = altered_worker.command(altered_worker.lost_answers)
    return replace(shape, program=changed, slow=6.0, without_progress=2 * WITHOUT_PROGRESS)


def on_oracle(shape: Shape, profile: str) -> Shape:
    """An emulated Oracle, with a short limit for calls."""
    return replace(shape, program=altered_worker.command(altered_worker.impatient), slow=1.0, profile=profile)


class Part(Enum):
    """A dependency that may be down, and the work that needs it."""

    KAFKA = auto()  # read, commit
    DATABASE = auto()  # look subscriptions up, store
    DEAD_LETTERS = auto()  # settle invalid records
    GROUP = auto()  # commit, with the classic protocol: rejoined members wait for those that have not rejoined or left


@dataclass(slots=True)
class Outage:
    """A common dependency is down from `begin` to `end`."""

    of: Part
    begin: float
    end: float = inf


@dataclass(slots=True)
class Leaving:
    """A stopping worker. The group waits for it, and faults meanwhile may make it repeat deliveries."""

    worker: Worker
    waited_for: Outage
    disruption: Disruption | None


class World:
    """Lives from `begin` to `end`. Faults change `workers` only through its methods."""

    def __init__(self, shape: Shape, deployment: Deployment, brokers: KafkaBroker | None) -> None:
        self.shape = shape
        self.deployment = deployment
        self.brokers = brokers
        self.workers: list[Worker] = []
        self.faults = Counter[str]()
        self.met = Counter[str]()  # calls to Oracle, by fault
        self.moves: list[tuple[float, str]] = []  # of workers
        self.letters = f"{deployment.group}.dead"
        self.operations = f"{deployment.group}.operations"
        self.attempts = f"{deployment.group}.attempts"
        self.began_at = self.ended_at = 0.0
        self._looked_at = self._enabled_at = self._waited_for_until = 0.0
        self.book = Book(len(SCHEDULE) + 1, self._hung_up)
        self.audited = Counter[str]()
        self._leaving: list[Leaving] = []
        self._outages: list[Outage] = []
        self.operator = Changes(changes.Deployment(deployment.database.engine, deployment.group, Vault()), "chaos")
        deployment.program = shape.program or altered_worker.command(altered_worker.none)
        self._make_topics()
        self._subscribe()
        self.watch = Watch(
            deployment, self.letters, self.book, lambda: list(self.workers), self._held_up, shape.without_progress
        )
        self._stream = Stream(deployment.servers, deployment.topic, PARTITIONS, self.book, shape.seed, shape.per_second)

    def begin(self) -> None:
        """Start workers, wait until they are ready, and publish events."""
        self.watch.start()
        for _ in range(self.shape.workers):
            self.start()
        self.wait(lambda: all(worker.ready() for worker in self.workers), READY_WITHIN)
        self.began_at = time.time()
        self._stream.start()

    def end(self, within: float = DRAINED_WITHIN) -> None:
        """No more events or faults: all owed deliveries are made, all workers stop, and the book is finished.

        `within`: seconds after which fewer have to be owed, again and again.
        """
        self._stream.stop()
        self.ended_at = time.time()
        before, owed = inf, len(self.book.missing())
        while owed < before and not self._drained():  # a backlog of many minutes takes some
            self.wait(self._drained, within)
            before, owed = owed, len(self.book.missing())
        if not self._drained():
            rows = dict(Counter(row.status for row in self.deployment.rows()))
            self.book.violated(Rule.STUCK, f"in {within:.0f} s without faults {owed} stay owed; rows: {rows}")
        for worker in list(self.workers):
            self.leave(worker)
        self.wait(self.at_rest, STOPS_WITHIN + 5)
        self.watch.stop()
        exhausted: Any = self.deployment.sql(
            "SELECT d.subscription_id, p.body FROM webhook_deliveries d JOIN webhook_payloads p ON"
            " p.group_id = d.group_id AND p.topic = d.topic AND p.partition_no = d.partition_no"
            " AND p.record_offset = d.record_offset AND p.record_ts = d.record_ts WHERE d.status = 'exhausted'"
        )
        self.book.finish(exhausted, self._announced())
        if self.shape.audited:
            self._audit()

    def abandon(self) -> None:
        """End without judging."""
        for worker in self.deployment.workers:
            worker.kill()
        self._stream.stop()
        self.watch.stop()

    def at_rest(self) -> bool:
        """No worker is leaving."""
        return not self._leaving

    def wait(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait until `condition` holds or time is up, and look after the workers meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not condition():
            self.look_after()
            time.sleep(0.2)

    def _hung_up(self, subscription: int, webhook_id: str, signed_at: int) -> bool:
        """Whether a worker logged that it waited too long for the answer to this request. It does before a retry."""
        lines = [line for worker in self.deployment.workers for line in worker.log.split("\n")[:-1]]
        for line in lines:
            if webhook_id in line and ('"time-out' in line or UNKNOWN.error in line):
                attempt = json.loads(line)
                begin = datetime.fromisoformat(attempt["timestamp"]).timestamp() - attempt["seconds"]
                here = attempt["subscription"] == subscription and -1 < begin - signed_at < TIMEOUT
                if here and attempt["seconds"] >= TIMEOUT:
                    return True
        return False

    # Workers.

    def start(self) -> Worker:
        """One more worker."""
        worker = self.deployment.start(
            arguments=["--workers", str(self.shape.processes)],
            **SETTINGS,
            KAFKA_DEAD_LETTER_TOPIC=self.letters,
            KAFKA_OPERATIONS_TOPIC=self.operations,
            KAFKA_GROUP_PROTOCOL=self.shape.protocol,
            WEBHOOK_RETRY_IN_MEMORY=f"{IN_MEMORY}s" if self.shape.in_memory else "0",
            **({"KAFKA_ATTEMPTS_TOPIC": self.attempts} if self.shape.audited else {}),
        )
        self.workers.append(worker)
        self._moved("start", worker)
        return worker

    def leave(self, worker: Worker) -> None:
        """SIGTERM. While a common dependency is down, it cannot store or commit all its work."""
        self.workers.remove(worker)
        troubled = self._troubles(Part.KAFKA) + self._troubles(Part.DATABASE)
        disruption = self.disrupt("stop in an outage") if troubled else None
        self._moved("SIGTERM", worker)
        worker.terminate()
        self._outages.append(Outage(Part.GROUP, time.time()))
        self._leaving.append(Leaving(worker, self._outages[-1], disruption))

    def kill(self, worker: Worker) -> None:
        """`kill -9`."""
        disruption = self._ends(worker, "kill")
        worker.kill()
        disruption.until = time.time() + 0.5  # requests in the receiver's sockets

    def kill_one(self, worker: Worker, random: Random) -> None:
        """`kill -9` of one of its processes, in whose place its parent puts another."""
        members = worker.members()
        if members:  # else it has just begun
            disruption = self._dies(worker, "kill of a process")
            members[random.choice(sorted(members))].kill()
            disruption.until = time.time() + 0.5

    def _ends(self, worker: Worker, how: str) -> Disruption:
        self.workers.remove(worker)
        return self._dies(worker, how)

    def _dies(self, worker: Worker, how: str) -> Disruption:
        """A worker leaves neither the group nor a commit."""
        disruption = self.disrupt(how)
        disruption.most_of_cursors = MOST_UNSAVED + OPEN
        self.dies()
        self._moved(how, worker)
        return disruption

    def look_after(self) -> None:
        """Stopping workers end in time and in order, and no other worker ends."""
        self.watch.check()
        self._enable_again()
        for leaving in list(self._leaving):
            ended = leaving.worker.process.poll() is not None
            if ended or time.time() > leaving.waited_for.begin + STOPS_WITHIN:
                self._leaving.remove(leaving)
                leaving.waited_for.end = time.time()
                if leaving.disruption is not None:
                    leaving.disruption.until = time.time()
                self._moved("ended", leaving.worker)
                self._judge_end(leaving.worker, ended)
        for worker in list(self.workers):
            if worker.process.poll() is None:
                continue
            if FATAL_IN_LIBRDKAFKA in worker.log:  # a new process takes its place, as in an orchestrator
                self._ends(worker, "fatal error of librdkafka").until = time.time()
                self.start()
            else:
                self.workers.remove(worker)
                self.book.violated(Rule.ENDED, f"exit {worker.process.returncode} unasked: {worker.log[-2000:]}")

    def _enable_again(self) -> None:
        """Enable subscriptions disabled late, by a 410 that the database did not accept or acknowledge at first."""
        now = time.time()
        if now - self._looked_at < 1 or self.out(Part.DATABASE):  # the caller may itself hold the database
            return
        self._looked_at = now
        if not any(end == inf for _, end in self.book.away):
            try:
                late = self.enable_all()
            except DatabaseAway:
                return
            if late:
                self.book.away.append([self._enabled_at, now + CACHED])
        self._enabled_at = now

    def enable_all(self) -> bool:
        """Enable disabled subscriptions. Returns whether there were any."""
        enable = "UPDATE webhook_subscriptions SET enabled = 1, disabled_reason = NULL WHERE enabled = 0"
        return self.deployment.database.change(enable) > 0

    def _judge_end(self, worker: Worker, ended: bool) -> None:  # noqa: FBT001 (private)
        if not ended:
            log = worker.log[-2000:]
            self.book.violated(Rule.ENDED, f"still there {STOPS_WITHIN} s after SIGTERM: {log}\n{worker.abort()}")
        elif worker.process.returncode == -SIGTERM and not worker.log:
            pass  # an altered worker imports much before it can log
        elif worker.process.returncode != 0 or "Traceback" in worker.log:
            begin = max(0, worker.log.find("Traceback") - 1000) if "Traceback" in worker.log else -2000
            log = worker.log[begin:][:4000]
            self.book.violated(Rule.ENDED, f"exit {worker.process.returncode} after SIGTERM: {log}")

    def _moved(self, what: str, worker: Worker) -> None:
        self.moves.append((time.time(), f"{what} of worker {self.deployment.workers.index(worker)}"))

    # Disruptions.

    def disrupt(
        self, what: str, *, times: int = 1, attempts: int = 2, place: tuple[int, int] | None = None
    ) -> Disruption:
        """A disruption begins now. Records settled early enough to be committed or written before are not affected."""
        now = time.time()
        since = min([now, *(each.begin for each in self._troubles(Part.KAFKA) + self._waits())])
        unwritten_since = min([since, *(each.begin for each in self._troubles(Part.DATABASE))])
        takes = COMMIT_INTERVAL + self.shape.slow
        return self.book.disrupt(
            Disruption(what, now, since - takes, unwritten_since - takes, times=times, attempts=attempts, place=place)
        )

    @contextmanager
    def outage(self, of: Part) -> Iterator[None]:
        """A common dependency is down: some records cannot be settled or committed."""
        outage = Outage(of, time.time())
        self._outages.append(outage)
        if of in (Part.KAFKA, Part.DATABASE):
            self._trouble_those_who_leave()
        try:
            yield
        finally:
            outage.end = time.time()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Optional subscriptions may be disabled meanwhile."""
        away = [time.time(), inf]
        self.book.away.append(away)
        try:
            yield
        finally:
            away[1] = time.time()

    def out(self, *of: Part) -> bool:
        """One of these is down now."""
        return any(each.end == inf and each.of in of for each in self._outages)

    def _held_up(self) -> bool:
        """No work can go on: a common dependency is down, or the group waits for a dead member."""
        return time.time() < self._waited_for_until or self.out(Part.KAFKA, Part.DATABASE)

    def dies(self) -> None:
        """A member was killed or frozen. The others wait for its session to end."""
        now = time.time()
        self._waited_for_until = now + REJOINS_WITHIN
        self._outages.append(Outage(Part.GROUP, now, self._waited_for_until))
        self._trouble_those_who_leave()

    def _trouble_those_who_leave(self) -> None:
        for leaving in self._leaving:
            if leaving.disruption is None:
                leaving.disruption = self.disrupt("stop in an outage")

    def _waits(self) -> list[Outage]:
        """The group waits for some members, now or until a moment ago."""
        now = time.time() - COMMIT_INTERVAL
        if self.shape.protocol != "classic":
            return []
        return [each for each in self._outages if each.of is Part.GROUP and now <= each.end]

    def _troubles(self, of: Part) -> list[Outage]:
        """Outages that last or may still have effects: workers back off for as long again as one has lasted."""
        now = time.time()
        return [each for each in self._outages if each.of is of and now <= each.end + (each.end - each.begin) + 2]

    # The rest.

    def _drained(self) -> bool:
        rows = self.deployment.rows()
        return (
            not self.book.missing()
            and self.watch.committed()
            and all(row.status in {"delivered", "exhausted"} for row in rows)
            and not self.deployment.sql("SELECT id FROM webhook_operations")
            and not self.deployment.sql(
                "SELECT c.id FROM webhook_cursors c LEFT JOIN webhook_replays r ON r.id = c.replay"
                " WHERE (c.end_offset IS NULL OR c.next_offset < c.end_offset) AND r.cancelled_at IS NULL"
            )
        )

    def _make_topics(self) -> None:
        kafka = Kafka(
            self.deployment.servers, real=True, replicas=self.brokers.nodes if self.brokers is not None else 1
        )
        kafka.topic(self.deployment.topic, PARTITIONS)
        for name in (self.letters, self.operations, self.attempts):
            kafka.topic(name)

    def _audit(self) -> None:
        """The audit finds what became of each delivery that may not have been disabled meanwhile."""
        kafka = KafkaSettings(bootstrap_servers=self.deployment.servers, group_id=self.deployment.group)
        log, until = (
            Log(kafka.model_copy(update={"operations_topic": self.operations}), [self.deployment.topic]),
            time.time() + 1,
        )
        (*_, found) = audit(log, self.operator.deployment, self.attempts, self.began_at - 60, until)
        of = {each.id: each for each in self.book.subscriptions}
        for each in found.missing:
            event, subscription = self.book.at[each.partition, each.offset], of[each.subscription_id]
            if not (subscription.optional and self.book.excused(subscription, event)):
                self.book.violated(Rule.UNPROVEN, f"event {event.number} for {subscription.path}: {each}")
        self.audited = found.total

    def _announced(self) -> Counter[tuple[int, str]]:
        """The number of distinct operational events for each exhausted delivery."""
        told = {
            (data["subscription_id"], data["webhook_id"], event["id"])
            for message in read_all(self.deployment.servers, self.operations)
            if (event := json.loads(message.value() or b""))["type"] == "delivery.exhausted" and (data := event["data"])
        }
        return Counter((subscription, webhook_id) for subscription, webhook_id, _ in told)

    def _subscribe(self) -> None:
        seed = self.shape.seed
        self._add("/steady", "order", Temper(seed))
        self._add("/moody", "order", Temper(seed + 1, failing=0.1, doomed_every=60))
        self._add("/leaves", "leaving", Temper(seed + 2), optional=True)
        self._add("/ordered", "order", Temper(seed + 3, failing=0.04, doomed_every=200), ordering="key")
        batches: dict[str, Any] = {"payload_format": "cloudevents", "batch_size": 10, "batch_wait_ms": 100}
        self._add("/batched", "order", Temper(seed + 4, failing=0.01, doomed_every=150), **batches)
        self._add("/picky", "picky", Temper(seed + 5, failing=0.1), every=3, event_filter=SLOW_FILTER % 1)

    def _add(
        self, path: str, event_type: str, temper: Temper, *, optional: bool = False, every: int = 1, **columns: Any
    ) -> None:
        number = self.deployment.subscribe(event_type, path, **columns)
        self.deployment.receiver.rules[path] = temper.rule()
        ordered, batched = "ordering" in columns, "batch_size" in columns
        self.book.subscriptions.append(
            Subscription(number, path, event_type, temper, ordered, optional, batched, every)
        )
