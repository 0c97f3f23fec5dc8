"""SQL that a real Oracle refuses, that H2 and the grammar of `tests.golden` accept, and that words show.

The rules for a statement's names, types and clauses are in `meaning`, those for definitions in `definitions`.
"""

import re
from collections.abc import Sequence

from tests.oracle_emulator.errors import refused
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
_NO_FUNCTIONS = frozenset({"SYSTIMESTAMP", "SYSDATE", "CURRENT_TIMESTAMP", "CURRENT_DATE", "LOCALTIMESTAMP", "USER"})
# The session's parameters that the service sets: another one is ORA-02248, as a misspelt one is.
_SETTING = re.compile(
    r"""TIME_ZONE = '[+-]\d\d:\d\d'|NLS_(?:SORT|COMP) = BINARY|CURRENT_SCHEMA = "?\w+"?|DDL_LOCK_TIMEOUT = \d+"""
    r"|ISOLATION_LEVEL = (?:SERIALIZABLE|READ COMMITTED)",
    re.IGNORECASE,
)


def refuse(words: Sequence[Token], kind: str) -> None:
    """Raises OracleError if Oracle would refuse the statement. `words` are its tokens without spaces."""
    if not words or (words[-1].text == ";" and kind != "plsql"):
        raise refused(900)
    for word in words:
        name = word.text.strip('"')
        if word.kind in {"word", "quoted"} and len(name.encode()) > _LONGEST_NAME:
            raise refused(972)
        if word.kind == "bind" and kind in {"query", "dml"} and name[1:].upper() in RESERVED:
            raise refused(1745)
    for position, word in enumerate(words[:-2]):
        if word.upper in _NO_FUNCTIONS and [each.text for each in words[position + 1 : position + 3]] == ["(", ")"]:
            raise refused(923)
    if kind == "dml" and {"INSERT", "SELECT", "RETURNING"} <= {word.upper for word in top_level(words)}:
        raise refused(933)
    verb, what, *rest = (*(word.text for word in words), "", "")
    if (verb.upper(), what.upper()) == ("ALTER", "SESSION") and _SETTING.sub("", " ".join(rest)).strip() != "SET":
        raise refused(2248)
