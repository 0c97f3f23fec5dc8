"""Oracle's SQL, ours and the documentation's, is read by two grammars of it; those refuse another database's."""

import re
from collections.abc import Iterator

import pytest

from tests import sqlplus
from tests.documentation import BLOCKS, TEXTS
from tests.golden_sql import FOLDER, MIGRATIONS, bare, blocks
from tests.golden_statements import migrations
from tests.grammars import GRAMMARS, LIMITS, Grammar, limit
from tests.oracle.wrong_sql import WRONG
from tests.oracle_databases import or_skip

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
    # To a grammar any word may be a type or a column.
    "CREATE TABLE x (name TEXT)",
    "CREATE TABLE x (id BIGINT)",
    "CREATE TABLE x (at TIMESTAMPTZ)",
    "CREATE TABLE x (enabled BOOLEAN)",
    "CREATE TABLE x (data JSON)",
    "CREATE TABLE x (level NUMBER)",
}


def ours() -> Iterator[str]:
    """Each statement of docs/sql, of the scripts that Alembic prints, and of the documentation."""
    for path in sorted(set(FOLDER.glob("*.sql")) - {MIGRATIONS}):
        yield from map(bare, blocks(path.read_text()))
    for words in (("upgrade", "head"), ("upgrade", "0001:head"), ("downgrade", "head:base")):
        yield from sqlplus.statements(migrations(*words))
    yield from documented("sql")
    yield from documented("sql oracle")


def documented(info: str) -> Iterator[str]:
    """The statements of blocks that are so marked; one that is the end of a statement gets a beginning."""
    for block in BLOCKS:
        if block.info == info:
            beginning = "CREATE TABLE t (a NUMBER) " if block.text.startswith("PARTITION BY ") else ""
            yield from (beginning + text.strip() for text in re.split(r";\n|\n/\n", block.text) if text.strip())


@pytest.fixture(scope="module")
def statements() -> list[str]:
    found = list(dict.fromkeys(ours()))
    assert len(found) > 300
    return found


@pytest.mark.oracle
@pytest.mark.timeout(600)  # half a minute of CPU
@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_grammar_takes_all_but_what_is_beyond_it(statements: list[str], grammar: Grammar) -> None:
    """What it refuses has a reason that is known; and each reason still holds."""
    or_skip(lambda: grammar("SELECT 1 FROM dual"))
    refused = {sql: error for sql in statements if (error := grammar(sql))}
    assert {sql: error for sql, error in refused.items() if not limit(grammar, sql)} == {}
    assert {limit(grammar, sql) for sql in refused} == set(LIMITS[grammar].values())
    assert {sql for sql in statements if limit(grammar, sql)} == set(refused)
    assert all(grammar(sql) for sql in documented("sql unread"))


def test_what_is_beyond_one_grammar_is_taken_by_the_other(statements: list[str]) -> None:
    """No statement of ours goes unread."""
    assert [sql for sql in statements if all(limit(grammar, sql) for grammar in GRAMMARS)] == []


@pytest.mark.oracle
@pytest.mark.timeout(600)
def test_the_grammars_refuse_another_databases_sql() -> None:
    """All but a few, which are named; the documentation has the numbers."""
    or_skip(lambda: [grammar("SELECT 1 FROM dual") for grammar in GRAMMARS])
    taken = {wrong.sql for wrong in WRONG if not any(grammar(wrong.sql) for grammar in GRAMMARS)}
    assert taken == NOT_SEEN
    assert f"{len(WRONG) - len(taken)} of {len(WRONG)}" in TEXTS["docs/database.md"]
