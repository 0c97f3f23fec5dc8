"""The SQL in the documentation runs on the tables, and its grants suffice."""

import shlex
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text

from consumer.database import migrations
from consumer.events.event import Event, RecordId
from consumer.ledger import replays, store, upkeep
from consumer.ledger.replays import Span
from consumer.ledger.rows import AttemptFailure, NewDelivery, OrderingKey, order_key
from consumer.subscriptions import repository
from models import Payload
from tests.databases import database
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture: what speaks SQL)
from tests.docs.documentation import BLOCKS, Block
from tests.processes import environment

NOW = datetime.now(UTC)
BINDS: dict[str, object] = {
    "url": "https://example.com/new",
    "event_type": "user.created",
    "id": 1,
    "subscription_id": 1,
    "group_id": "webhooks",
    "webhook_id": "msg_0",
    "new_secret": "new",
    "in_a_day": NOW + timedelta(days=1),
    "a_month_ago": NOW - timedelta(days=30),
}
STATEMENTS = [block for block in BLOCKS if block.info == "sql" or "SYS_EXTRACT_UTC" in block.text]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A subscription with a secret, one of its deliveries exhausted (id 1), others parked, and leftovers."""
    repository.add(engine, "https://example.com/hooks", "user.created", "a secret")
    events = [
        Event(RecordId("users", 0, offset, 1), "user.created", f"msg_{offset}", b"{}", "application/json", b"k", None)
        for offset in range(3)
    ]
    now = (NOW - timedelta(days=31)).timestamp()
    failed = AttemptFailure("status 500", 500, "no", now)
    url = "https://example.com/hooks"
    store.park(engine, "webhooks", [NewDelivery(events[0], 1, url, 10, "exhausted", None, failed, failed)], now)
    store.park(engine, "webhooks", [NewDelivery(events[1], 1, url, 1, "parked", now, failed, failed)], now)
    pair = OrderingKey(1, "users", 0, order_key(b"k"))
    store.park(engine, "webhooks", [NewDelivery(events[2], 1, url, 0, "parked", now, ordering_key=pair)], now)
    cancelled = replays.create(engine, "webhooks", 1, 0.0, now, None, 1.0, [Span("users", 0, 0, 9)], now)
    replays.cancel(engine, cancelled, now)
    with engine.begin() as connection:
        record = {"group_id": "webhooks", "topic": "users", "partition_no": 0, "record_offset": 3, "record_ts": 1}
        connection.execute(insert(Payload).values(**record, event_type="t", webhook_id="msg_3"))
        connection.execute(text("CREATE TABLE webhook_inbox (webhook_id VARCHAR(64) PRIMARY KEY)"))
    return engine


@pytest.mark.parametrize("block", STATEMENTS, ids=lambda block: f"{block.page}: {block.text[:40]}")
def test_sql_runs(filled: Engine, block: Block) -> None:
    """Each statement runs on the migrated tables and has an effect."""
    if block.info == "sql oracle" and filled.dialect.name != "oracle":
        pytest.skip("only Oracle has its functions")
    statement = text(block.text.rstrip().removesuffix(";"))
    if block.text.startswith("CREATE TABLE webhook_inbox"):
        with filled.begin() as connection:
            connection.execute(text("DROP TABLE webhook_inbox"))
            connection.execute(statement)
        return
    if "enabled = 0" in block.text and block.text.startswith("SELECT"):
        upkeep.disable(filled, "webhooks", 1, "the receiver answered 410 Gone")
    with filled.connect() as connection:
        result = connection.execute(statement.bindparams(**{name: BINDS[name] for name in statement._bindparams}))
        assert result.all() if result.returns_rows else result.rowcount > 0
        connection.rollback()


def test_adoption_by_the_dba(tmp_path: Path) -> None:
    """The script printed by the documented command adopts a table that Alembic does not know."""
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
    assert connection.execute("SELECT version_num FROM webhook_alembic_version").fetchall() == [(head(path),)]
    connection.close()


def printed(words: list[str], path: Path) -> str:
    command = [sys.executable, "-m", "consumer", *words[1:]]
    variables = environment({"DATABASE_URL": f"sqlite:///{path}"})
    where = path.parent
    ran = subprocess.run(command, cwd=where, env=variables, capture_output=True, text=True, timeout=200, check=True)
    return ran.stdout


def head(path: Path) -> str:
    engine = database(path)
    try:
        return migrations.state(engine).head
    finally:
        engine.dispose()
