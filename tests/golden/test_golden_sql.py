"""The files in docs/sql/oracle have all SQL that Oracle receives, word for word."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, LargeBinary, String, Text, event, select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import iterate

from consumer.database.oracle import TEXT
from models import Payload
from tests.golden.golden_check import look, seen, unknown
from tests.golden.golden_sql import COMMAND, FOLDER, MIGRATIONS, ROOT, blocks, issuer, known
from tests.golden.golden_statements import files, printed_migrations
from tests.oracle.oracle_databases import start_emulator
from tests.oracle_emulator import PROFILES

STALE = f"is out of date: run `{COMMAND}` and review the difference"
HEADED = 3  # lines: function, purpose, and the statement's first


@pytest.mark.oracle
@pytest.mark.parametrize("profile", PROFILES)
def test_the_files_have_the_statements_that_the_driver_sends(profile: str) -> None:
    """The files equal the text on the wire for either release, and each statement has a purpose."""
    with start_emulator(PROFILES[profile]) as oracle:
        texts = files(oracle)
        assert oracle.failures == []
    there = {path.name: path.read_text() for path in FOLDER.glob("*.sql") if path != MIGRATIONS}
    assert there.keys() == texts.keys(), f"docs/sql/oracle {STALE}"
    for name, text in texts.items():
        assert there[name] == text, f"docs/sql/oracle/{name} {STALE}"


def test_the_file_of_migrations_is_alembics_output() -> None:
    """So a changed migration shows its SQL in the same review."""
    assert MIGRATIONS.read_text() == printed_migrations(), f"docs/sql/oracle/{MIGRATIONS.name} {STALE}"


@pytest.mark.oracle
def test_only_a_column_in_values_or_a_lob_in_set_may_get_a_long_bind() -> None:
    """Elsewhere each text's type is so short that its bind is never declared above 4,000 bytes, whatever its value.

    Oracle takes a longer bind as LONG, and refuses that in SELECT and WHERE (ORA-01461).
    """
    found: set[tuple[str, str]] = set()

    def note(_: object, __: object, sql: str, ___: object, context: Any, ____: object) -> None:
        if isinstance(context.compiled, SQLCompiler) and issuer() is not None:
            found.update((sql, name) for name in long_binds(context.compiled))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with start_emulator(PROFILES["19c"]) as oracle:
            files(oracle)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert found == set()


def long_binds(compiled: Any) -> list[str]:
    """The names of binds that may be LONG where Oracle refuses it."""
    statement = compiled.statement
    if compiled.isinsert and statement.select is None:
        return []
    where = set(iterate(statement.whereclause)) if compiled.isupdate and statement.whereclause is not None else set()
    return [
        name
        for bind, name in compiled.bind_names.items()
        if not bind.isoutparam
        and isinstance(bind.type, String | LargeBinary)
        and not (compiled.isupdate and isinstance(bind.type, Text | LargeBinary) and bind not in where)
        and (bind.type.length or 0 if isinstance(bind.type, String) else TEXT[0] + 1) > TEXT[0]
    ]


def test_an_unknown_statement_is_noticed(new_engine: Callable[[], Engine]) -> None:
    """Statements of `consumer` are checked on any database; those of other code are not."""
    engine = new_engine()
    event.listen(engine, "before_cursor_execute", look)
    seen.clear()
    issue = "def ask(engine, statement):\n    with engine.connect() as connection: connection.execute(statement)"
    for place in ("tests", "consumer"):
        assert not unknown
        scope: dict[str, Any] = {}
        exec(compile(issue, ROOT / place / "added.py", "exec"), scope)  # noqa: S102 (ours, as if it stood in that file)
        scope["ask"](engine, select(Payload.topic))
    ((sql, function),) = unknown.items()
    unknown.clear()
    engine.dispose()
    assert function == "added.ask"
    assert "webhook_payloads.topic" in sql


def test_a_condition_more_is_another_statement() -> None:
    """So is one condition fewer, unless it is marked as optional."""
    due_key = "SELECT webhook_subscriptions.id FROM webhook_subscriptions WHERE "
    assert not known().has(due_key + "webhook_subscriptions.id = :id_1")
    block = blocks((FOLDER / "ledger_storing.sql").read_text())[0]
    sql = "\n".join(block.splitlines()[HEADED - 1 :])
    assert known().has(sql)
    assert not known().has(sql.replace("\n  AND webhook_payloads.topic = :topic_1", ""))
    assert not known().has(sql + "\n  AND webhook_payloads.has_key = :has_key_1")
