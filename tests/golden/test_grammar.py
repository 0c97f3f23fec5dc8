"""A grammar parses our Oracle SQL and that of the documentation, and refuses other databases' SQL."""

import io
import re
from collections.abc import Iterator

import pytest
from alembic import command

from consumer.database import migrations
from tests.databases import connect_to
from tests.docs.documentation import BLOCKS
from tests.golden.golden_sql import FOLDER, MIGRATIONS, bare, blocks
from tests.golden.grammar import fault
from tests.oracle import sqlplus
from tests.provided import or_skip

NOWHERE = "oracle+oracledb://nobody:nothing@nowhere/?service_name=x"
# SQL of other databases, much of which the emulator accepts. It refuses what the grammar lets pass
# (tests/oracle/test_refusals.py).
FOREIGN = [
    "SELECT id FROM t LIMIT 5",
    "SELECT 1",
    "SELECT x.id FROM t AS x",
    "SELECT y.id FROM t x JOIN u AS y ON x.id = y.id",
    "SELECT id FROM t WHERE name ILIKE 'x%'",
    "SELECT COUNT(*) FILTER (WHERE id > 1) FROM t",
    "WITH RECURSIVE x (id) AS (SELECT 1 FROM dual) SELECT id FROM x",
    "INSERT INTO t (id) VALUES (1), (2)",
    "INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING",
    "UPDATE t SET name = u.name FROM u WHERE t.id = u.id",
    "DELETE FROM t WHERE id > 1 LIMIT 5",
    "ALTER TABLE t ADD COLUMN title VARCHAR2(10)",
    "ALTER TABLE t ALTER COLUMN name SET NOT NULL",
    "ALTER TABLE t MODIFY COLUMN name VARCHAR2(20)",
    "CREATE TABLE IF NOT EXISTS x (id NUMBER)",
    "DROP TABLE IF EXISTS t",
    "CREATE INDEX IF NOT EXISTS ix_t ON t (id)",
    "CREATE INDEX ix_t ON t (id) WHERE id > 1",
    "CREATE TABLE x (id NUMBER(1) NOT NULL DEFAULT 1)",
]


def ours() -> Iterator[str]:
    """The statements of docs/sql, of the scripts that Alembic prints, and of the documentation."""
    for path in sorted(set(FOLDER.glob("*.sql")) - {MIGRATIONS}):
        yield from map(bare, blocks(path.read_text()))
    yield from sqlplus.statements(MIGRATIONS.read_text())
    engine = connect_to(NOWHERE)
    adoption, way_back = io.StringIO(), io.StringIO()
    migrations.upgrade(engine, revision="0001:head", sql=True, output=adoption)
    command.downgrade(migrations._config(engine, way_back), "head:base", sql=True)
    yield from sqlplus.statements(adoption.getvalue())
    yield from sqlplus.statements(way_back.getvalue())
    yield from documented("sql")
    yield from documented("sql oracle")


def documented(info: str) -> Iterator[str]:
    """The statements of blocks with this info string; a partition clause gets a beginning."""
    for block in BLOCKS:
        if block.info == info:
            beginning = "CREATE TABLE t (a NUMBER) " if block.text.startswith("PARTITION BY ") else ""
            yield from (beginning + text.strip() for text in re.split(r";\n|\n/\n", block.text) if text.strip())


@pytest.mark.oracle
@pytest.mark.timeout(600)  # half a minute of CPU
def test_our_sql_parses_and_other_databases_sql_does_not() -> None:
    """This is one test because the grammar is slow until it has met each construct."""
    or_skip(lambda: fault("SELECT 1 FROM dual"), "ORACLE")
    statements = dict.fromkeys(ours())
    assert len(statements) > 300
    assert {sql: error for sql in statements if (error := fault(sql))} == {}
    assert [sql for sql in (*FOREIGN, *documented("sql unread")) if not fault(sql)] == []
