"""A parsed statement of Oracle: its kind, its binds, and its translation for H2."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Literal

from tests.oracle_emulator.refusals import refuse
from tests.oracle_emulator.rewriting import for_h2, returning, to_h2_ddl
from tests.oracle_emulator.tokens import Token, tokens_of, top_level, without_space

Kind = Literal["query", "dml", "ddl", "plsql", "other"]

_FIRST_WORDS: dict[str, Kind] = {
    **dict.fromkeys(("SELECT", "WITH", "("), "query"),
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "MERGE"), "dml"),
    **dict.fromkeys(("CREATE", "DROP", "ALTER", "TRUNCATE", "COMMENT", "GRANT", "REVOKE", "RENAME"), "ddl"),
    **dict.fromkeys(("BEGIN", "DECLARE", "CALL"), "plsql"),
}


@dataclass(frozen=True)
class Statement:
    """A parsed statement. Binds are named by position."""

    sql: str  # Oracle's text, as received
    kind: Kind
    in_binds: tuple[int, ...] = ()  # binds with a value
    out_binds: tuple[int, ...] = ()  # binds behind RETURNING … INTO
    h2: tuple[str, ...] = ()
    locks: bool = False  # whether this is SELECT … FOR UPDATE
    lock_wait: float = inf  # seconds to wait for a row's lock; by default Oracle waits for ever


@lru_cache(maxsize=2000)
def parse(sql: str) -> Statement:
    """The parsed statement. Raises OracleError if Oracle would refuse it."""
    tokens = tokens_of(sql)
    words = without_space(tokens)
    kind = _kind(words)
    refuse(words, kind)
    if kind == "ddl":
        return Statement(sql, kind, h2=to_h2_ddl(tokens))
    clause = _returning_clause(tokens) if kind == "dml" else None
    in_binds, out_binds = _binds(tokens, kind, clause[1] if clause else len(tokens))
    if kind in {"plsql", "other"}:
        return Statement(sql, kind, in_binds, out_binds)
    h2 = for_h2(tokens) if clause is None else returning(tokens, *clause)
    locks = kind == "query" and any(word.upper == "UPDATE" for word in top_level(words))
    return Statement(sql, kind, in_binds, out_binds, (h2,), locks, _lock_wait(sql) if locks else inf)


def unparsed(sql: str, binds: int) -> Statement:
    """A placeholder for a refused statement while its binds are read."""
    return Statement(sql, "other", tuple(range(binds)))


def _kind(words: Sequence[Token]) -> Kind:
    first = [word.upper for word in words[:2]]
    if first == ["ALTER", "SESSION"] or not first:
        return "other"
    return _FIRST_WORDS.get(first[0], "other")


def _returning_clause(tokens: Sequence[Token]) -> tuple[int, int] | None:
    """The positions of RETURNING and its INTO."""
    at: int | None = None
    clause: tuple[int, int] | None = None
    for position, token in enumerate(tokens):
        if token.upper in {"RETURNING", "RETURN"}:
            at = position
        elif token.upper == "INTO" and at is not None:
            clause = at, position
    return clause


def _binds(tokens: Sequence[Token], kind: Kind, into: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    in_binds: list[int] = []
    out_binds: list[int] = []
    seen: set[str] = set()
    for position, token in enumerate(tokens):
        if token.kind != "bind":
            continue
        name = token.text[1:].strip('"').upper()
        if kind == "plsql" and name in seen:  # PL/SQL has one bind for each name, SQL one for each place
            continue
        seen.add(name)
        (out_binds if position > into else in_binds).append(len(in_binds) + len(out_binds))
    return tuple(in_binds), tuple(out_binds)


def _lock_wait(sql: str) -> float:
    found = re.search(r"\b(NOWAIT|WAIT\s+(\d+))\s*$", sql.strip(), re.IGNORECASE)
    return float(found.group(2) or 0) if found else inf
