"""A worker in a single-threaded world: the test moves Kafka, receivers, database threads and the clock.

The worker's code, its SQL and its database are real. The parts that wait are replaced: the poller, the consumer, the
producers, the watch of topics, the sender, and the database threads. A `World` outlives its workers, as a deployment
does: `start` without a stop before it is a `kill -9` and a new process. `World.dies_after` sets the point at which a
process is killed.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from consumer.config.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.database.engine import DatabaseThread
from consumer.events.event import TopicPartition
from consumer.intake.cursor_reader import RemovedRecords
from consumer.intake.record import AssignedPartition, Record
from consumer.intake.stalls import Stalls
from consumer.ledger.rows import OperationalEvent
from consumer.matching.selection import Selector
from consumer.sending.transfer import Transfer
from consumer.telemetry.metrics import Histogram, Metrics
from consumer.worker.wiring import WorkerParts
from consumer.worker.worker import Worker
from tests.simulation.database import SimulatedDatabase
from tests.simulation.transport import Transport

TOPIC = "t"
THREADS = ("lookups", "storing", "taking-up", "upkeep")
WRITING = ("storing", "upkeep")
GROUP = "g"
BORN = 1_700_000_000.0


class Crash(BaseException):
    """The process is killed. None of its handlers sees this."""


class World:
    """The log and its committed offsets, the receivers' deliveries, the dead letters, and the present worker.

    `dies_after`: after this many steps the process dies, by a Crash out of the current call. A step is visible from
    outside: a write, a commit, a request, a dead letter. `late`: database jobs that dead processes have left, for a
    process that was wrongly taken for dead.
    """

    worker: Worker
    metrics: Metrics
    source: "_Source"
    transport: Transport
    dead_letters: "_DeadLetters"

    def __init__(self, engine: Engine, partitions: int = 2, **delivery: Any) -> None:
        self.engine = engine
        self.database = SimulatedDatabase(engine, self.step)
        self.dies_after: int | None = None
        self.now = 0.0
        self.log: dict[TopicPartition, list[tuple[bytes | None, bytes]]] = {
            (TOPIC, number): [] for number in range(partitions)
        }
        self.removed: dict[TopicPartition, int] = {}  # retention has removed the records before this offset
        self.committed: dict[TopicPartition, tuple[int, str]] = {}
        self.taken: list[tuple[str, str]] = []  # webhook id and url of each delivery answered with a 2xx
        self.answered: set[Transfer] = set()  # their requests
        self.sent: list[tuple[str, str]] = []  # and of each delivery requested
        self.buried: set[tuple[TopicPartition, int]] = set()
        self.refused: set[tuple[TopicPartition, int, int]] = set()  # and buried for one subscription: place, offset, id
        self.announced: list[OperationalEvent] = []  # the operational events on their topic
        self.on_commit: Callable[[TopicPartition, int, str], None] = lambda _place, _mark, _metadata: None
        self.on_send: Callable[[str, str], None] = lambda _webhook_id, _url: None  # before the request is open
        self.on_wait: Callable[[], None] = lambda: None  # called while the worker waits
        self.on_serve: Callable[[], None] = lambda: None  # rebalances while the worker stops
        self.silent = False  # Kafka does not answer where partitions stand
        self.takes_commits = True  # Kafka accepts commits
        self.posted: deque[Callable[[], None]] = deque()
        self.jobs: dict[str, deque[Callable[[], None]]] = {}  # by thread
        self.late: deque[Callable[[], None]] = deque()
        self.delivery = DeliverySettings.model_validate(
            {"secret": SecretStr("secret"), "retry_schedule": (1.0, 30.0, 30.0), "retry_jitter": 0.0, "drain": 2.0}
            | delivery
        )

    def start(self, *numbers: int) -> None:
        """Start a new process, and assign these partitions to it."""
        self.metrics = Metrics()
        for thread in WRITING:
            self.late.extend(self.jobs.get(thread, ()))
        self.posted, self.jobs = deque(), {}  # later results of the last process are lost
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("consumer.worker.wiring.create_engine", lambda _: self.engine)
            patch.setattr("consumer.worker.wiring.Poller", partial(_Poller, self))
            patch.setattr("consumer.worker.wiring.DatabaseThread", partial(_SteppedThread, self))
            patch.setattr("consumer.worker.wiring.LoopAdapter", partial(Transport, self))
            patch.setattr("consumer.intake.dead_letters.AcknowledgedTopic", partial(_DeadLetters, self))
            patch.setattr("consumer.worker.wiring.operations_topic", partial(_OperationsTopic, self))
            patch.setattr("consumer.intake.topics.made", lambda *_: None)
            patch.setattr("consumer.intake.topics.Thread", partial(_TopicsThread, self))
            patch.setattr("consumer.worker.wiring.Source", partial(_Source, self))
            patch.setattr("consumer.worker.wiring.CursorReader", partial(SimulatedReader, self))
            patch.setattr("consumer.worker.wiring.beside", lambda work, done, **_about: done(work()))
            # CPU time is not simulated: a garbage collection could put a filter over its budget.
            patch.setattr("consumer.worker.wiring.Selector", partial(Selector, processor=lambda: 0.0))
            self.worker = Worker(
                partial(
                    WorkerParts,
                    KafkaSettings(bootstrap_servers="none", group_id=GROUP, dead_letter_topic="dead", properties={}),
                    [TOPIC],
                    DatabaseSettings(url=SecretStr(str(self.engine.url)), db_schema=None, encryption_key=None),
                    self.delivery,
                    self.metrics,
                    clock=lambda: BORN + self.now,
                    monotonic=lambda: self.now,
                )
            )
        self.source.assign(numbers)

    def write(self, number: int, value: bytes, key: bytes | None = None) -> int:
        """Append a record. Returns its offset."""
        log = self.log[TOPIC, number]
        log.append((key, value))
        return len(log) - 1

    def turn(self) -> None:
        """One round of `Worker.run`."""
        self.worker._run_once()

    def speak(self) -> None:
        """End `silent`, and answer where newly assigned partitions stand."""
        self.silent = False
        for partition in self.source.untold():
            self.posted.append(partial(self.source.tell, partition))

    def step(self) -> None:
        """Mark the moment before or after a visible effect."""
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.dies_after = None
                raise Crash

    def stop(self) -> None:
        """Stop as at SIGTERM."""
        self.worker.stop()
        self.worker._close()

    def run_job(self, thread: str) -> bool:
        """Run one job of a database thread, if there is one. Its answer waits for the next turn."""
        jobs = self.jobs[thread]
        if jobs:
            with self.database.at_work():
                jobs.popleft()()
        return bool(jobs)

    def run_job_slowly(self, thread: str, others: Sequence[str]) -> None:
        """Run a job of a database thread, and one of each other thread before its answer, which is then out of date."""
        before = len(self.posted)
        self.run_job(thread)
        late = [self.posted.pop() for _ in range(len(self.posted) - before)]
        for other in others:
            self.run_job(other)
        self.posted.extend(reversed(late))

    def run_jobs(self) -> None:
        """Run all submitted jobs."""
        for thread in THREADS:
            while self.run_job(thread):
                continue

    def settle_down(self, turns: int = 12) -> None:
        """Turns in which the database answers and time passes, but no receiver answers."""
        for _ in range(turns):
            self.turn()
            self.run_jobs()
            self.now += 0.1


class _Poller:
    def __init__(self, world: World) -> None:
        self._world = world
        self.post = world.posted.append
        self.woke_at = world.now

    def turn(self, timeout: float) -> None:
        self._world.now += max(timeout, 0.001)
        self.woke_at = self._world.now
        self._world.on_wait()
        if self._world.posted:
            self._world.step()
        for _ in range(len(self._world.posted)):
            self._world.posted.popleft()()

    def close(self) -> None:
        self._world.posted.clear()


class _SteppedThread(DatabaseThread):
    """The real thread's jobs, errors and hand-over, run by `World.run_job`."""

    def __init__(self, world: World, name: str, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self.name, self.seconds, self.errors = name, Histogram(), Counter()
        self._queue = world.jobs[name] = deque()

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._queue.append(partial(self._run, job, done))

    def close(self, _timeout: float) -> bool:  # type: ignore[override]  # each call has a limit
        return True


class _DeadLetters:
    """The dead-letter topic. Letters are acknowledged while `door_open`."""

    fault = None

    def __init__(self, world: World, *_: object) -> None:
        self._world = world
        self._waiting: list[tuple[int, dict[str, bytes]]] = []
        self.answers: deque[tuple[int, None]] = deque()
        self.door_open = True
        world.dead_letters = self

    def write(self, number: int, _value: bytes | None, _key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        self._waiting.append((number, dict(headers)))

    def poll(self) -> None:
        while self.door_open and self._waiting:
            number, said = self._waiting.pop(0)
            place = said["dead-letter-topic"].decode(), int(said["dead-letter-partition"])
            letter = place, int(said["dead-letter-offset"])
            self._world.buried.add(letter)
            if said["dead-letter-reason"] == b"not_stored":
                detail = said["dead-letter-detail"].decode()
                self._world.refused.add((*letter, int(detail.split(":")[0].removeprefix("subscription "))))
            self._world.step()
            self.answers.append((number, None))

    def got_through(self) -> None:
        """No fault is to be cleared."""

    def close(self) -> None:
        self._waiting.clear()


class _OperationsTopic:
    """Each batch is acknowledged in the next turn. After a crash before that, it is published again."""

    def __init__(self, world: World, _kafka: object) -> None:
        self._world = world
        self._written: list[tuple[int, OperationalEvent]] = []
        self.answers: deque[tuple[int, None]] = deque()

    def write(self, number: int, value: bytes, _key: bytes | None, _headers: object) -> None:
        read = orjson.loads(value)
        self._written.append((number, OperationalEvent(read["type"], read["id"], read["data"])))

    def poll(self) -> None:
        batch, self._written = self._written, []
        if batch:
            self._world.announced += [operation for _, operation in batch]
            self._world.step()
            self.answers.extend((number, None) for number, _ in batch)

    def got_through(self) -> None:
        """No fault is to be cleared."""

    def close(self) -> None:
        self._written = []


class _TopicsThread:
    """Asks for the cluster's metadata: it is answered once, at the start."""

    def __init__(self, world: World, *, target: Any, **_: object) -> None:
        self._world, self._watch = world, target.__self__

    def start(self) -> None:
        watch = self._watch
        watch._post(partial(watch._learn, {TOPIC: len(self._world.log)}, watch._clock(), {}, {TOPIC: 3600.0}))

    def join(self, _timeout: float) -> None:
        """It has ended."""

    def is_alive(self) -> bool:
        return False


class SimulatedReader:
    """The log, read where the worker says: a CursorReader, as the tests of that show."""

    fault = None

    def __init__(self, world: World, _kafka: object = None, _clock: object = None) -> None:
        self._world = world
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.removed: list[RemovedRecords] = []
        self.restarted: set[TopicPartition] = set()
        self.answered: set[TopicPartition] = set()

    def seek(self, place: TopicPartition, offset: int) -> None:
        if self.positions.get(place) != offset:
            self.answered.discard(place)
        self.positions[place] = offset
        self._partitions[place] = AssignedPartition(*place)

    def drop(self, places: Collection[TopicPartition]) -> None:
        for place in places:
            self.positions.pop(place, None)
            self.answered.discard(place)

    def read(self, _limit: int) -> list[Record]:
        """The next two records of each partition, so that reading takes turns."""
        records = []
        for place, position in self.positions.items():
            log, first = self._world.log[place], self._world.removed.get(place, 0)
            begin = position if first <= position <= len(log) else first
            if position > len(log):
                self.restarted.add(place)
            else:
                self.answered.add(place)
            if position < first:
                self.removed.append(RemovedRecords(place, position, first))
            self.positions[place] = begin
            for offset, (key, value) in list(enumerate(log))[begin : begin + 2]:
                records.append(Record(self._partitions[place], offset, int(BORN * 1000) + offset, key, value, None))
                self.positions[place] = offset + 1
        return records

    def close(self) -> None:
        self.positions = {}


class _Source:
    """The log, read from the committed offsets on. Commits take effect at once, as on the broker.

    A partition's position is known in the next turn, or, while `silent`, by `tell`. While Kafka accepts no commits,
    their offsets wait for the next round, or are forgotten with the partition.
    """

    fault = None
    health = SimpleNamespace(overtaken=0)
    rebalance_timeout = 300.0

    def __init__(self, world: World, _kafka: object, _topics: Sequence[str], **callbacks: Callable[..., None]) -> None:
        self._world = world
        self._on_assign, self._on_position, self._on_revoke, self._on_lost = (
            callbacks[name] for name in ("on_assign", "on_position", "on_revoke", "on_lost")
        )
        self.partitions: dict[TopicPartition, AssignedPartition] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._told: set[AssignedPartition] = set()
        self._taken_until = world.now
        self._resting: set[AssignedPartition] = set()
        self.commits = SimpleNamespace(total=0)
        self.stalls = Stalls()
        self.pauses = 0
        self.paused = self.rebalancing = False
        world.source = self

    def assign(self, numbers: Iterable[int]) -> None:
        """Assign as the group's leader does."""
        added = []
        for number in numbers:
            place = TOPIC, number
            if place not in self.partitions:
                added.append(AssignedPartition(*place))
                self.partitions[place] = added[-1]
        self._rebalance(lambda: self._on_assign(added))
        for partition in added:
            self._world.posted.append(partial(self.tell, partition))

    def tell(self, partition: AssignedPartition) -> None:
        """Answer where a partition stands."""
        place = partition.topic, partition.number
        if partition.owned and not self._world.silent and partition not in self._told:
            self._told.add(partition)
            mark, metadata = self._world.committed.get(place, (None, ""))
            self._positions[place] = mark or 0
            partition.start(mark, metadata)
            self._on_position(partition)

    def look_for_stalls(self, _ends: object) -> None:
        """Kafka's client reads all that it is asked for."""

    def untold(self) -> list[AssignedPartition]:
        """Partitions without a known position."""
        return [each for each in self.partitions.values() if each not in self._told]

    @property
    def opening(self) -> bool:
        return any(not partition.opened for partition in self.partitions.values())

    def open(self, partition: AssignedPartition) -> None:
        if partition.owned:
            partition.opened = True
            self._resting.discard(partition)

    def rest(self, partition: AssignedPartition) -> None:
        self._resting.add(partition)

    def revoke(self, number: int) -> None:
        """Revoke the partition."""
        partition = self.partitions[TOPIC, number]
        partition.revoking = True
        self._rebalance(lambda: self._on_revoke([partition]))
        self.commit_now([partition])
        self._leave(partition)

    def lose(self, number: int) -> None:
        """The partition is lost: another member owns it already."""
        partition = self.partitions[TOPIC, number]
        partition.revoking = True
        self._rebalance(lambda: self._on_lost([partition]))
        self._leave(partition)

    def _rebalance(self, callback: Callable[[], None]) -> None:
        self.rebalancing = True
        callback()
        self.rebalancing = False

    def _leave(self, partition: AssignedPartition) -> None:
        partition.owned = False
        del self.partitions[partition.topic, partition.number]

    def poll(self, limit: int, _timeout: float) -> list[Record]:
        records: list[Record] = []
        for place, partition in () if self.paused else self.partitions.items():
            log = self._world.log[place]
            is_read = partition.opened and partition not in self._resting
            while is_read and len(records) < limit and self._positions[place] < len(log):
                offset = self._positions[place]
                self._positions[place] += 1
                timestamp = int(BORN * 1000) + offset
                if partition.tracker.track(offset, timestamp=timestamp):
                    key, value = log[offset]
                    records.append(Record(partition, offset, timestamp, key, value, None))
            if is_read and self._positions[place] >= len(log):
                partition.read_to = partition.end = len(log)
        return records

    def pause(self) -> None:
        self.paused = True
        self.pauses += 1

    def resume(self) -> None:
        self.paused = False

    def serve(self) -> None:
        if self.paused and not self.rebalancing:
            self._world.on_serve()

    @property
    def moved(self) -> int:
        return sum(partition.tracker.moved for partition in self.partitions.values())

    def commit(self) -> float | None:
        if not self.commit_now(list(self.partitions.values())):
            return self._taken_until
        self._taken_until = self._world.now
        return None

    def commit_now(self, partitions: Iterable[AssignedPartition]) -> bool:
        if not self._world.takes_commits:
            return False
        for partition in partitions:
            image = partition.tracker.committable()
            if partition.owned and partition.tracker.moved and image is not None:
                partition.tracker.committing()
                place = partition.topic, partition.number
                self._world.on_commit(place, *image)
                self._world.committed[place] = image
                self.commits.total += 1
                self._world.step()
        return True

    def close(self, _timeout: float = 10.0) -> bool:
        for partition in list(self.partitions.values()):
            self._leave(partition)
        return True
