"""A pytest plugin: what `consumer` issues while tests run must stand in docs/sql/oracle.

`python -m pytest -p tests.golden.golden_check`, as in CI. A statement is looked up as it is sent to Oracle,
and as it would be where it goes to SQLite. It costs up to half of a test's time, so it is not part of every run.
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

unknown: dict[str, str] = {}  # statements that no file knows, and who issued them
seen: set[str] = set()


@pytest.fixture(autouse=True)
def no_unknown_sql() -> Iterator[None]:
    """A test fails in which `consumer` issues a statement that no file has, on whatever engine."""
    yield
    found = dict(unknown)
    unknown.clear()
    assert not found, (
        f"no file in docs/sql/oracle has this: say in tests/golden/golden_statements.py what it is for; `{COMMAND}`"
    )


def pytest_configure() -> None:
    """Look at what each engine sends from now on."""
    event.listen(Engine, "before_cursor_execute", look)


def look(connection: Connection, _: object, sql: str, __: object, context: Any, ___: object) -> None:
    """A listener for `before_cursor_execute`."""
    if sql in seen or (function := issuer()) is None:
        return
    text = sql if connection.dialect.name == "oracle" else _for_oracle(context.compiled)
    if text and not _known().has(text):
        unknown[text] = function
    seen.add(sql)  # behind what Oracle's reader refuses, which is so each time


def _for_oracle(compiled: Compiled | None) -> str:
    """What is sent to another database, as it would be to Oracle; nothing for words of its own, such as BEGIN."""
    if compiled is None or compiled.statement is None:
        return ""
    assert isinstance(compiled, SQLCompiler)
    return str(
        compiled.statement.compile(
            dialect=ORACLE,
            column_keys=compiled.column_keys,
            for_executemany=compiled.for_executemany,
            compile_kwargs={"render_postcompile": True},
        )
    )


@lru_cache
def _known() -> Known:
    return known()
