"""A million subscriptions: the time of a look-up, its memory, and the number of look-ups of a worker at full load.

python -m benchmarks.lookups [SUBSCRIPTIONS]

It uses SQLite in a temporary directory and no Kafka: events pass the catalog and the inbox as in a worker.
"""

import gc
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from sqlalchemy import Engine, event, insert

from consumer.crypto.vault import Vault
from consumer.database import migrations
from consumer.database.engine import DatabaseThread
from consumer.events.event import Event, RecordId
from consumer.matching.catalog import Catalog, EndpointCache, Key, Matches, find_endpoints
from consumer.matching.inbox import Inbox
from consumer.worker.service import COLLECT_EVERY
from models import Subscription
from tests.databases import database

TENANTS, TYPES = 1_000, 10_000
MOST_MATCHES = 10_000  # subscriptions of each of the ten busiest types
ROWS = 50_000  # rows of one insert
SECRETS = (b"benchmark-secret",)
RATE = 10_000  # events a second through the catalog: more than a worker sends
SECONDS = 5.0
BATCH = 500  # records of one poll, as in a worker

Find = Callable[[tuple[Key, ...]], Matches]


def type_of(number: int) -> str:
    """Ten types for each tenant, whose name is the first part of the event type."""
    return f"tenant-{number // 10:04}.order.{number % 10}"


def of_nobody(types: Iterable[str]) -> tuple[Key, ...]:
    """The keys of events of these types without a tenant."""
    return tuple((each, None) for each in types)


def extra() -> Iterator[dict[str, object]]:
    """Further patterns and subscriptions of tenants, none of which match the types above."""
    for number in range(TENANTS):
        host = f"https://tenant-{number:04}.example.com/hooks"
        for event_type in ("shop.order.created", "shop.order.*", "shop.**"):
            yield {"url": host, "event_type": event_type, "tenant": f"tenant-{number:04}"}
    for event_type in ("audit.*", "audit.login.*", "audit.**", "audit.login.failed"):
        yield {"url": "https://audit.example.com/hooks", "event_type": event_type, "tenant": "*"}


def subscriptions(total: int) -> Iterator[dict[str, object]]:
    """Types 0-9 have 10,000 each, types 10-1009 have one, all others an equal share, in mixed order."""
    shares = [MOST_MATCHES] * 10 + [1] * 1_000
    rest = (total - sum(shares)) // (TYPES - len(shares))
    shares += [rest] * (TYPES - len(shares))
    for turn in range(max(shares)):
        for number, share in enumerate(shares):
            if turn < share:
                host = f"tenant-{number // 10:04}.example.com"
                url = f"https://{host}/hooks/{turn:05}/{number % 10}"
                yield {"url": url, "event_type": type_of(number), "tenant": "*"}
    yield from extra()


def fill(path: Path, total: int) -> None:
    """A migrated database with so many subscriptions."""
    engine = database(path)
    migrations.upgrade(engine)
    rows = subscriptions(total)
    start = time.perf_counter()
    while batch := list(islice(rows, ROWS)):
        with engine.begin() as connection:
            connection.execute(insert(Subscription), batch)
    engine.dispose()
    size = path.stat().st_size / 2**20
    print(f"{total:,} subscriptions, {TYPES:,} event types, {TENANTS:,} tenants: {size:.0f} MiB", end=", ")
    print(f"stored in {time.perf_counter() - start:.0f} s")


def finder(path: Path) -> tuple[Engine, Find]:
    """A new engine without a connection, and the look-up on it."""
    engine = database(path)
    known = EndpointCache()
    return engine, lambda keys: find_endpoints(engine, keys, SECRETS, Vault().decrypt, known=known)


def evict(path: Path) -> None:
    """Drops the file's pages from the system's cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def timed(job: Callable[[], object]) -> float:
    """Milliseconds of wall-clock time."""
    start = time.perf_counter()
    job()
    return (time.perf_counter() - start) * 1000


def look_up(path: Path, what: str, keys: tuple[Key, ...], repeat: int) -> None:
    """Prints a row of the table: cold (a new connection, empty caches), then the best of the warm ones."""
    evict(path)
    engine, find = finder(path)
    cold = timed(lambda: find(keys))
    kept = find(keys)  # as the cache does
    matches = sum(map(len, kept.values()))
    warm = min(timed(lambda: find(keys)) for _ in range(repeat))
    engine.dispose()
    print(f"  {what:<36} {matches:>7,} matches  cold {cold:>8.1f} ms  warm {warm:>8.2f} ms")


def memory(path: Path, keys: tuple[Key, ...]) -> None:
    """Prints the memory of a cached endpoint."""
    engine, find = finder(path)
    find(keys[:1])
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = find(keys)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    engine.dispose()
    number = sum(map(len, kept.values()))
    print(f"memory of a cached endpoint: {(after - before) / number:.0f} bytes ({number:,} endpoints)")


def _settle(offset: int) -> None:
    """Does nothing: no offset is kept here."""


def full_load(path: Path, what: str, keys: tuple[Key, ...]) -> None:
    """Events of these types and tenants, in turn, pass the catalog and the inbox. Prints the number of statements."""
    engine, find = finder(path)
    statements = 0

    @event.listens_for(engine, "before_cursor_execute")
    def count(_: object, __: object, sql: str, *___: object) -> None:
        nonlocal statements
        statements += sql.startswith("SELECT")

    posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
    thread = DatabaseThread("lookups", posted.put)
    catalog = Catalog(lambda keys, done: thread.submit(partial(find, keys), done), 1.0)
    inbox = Inbox(catalog, lambda _place, _offset: None)
    inbox.stored(("t", 0), set())
    given = taken = 0
    start, cpu = time.monotonic(), time.process_time()
    while (now := time.monotonic()) - start < SECONDS:
        owed = min(int((now - start) * RATE) - given, BATCH, inbox.room)
        coming = [keys[number % len(keys)] for number in range(given, given + owed)]
        for event_type, tenant in coming:
            record = RecordId("t", 0, given, 1)
            inbox.put(Event(record, event_type, "msg", b"{}", "", None, None, None, tenant), 2, _settle, now)
            given += 1
        catalog.want(set(coming))
        catalog.want(())
        while inbox.next() is not None:
            taken += 1
        while not posted.empty():
            posted.get()()
        time.sleep(0.001)
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    thread.close(10)
    engine.dispose()
    print(
        f"  {what:<44} {taken / seconds:>7,.0f} events/s  {statements / seconds:>6.1f} statements/s"
        f"  CPU {cpu / seconds * 100:.0f} %"
    )


def main(total: int) -> None:
    """Fills the database, then measures look-ups and full load."""
    gc.set_threshold(*COLLECT_EVERY)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "webhooks.db"
        fill(path, total)
        print("one look-up:")
        tenants = tuple(("shop.order.created", f"tenant-{number:04}") for number in range(512))
        one, many = of_nobody, partial(map, type_of)
        look_up(path, "the first of a process, for nothing", one(["nothing"]), 1)
        look_up(path, "a type nobody subscribed to", one(["nothing.at.all"]), 200)
        look_up(path, "a type with one subscription", one([type_of(500)]), 200)
        look_up(path, "a type with a hundred", one([type_of(5_000)]), 100)
        look_up(path, "a type with ten thousand", one([type_of(0)]), 20)
        look_up(path, "a type that four patterns are for", one(["audit.login.failed"]), 200)
        look_up(path, "a type of a tenant", tenants[:1], 200)
        look_up(path, "512 types without subscriptions", one(f"nothing.{number}" for number in range(512)), 20)
        look_up(path, "512 types with a hundred each", one(many(range(5_000, 5_512))), 5)
        look_up(path, "a type of 512 tenants", tenants, 5)
        memory(path, one(many(range(5_000, 5_200))))
        print(f"{RATE:,} events a second pass the catalog of one worker, for {SECONDS:.0f} s:")
        for number in (1, 100, 1_000, 10_000):
            unmatched = one(f"nothing.{each}" for each in range(number))
            full_load(path, f"of {number:,} types that nobody subscribed to", unmatched)
        full_load(path, "of 10 types with one subscription each", one(many(range(10, 20))))
        full_load(path, "of 1,000 types with one subscription each", one(many(range(10, 1_010))))
        full_load(path, "of one type with ten thousand", one([type_of(0)]))
        full_load(path, "of 8,990 types with a hundred each", one(many(range(1_010, TYPES))))
        shop = tuple(("shop.order.created", f"tenant-{number:04}") for number in range(TENANTS))
        full_load(path, "of one type of a thousand tenants", shop)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
