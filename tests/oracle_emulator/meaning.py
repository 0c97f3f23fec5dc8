"""The names and types of a statement, checked as Oracle checks them before it runs the statement."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.oracle import Oracle
from sqlglot.errors import SqlglotError
from sqlglot.parsers.oracle import OracleParser

from tests.oracle_emulator import values
from tests.oracle_emulator.change_rules import change
from tests.oracle_emulator.dictionary import VIEWS
from tests.oracle_emulator.errors import OracleError, Unsupported
from tests.oracle_emulator.instance import Bind
from tests.oracle_emulator.kinds import Kind
from tests.oracle_emulator.query_rules import query, table_key
from tests.oracle_emulator.refusals import RESERVED
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.scopes import Output, World
from tests.oracle_emulator.tokens import Token, tokens_of

LONGEST_LITERAL = 4000  # bytes
_CALLED = {"CAST", "EXTRACT", "TRIM"}  # functions with words between their arguments
_PSEUDO = {"LEVEL", "ROWNUM", "ROWID", "SYSDATE", "USER", "UID", "DEFAULT"}
_RESERVED_AS: dict[type[exp.Expr], int] = {exp.Alias: 923, exp.TableAlias: 933, exp.Table: 903, exp.Schema: 1747}
_KINDS = {
    **dict.fromkeys(values.TEXTS, Kind.CHAR),
    **dict.fromkeys(values.BYTES, Kind.RAW),
    **dict.fromkeys((values.NUMBER, values.BINARY_INTEGER, values.BINARY_FLOAT, values.BINARY_DOUBLE), Kind.NUMBER),
    values.DATE: Kind.DATE,
    values.TIMESTAMP: Kind.TIMESTAMP,
    **dict.fromkeys((values.TIMESTAMP_TZ, values.TIMESTAMP_LTZ), Kind.TIMESTAMP_TZ),
    values.CLOB: Kind.CLOB,
    values.BLOB: Kind.BLOB,
    values.BOOLEAN: Kind.BOOLEAN,
}
_H2_KINDS = {
    "CHARACTER VARYING": Kind.CHAR,
    "CHARACTER": Kind.CHAR,
    "CHARACTER LARGE OBJECT": Kind.CLOB,
    "BINARY LARGE OBJECT": Kind.BLOB,
    "BINARY VARYING": Kind.RAW,
    "TIMESTAMP WITH TIME ZONE": Kind.TIMESTAMP_TZ,
    "TIMESTAMP": Kind.TIMESTAMP,
    "TIMESTAMP(0)": Kind.DATE,
    "BOOLEAN": Kind.BOOLEAN,
}


class _Plain(Oracle):
    """Oracle's dialect, in which a function keeps its name."""

    class Parser(OracleParser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {name: OracleParser.FUNCTION_PARSERS[name] for name in _CALLED}


def tables_of(sql: str) -> frozenset[tuple[str, str]]:
    """The tables that a statement names: owner, if it has one, and name. Raises OracleError if it cannot be read."""
    return _read(sql)[1]


@lru_cache(maxsize=5000)
def check(sql: str, binds: Sequence[Bind], tables: Sequence[tuple[tuple[str, str], str]], release: int) -> None:
    """Raises OracleError if Oracle would refuse the names or types of a query or change.

    `tables` has the columns of each table in H2's words: NAME=TYPE, separated by commas.
    """
    tree, _ = _read(sql)
    names = [_bind_name(token) for token in tokens_of(sql) if token.kind == "bind"]
    kinds = {name: _KINDS.get(bind.kind, Kind.ANY) for name, bind in zip(names, binds, strict=False)}
    world = World({key: _columns(key, text) for key, text in tables}, kinds, release)
    _check_reserved(tree)
    try:
        if isinstance(tree, exp.Query):
            query(tree, None, world)
        else:
            change(tree, world)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # a tree of another shape
        raise Unsupported(900, f"invalid SQL statement (no rule reads it: {error!r})") from error


@lru_cache(maxsize=5000)
def _read(sql: str) -> tuple[exp.Expr, frozenset[tuple[str, str]]]:
    try:
        tree = sqlglot.parse_one("".join(_readable(tokens_of(sql))), dialect=_Plain)
    except SqlglotError as error:
        raise _unread(sql, error) from None
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


def _bind_name(token: Token) -> str:
    return "b_" + token.text[1:].strip('"').upper()


def _unread(sql: str, error: Exception) -> OracleError:
    words = [token.upper for token in tokens_of(sql) if token.kind != "space"]
    for before, word, after in zip(words, words[1:], words[2:], strict=False):
        if before == "AS" and word in RESERVED and after in {",", "FROM"}:
            return refused(923)
    return Unsupported(900, f"invalid SQL statement (sqlglot cannot read it: {str(error)[:200]})")


@lru_cache(maxsize=1000)
def _columns(table: tuple[str, str], text: str) -> Sequence[Output]:
    """The columns; those of the dictionary's views have no known types."""
    if table[1] == "DUAL" and not text:
        return [Output("DUMMY", Kind.CHAR)]
    found = [each.rpartition("=")[::2] for each in text.split(",") if each]
    known = table[1] not in VIEWS and not table[1].startswith("USER_")
    return [Output(name, _H2_KINDS.get(kind, Kind.NUMBER) if known else Kind.ANY) for name, kind in found]


def _check_reserved(tree: exp.Expr) -> None:
    """Refuses reserved words as names, unless quoted: page "Oracle SQL Reserved Words"."""
    for node in tree.find_all(exp.Identifier):
        name, parent = node.name.upper(), node.parent
        if node.quoted or name not in RESERVED or parent is None:
            continue
        is_set = isinstance(parent.parent, exp.EQ) and isinstance(parent.parent.parent, exp.Update)
        if type(parent) in _RESERVED_AS:
            raise refused(_RESERVED_AS[type(parent)])
        if (is_set and parent.arg_key == "this") or (parent.args.get("table") is not None and name != "ROWID"):
            raise refused(1747)
        if name not in _PSEUDO:
            raise refused(936)
