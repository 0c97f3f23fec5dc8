"""Rewrites Oracle's SQL for H2, where H2's Oracle mode does not accept it."""

import re
from collections.abc import Sequence
from functools import partial

from tests.oracle_emulator.definitions import WIDE
from tests.oracle_emulator.tokens import Token, closing, text_of, tokens_of, without_space

_EPOCH = "1970-01-01 00:00:00"
_FIXED = (
    (re.compile(r"(?<![.\w])(?:DBTIMEZONE|SESSIONTIMEZONE)\b", re.IGNORECASE), "'+00:00'"),
    (
        re.compile(
            r"\bSYS_CONTEXT\s*\(\s*'userenv'\s*,\s*'(?:current_schema|session_user|current_user)'\s*\)", re.IGNORECASE
        ),
        "CURRENT_SCHEMA",
    ),
    (re.compile(r"^(\s*WITH)(?=\s+\w+\s*\()", re.IGNORECASE), r"\1 RECURSIVE"),
)
_DDL = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), replacement)
    for pattern, replacement in (
        (r"\b(?:INTEGER|SMALLINT|INT)\b(?!\s*\()", "BIGINT"),  # NUMBER(38) in Oracle
        (r"\bN(?:VARCHAR2|CHAR)\b", "VARCHAR_IGNORECASE"),  # for the dictionary alone: rows of it are not supported
        (r"\bNOORDER\b|\bPURGE\b", ""),
        (r"^((?:(?:CREATE|DROP)\s+(?:UNIQUE\s+)?INDEX|ALTER\s+TABLE\s+\S+\s+DROP)\b.*?)\s+ONLINE\s*$", r"\1"),
        (r"^(ALTER\s+TABLE\b.*?\bADD\b.*?)\s+ENABLE(?:\s+VALIDATE)?\s*$", r"\1"),
        (
            r"\bMODIFY\s*\((\w+)\s+GENERATED\s+BY\s+DEFAULT\s+AS\s+IDENTITY\s*\(START\s+WITH\s+(\d+)\)\)",
            r"ALTER COLUMN \1 RESTART WITH \2",
        ),
    )
)
_TABLE = re.compile(r"(?:CREATE|ALTER)\s+(?:GLOBAL\s+TEMPORARY\s+)?TABLE\s+(?:\S+\.)?\"?([\w$#]+)", re.IGNORECASE)
DOMAIN = "CREATE DOMAIN"  # the beginning of what all schemas share
_VARCHAR2 = re.compile(
    r"(?P<column>[\w$#]+|\"[^\"]+\")(?P<space>\s+)VARCHAR2?\s*\(\s*(?P<length>\d+)\s*(?P<unit>BYTE|CHAR)?\s*\)",
    re.IGNORECASE,
)


def for_h2(tokens: Sequence[Token]) -> str:
    """A query or change for H2, with `?` for each bind."""
    text = text_of(tokens)
    changed = text
    for pattern, replacement in _FIXED:
        changed = pattern.sub(replacement, changed)
    return _expressions(tokens if changed == text else tokens_of(changed)).strip()


def returning(tokens: Sequence[Token], clause: int, into: int) -> str:
    """A change with RETURNING … INTO, as a query of the rows that it changes."""
    columns = text_of(tokens[clause + 1 : into]).strip()
    words = without_space(tokens)
    rows = "OLD" if words[0].upper == "DELETE" else "FINAL"
    return f"SELECT {columns} FROM {rows} TABLE ({for_h2(tokens[:clause])}) {_target(words)}"  # noqa: S608 (it is a rewritten statement)


def to_h2_ddl(tokens: Sequence[Token]) -> tuple[str, ...]:
    """A definition for H2, which may need several statements."""
    sql = _expressions(tokens, division=False).strip()
    for pattern, replacement in _DDL:
        sql = pattern.sub(replacement, sql)
    sql = re.sub(r"\bFLOAT\s*\((\d+)\)", lambda found: f"FLOAT({min(int(found[1]), 53)})", sql, flags=re.IGNORECASE)
    if table := _TABLE.match(sql):
        domains: list[str] = []
        sql = _VARCHAR2.sub(partial(_domain, table[1].upper(), domains), sql)
        return (*domains, sql)
    return (sql,)


def _expressions(tokens: Sequence[Token], *, division: bool = True) -> str:
    """Rewrites binds, divisions (exact in Oracle, truncated for integers in H2) and the UTC of an instant."""
    parts: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token.kind == "bind" and division:
            parts.append("?")
        elif token.text == "/" and division:
            parts.append("* CAST(1 AS DECFLOAT(40)) /")
        elif token.upper == "SYS_EXTRACT_UTC" and (opening := _opening(tokens, position + 1)) is not None:
            end = closing(tokens, opening)
            # Arithmetic, because H2's casts would convert to the session's zone.
            argument = _expressions(tokens[opening + 1 : end], division=division)
            since = f"(({argument}) - TIMESTAMP WITH TIME ZONE '{_EPOCH}+00:00')"
            parts.append(f"(TIMESTAMP '{_EPOCH}' + {since})")
            position = end
        else:
            parts.append(token.text)
        position += 1
    return "".join(parts)


def _opening(tokens: Sequence[Token], position: int) -> int | None:
    """The position of a call's opening parenthesis, if there is one."""
    while position < len(tokens) and tokens[position].kind == "space":
        position += 1
    return position if position < len(tokens) and tokens[position].text == "(" else None


def _target(words: Sequence[Token]) -> str:
    """The table name or alias that qualifies the columns behind RETURNING."""
    position = 2 if words[0].upper == "INSERT" or words[1].upper == "FROM" else 1
    while words[position + 1].text == ".":
        position += 2
    after = words[position + 1]
    is_alias = after.kind in {"word", "quoted"} and after.upper not in {"SET", "WHERE", "VALUES", "SELECT", "RETURNING"}
    return (after if is_alias else words[position]).text


def _domain(table: str, domains: list[str], found: re.Match[str]) -> str:
    """Replaces the type of a text column by its domain, whose definition it adds."""
    column, length, unit = found["column"], int(found["length"]), (found["unit"] or "BYTE").upper()
    if column.upper() == "AS":  # in a CAST
        return found[0]
    bare = column[1:-1] if column[0] == '"' else column.upper()
    name = f"{table}.{bare} {length} {unit}"
    actual = "OCTET_LENGTH(VALUE)"
    if unit == "CHAR":
        actual = r"CHAR_LENGTH(REGEXP_REPLACE(VALUE, '[^\x{0}-\x{FFFF}]', 'x'))"
    wrong = " ".join(
        f"WHEN {size} > {limit} AND {more} > {limit} THEN SYS.TOO_LONG(NULL, '{text} ' || {more})"
        for size, more, limit, text in (
            ("OCTET_LENGTH(VALUE)", "OCTET_LENGTH(VALUE)", 4000, "long"),
            ("CHAR_LENGTH(VALUE)" if unit == "CHAR" else actual, actual, length, name),
        )
    )
    kind = f"VARCHAR({WIDE + 2 * length + (unit == 'BYTE')})"
    domains.append(f'{DOMAIN} IF NOT EXISTS SYS."{name}" AS {kind} CHECK (CASE {wrong} END IS NULL)')
    return f'{column}{found["space"]}SYS."{name}"'
