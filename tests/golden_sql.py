"""The SQL that Oracle gets, kept as files that people read: docs/sql/oracle. `make sql` writes them anew.

`migrations.sql` is what `alembic upgrade head --sql` prints. The others hold each statement that `consumer` issues, as
the driver sent it to an emulated server, but for line breaks. While tests run, what `consumer` issues in their process
is looked up there: as it is sent to Oracle, and as it would be where it goes to SQLite.
"""

import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlglot
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import Compiled
from sqlalchemy.sql.compiler import SQLCompiler
from sqlglot import exp

from tests.databases import ORACLE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "sql" / "oracle"
MIGRATIONS = FOLDER / "migrations.sql"
SESSION = FOLDER / "session.sql"  # of SQLAlchemy and of commands, which sqlglot does not read
COMMAND = "make sql"
OTHERS = ("tests", "alembic", "consumer/demo")  # whose statements no service issues
ANY_OF_THESE = "Of the conditions, those that were asked for."

unknown: dict[str, str] = {}  # statements that no file knows, and who issued them
_seen: set[str] = set()


class Issued(NamedTuple):
    """A statement, and the function that issued it: `ledger.store.park`."""

    function: str
    sql: str


class Known(NamedTuple):
    """Canonical statements, and of those whose conditions may be missing the rest and the conditions."""

    exact: frozenset[str]
    loose: tuple[tuple[str, frozenset[str]], ...]

    def has(self, sql: str) -> bool:
        """Whether a file has this statement, however long its lists and whatever of its conditions was asked for."""
        if canonical(sql) in self.exact:
            return True
        rest, conditions = without_conditions(sql)
        return any(rest == other and conditions <= allowed for other, allowed in self.loose)


@pytest.fixture(autouse=True)
def no_unknown_sql() -> Iterator[None]:
    """A test fails in which `consumer` issues a statement that no file has, on whatever engine."""
    yield
    found = dict(unknown)
    unknown.clear()
    assert not found, (
        f"no file in docs/sql/oracle has this: say in tests/golden_statements.py what it is for; `{COMMAND}`"
    )


def issuer() -> str | None:
    """For a listener: the function of `consumer` that issues a statement at this moment; None if it is another's."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if any(path.is_relative_to(ROOT / each) for each in OTHERS):
            return None
        if path.is_relative_to(ROOT / "consumer"):
            module = ".".join(path.relative_to(ROOT / "consumer").with_suffix("").parts)
            return f"{module}.{frame.f_code.co_qualname.split('.<')[0]}"
        frame = frame.f_back  # type: ignore[assignment]  # None in the end
    return None


def known() -> Known:
    """What the files hold."""
    exact: set[str] = set()
    loose: list[tuple[str, frozenset[str]]] = []
    for path in sorted(FOLDER.glob("*.sql")):
        if path in (MIGRATIONS, SESSION):
            continue
        for block in path.read_text().split("\n;\n"):
            sql = "\n".join(line for line in block.splitlines() if not line.startswith("--"))
            if sql.strip():
                exact.add(canonical(sql))
                if ANY_OF_THESE in block:
                    loose.append(without_conditions(sql))
    return Known(frozenset(exact), tuple(loose))


def canonical(sql: str) -> str:
    """A statement without what differs between calls: lengths of lists, numbers of rows, numbers in names of binds."""
    return _canonical(sql).sql(dialect="oracle")


def readable(sql: str) -> str:
    """With line breaks and indents, and otherwise as it is."""
    body, returning, targets = sql.partition(" RETURNING ")  # sqlglot drops INTO
    pretty = sqlglot.parse_one(body, dialect="oracle").sql(dialect="oracle", pretty=True)
    pretty = re.sub(r"NOT (\S+) IS NULL", r"\1 IS NOT NULL", pretty).replace(" <> ", " != ")
    if returning:
        pretty += f"\nRETURNING {targets}"
    if _letters(pretty) != _letters(sql):
        raise ValueError(f"sqlglot writes another statement:\n{pretty}\n{sql}")
    return pretty


def _letters(sql: str) -> str:
    return re.sub(r"\s+", "", sql).lower()


@lru_cache
def _known() -> Known:
    return known()


@event.listens_for(Engine, "before_cursor_execute")
def _look(connection: Connection, _: object, sql: str, __: object, context: Any, ___: object) -> None:
    if sql in _seen or (function := issuer()) is None:
        return
    text = sql if connection.dialect.name == "oracle" else _for_oracle(context.compiled)
    if text and not _known().has(text):
        unknown[text] = function
    _seen.add(sql)  # behind what Oracle's reader refuses, which is so each time


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


def _canonical(sql: str) -> exp.Expr:
    tree = sqlglot.parse_one(re.split(r"\sRETURNING\s", sql)[0], dialect="oracle")
    for bind in tree.find_all(exp.Placeholder):
        bind.set("this", re.sub(r"(_\d+)+$", "", bind.name))
    for listed in tree.find_all(exp.In):
        # Of values, or of tuples of them.
        if all(isinstance(each, exp.Placeholder | exp.Tuple) for each in listed.expressions):
            listed.set("expressions", listed.expressions[:1])
    for either in reversed(list(tree.find_all(exp.Or))):  # one long list, cut in lists that Oracle takes
        if isinstance(either.left, exp.In) and either.left == either.right:
            either.replace(either.left)
    for paren in list(tree.find_all(exp.Paren)):
        if isinstance(paren.this, exp.In):
            paren.replace(paren.this)
    for fetch in tree.find_all(exp.Fetch):
        fetch.set("count", exp.Literal.number(1))
    return tree


def without_conditions(sql: str) -> tuple[str, frozenset[str]]:
    """A statement without any WHERE, and all the conditions of these."""
    tree = _canonical(sql)
    conditions: set[str] = set()
    for where in reversed(list(tree.find_all(exp.Where))):  # the innermost first
        parts = where.this.flatten() if isinstance(where.this, exp.And) else (where.this,)
        conditions.update(each.sql(dialect="oracle") for each in parts)
        where.pop()
    return tree.sql(dialect="oracle"), frozenset(conditions)
