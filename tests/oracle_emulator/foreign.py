"""Other databases' SQL that H2 accepts and Oracle refuses, each with its error."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.profiles import Profile
from tests.oracle_emulator.tokens import Token, closing, top_level

_TEXTS = {
    902: "invalid datatype",
    903: "invalid table name",
    904: ": invalid identifier",
    905: "missing keyword",
    907: "missing right parenthesis",
    911: "invalid character",
    920: "invalid relational operator",
    922: "missing or invalid option",
    923: "FROM keyword not found where expected",
    933: "SQL command not properly ended",
    936: "missing expression",
    969: "missing ON keyword",
    1735: "invalid ALTER TABLE option",
    1796: "this operator cannot be used with lists",
    3048: "SQL reserved word is not syntactically valid",
    3049: "SQL keyword is not syntactically valid",
}
_NAME = r"\S+(?: \. \S+)?"
_NEVER_CALLED = "SYSTIMESTAMP|SYSDATE|CURRENT_TIMESTAMP|CURRENT_DATE|LOCALTIMESTAMP|USER|UID"
_CLAUSES = {"SELECT", "FROM", "JOIN", "WITH", "WHERE", "ON", "USING", "SET", "GROUP", "HAVING", "ORDER", "CREATE"}


class _Refused(NamedTuple):
    pattern: str  # for words separated by one space
    code: int
    since_23: int | None  # its code from 23ai on; None: valid there


_REFUSED = [
    _Refused(r"[\w'\")] LIMIT [\d:]", 933, 3049),
    _Refused(r" ON CONFLICT\b", 933, 3048),
    _Refused(r" ILIKE\b", 920, 3049),
    _Refused(r" :: ", 933, 933),
    _Refused(r"\bAS TEXT \)", 902, 902),
    _Refused(r" OFFSET (?:\d+|:\w+)(?: (?!ROWS?\b)|$)", 933, 933),
    _Refused(r"`", 911, 911),
    _Refused(rf"\b(?:{_NEVER_CALLED}) \( \)", 923, 923),
    _Refused(r"\bSELECT DISTINCT ON \(", 936, 936),
    _Refused(r"\) FILTER \( WHERE\b", 923, 923),  # valid from 23.26.1 on
    _Refused(r"^WITH RECURSIVE\b", 905, 905),
    _Refused(r"\b(?:FROM|JOIN) \( VALUES\b", 903, None),
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


def refuse_foreign(words: Sequence[Token], kind: str, profile: Profile) -> None:
    """Raises OracleError if Oracle would refuse the statement. `words` are its tokens without spaces."""
    text = " ".join("''" if word.kind == "string" else word.upper for word in words)
    for each in _REFUSED:
        code = each.code if profile.release < 23 else each.since_23
        if code is not None and re.search(each.pattern, text):
            raise _error(code)
    if kind in {"query", "dml"}:
        _refuse_alias(words, profile)
        _refuse_comparison(words)
    outside = [word.upper for word in top_level(words)]
    if outside[:1] == ["INSERT"] and {"SELECT", "RETURNING"} <= set(outside):
        raise _error(933 if profile.release < 23 else 3049)


def _refuse_alias(words: Sequence[Token], profile: Profile) -> None:
    """Refuses AS before the alias of a table: FROM t AS x."""
    for position, word in enumerate(words[:-1]):
        if word.upper == "AS" and words[position + 1].upper != "OF":  # AS OF a time
            clause = _clause(words, position)
            if clause == "JOIN":
                raise _error(905)
            if clause == "FROM":
                raise _error(933 if profile.release < 23 else 3048)


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


def _refuse_comparison(words: Sequence[Token]) -> None:
    """Refuses (a, b) = (1, 2), which Oracle writes as ((1, 2)), and (a, b) > ((1, 2)), which does not exist."""
    for position, word in enumerate(words[:-2]):
        if word.text in {"=", "<>", "!="} and _is_list(words, position + 1):
            raise _error(920)
        if word.text in {"<", ">", "<=", ">="} and (_is_list(words, position + 1) or _is_list(words, position + 2)):
            raise _error(1796)


def _is_list(words: Sequence[Token], opening: int) -> bool:
    inside = words[opening + 1 : closing(words, opening)]
    is_opening = words[opening].text == "(" and words[opening - 1].kind == "operator"  # not a function call
    return is_opening and inside[0].upper != "SELECT" and any(word.text == "," for word in top_level(inside))


def _error(code: int) -> OracleError:
    return OracleError(code, _TEXTS[code])
