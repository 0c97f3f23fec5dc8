"""The effect of bad receivers on good ones: latency of good ones alone and beside each kind of bad one.

    python -m benchmarks.isolation [KIND …]

In one run of a worker, at 200 events a second, one good receiver answers at once and one after 50 ms. Each event also
goes to ten bad subscriptions (two if each request is a new TLS connection), or as many further events go only to bad
ones. Then a receiver that serves 400 requests a second with a queue of 50 recovers with a backlog of 6,000 events, all
due.
"""

import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import rig
from benchmarks.bad_receivers import Kind, bad_receiver
from benchmarks.events import create_topic
from benchmarks.neighbours import Company, Latencies, Names, come_back, meet, neighbours, percentile
from tests.end_to_end.deployed_database import SqliteDatabase
from tests.end_to_end.service_rig import Deployment
from tests.end_to_end.webhook_receiver import Receiver

ALONE, BESIDE = 1.5, 4.0  # seconds
PER_SECOND, QUEUE, BACKLOG, LIVE = 400, 50, 6000, 100
PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
COLUMNS = "".join(f"{name:>8}" for name in PARTS)
HEADER = f"""{"":44}{"alone":>32}  {"beside them":>32}{"p95":>10}
{"ms from publishing to the request":44}{COLUMNS}  {COLUMNS}{"ratio":>10}"""


class Row(NamedTuple):
    """A row of the table."""

    bad: Kind | Names
    number: int
    company: Company = Company.SAME_EVENTS
    burst: int = 0


ROWS = (
    Row(Kind.HANG, 10),
    Row(Kind.HANG, 10, Company.OWN_EVENTS, burst=5000),
    Row(Kind.DRIP_HEAD, 10),
    Row(Kind.DRIP_BODY, 10),
    Row(Kind.RESET, 10),
    Row(Kind.REFUSE, 10),
    Row(Kind.FLAP, 10),
    Row(Kind.FAIL, 10),
    Row(Kind.SLOW, 10),
    Row(Kind.TLS_CLOSE, 2),
    Row(Kind.TLS_CLOSE, 10),  # 2,000 new TLS connections a second are more than the process has CPU for
    Row(Names.UNKNOWN, 50),
    Row(Names.HUNG, 50),
)


@contextmanager
def deployed(bootstrap: str) -> Iterator[Deployment]:
    """Its own topic, database and good receiver."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    create_topic(bootstrap, topic)
    with Receiver() as receiver, rig.database([receiver.url("/nothing")], "nothing") as url:
        database = SqliteDatabase(Path(url.removeprefix("sqlite:///")))
        deployment = Deployment(bootstrap, topic, database, receiver, database.path.parent)
        try:
            yield deployment
        finally:
            for worker in deployment.workers:
                worker.kill()


def show(name: str, good: Latencies) -> None:
    """Prints one row of the table."""
    cells = [f"{percentile(values, part) * 1e3:8.1f}" for values in good for part in PARTS.values()]
    ratio = percentile(good.beside, PARTS["p95"]) / percentile(good.alone, PARTS["p95"])
    print(f"{name:44}{''.join(cells[:4])}  {''.join(cells[4:])}{ratio:10.2f}", flush=True)


def show_meeting(bootstrap: str, row: Row, folder: Path) -> None:
    """Prints a row for the receiver that answers at once, and one for the receiver that takes 50 ms."""
    with deployed(bootstrap) as deployment, neighbours(row.bad, row.number, folder) as bad:
        good = meet(deployment, bad, row.company, alone=ALONE, beside=BESIDE, burst=row.burst).good
    burst = f", {row.burst} at once" if row.burst else ""
    for path, latencies in good.items():
        show(f"{row.number} {row.bad}, {row.company}{burst}: {path[1:]}", latencies)


def show_recovery(bootstrap: str) -> None:
    """Prints the latency of others, and the receiver's own counts second by second."""
    with deployed(bootstrap) as deployment, bad_receiver(Kind.LIMITED, str(PER_SECOND), str(QUEUE)) as receiver:
        recovery = come_back(deployment, receiver, backlog=BACKLOG, live=LIVE, within=60)
    for path, latencies in recovery.good.items():
        show(f"one that comes back: {path[1:]}", latencies)
    least = BACKLOG / (PER_SECOND - LIVE)
    print(f"\ncame back to {BACKLOG} due, {LIVE} more a second; takes {PER_SECOND}/s, lets {QUEUE} wait")
    print(f"{recovery.owed} owed after {recovery.took:.1f} s, at best {least:.0f}; {recovery.refused} requests refused")
    for name in recovery.seconds[0]._fields:
        print(f"{name:14}", *(f"{getattr(each, name):5}" for each in recovery.seconds[:25]))


def main(kinds: list[str]) -> None:
    """Prints the table."""
    print(HEADER)
    with rig.kafka() as bootstrap, tempfile.TemporaryDirectory(prefix="webhooks-benchmark-") as folder:
        for row in ROWS:
            if not kinds or row.bad in kinds:
                show_meeting(bootstrap, row, Path(folder))
        if not kinds or Kind.LIMITED in kinds:
            show_recovery(bootstrap)


if __name__ == "__main__":
    main(sys.argv[1:])
