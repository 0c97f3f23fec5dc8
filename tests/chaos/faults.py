"""Faults. Each is a generator: it acts, yields the seconds to wait, and acts again.

A fault names its exclusive needs, so that two faults that would only hide each other do not meet. Graceful faults write
no disruption into the book: no delivery may be repeated because of them.
"""

from collections.abc import Callable, Generator
from math import inf
from random import Random
from time import monotonic, time
from typing import NamedTuple, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from sqlalchemy.exc import DBAPIError

from consumer.errors import DatabaseUnavailable
from consumer.ledger.replays import Span
from consumer.ops import replay_request
from consumer.ops.changes import Changes
from consumer.ops.replay_request import Plan
from tests.chaos.book import GONE_STATUS, NO_BROKER, REBALANCES, Disruption, Event, Replay
from tests.chaos.world import CACHED, PARTITIONS, REJOINS_WITHIN, Part, World
from tests.end_to_end.webhook_receiver import Answer, always
from tests.intake.raw_producer import BOMB, write_bomb
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka

JOINS_WITHIN = 1.5  # seconds for a worker to start and get partitions
PAUSED = 2.0, 8.0  # seconds of a pause
AGO = 400  # offsets of a partition: a replay reads some of the last ones
CANCELLED, RESUMED = 0.4, 0.5  # parts of replays that are cancelled, and of these that go on
DISABLED_WITHIN = 2.0  # seconds: the last 410 may be written after the receiver's answer changes

T = TypeVar("T")
Waits = Generator[float, None, None]


class Fault(NamedTuple):
    """`play` makes the fault happen in a world, at random."""

    name: str
    needs: frozenset[str]
    play: Callable[[World, Random], Waits]


# Graceful.


def rolling_restart(world: World, _random: Random) -> Waits:
    """Each worker leaves in turn, after another one has started."""
    for worker in list(world.workers):
        world.start()
        yield JOINS_WITHIN
        if worker in world.workers:
            world.leave(worker)
            yield 0.5


def scale(world: World, random: Random) -> Waits:
    """Two more workers, then two fewer."""
    world.start()
    world.start()
    yield 2 * JOINS_WITHIN
    for worker in random.sample(world.workers, 2):
        world.leave(worker)
    yield 1.0


def storm(world: World, random: Random) -> Waits:
    """Workers join and leave before the group is stable."""
    storm = world.disrupt(REBALANCES)
    for _ in range(5):
        world.start()
        yield random.uniform(0.3, JOINS_WITHIN)
        world.leave(random.choice(world.workers[:-1] or world.workers))
    yield 2 * JOINS_WITHIN
    storm.until = time()


# Workers.


def kill_worker(world: World, random: Random) -> Waits:
    """`kill -9`; another worker is started."""
    world.kill(random.choice(world.workers))
    yield random.uniform(0.2, 2.0)
    world.start()
    yield JOINS_WITHIN


def kill_process(world: World, random: Random) -> Waits:
    """`kill -9` of one of the processes of a command with several workers."""
    world.kill_one(random.choice(world.workers), random)
    yield random.uniform(0.2, 2.0) + JOINS_WITHIN


def freeze_worker(world: World, random: Random) -> Waits:
    """SIGSTOP longer than its session and max.poll.interval.ms. Then the zombie continues."""
    zombie = random.choice(world.workers)
    # The new owners may repeat once, and so may the zombie, which also retries its open requests.
    disruption = world.disrupt("freeze", times=2, attempts=4)
    with world.deployment.database.at_rest():  # else it might be frozen while it holds SQLite's lock
        zombie.freeze()
    world.workers.remove(zombie)
    world.dies()
    try:
        yield random.uniform(7.3, 8.3)
    finally:
        zombie.thaw()
        world.workers.append(zombie)
        disruption.until = time() + REJOINS_WITHIN


# Brokers.


def kill_broker(world: World, random: Random) -> Waits:
    """`kill -9` of a node, which comes back with its data."""

    def restart(brokers: KafkaBroker, node: int) -> None:
        brokers.restart(node, wait=False)

    yield from _without_a_broker(world, random, KafkaBroker.kill, restart, (0.5, 2.0))


def pause_broker(world: World, random: Random) -> Waits:
    """SIGSTOP of a node: its connections stay open, and it does not answer."""
    yield from _without_a_broker(world, random, KafkaBroker.pause, KafkaBroker.resume, (1.0, 5.0))


def _without_a_broker(
    world: World,
    random: Random,
    take: Callable[[KafkaBroker, int], object],
    give_back: Callable[[KafkaBroker, int], object],
    seconds: tuple[float, float],
) -> Waits:
    brokers = world.brokers
    assert brokers is not None
    node = random.randint(1, brokers.nodes)
    disruption = world.disrupt(NO_BROKER)
    with world.outage(Part.KAFKA):
        take(brokers, node)
        try:
            yield random.uniform(*seconds)
        finally:
            give_back(brokers, node)
        while not _all_there(world):
            yield 0.3
    disruption.until = time() + REJOINS_WITHIN


def _all_there(world: World) -> bool:
    admin = AdminClient({"bootstrap.servers": world.deployment.servers, **QUIET})
    try:
        return world.brokers is None or len(admin.list_topics(timeout=1).brokers) == world.brokers.nodes
    except KafkaException:
        return False


def unwritable_letters(world: World, random: Random) -> Waits:
    """The dead-letter topic requires more replicas than exist."""
    kafka = Kafka(world.deployment.servers, real=True)
    with world.outage(Part.DEAD_LETTERS):
        kafka.configure(world.letters, min_insync_replicas="4")
        try:
            yield random.uniform(1.0, 3.0)
        finally:
            kafka.configure(world.letters, min_insync_replicas="1")


# Records.


def bomb(world: World, random: Random) -> Waits:
    """Batches that are small on the wire and too large when decompressed. They must not affect other records."""
    for _ in range(random.randint(1, 3)):
        partition = random.randrange(PARTITIONS)
        unreadable = Event(-1, time(), "bomb", partition, None, BOMB, owed=False, readable=False)
        world.book.acknowledged(
            unreadable, write_bomb(world.deployment.servers, world.deployment.topic, [BOMB], partition)
        )
        yield random.uniform(0.1, 1.0)


# Receivers. Most of their failures come from their temper.


def gone_receiver(world: World, random: Random) -> Waits:
    """A receiver answers 410 and is disabled. Some time later its subscription is enabled again."""
    rules = world.deployment.receiver.rules
    usual, rules["/leaves"] = rules["/leaves"], always(Answer(GONE_STATUS))
    with world.away():
        try:
            yield random.uniform(1.0, 2.0)
        finally:
            rules["/leaves"] = usual
        yield DISABLED_WITHIN
        world.enable_all()
        yield CACHED


def receiver_down(world: World, random: Random) -> Waits:
    """A receiver refuses everything for less time than its deliveries' attempts take, and gets more than its rows."""
    path, seconds = random.choice((("/steady", 2.5), ("/ordered", 1.2)))
    rules = world.deployment.receiver.rules
    usual, end = rules[path], monotonic() + seconds
    rules[path] = lambda body: Answer(503) if monotonic() < end else usual(body)  # in time, however busy this thread is
    yield seconds + 0.1
    rules[path] = usual


# Operators.


def pause_subscription(world: World, random: Random) -> Waits:
    """A subscription is paused, and resumed some seconds later."""
    one = random.choice([each for each in world.book.subscriptions if not each.optional])
    yield from _operate(world, lambda operator: operator.pause(one.id, "chaos"))
    paused = [time() + CACHED, inf]
    world.book.paused.setdefault(one.path, []).append(paused)
    yield random.uniform(*PAUSED)
    paused[1] = time()
    yield from _operate(world, lambda operator: operator.resume(one.id))


def replay(world: World, random: Random) -> Waits:
    """A part of the log is sent once more, also what is still on its way. Some replays are cancelled, and go on."""
    one = random.choice([each for each in world.book.subscriptions if not each.optional and not each.ordered])
    ends = {partition: offset + 1 for partition, offset in sorted(world.book.at)}
    begins = {partition: random.randint(max(0, end - AGO), end - 1) for partition, end in ends.items()}
    spans = {each: (begin, min(begin + random.randint(1, AGO), ends[each])) for each, begin in begins.items()}
    replayed, now = Replay(one.path, spans), time()
    attempts = world.book.attempts_of(one.path)
    world.book.disrupt(Disruption("replay", now, 0.0, 0.0, attempts=attempts, replay=replayed))

    def begin(operator: Changes) -> int:
        where = operator.deployment
        found = [Span(world.deployment.topic, each, *span) for each, span in spans.items()]
        plan = Plan(where.subscription(one.id), world.began_at - 60, None, None, (), random.uniform(20, 200), now)
        with where.engine.begin() as connection:
            return replay_request.create(connection, where.group, operator.actor, plan, found)

    number = yield from _operate(world, begin)
    if random.random() < CANCELLED:
        yield random.uniform(0.0, 1.5)
        engine = world.operator.deployment.engine
        replayed.cancelled = yield from _operate(world, lambda by: replay_request.cancel(engine, by.actor, number, now))
        yield random.uniform(0.0, 3.0)
        if replayed.cancelled and random.random() < RESUMED:
            yield from _operate(world, lambda by: replay_request.resume(engine, by.actor, number))
            replayed.cancelled = False


def _operate(world: World, act: Callable[[Changes], T]) -> Generator[float, None, T]:
    """Do as the command does, as soon as the database is there: this thread may be the one that holds it."""
    while True:
        if not world.out(Part.DATABASE):
            try:
                return act(world.operator)
            except (DBAPIError, DatabaseUnavailable):
                world.met["operator"] += 1
        yield 0.3


GRACEFUL = (
    Fault("rolling restart", frozenset({"workers"}), rolling_restart),
    Fault("scale up and down", frozenset({"workers"}), scale),
)
STORM = Fault("rebalance storm", frozenset({"workers"}), storm)
KILL = Fault("kill -9 of a worker", frozenset({"workers"}), kill_worker)
KILL_ONE = Fault("kill -9 of a command's process", frozenset({"workers"}), kill_process)  # if it has several
FREEZE = Fault("SIGSTOP of a worker", frozenset({"database"}), freeze_worker)
BROKERS = (
    Fault("kill -9 of a broker", frozenset({"brokers"}), kill_broker),
    Fault("SIGSTOP of a broker", frozenset({"brokers"}), pause_broker),
)
BOMBS = Fault("a batch that cannot be decompressed", frozenset({"brokers"}), bomb)
LETTERS = Fault("dead-letter topic unwritable", frozenset({"brokers"}), unwritable_letters)
GONE = Fault("receiver gone (410)", frozenset({"database"}), gone_receiver)
DOWN = Fault("receiver down", frozenset({"receiver"}), receiver_down)
PAUSE = Fault("pause", frozenset({"pause"}), pause_subscription)
REPLAY = Fault("replay", frozenset({"replay"}), replay)
OPERATORS = (DOWN, PAUSE, REPLAY)  # faults that leave events to cursors
# All faults except those of the database.
ALL = (*GRACEFUL, STORM, KILL, FREEZE, *BROKERS, BOMBS, LETTERS, GONE, *OPERATORS)
