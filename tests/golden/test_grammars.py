"""Two grammars parse our Oracle SQL and that of the documentation, and refuse other databases' SQL."""

import io
import re
from collections.abc import Iterator

import pytest
from alembic import command

from consumer.database import migrations
from tests.databases import connect_to
from tests.docs.documentation import BLOCKS, TEXTS
from tests.golden.golden_sql import FOLDER, MIGRATIONS, bare, blocks
from tests.golden.grammars import GRAMMARS, LIMITS, limit
from tests.oracle import sqlplus
from tests.oracle.wrong_sql import WRONG
from tests.provided import or_skip

NOWHERE = "oracle+oracledb://nobody:nothing@nowhere/?service_name=x"
# Both grammars are more lenient than Oracle; the emulator is not (tests/oracle/test_refusals.py).
NOT_SEEN = {
    "SELECT EXISTS (SELECT 1 FROM t) FROM dual",
    "SELECT id FROM t FETCH FIRST 5 ROWS ONLY FOR UPDATE",
    "SELECT id FROM t WHERE enabled = TRUE",
    "SELECT id FROM t WHERE (a, b) = (1, 2)",
    "SELECT id FROM t WHERE (a, b) > ((1, 2))",
    "SELECT SYSDATE() FROM dual",
    "SELECT CURRENT_TIMESTAMP() FROM dual",
    "DROP INDEX ix_t ON t",
    # A grammar accepts any word as a type or column.
    "CREATE TABLE x (name TEXT)",
    "CREATE TABLE x (id BIGINT)",
    "CREATE TABLE x (at TIMESTAMPTZ)",
    "CREATE TABLE x (enabled BOOLEAN)",
    "CREATE TABLE x (data JSON)",
    "CREATE TABLE x (level NUMBER)",
}


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
    """This is one test because a grammar is slow until it has met each construct.

    If a grammar refuses a statement of ours, the reason is listed and still holds, and the other grammar accepts it. Of
    other databases' statements the grammars together accept only those listed here; the documentation has the numbers.
    """
    or_skip(lambda: [grammar("SELECT 1 FROM dual") for grammar in GRAMMARS], "ORACLE")
    statements = dict.fromkeys(ours())
    assert len(statements) > 300
    for grammar in GRAMMARS:
        refused = {sql: error for sql in statements if (error := grammar(sql))}
        assert {sql: error for sql, error in refused.items() if not limit(grammar, sql)} == {}
        assert {sql for sql in statements if limit(grammar, sql)} == set(refused)
        assert {limit(grammar, sql) for sql in refused} == set(LIMITS[grammar].values())
        assert all(grammar(sql) for sql in documented("sql unread"))
    assert [sql for sql in statements if all(limit(grammar, sql) for grammar in GRAMMARS)] == []
    taken = {wrong.sql for wrong in WRONG if not any(grammar(wrong.sql) for grammar in GRAMMARS)}
    assert taken == NOT_SEEN
    assert f"{len(WRONG) - len(taken)} of {len(WRONG)}" in TEXTS["docs/database.md"]
