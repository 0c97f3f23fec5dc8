"""Measures the costs of the simulation that no other benchmark measures: CPU time, and statements.

python -m benchmarks.fleet.measure

It uses SQLite in a temporary directory, and receivers on loopback in a process of their own. CPU time is that of this
process: with SQLite it includes the database's work, of which a worker on Oracle has only the driver's part.
"""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import trustme
from requests import PreparedRequest, RequestException, Response
from sqlalchemy import Engine, event

from benchmarks import rig
from benchmarks.events import create_topic, fill
from benchmarks.parking import GROUP, in_batches, rows
from consumer.config.settings import KafkaSettings
from consumer.crypto.keys import parse_signing_key
from consumer.crypto.vault import Vault
from consumer.database import migrations
from consumer.delivery.parking import STORE_BATCH
from consumer.delivery.recall import DUE_KEYS
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.decode import decode
from consumer.ledger import assigned, cursors, due, marks, ordering, outbox, store, upkeep
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.due import FetchRequest
from consumer.ledger.rows import AttemptFailure, AttemptResult
from consumer.loop.poller import Poller
from consumer.matching.catalog import find_endpoints
from consumer.matching.subscribers import find_subscribers
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.subscriptions.endpoint_row import Rules
from consumer.worker.catch_up import ALONE
from consumer.worker.cursor_looks import look_up
from models import CursorReason, Subscription
from tests.databases import database

SECRETS = (parse_signing_key("benchmark-secret"),)
LATER = 200.0  # seconds: the rows of `rows` are due by then
REQUESTS, OPEN = 4_000, 100
RECORDS_READ = 100_000
FAILED = AttemptFailure("status 503", 503, "unavailable", 1.0)


@contextmanager
def ledger(subscriptions: int) -> Iterator[Engine]:
    """A migrated database with so many subscriptions, each to a type of its own."""
    with tempfile.TemporaryDirectory(prefix="webhooks-fleet-") as folder:
        engine = database(Path(folder) / "webhooks.db")
        migrations.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(
                Subscription.__table__.insert(),  # type: ignore[attr-defined]  # a table
                [{"url": "https://r.example.com/h", "event_type": f"t.{each}"} for each in range(1, subscriptions + 1)],
            )
        yield engine
        engine.dispose()


@contextmanager
def counting(engine: Engine) -> Iterator[Counter[str]]:
    """Counts statements meanwhile by their first word; one execution with many rows is one."""
    seen: Counter[str] = Counter()

    def note(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        word = sql.split(maxsplit=1)[0]
        if word not in {"BEGIN", "PRAGMA"}:
            seen[word] += 1

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def statements(engine: Engine) -> dict[str, int]:
    """The number of statements of each ledger function, as the simulation counts them."""
    counts: dict[str, int] = {}

    def count(name: str, work: Callable[[], object]) -> None:
        with counting(engine) as seen:
            work()
        counts[name] = seen.total()

    take = partial(due.fetch, engine, GROUP, now=LATER, default_secrets=SECRETS, decrypt=Vault().decrypt)
    count("lookup", lambda: find_endpoints(engine, [("t.1", None), ("t.2", None)], SECRETS, Vault().decrypt))
    count("marks_poll", lambda: marks.recent(engine, GROUP, None))
    count("scan_empty", lambda: assigned.scan(engine, GROUP, [("t", 0)], None))
    count("relay_look", lambda: outbox.pending(engine, GROUP, 100))
    both = [("t", 0), ("t", 1)]
    count("find_idle", lambda: assigned.with_rows(engine, GROUP, both))
    count("repair", lambda: ordering.repair(engine, GROUP, "t", 0, 1.0))
    count("prune_idle", lambda: _prune(engine, 0))
    count("topics_idle", lambda: assigned.open_topics(engine, GROUP))
    count("reconcile_idle", lambda: upkeep.reconcile(engine, 1.0))
    count("expire", lambda: (outbox.expire(engine, GROUP, 0.0), marks.expire(engine, GROUP, 0.0)))
    count(
        "count_partition",
        lambda: (assigned.next_partition(engine, GROUP, "t", -1), upkeep.waiting(engine, GROUP, "t", 0)),
    )
    count(
        "assigned",
        lambda: (
            assigned.settled_keys(engine, GROUP, "t", 0, 0),
            cursors.of_partition(engine, GROUP, ("t", 0)),
            assigned.open_keys(engine, GROUP, "t", 0, 100),
        ),
    )
    count("store", lambda: store.park(engine, GROUP, rows(4, b"{}", 2), 1.0))
    count("scan_two_keys", lambda: assigned.scan(engine, GROUP, [("t", 0)], None))
    count("find", lambda: assigned.with_rows(engine, GROUP, both))
    count("topics", lambda: assigned.open_topics(engine, GROUP))
    count("reconcile_two", lambda: upkeep.reconcile(engine, 1.0))
    wants = [FetchRequest(("t", 0, each), 10, frozenset()) for each in (0, 1)]
    count("fetch_two_keys", lambda: take(wants))
    first = [AttemptResult(row, 1, "parked", LATER, 503, FAILED, 2.0) for row in (1, 2)]
    count("result_again", lambda: store.record(engine, GROUP, first))
    untried = [AttemptResult(row, 0, "parked", LATER, 503, FAILED, 2.0) for row in (3, 4)]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE webhook_deliveries SET attempt = 0 WHERE id IN (3, 4)")
    count("result_first", lambda: store.record(engine, GROUP, untried))
    delivered = [AttemptResult(row, 2, "delivered", None, 200, None, 3.0) for row in (1, 2)]
    count("result_delivered", lambda: store.record(engine, GROUP, delivered))
    count("prune", lambda: _prune(engine, 100))
    keys = [("t", 0, 1), ("t", 0, 2)]
    begun = [NewCursor(key, 5, CursorReason.BEHIND) for key in keys]
    count("cursor_begun", lambda: cursors.begin(engine, GROUP, begun, 1.0))
    find = partial(find_subscribers, engine, SECRETS, Vault().decrypt)
    count("cursor_look", lambda: look_up(engine, GROUP, find, keys, (), None))
    count("cursor_look_new", lambda: look_up(engine, GROUP, find, keys, keys, None))
    count("cursor_saved", lambda: cursors.save(engine, [CursorMove(1, 0, 6, None, "", None)], 2.0))
    return counts


def _prune(engine: Engine, mark: int) -> None:
    marks.prune(engine, GROUP, "t", 0, mark)
    cursors.prune(engine, GROUP, ("t", 0), mark)
    upkeep.prune(engine, GROUP, "t", 0, mark)


def cpu(work: Callable[[], object], of: int) -> float:
    """Microseconds of CPU for each of `of` items."""
    before = time.process_time()
    work()
    return (time.process_time() - before) / of * 1e6


def rows_cost(total: int) -> dict[str, float]:
    """Microseconds of CPU for storing, fetching and settling a row, in full batches."""
    with ledger(DUE_KEYS) as engine:
        todo = [
            row._replace(subscription_id=1 + place % DUE_KEYS) for place, row in enumerate(rows(total, bytes(450), 1))
        ]
        stored = cpu(lambda: in_batches(lambda batch: store.park(engine, GROUP, batch, 1.0), todo), total)
        one = [FetchRequest(("t", 0, each), STORE_BATCH // DUE_KEYS, frozenset()) for each in range(1, DUE_KEYS + 1)]
        take = partial(due.fetch, engine, GROUP, now=LATER, default_secrets=SECRETS, decrypt=Vault().decrypt)
        taken = cpu(lambda: [take(one, rules=Rules()) for _ in range(total // STORE_BATCH)], total)
        small = cpu(lambda: [take([each]) for each in _single(total // STORE_BATCH)], total // STORE_BATCH)
        settled = cpu(partial(_settle, engine, total), total)
    return {"row stored": stored, "row taken up": taken, "one of a look for one row": small / 4, "row settled": settled}


def _single(number: int) -> Iterator[FetchRequest]:
    return (FetchRequest(("t", 0, 1 + each % DUE_KEYS), 1, frozenset()) for each in range(number))


def _settle(engine: Engine, total: int) -> None:
    for begin in range(1, total, STORE_BATCH):
        ids = range(begin, begin + STORE_BATCH)
        store.record(engine, GROUP, [AttemptResult(each, 1, "delivered", None, 200, None, 2.0) for each in ids])


def lookup_cost(number: int) -> dict[str, float]:
    """Microseconds of CPU of a look-up of one key, and of each further key."""
    with ledger(512) as engine:
        find = partial(find_endpoints, engine, default_secrets=SECRETS, decrypt=Vault().decrypt)
        keys = [(f"t.{each}", None) for each in range(1, 513)]
        find(keys[:1])
        one = cpu(lambda: [find(keys[each % 512 : each % 512 + 1]) for each in range(number)], number)
        many = cpu(lambda: [find(keys[:256]) for _ in range(number // 16)], number // 16)
    return {"look-up": one, "a key more": (many - one) / 255}


RECEIVER = """
import asyncio, ssl, sys
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            size = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
            await reader.readexactly(size)
            end = b"connection: close\\r\\n" if sys.argv[1] == "close" else b""
            writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 0\\r\\n" + end + b"\\r\\n")
            if end:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
async def main():
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2])
        context.num_tickets = int(sys.argv[3])
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def receiver(*arguments: str) -> Iterator[int]:
    """The port of a receiver that keeps connections or closes them."""
    command = [sys.executable, "-c", RECEIVER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None  # noqa: S101 (for the type checker)
        try:
            yield int(child.stdout.readline())
        finally:
            child.terminate()


def exchange_cost(url: str) -> tuple[float, int]:
    """Microseconds of CPU of a request and its answer, and the number of connections opened for all of them."""
    poller = Poller()
    adapter = LoopAdapter(
        poller,
        egress=EgressPolicy((ip_network("127.0.0.0/8"),), allow_http=True),
        timeout=15.0,
        connect_timeout=5.0,
        max_connections=OPEN,
    )
    done: list[Response | RequestException] = []
    sent = 0

    def run(number: int) -> None:
        nonlocal sent
        goal = len(done) + number
        while len(done) < goal:
            while sent < goal and sent - len(done) < OPEN:
                request = PreparedRequest()
                request.prepare("POST", url, data=bytes(450))
                adapter.submit(request, done.append)
                sent += 1
            poller.turn(0.01)

    run(OPEN)
    before = adapter.connections_opened
    took = cpu(lambda: run(REQUESTS), REQUESTS)
    opened = adapter.connections_opened - before
    wrong = [each for each in done if not isinstance(each, Response)]
    if wrong:
        raise wrong[0]
    adapter.close()
    poller.close()
    return took, opened


def connection_cost() -> dict[str, float]:
    """Microseconds of CPU for opening a connection: plain, by TLS, and by TLS with a resumed session."""
    costs = {}
    authority = trustme.CA()
    with tempfile.TemporaryDirectory(prefix="webhooks-fleet-") as folder, ExitStack() as stack:
        pem, trusted = Path(folder) / "server.pem", Path(folder) / "authority.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
        authority.cert_pem.write_to_path(str(trusted))
        stack.enter_context(environment(SSL_CERT_FILE=str(trusted)))
        for name, scheme, more in (
            ("plain", "http", ()),
            ("TLS", "https", (str(pem), "0")),
            ("TLS, resumed", "https", (str(pem), "2")),
        ):
            took = {}
            for how in ("keep", "close"):
                with receiver(how, *more) as port:
                    took[how], opened = exchange_cost(f"{scheme}://127.0.0.1:{port}/")
                    if opened != (REQUESTS if how == "close" else 0):
                        raise RuntimeError(f"{opened} connections were opened")
            costs[name] = took["close"] - took["keep"]
    return costs


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Sets these variables meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def record_cost() -> float:
    """Microseconds of CPU for a record that a cursor's pass reads, and that no member gets."""
    with rig.kafka() as bootstrap:
        topic = f"fleet-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, 1)
        fill(bootstrap, topic, RECORDS_READ)
        settings = KafkaSettings(bootstrap_servers=bootstrap, group_id=topic, dead_letter_topic=f"{topic}.dead")
        reader = CursorReader(settings)
        reader.seek((topic, 0), 0)

        def run() -> None:
            while reader.positions[topic, 0] < RECORDS_READ:
                for record in reader.read(ALONE.records):
                    decode(record)

        took = cpu(run, RECORDS_READ)
        reader.close()
    return took


def show(title: str, figures: dict[str, float] | dict[str, int]) -> None:
    """Prints a part of the output."""
    print(title)
    for name, value in figures.items():
        print(f"  {name:<26} {value:>8.1f}")


def main() -> None:
    """Measures and prints all costs."""
    with ledger(2) as engine:
        show("statements:", statements(engine))
    show("a record that is read, µs of CPU:", {"record": record_cost()})
    show("rows, µs of CPU each:", rows_cost(20 * STORE_BATCH))
    show("look-ups, µs of CPU each:", lookup_cost(1600))
    show("opening a connection, µs of CPU more than where it is kept:", connection_cost())


if __name__ == "__main__":
    main()
