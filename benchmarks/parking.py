"""The speed of storing deliveries and results: rows and bytes a second, in batches as a worker writes them.

python -m benchmarks.parking [ROWS]

It uses SQLite in a temporary directory with `synchronous=FULL`, as the program opens it, so the disk counts.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from sqlalchemy import Engine

from consumer.database import migrations
from consumer.delivery.parking import STORE_BATCH
from consumer.events.event import Event, RecordId
from consumer.ledger import store
from consumer.ledger.rows import AttemptFailure, AttemptResult, NewDelivery
from consumer.worker.service import COLLECT_EVERY
from tests.databases import database

GROUP = "benchmark"
URL = "https://receiver.example.com/hooks"
FAILED = AttemptFailure("status 503", 503, "unavailable", 1.0)


def rows(total: int, body: bytes, subscriptions: int) -> list[NewDelivery]:
    """Failed first attempts: each record has as many deliveries as there are subscriptions."""
    return [
        NewDelivery(event, subscription, URL, 1, "parked", 100.0, FAILED, FAILED)
        for offset in range(total // subscriptions)
        for event in [
            Event(RecordId("t", 0, offset, 1), "order.created", f"msg_{offset}", body, "application/json", b"k", None)
        ]
        for subscription in range(subscriptions)
    ]


def in_batches(work: Callable[[Sequence[NewDelivery]], object], todo: Sequence[NewDelivery]) -> float:
    """The seconds for all, with a transaction for each batch."""
    start = time.perf_counter()
    for begin in range(0, len(todo), STORE_BATCH):
        work(todo[begin : begin + STORE_BATCH])
    return time.perf_counter() - start


def settle(engine: Engine, ids: Sequence[int]) -> None:
    """Each row is delivered at its second attempt."""
    store.record(engine, GROUP, [AttemptResult(row, 1, "delivered", None, 200, None, 2.0) for row in ids])


def measure(total: int, size: int, subscriptions: int) -> None:
    """Prints one row of the table."""
    todo = rows(total, bytes(size), subscriptions)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "webhooks.db"
        engine = database(path)
        migrations.upgrade(engine)
        seconds = in_batches(lambda batch: store.park(engine, GROUP, batch, 1.0), todo)
        again = in_batches(lambda batch: store.park(engine, GROUP, batch, 1.0), todo)
        ids = count(1)
        settled = in_batches(lambda batch: settle(engine, [next(ids) for _ in batch]), todo)
        engine.dispose()
        stored = path.stat().st_size / len(todo)
    mib = sum(len(row.event.body) for row in todo[::subscriptions]) / 2**20
    print(
        f"  body {size:>6,} B, {subscriptions:>3} of a record:  stored {len(todo) / seconds:>7,.0f} rows/s"
        f" ({mib / seconds:>5.1f} MiB/s of bodies)  again {len(todo) / again:>7,.0f}"
        f"  settled {len(todo) / settled:>7,.0f}  {stored:>6,.0f} bytes a row"
    )


def main(total: int) -> None:
    """Measures small and large bodies, one subscription and many."""
    gc.set_threshold(*COLLECT_EVERY)
    print(f"{total:,} rows, {STORE_BATCH} in a transaction:")
    for size, subscriptions in ((450, 1), (450, 100), (16_384, 1), (16_384, 100)):
        measure(total, size, subscriptions)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
