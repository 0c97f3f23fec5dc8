"""The CPU of a delivery while one quantity grows and all others stay the same."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy import Engine, insert
from sqlalchemy.engine import make_url

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, delete_topic, fill
from consumer.delivery.parking import STORE_BATCH
from consumer.events.event import Event, RecordId
from consumer.ledger import store
from consumer.ledger.rows import AttemptFailure, NewDelivery
from models import Subscription
from tests.databases import database

RUNS = 3  # runs of a size: the median counts
DELIVERIES = 400_000  # of a run
WARM = 0.5  # share before the measurement: a worker of a thousand partitions has finished its assignment
PARTITIONS = 4
HOSTS = 20  # loopback addresses of the receiver
TYPES = 1000  # limit of event types while subscriptions grow
LATER = 86_400.0  # seconds until a stored delivery is due
ROWS = 50_000  # subscriptions in one insert
RATE = 10_000.0  # limit of deliveries a second while open requests grow: with 10,000 a receiver takes 1 s
STEADY = 10.0  # seconds of the measurement while open requests grow
ANSWERS = 12  # consecutive answers of a receiver before that measurement: connections are open, and nothing is stored


@dataclass(frozen=True)
class Point:
    """A delivery at one size of an axis: its CPU, the rate, and the highest memory of the worker."""

    axis: str
    size: int
    cpu_us: float
    per_second: float
    memory_mib: float


Measure = Callable[[str, Sequence[int]], Iterator[tuple[int, rig.Used]]]


@dataclass(frozen=True)
class Axis:
    """The growing quantity. `measure` takes Kafka's address and sizes in rising order; `quick` ones take a minute."""

    name: str
    title: str
    sizes: Sequence[int]
    quick: Sequence[int]
    measure: Measure

    def points(self, bootstrap: str, sizes: Sequence[int]) -> Iterator[Point]:
        """A point for each size."""
        for size, used in self.measure(bootstrap, sizes):
            yield Point(self.name, size, used.cpu_us, used.per_second, used.memory_mib)


@dataclass(frozen=True)
class Bench:
    """A topic, a database and a receiver, with subscriptions at its addresses."""

    bootstrap: str
    topic: str
    receiver: rig.Sink
    database_url: str

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The database, opened like the service does."""
        engine = database(Path(str(make_url(self.database_url).database)))
        try:
            yield engine
        finally:
            engine.dispose()

    def used(self, types: Sequence[str] = (TYPE,)) -> rig.Used:
        """The resources of a new worker for each delivery of new events: the median of some runs, by CPU."""
        runs = sorted((self._used(types) for _ in range(RUNS)), key=lambda run: run.cpu_us)
        return runs[RUNS // 2]

    def _used(self, types: Sequence[str]) -> rig.Used:
        self.receiver.reset()
        fill(self.bootstrap, self.topic, DELIVERIES, types=types)
        with rig.worker(self.bootstrap, self.topic, self.database_url) as child:
            return rig.measure(child, self.receiver, int(DELIVERIES * WARM), DELIVERIES)


@contextmanager
def bench(bootstrap: str, partitions: int = PARTITIONS, delay_ms: float = 0) -> Iterator[Bench]:
    """An empty topic, and one subscription to TYPE."""
    topic = f"growth-{uuid.uuid4().hex[:8]}"
    with rig.sink(delay_ms, HOSTS) as receiver, rig.database([rig.hook(receiver.url, 0, HOSTS)], TYPE) as database_url:
        create_topic(bootstrap, topic, partitions)
        try:
            yield Bench(bootstrap, topic, receiver, database_url)
        finally:
            delete_topic(bootstrap, topic)


def events(bootstrap: str, sizes: Sequence[int]) -> Iterator[tuple[int, rig.Used]]:
    """One worker makes all deliveries: a size is measured from the previous size to its own."""
    with bench(bootstrap) as one:
        fill(bootstrap, one.topic, sizes[-1])
        with rig.worker(bootstrap, one.topic, one.database_url) as child:
            for begin, end in zip([sizes[0] // 10, *sizes], sizes, strict=False):
                yield end, rig.measure(child, one.receiver, begin, end, seconds=3600)


def event_type(number: int) -> str:
    """The event type of a subscription with its own type."""
    return f"customer-{number // 10}.order.{number % 10}"


def subscribe(engine: Engine, receiver: rig.Sink, numbers: range) -> None:
    """Add subscriptions, each with a type of its own."""
    rows = ({"url": rig.hook(receiver.url, number, HOSTS), "event_type": event_type(number)} for number in numbers)
    while batch := list(islice(rows, ROWS)):
        with engine.begin() as connection:
            connection.execute(insert(Subscription), batch)


def subscriptions(bootstrap: str, sizes: Sequence[int]) -> Iterator[tuple[int, rig.Used]]:
    """So many in the table, each with its own type; events have the types of the first TYPES of them."""
    with bench(bootstrap) as one:
        for before, size in zip([0, *sizes], sizes, strict=False):
            with one.engine() as engine:
                subscribe(engine, one.receiver, range(before, size))
            yield size, one.used([event_type(number) for number in range(min(size, TYPES))])


def partitions(bootstrap: str, sizes: Sequence[int]) -> Iterator[tuple[int, rig.Used]]:
    """One topic with so many partitions, all owned by one worker."""
    for size in sizes:
        with bench(bootstrap, size) as one:
            yield size, one.used()


def stored(bootstrap: str, sizes: Sequence[int]) -> Iterator[tuple[int, rig.Used]]:
    """So many rows of this worker's group and partitions, of a hundred other subscriptions, due tomorrow."""
    with bench(bootstrap) as one:
        one.used()  # the rows' records are below the committed offset
        with one.engine() as engine:
            subscribe(engine, one.receiver, range(100))
        for before, size in zip([0, *sizes], sizes, strict=False):
            with one.engine() as engine:
                store_deliveries(engine, one, range(before, size))
            yield size, one.used()


def store_deliveries(engine: Engine, one: Bench, numbers: range) -> None:
    """Stores deliveries as after a failed attempt, to a hundred subscriptions for each record."""
    now = time.time()
    failed = AttemptFailure("status 503", 503, "unavailable", now)
    rows = (
        NewDelivery(
            Event(
                RecordId(one.topic, offset % PARTITIONS, offset // PARTITIONS, 1),
                event_type(hook),
                f"msg_{offset}",
                b"{}",
                "application/json",
                None,
                None,
            ),
            2 + hook,  # the first one is for TYPE
            rig.hook(one.receiver.url, hook, HOSTS),
            1,
            "parked",
            now + LATER,
            failed,
            failed,
        )
        for offset, hook in (divmod(number, 100) for number in numbers)
    )
    while batch := list(islice(rows, STORE_BATCH)):
        store.park(engine, one.topic, batch, now)


def open_requests(bootstrap: str, sizes: Sequence[int]) -> Iterator[tuple[int, rig.Used]]:
    """So many slots, all taken: the receiver is so slow that they make RATE. Twenty subscriptions share them."""
    types = [event_type(number) for number in range(HOSTS)]
    for size in sizes:
        answer = size / RATE
        warm = int(RATE * (1 + ANSWERS * answer))
        end = warm + int(RATE * STEADY)
        with bench(bootstrap, delay_ms=answer * 1000) as one:
            with one.engine() as engine:
                subscribe(engine, one.receiver, range(HOSTS))
            fill(bootstrap, one.topic, end + size, types=types)
            with rig.worker(bootstrap, one.topic, one.database_url, WEBHOOK_MAX_IN_FLIGHT=str(size)) as child:
                yield size, rig.measure(child, one.receiver, warm, end)


AXES = (
    Axis("events", "Events delivered since the start", [10**n for n in range(3, 8)], [10**3, 10**4, 10**5], events),
    Axis("subscriptions", "Subscriptions in the table", [10**n for n in range(1, 7)], [10, 10_000], subscriptions),
    Axis("partitions", "Partitions of one worker", [1, 10, 100, 1000], [1, 100], partitions),
    Axis("stored", "Stored deliveries", [0, *(10**n for n in range(3, 7))], [0, 10_000], stored),
    Axis("open", "Open requests", [10, 100, 1000, 10_000], [10, 1000], open_requests),
)
