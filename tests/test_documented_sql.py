"""The SQL in the documentation: it runs on the tables, Oracle's reader takes it, and its grants are enough."""

import re
import shlex
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlglot
from sqlalchemy import Engine, event, insert, text
from sqlglot import exp

from consumer import schema
from consumer.event import Event, RecordId
from consumer.ledger import deliveries, due, heads, operations, ordering, replays, store, tallies, upkeep
from consumer.ledger.heads import Want
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptResult, Failure, NewDelivery, Operation, Pair, order_key
from consumer.matching import subscriptions
from consumer.matching.catalog import find_endpoints
from models import Payload
from tests.databases import database
from tests.documentation import BLOCKS, ROOT, Block
from tests.processes import environment

NOW = datetime.now(UTC)
BINDS: dict[str, object] = {
    "url": "https://example.com/new",
    "event_type": "user.created",
    "id": 1,
    "subscription_id": 1,
    "webhook_id": "msg_0",
    "new_secret": "new",
    "in_a_day": NOW + timedelta(days=1),
    "a_month_ago": NOW + timedelta(days=1),  # so that what is made here is old
}
STATEMENTS = [block for block in BLOCKS if block.info == "sql"]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A subscription with a secret, one of its deliveries exhausted (id 1), others parked, and leftovers."""
    subscriptions.add(engine, "https://example.com/hooks", "user.created", "a secret")
    events = [
        Event(RecordId("users", 0, offset, 1), "user.created", f"msg_{offset}", b"{}", "application/json", b"k", None)
        for offset in range(3)
    ]
    now = NOW.timestamp()
    failed = Failure("status 500", 500, "no", now)
    url = "https://example.com/hooks"
    store.park(engine, "webhooks", [NewDelivery(events[0], 1, url, 10, "exhausted", None, failed, failed)], now)
    store.park(engine, "webhooks", [NewDelivery(events[1], 1, url, 1, "parked", now, failed, failed)], now)
    pair = Pair(1, "users", 0, order_key(b"k"))
    store.park(engine, "webhooks", [NewDelivery(events[2], 1, url, 0, "parked", now, pair=pair)], now)
    replays.finish(engine, replays.create(engine, "webhooks", 1, 0.0, now, None, 1.0, []), now)
    with engine.begin() as connection:
        record = {"group_id": "webhooks", "topic": "users", "partition_no": 0, "record_offset": 3, "record_ts": 1}
        connection.execute(insert(Payload).values(**record, event_type="t", webhook_id="msg_3"))
        connection.execute(text("CREATE TABLE IF NOT EXISTS webhook_inbox (webhook_id VARCHAR(64) PRIMARY KEY)"))
    return engine


@pytest.mark.parametrize("block", STATEMENTS, ids=lambda block: f"{block.page}: {block.text[:40]}")
def test_sql_runs(filled: Engine, block: Block) -> None:
    """Each statement runs on the migrated tables and does something; Oracle's reader takes it too (the fixture)."""
    statement = text(block.text)
    if block.text.startswith("CREATE TABLE webhook_inbox"):
        with filled.begin() as connection:
            connection.execute(text("DROP TABLE webhook_inbox"))
            connection.execute(statement)
        return
    if "enabled = 0" in block.text and block.text.startswith("SELECT"):
        upkeep.disable(filled, "webhooks", 1, "the receiver answered 410 Gone")
    with filled.connect() as connection:
        result = connection.execute(statement, {name: BINDS[name] for name in statement._bindparams})
        assert result.all() if result.returns_rows else result.rowcount > 0
        connection.rollback()


def test_marked_sql_is_oracles() -> None:
    """What only Oracle takes is read by Oracle's reader."""
    found = [block for block in BLOCKS if block.info == "sql oracle"]
    assert found
    for block in found:
        for statement in sqlglot.parse(block.text, dialect="oracle"):
            assert statement is not None
            assert not isinstance(statement, exp.Command), block


def granted(grantee: str) -> set[tuple[str, str]]:
    blocks = "".join(block.text for block in BLOCKS if block.info == "sql oracle")
    return {
        (action, table)
        for actions, table in re.findall(rf"GRANT ([A-Z, ]+) ON (\w+) TO {grantee};", blocks)
        for action in actions.split(", ")
    }


@pytest.fixture
def used(engine: Engine) -> set[tuple[str, str]]:
    """What the engine's statements do from now on, to which table: as SQLite's authorizer is told."""
    found: set[tuple[str, str]] = set()
    names = {sqlite3.SQLITE_READ: "SELECT", sqlite3.SQLITE_INSERT: "INSERT", sqlite3.SQLITE_DELETE: "DELETE"}
    names |= {sqlite3.SQLITE_UPDATE: "UPDATE"}

    def authorize(action: int, table: str | None, _column: str | None, _db: str | None, trigger: str | None) -> int:
        if action in names and table and not table.startswith("sqlite_") and trigger is None:
            found.add((names[action], table))
        return sqlite3.SQLITE_OK

    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.set_authorizer(authorize))
    return found


def test_grants_of_a_worker(engine: Engine, used: set[tuple[str, str]]) -> None:
    """A worker's account is granted what its statements need, and no more."""
    subscriptions.add(engine, "https://a.example", "t")
    used.clear()
    schema.state(engine)
    find_endpoints(engine, ["t"], (b"key",), str.encode)
    stored = Event(RecordId("t", 0, 1, 1), "t", "msg_1", b"{}", "application/json", None, None)
    now = NOW.timestamp()
    url = "https://a.example"
    store.park(engine, "g", [NewDelivery(stored, 1, url, 0, "parked", now, pair=Pair(1, "t", 0, order_key(b"k")))], now)
    assert heads.walk(engine, "g", [("t", 0)], None).heads
    wants = [Want(("t", 0, 1), 1, frozenset())]
    (row,) = heads.take(engine, "g", wants, now, default_secrets=(b"key",), decrypt=str.encode).rows
    due.settled_keys(engine, "g", "t", 0, 0)
    due.open_pairs(engine, "g", "t", 0, 1)
    due.open_topics(engine, "g")
    upkeep.failing(engine, 1, now)
    upkeep.recovered(engine, "g", 1, Operation("a", "1", {}))
    upkeep.disable(engine, "g", 1, "gone", Operation("a", "2", {}))
    upkeep.reconcile(engine, now)
    ordering.mend(engine, "g", "t", 0, now)
    store.record(engine, "g", [AttemptResult(row.id, 0, "delivered", None, 200, None, now, row.pair)])
    upkeep.prune(engine, "g", "t", 0, 2)
    upkeep.counts(engine, "g")
    operations.forget(engine, [number for number, _, _ in operations.pending(engine, "g", 2)])
    assert used == granted("webhooks_service")


def test_grants_of_an_administrator(engine: Engine, used: set[tuple[str, str]]) -> None:
    """The account of the API and of `subscriptions` is granted what its statements need, and no more."""
    subscriptions.add(engine, "https://a.example", "t")
    subscriptions.list_all(engine)
    subscriptions.get(engine, 1)
    tallies.of_subscription(engine, 1)
    subscriptions.set_enabled(engine, 1, enabled=False)
    subscriptions.remove(engine, 1)
    used.discard(("DELETE", "webhook_secrets"))  # by the foreign key's cascade, which needs no grant
    assert used == granted("webhooks_admin")


def test_grants_of_an_operator(engine: Engine, used: set[tuple[str, str]]) -> None:
    """The account of `deliveries` and `replay` is granted what its statements need, and no more."""
    subscriptions.add(engine, "https://a.example", "t")
    used.clear()
    subscriptions.get(engine, 1)
    now = NOW.timestamp()
    stored = Event(RecordId("t", 0, 1, 1), "t", "msg_1", b"{}", "application/json", b"k", None)
    number = replays.create(engine, "g", 1, 0.0, now, None, 1.0, [Span("t", 0, 1, 2)])
    assert replays.load(engine, number)
    row = NewDelivery(stored, 1, "https://a.example", 0, "parked", now, replay=number)
    replays.advance(engine, number, "g", [row], {("t", 0): 2}, 1, now)
    replays.finish(engine, number, now)
    assert tallies.of_replay(engine, 1, number, 1)
    assert tallies.next_of_replay(engine, 1, number)
    (found,) = deliveries.find(engine, limit=2)
    assert deliveries.detail(engine, found.id)
    assert [each.ids for each in deliveries.redeliver(engine, deliveries.Selection(ids=[found.id]), now)]
    assert deliveries.progress(engine, [found.id])
    assert [each.moved for each in deliveries.adopt(engine, "g", "h", now)] == [1]
    assert used == granted("webhooks_operator")


def test_adoption_by_the_dba(tmp_path: Path) -> None:
    """The script that the documented command prints adopts a table that Alembic does not know."""
    (block,) = [block for block in BLOCKS if "0001:head" in block.text]
    path = tmp_path / "webhooks.db"
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE webhook_subscriptions (id INTEGER PRIMARY KEY, url VARCHAR(255) NOT NULL,"
        " event_type VARCHAR(50) NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
    )
    connection.execute("INSERT INTO webhook_subscriptions (url, event_type) VALUES ('https://a.example', 't')")
    for line in block.text.splitlines():
        connection.executescript(printed(shlex.split(line.partition(">")[0]), path))
    assert connection.execute("SELECT id, url, enabled FROM webhook_subscriptions").fetchall() == [
        (1, "https://a.example", 1)
    ]
    assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(path),)]
    connection.close()


def printed(words: list[str], path: Path) -> str:
    command = [sys.executable, "-m", "consumer", *words[1:]]
    variables = environment({"DATABASE_URL": f"sqlite:///{path}"})
    ran = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout


def head(path: Path) -> str:
    engine = database(path)
    try:
        return schema.state(engine).head
    finally:
        engine.dispose()
