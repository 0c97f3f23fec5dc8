"""The names and types of a statement, checked as Oracle checks them before it runs the statement."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.dialects.oracle import Oracle
from sqlglot.errors import SqlglotError
from sqlglot.parsers.oracle import OracleParser

from tests.oracle_emulator import values
from tests.oracle_emulator.errors import Unsupported, refused
from tests.oracle_emulator.instance import Bind
from tests.oracle_emulator.kinds import Kind
from tests.oracle_emulator.query_rules import change, query, table_key
from tests.oracle_emulator.refusals import RESERVED
from tests.oracle_emulator.scopes import Output, World, name_of
from tests.oracle_emulator.tokens import Token, tokens_of

Columns: TypeAlias = tuple[tuple[str, str], ...]  # names and types of a table's columns

LONGEST_LITERAL = 4000  # bytes
_CALLED = {"CAST", "EXTRACT", "JSON_TABLE", "TRIM"}  # functions with words between their arguments
_NO_NAMES = {"ROWNUM", "ROWID", "SYSDATE", "USER", "DEFAULT"}  # reserved words that sqlglot takes for columns
_KINDS = {
    **dict.fromkeys(values.TEXTS, Kind.CHAR),
    **dict.fromkeys(values.BYTES, Kind.RAW),
    **dict.fromkeys((values.NUMBER, values.BINARY_INTEGER), Kind.NUMBER),
    values.DATE: Kind.DATE,
    values.TIMESTAMP: Kind.TIMESTAMP,
    **dict.fromkeys((values.TIMESTAMP_TZ, values.TIMESTAMP_LTZ), Kind.TIMESTAMP_TZ),
    values.CLOB: Kind.CLOB,
    values.BLOB: Kind.BLOB,
    values.BOOLEAN: Kind.BOOLEAN,
}
_BY_NAME = {
    **{str(kind): kind for kind in Kind},
    "VARCHAR2": Kind.CHAR,
    "RAW": Kind.RAW,
    "FLOAT": Kind.NUMBER,
}  # of columns


class Target(NamedTuple):
    """A change's table, and the columns (by name or place) that get a bind as it is, by the bind's position."""

    table: tuple[str, str]
    in_values: bool  # INSERT … VALUES
    places: dict[int, str | int]


class _Plain(Oracle):
    """Oracle's dialect, in which a function keeps its name."""

    class Parser(OracleParser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {name: OracleParser.FUNCTION_PARSERS[name] for name in _CALLED}


def tables_of(sql: str) -> frozenset[tuple[str, str]]:
    """The tables that a statement names: owner, if it has one, and name. Raises OracleError if it cannot be read."""
    return _read(sql)[1]


@lru_cache(maxsize=5000)
def check(sql: str, binds: Sequence[Bind], tables: Sequence[tuple[tuple[str, str], Columns]], release: int) -> None:
    """Raises OracleError if Oracle would refuse the names or types of a query or change.

    `tables` has the columns of each table.
    """
    tree, _ = _read(sql)
    kinds = {name: _kind(bind) for name, bind in zip(_bind_names(sql), binds, strict=False)}
    world = World({key: _columns(key, columns) for key, columns in tables}, kinds, release)
    _check_reserved(tree)
    most = 1000 if release < 23 else 65535
    if any(len(each.expressions) > most for each in tree.find_all(exp.In)):
        raise refused(1795, most)
    try:
        if isinstance(tree, exp.Query):
            query(tree, None, world)
        else:
            change(tree, world)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # a tree of another shape
        raise Unsupported(900, f"invalid SQL statement (no rule reads it: {error!r})") from error


def target(sql: str) -> Target:
    """The target of a change; without places for a query."""
    tree, _ = _read(sql)
    given: dict[str, str | int] = {}
    in_values = isinstance(tree, exp.Insert) and isinstance(tree.expression, exp.Values)
    if in_values:
        columns = [name_of(each) for each in tree.this.expressions] if isinstance(tree.this, exp.Schema) else []
        for place, value in enumerate(tree.expression.expressions[0].expressions):
            if isinstance(value, exp.Placeholder):
                given[value.name] = columns[place] if columns else place
    elif isinstance(tree, exp.Update):
        for each in tree.expressions:
            if isinstance(each.expression, exp.Placeholder) and isinstance(each.this, exp.Column):
                given[each.expression.name] = name_of(each.this.this)
    names = _bind_names(sql)
    places = {names.index(name): place for name, place in given.items() if names.count(name) == 1}
    table = tree.find(exp.Table)
    return Target(table_key(table) if table is not None else ("", ""), in_values, places)


@lru_cache(maxsize=5000)
def _read(sql: str) -> tuple[exp.Expr, frozenset[tuple[str, str]]]:
    try:
        tree = sqlglot.parse_one("".join(_readable(tokens_of(sql))), dialect=_Plain)
    except SqlglotError as error:
        raise Unsupported(900, f"invalid SQL statement (sqlglot cannot read it: {str(error)[:200]})") from None
    return tree, frozenset(
        table_key(each) for each in tree.find_all(exp.Table) if isinstance(each.this, exp.Identifier)
    )


def _readable(tokens: Sequence[Token]) -> Iterator[str]:
    """The statement as sqlglot can read it: without RETURNING … INTO, and without digits and quotes as binds' names."""
    for token in tokens:
        if token.upper in {"RETURNING", "RETURN"}:
            return
        if token.kind == "string" and len(token.text.encode()) > LONGEST_LITERAL + 2:
            raise refused(1704)
        yield f":{_bind_name(token)}" if token.kind == "bind" else token.text


def _kind(bind: Bind) -> Kind:
    """A bind's type. The driver declares NULL as a text of one character, which may be four bytes."""
    return Kind.ANY if bind.kind in values.TEXTS and bind.size <= 4 else _KINDS.get(bind.kind, Kind.ANY)


def _bind_names(sql: str) -> list[str]:
    return [_bind_name(token) for token in tokens_of(sql) if token.kind == "bind"]


def _bind_name(token: Token) -> str:
    return "b_" + token.text[1:].strip('"').upper()


@lru_cache(maxsize=1000)
def _columns(table: tuple[str, str], columns: Columns) -> Sequence[Output]:
    if table[1] == "DUAL" and not columns:
        return [Output("DUMMY", Kind.CHAR)]
    return [Output(name, _BY_NAME[kind]) for name, kind in columns]


def _check_reserved(tree: exp.Expr) -> None:
    """Refuses reserved words as names, unless quoted: page "Oracle SQL Reserved Words"."""
    for node in tree.find_all(exp.Identifier):
        name = node.name.upper()
        if not node.quoted and name in RESERVED and (name not in _NO_NAMES or not isinstance(node.parent, exp.Column)):
            raise refused(904, name)
