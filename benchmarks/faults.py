"""Latency of good receivers, alone and beside one bad row, filter or record, in one run of a worker.

    python -m benchmarks.faults [FAULT …]

At 200 events a second, one good receiver answers at once and one after 50 ms. Then as many further events follow, each
refused by a receiver and therefore stored; and beside these, the fault. The locked row is on an emulated Oracle (java
17 and maven), because SQLite has no row locks, so its figures compare only with each other.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import text

from benchmarks import rig
from benchmarks.isolation import HEADER, deployed, show
from benchmarks.neighbours import GOOD, RATE, Latencies, measure
from tests.databases import connect_to
from tests.end_to_end.deployed_database import emulated_oracle
from tests.end_to_end.service_rig import SLOW_FILTER, Deployment
from tests.end_to_end.webhook_receiver import Answer, always
from tests.intake.raw_producer import SMALL_READS, write_bomb
from tests.waiting import eventually

ALONE, BESIDE = 4.0, 12.0  # seconds
ROWS = 25  # records that the database refuses
BOMBS = 3
SMALL = {f"KAFKA_{name.upper()}": value for name, value in SMALL_READS.items()}
FIRST = "id = (SELECT MIN(id) FROM webhook_deliveries)"

Fault = Callable[[Deployment], AbstractContextManager[object]]


def met(deployment: Deployment, metric: str) -> None:
    """Stops the run if the worker has not met the fault."""
    if not deployment.workers[0].metric(metric):
        sys.exit(f"{metric} is 0: the fault did not come about")


@contextmanager
def refused_rows(deployment: Deployment) -> Iterator[None]:
    """The database refuses the deliveries of some records."""
    first = max(deployment.committed().values())
    deployment.sql(
        "CREATE TRIGGER refused BEFORE INSERT ON webhook_deliveries"
        f" WHEN NEW.record_offset BETWEEN {first} AND {first + ROWS} BEGIN SELECT RAISE(ABORT, 'refused'); END"
    )
    yield
    met(deployment, "webhooks_set_aside")


@contextmanager
def locked_row(deployment: Deployment) -> Iterator[None]:
    """Another session changes a subscription and one of its open deliveries, and does not commit."""
    engine = connect_to(deployment.database.url)
    with engine.connect() as connection:
        for table, of in (("webhook_subscriptions", "event_type = 'bad-a'"), ("webhook_deliveries", FIRST)):
            connection.execute(text(f"UPDATE {table} SET created_at = created_at WHERE {of}"))  # noqa: S608
        yield
        connection.rollback()
    engine.dispose()


@contextmanager
def slow_filters(deployment: Deployment) -> Iterator[None]:
    """Five filters take 2 ms of CPU each on every stored event."""
    for each in range(5):
        deployment.subscribe("bad-a", f"/slow{each}", event_filter=SLOW_FILTER % each)
    yield
    met(deployment, "webhooks_expressions_left_out")


@contextmanager
def bombs(deployment: Deployment) -> Iterator[None]:
    """Batches that cannot be decompressed arrive."""
    for _ in range(BOMBS):
        write_bomb(deployment.servers, deployment.topic)
    yield


FAULTS: dict[str, Fault] = {
    "none": nullcontext,
    "none, on Oracle": nullcontext,
    "locked row, on Oracle": locked_row,
    "refused rows": refused_rows,
    "slow filters": slow_filters,
    "bombs": bombs,
}


def show_fault(bootstrap: str, name: str) -> None:
    """Prints a row for the receiver that answers at once, and one for the receiver that takes 50 ms."""
    database = emulated_oracle("19c") if name.endswith("Oracle") else nullcontext(None)
    with deployed(bootstrap) as deployment, database as oracle:
        deployment.database = oracle or deployment.database
        for path, delay in GOOD.items():
            deployment.receiver.rules[path] = always(Answer(delay=delay))
            deployment.subscribe("calm", path)
        deployment.receiver.rules["/refuses"] = always(Answer(503))
        deployment.subscribe("bad-a", "/refuses")
        deployment.start(WEBHOOK_RETRY_IN_MEMORY="0", **SMALL)
        measure(deployment, ["calm"] * 50)
        deployment.publish(["bad-a"] * 20)
        eventually(lambda: deployment.rows("parked"))
        alone = measure(deployment, ["calm"] * int(RATE * ALONE))
        with FAULTS[name](deployment):
            beside = measure(deployment, ["calm", "bad-a"] * int(RATE * BESIDE), 2 * RATE)
        for path in GOOD:
            show(f"{name}: {path[1:]}", Latencies(alone[path], beside[path]))


def main(names: list[str]) -> None:
    """Prints the table."""
    print(HEADER)
    with rig.kafka() as bootstrap:
        for name in names or FAULTS:
            show_fault(bootstrap, name)


if __name__ == "__main__":
    main(sys.argv[1:])
