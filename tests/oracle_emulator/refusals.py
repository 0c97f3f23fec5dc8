"""SQL that a real Oracle refuses and H2 accepts: the emulator refuses it too.

Add each further refusal of Oracle here.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from tests.oracle_emulator.columns import Column
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.foreign import refuse_foreign
from tests.oracle_emulator.profiles import Profile
from tests.oracle_emulator.tokens import Token, closing, top_level

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
_CONSTRAINT = ("CONSTRAINT", "PRIMARY", "UNIQUE", "FOREIGN", "CHECK")
_NO_TYPES = ("TEXT", "BIGINT", "DATETIME", "TIMESTAMPTZ", "SERIAL", "UUID", "BYTEA", "TINYINT")
_NOT_UPDATABLE = {"FETCH", "OFFSET", "DISTINCT", "GROUP", "UNION", "MINUS", "INTERSECT"}
_LONGEST_NAME = 128
_DATE = re.compile(r"'\d{4}-\d\d-\d\d\b")
_COMPARISONS = {"=", "<", ">", "<=", ">=", "<>", "!="}


def refuse(words: Sequence[Token], kind: str, profile: Profile) -> None:
    """Raises OracleError if Oracle would refuse the statement. `words` are its tokens without spaces."""
    if not words:
        raise OracleError(900, "invalid SQL statement")
    if words[-1].text == ";" and kind != "plsql":
        raise OracleError(933 if profile.release < 23 else 3405, "SQL command not properly ended")
    _refuse_names(words, kind)
    refuse_foreign(words, kind, profile)
    _refuse_long_lists(words, 1000 if profile.release < 23 else 65535)
    if kind == "query":
        _refuse_query(words, profile)
    if kind == "ddl" and [word.upper for word in words[:2]] == ["CREATE", "TABLE"]:
        _refuse_columns(words, profile)
    if profile.release < 23:
        _refuse_what_is_new(words, kind)


def refuse_result(clauses: Collection[str], columns: Sequence[Column]) -> None:
    """Raises OracleError if Oracle would refuse these columns. `clauses`: the query's words outside parentheses."""
    compares = "DISTINCT" in clauses or "MINUS" in clauses or "INTERSECT" in clauses
    if (compares or ("UNION" in clauses and "ALL" not in clauses)) and any(column.is_lob for column in columns):
        raise OracleError(932, "inconsistent datatypes: expected - got LOB")
    if ("FETCH" in clauses or "OFFSET" in clauses) and max(Counter(each.name for each in columns).values()) > 1:
        raise OracleError(918, "column ambiguously defined")


def dated_by_text(words: Sequence[Token]) -> frozenset[str]:
    """Columns compared with or set to a text such as '2026-01-02', for which Oracle's NLS_…_FORMAT differs.

    ORA-01843 if one of them has a date's type.
    """
    found = {
        column.upper
        for column, operator, text in zip(words, words[1:], words[2:], strict=False)
        if operator.text in _COMPARISONS and _DATE.match(text.text)
    }
    return frozenset(found.union(_dated_in_values(words)))


def _dated_in_values(words: Sequence[Token]) -> Iterator[str]:
    uppers = [word.upper for word in words]
    if uppers[:1] == ["INSERT"] and "VALUES" in uppers:
        values = uppers.index("VALUES")
        start = uppers.index("(") if "(" in uppers else values
        names = [word.upper for word in words[start:values] if word.kind in {"word", "quoted"}]
        elements = [element for element in words[values + 2 :] if element.text != ","]
        for name, element in zip(names, elements, strict=False):
            if _DATE.match(element.text):
                yield name


def _refuse_names(words: Sequence[Token], kind: str) -> None:
    for word in words:
        name = word.text.strip('"')
        if word.kind in {"word", "quoted"} and len(name.encode()) > _LONGEST_NAME:
            raise OracleError(972, f"identifier is too long: {name[:40]}...")
        if word.kind == "bind" and kind in {"query", "dml"} and name[1:].upper() in RESERVED:
            raise OracleError(1745, "invalid host/bind variable name")


def _refuse_long_lists(words: Sequence[Token], limit: int) -> None:
    for position, word in enumerate(words[:-2]):
        if word.upper == "IN" and words[position + 1].text == "(" and words[position + 2].upper != "SELECT":
            depth, elements = 0, 1
            for element in words[position + 1 : closing(words, position + 1)]:
                depth += (element.text == "(") - (element.text == ")")
                elements += depth == 1 and element.text == ","
            if elements > limit:
                raise OracleError(1795, f"maximum number of expressions in a list is {limit}")


def _refuse_query(words: Sequence[Token], profile: Profile) -> None:
    outside = [word.upper for word in top_level(words)]
    locks = any(pair == ("FOR", "UPDATE") for pair in pairwise(outside))
    if locks and _NOT_UPDATABLE.intersection(outside):
        raise OracleError(2014, "cannot select FOR UPDATE from view with DISTINCT, GROUP BY, etc.")
    if profile.release < 23:
        if outside[0] == "SELECT" and "FROM" not in outside:
            raise OracleError(923, "FROM keyword not found where expected")
        if [word.upper for word in words[:2]] == ["SELECT", "EXISTS"]:
            raise OracleError(936, "missing expression")


def _refuse_what_is_new(words: Sequence[Token], kind: str) -> None:
    """Refuses BOOLEAN literals and VALUES with several rows before 23ai."""
    if kind not in {"query", "dml"}:
        return
    for word in words:
        if word.upper in {"TRUE", "FALSE"}:
            raise OracleError(904, f'"{word.upper}": invalid identifier')
    uppers = [word.upper for word in words]
    if kind == "dml" and "VALUES" in uppers:
        end = closing(words, uppers.index("VALUES") + 1)
        if uppers[end + 1 : end + 2] == [","]:
            raise OracleError(933, "SQL command not properly ended")


def _refuse_columns(words: Sequence[Token], profile: Profile) -> None:
    depth, starts = 0, False
    for position, word in enumerate(words):
        if depth == 1 and starts and word.kind == "word":
            _refuse_column(word.upper, words[position + 1 : position + 4], profile)
        starts = (word.text == "(" and depth == 0) or (word.text == "," and depth == 1)
        depth += (word.text == "(") - (word.text == ")")


def _refuse_column(name: str, definition: Sequence[Token], profile: Profile) -> None:
    if name in _CONSTRAINT:
        return
    if name in RESERVED:
        raise OracleError(904, f"{name}: invalid identifier")
    kind = definition[0].upper if definition else ""
    length = definition[2].text if len(definition) == 3 and definition[1].text == "(" else ""
    is_too_new = (kind in {"BOOLEAN", "BOOL"} and profile.release < 23) or (kind == "JSON" and profile.release < 21)
    if is_too_new or kind in _NO_TYPES:
        raise OracleError(902, "invalid datatype")
    if kind == "VARCHAR2" and not length:
        raise OracleError(906, "missing left parenthesis")
    if kind in {"VARCHAR2", "VARCHAR"} and length and int(length) > profile.max_string:
        raise OracleError(910, "specified length too long for its datatype")
