"""SQL that a real Oracle refuses and H2 accepts, as far as words show it: the emulator refuses it too.

The rules for a statement's names, types and clauses are in `meaning`. Add each further refusal of Oracle there or here.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tests.oracle_emulator.profiles import Profile
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.tokens import Token, top_level

# Reserved as names of columns, tables and binds, unless quoted.
RESERVED = frozenset(
    """ACCESS ADD ALL ALTER AND ANY AS ASC AUDIT BETWEEN BY CHAR CHECK CLUSTER COLUMN COMMENT COMPRESS CONNECT CREATE
    CURRENT DATE DECIMAL DEFAULT DELETE DESC DISTINCT DROP ELSE EXCLUSIVE EXISTS FILE FLOAT FOR FROM GRANT GROUP HAVING
    IDENTIFIED IMMEDIATE IN INCREMENT INDEX INITIAL INSERT INTEGER INTERSECT INTO IS LEVEL LIKE LOCK LONG MAXEXTENTS
    MINUS MLSLABEL MODE MODIFY NOAUDIT NOCOMPRESS NOT NOWAIT NULL NUMBER OF OFFLINE ON ONLINE OPTION OR ORDER PCTFREE
    PRIOR PUBLIC RAW RENAME RESOURCE REVOKE ROW ROWID ROWNUM ROWS SELECT SESSION SET SHARE SIZE SMALLINT START
    SUCCESSFUL SYNONYM SYSDATE TABLE THEN TO TRIGGER UID UNION UNIQUE UPDATE USER VALIDATE VALUES VARCHAR VARCHAR2 VIEW
    WHENEVER WHERE WITH""".split()  # noqa: SIM905 (a list of a hundred strings is not read)
)
_LONGEST_NAME = 128
_NAME = r"\S+(?: \. \S+)?"
_CLAUSES = {"SELECT", "FROM", "JOIN", "WITH", "WHERE", "ON", "USING", "SET", "GROUP", "HAVING", "ORDER", "CREATE"}
# The session's parameters that the service sets: another one is ORA-02248, as a misspelt one is.
_SETTINGS = {
    "TIME_ZONE": r"'[+-]\d\d:\d\d'",
    "NLS_SORT": "BINARY",
    "NLS_COMP": "BINARY",
    "CURRENT_SCHEMA": r'"?\w+"?',
    "ISOLATION_LEVEL": r"SERIALIZABLE|READ COMMITTED",
    "DDL_LOCK_TIMEOUT": r"\d+",
}
_SETTING = re.compile(rf"\b({'|'.join(_SETTINGS)})\s*=\s*", re.IGNORECASE)


class _Refused(NamedTuple):
    pattern: str  # for words separated by one space
    code: int
    since_23: int | None  # its code from 23ai on; None: valid there


# Other databases' SQL.
_REFUSED = [
    _Refused(r"\bSELECT TOP \d", 923, 923),
    _Refused(r" :: ", 933, 933),
    _Refused(r"\bAS TEXT \)", 902, 902),
    _Refused(r" OFFSET (?:\d+|:\w+)(?: (?!ROWS?\b)|$)", 933, 933),
    _Refused(r"\b(?:SYSTIMESTAMP|SYSDATE|CURRENT_TIMESTAMP|CURRENT_DATE|LOCALTIMESTAMP|USER|UID) \( \)", 923, 923),
    _Refused(rf"^ALTER TABLE {_NAME} ALTER COLUMN\b", 1735, 1735),
    _Refused(rf"^ALTER TABLE {_NAME} DROP CONSTRAINT IF EXISTS\b", 1735, 1735),
    _Refused(rf"^ALTER TABLE {_NAME} ADD (?:\( )?COLUMN\b", 904, 904),
    _Refused(rf"^ALTER TABLE {_NAME} MODIFY (?:\( )?COLUMN\b(?!.* SUBSTITUTABLE\b)", 905, 905),
    _Refused(rf"^ALTER TABLE {_NAME} DROP \w+$", 905, 905),
    _Refused(r"^CREATE TABLE IF NOT EXISTS\b", 922, None),  # these three are valid from 19.28 on
    _Refused(r"^CREATE (?:UNIQUE )?INDEX IF NOT EXISTS\b", 969, None),
    _Refused(r"^DROP \w+ IF EXISTS\b", 933, None),
    _Refused(rf"^DROP INDEX {_NAME} ON\b", 933, 3048),
    _Refused(r"^CREATE TABLE .* NOT NULL DEFAULT\b", 907, 907),
    _Refused(r"^CREATE TABLE .* COMMENT '", 907, 907),
    _Refused(r"^(?:CREATE|ALTER) TABLE .* ON UPDATE\b", 905, 905),
]


def refuse(words: Sequence[Token], kind: str, profile: Profile) -> None:
    """Raises OracleError if Oracle would refuse the statement. `words` are its tokens without spaces."""
    if not words:
        raise refused(900)
    if words[-1].text == ";" and kind != "plsql":
        raise refused(933 if profile.release < 23 else 3405)
    _refuse_names(words, kind)
    text = " ".join("''" if word.kind == "string" else word.upper for word in words)
    for each in _REFUSED:
        code = each.code if profile.release < 23 else each.since_23
        if code is not None and re.search(each.pattern, text):
            raise refused(code)
    if kind in {"query", "dml"}:
        _refuse_alias(words, profile)
    outside = [word.upper for word in top_level(words)]
    if outside[:1] == ["INSERT"] and {"SELECT", "RETURNING"} <= set(outside):
        raise refused(933 if profile.release < 23 else 3049)
    if outside[:2] == ["ALTER", "SESSION"]:
        _refuse_setting(" ".join(word.text for word in words[2:]))


def _refuse_names(words: Sequence[Token], kind: str) -> None:
    for word in words:
        name = word.text.strip('"')
        if word.kind in {"word", "quoted"} and len(name.encode()) > _LONGEST_NAME:
            raise refused(972)
        if word.kind == "bind" and kind in {"query", "dml"} and name[1:].upper() in RESERVED:
            raise refused(1745)


def _refuse_alias(words: Sequence[Token], profile: Profile) -> None:
    """Refuses AS before the alias of a table: FROM t AS x."""
    for position, word in enumerate(words[:-1]):
        if word.upper == "AS" and words[position + 1].upper != "OF":  # AS OF a time
            clause = _clause(words, position)
            if clause == "JOIN":
                raise refused(905)
            if clause == "FROM":
                raise refused(933 if profile.release < 23 else 3048)


def _clause(words: Sequence[Token], position: int) -> str:
    """The keyword of the clause around a position, in the same parentheses; empty if there is none."""
    depth = 0
    for word in reversed(words[:position]):
        depth += (word.text == ")") - (word.text == "(")
        if depth < 0:
            break
        if depth == 0 and word.upper in _CLAUSES:
            return word.upper
    return ""


def _refuse_setting(text: str) -> None:
    """Refuses parameters and values of ALTER SESSION SET other than those that the service needs."""
    verb, *parts = _SETTING.split(text)
    if verb.strip().upper() != "SET":
        raise refused(2248 if verb.upper().startswith("SET ") else 922)
    for name, value in zip(parts[::2], parts[1::2], strict=True):
        if not re.fullmatch(_SETTINGS[name.upper()], value.strip(), re.IGNORECASE):
            raise refused(2248)
