"""A pytest plugin: statements that `consumer` issues during tests must be in docs/sql/oracle.

`python -m pytest -p tests.golden.golden_check`, as in CI. A statement is looked up in the text sent to Oracle; one sent
to SQLite is compiled for Oracle first. This costs up to half of a test's time, so it is not part of every run.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.sql.compiler import SQLCompiler

from tests.databases import ORACLE
from tests.golden.golden_sql import COMMAND, Known, issuer, known

unknown: dict[str, str] = {}  # statements missing in the files, with the functions that issued them
seen: set[str] = set()


@pytest.fixture(autouse=True)
def no_unknown_sql() -> Iterator[None]:
    """Fails a test in which `consumer` issues a statement that is in no file, on any database."""
    yield
    found = dict(unknown)
    unknown.clear()
    assert not found, (
        f"not in docs/sql/oracle: state its purpose in tests/golden/golden_statements.py, then run `{COMMAND}`"
    )


def pytest_configure() -> None:
    """Checks the statements of every engine from now on."""
    event.listen(Engine, "before_cursor_execute", look)


def look(connection: Connection, _: object, sql: str, __: object, context: Any, ___: object) -> None:
    """A listener for `before_cursor_execute`."""
    if sql in seen or (function := issuer()) is None:
        return
    text = sql if connection.dialect.name == "oracle" else _for_oracle(context)
    if text and not _known().has(text):
        unknown[text] = function
    seen.add(sql)  # last: a statement that sqlglot cannot parse must fail each time


def _for_oracle(context: Any) -> str:
    """A statement for another database, compiled for Oracle; empty for raw SQL such as BEGIN."""
    compiled: Compiled | None = context.compiled
    if compiled is None or compiled.statement is None:
        return ""
    assert isinstance(compiled, SQLCompiler)
    statement: Any = compiled.statement
    for name, bind in compiled.binds.items():
        if bind.expanding and bind.value is None:  # bound as it runs: the text has as many values as were given
            width = len(getattr(bind.type, "types", ())) or 1
            value = ("",) * width if width > 1 else ""
            statement = statement.params({name: [value] * (len(context._expanded_parameters[name]) // width)})
    return str(
        statement.compile(
            dialect=ORACLE,
            column_keys=compiled.column_keys,
            for_executemany=compiled.for_executemany,
            compile_kwargs={"render_postcompile": True},
        )
    )


@lru_cache
def _known() -> Known:
    return known()
