"""Definitions that Oracle refuses and H2 accepts, judged by their words and by the table before and after."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from tests.oracle_emulator.errors import refused
from tests.oracle_emulator.java import Java
from tests.oracle_emulator.tokens import Token, closing

# H2 counts UTF-16 units, so a VARCHAR2 has a domain there that counts bytes or characters. Its length in H2 is beyond
# any real one, and tells what was declared: twice the length, plus 1 if it counts bytes.
WIDE = 100_000
LOBS = frozenset({"CLOB", "BLOB", "NCLOB"})
_BY_H2 = {
    **dict.fromkeys(("NUMERIC", "DECIMAL", "INTEGER", "SMALLINT", "BIGINT", "DECFLOAT"), "NUMBER"),
    **dict.fromkeys(("REAL", "DOUBLE PRECISION"), "FLOAT"),
    "CHARACTER VARYING": "VARCHAR2",
    "CHARACTER": "CHAR",
    "BINARY VARYING": "RAW",
    "CHARACTER LARGE OBJECT": "CLOB",
    "BINARY LARGE OBJECT": "BLOB",
}
_LONGEST = {"VARCHAR2": 4000, "CHAR": 2000, "RAW": 2000}
_NOT_TYPES = frozenset({"TEXT", "BIGINT", "DATETIME", "TIMESTAMPTZ", "SERIAL", "UUID", "BYTEA", "TINYINT"})
_NEW_TYPES = {"BOOLEAN": 23, "BOOL": 23, "JSON": 21}  # since these releases
_CLOCKS = frozenset({"SYSDATE", "SYSTIMESTAMP", "CURRENT_DATE", "CURRENT_TIMESTAMP", "LOCALTIMESTAMP"})
_MOST_DIGITS = 38
_LONGEST_KEY = 6398  # bytes, in a block of 8 KiB
_OCTETS = {"NUMBER": 22, "FLOAT": 22, "TIMESTAMP": 11, "TIMESTAMP WITH TIME ZONE": 13}
_NOT_NAMES = frozenset({"ADD", "MODIFY", "COLUMN", "IS"})


class Column(NamedTuple):
    """A column, and its type's main name; the digits before and behind a number's point, and the bytes in an index."""

    name: str
    kind: str
    length: int
    nullable: bool
    digits: tuple[int, int]
    octets: int
    identity: bool


class Table(NamedTuple):
    """A table's columns, and the columns of its primary and unique keys and of its indexes, by their names.

    `referenced`: the columns to which foreign keys refer.
    """

    columns: dict[str, Column]
    keys: dict[str, tuple[str, ...]]
    indexes: dict[str, tuple[str, ...]]
    referenced: frozenset[str]


def length_of(h2: int) -> tuple[int, bool]:
    """The declared length of a text, and whether it counts characters, by its length in H2."""
    return ((h2 - WIDE) // 2, h2 % 2 == 0) if WIDE < h2 < 2 * WIDE else (h2, True)


def columns_of(table: Java) -> list[Column]:
    """The visible columns of a table or view of H2."""
    return [_column(each) for each in table.getColumns() if each.getVisible()]


def table_of(table: Java) -> Table:
    """H2's table as Oracle's."""
    keys, indexes, referenced = {}, {}, set[str]()
    for key in table.getConstraints() or ():
        if str(key.getConstraintType()) in {"PRIMARY_KEY", "UNIQUE"}:
            keys[str(key.getName())] = tuple(str(each.column.getName()) for each in key.getColumns())
        elif str(key.getConstraintType()) == "REFERENTIAL" and key.getRefTable() == table:
            referenced |= {str(each.getName()) for each in key.getReferencedColumns(table)}
    for index in table.getIndexes():
        if not index.getIndexType().isScan() and not index.getIndexType().getBelongsToConstraint():
            parts = [f"{each.column.getName()}{' DESC' * (each.sortType & 1)}" for each in index.getIndexColumns()]
            indexes[str(index.getName())] = tuple(parts)
    return Table({each.name: each for each in columns_of(table)}, keys, indexes, frozenset(referenced))


def table_in(words: Sequence[Token]) -> tuple[str, str]:
    """The schema, if there is one, and the name of the table that a definition changes; empty for other definitions."""
    uppers = [word.upper for word in words]
    before = "ON" if uppers[0] == "CREATE" and "INDEX" in uppers[:3] else "TABLE"
    if uppers[0] not in {"CREATE", "ALTER"} or before not in uppers[:7]:
        return "", ""
    names = [each.strip('"') for each in uppers[uppers.index(before) + 1 :][:3]]
    return (names[0], names[2]) if names[1:2] == ["."] else ("", names[0])


def refuse_types(words: Sequence[Token], release: int) -> None:
    """Refuses types of other databases, and of later releases; clocks in a check; DROP without COLUMN."""
    uppers = [word.upper for word in words]
    for check in [place for place, upper in enumerate(uppers) if upper == "CHECK"]:
        if _CLOCKS.intersection(uppers[check : closing(words, check + 1)]):
            raise refused(2436)
    for place in [place for place, upper in enumerate(uppers[:-2]) if upper == "NUMBER" and uppers[place + 1] == "("]:
        refuse_digits(uppers[place + 2 : closing(words, place + 1)])
    dropped = uppers[uppers.index("DROP") + 1 :][:1] if uppers[:2] == ["ALTER", "TABLE"] and "DROP" in uppers else []
    if dropped and dropped[0] not in {"COLUMN", "CONSTRAINT", "PRIMARY", "UNIQUE", "UNUSED", "COLUMNS", "("}:
        raise refused(905)
    for name, word in pairwise(words):
        is_type = name.kind in {"word", "quoted"} and name.upper not in _NOT_NAMES
        if is_type and (word.upper in _NOT_TYPES or release < _NEW_TYPES.get(word.upper, 0)):
            raise refused(902)


def refuse_digits(given: Sequence[str]) -> None:
    """Refuses a NUMBER with too many digits. `given`: what is in its parentheses."""
    if given[0].isdigit() and not 1 <= int(given[0]) <= _MOST_DIGITS:
        raise refused(1727)
    if given[-1].isdigit() and len(given) > 1 and int(given[-1]) > (84 if "-" in given else 127):
        raise refused(1728)


def dropped_index(words: Sequence[Token]) -> str:
    """The index that a definition drops; empty for other definitions."""
    names = [word.upper.strip('"') for word in words if word.upper != "ONLINE"]
    return names[-1] if names[:2] == ["DROP", "INDEX"] else ""


def refuse_drop(index: str, table: Table) -> None:
    """Refuses to drop the index of a key: one of its name, or one that had its columns before it was made."""
    if index in table.keys or table.indexes.get(index) in table.keys.values():
        raise refused(2429)


def refuse(words: Sequence[Token], before: Table | None, after: Table, has_values: Callable[[str], bool]) -> None:
    """Raises OracleError if Oracle would have refused the definition that has made `before` into `after`.

    `has_values`: whether a column is not NULL in some row.
    """
    for new in after.columns.values():
        if new.length > _LONGEST.get(new.kind, new.length):
            raise refused(910)
    if any(after.columns[each].kind.endswith("WITH TIME ZONE") for columns in after.keys.values() for each in columns):
        raise refused(2329)
    if sum(each.identity for each in after.columns.values()) > 1:
        raise refused(30669)
    known = (before.keys | before.indexes) if before else {}
    for name, columns in (after.keys | after.indexes).items():
        if sum(after.columns[each.removesuffix(" DESC")].octets + 2 for each in columns) > _LONGEST_KEY:
            raise refused(1404 if name in known else 1450, _LONGEST_KEY)
    if len(set(after.keys.values())) < len(after.keys):
        raise refused(2261)
    if after.keys.keys() & after.indexes.keys():
        raise refused(955)
    if before is not None:
        _refuse_change(words, before, after, has_values)


def _refuse_change(words: Sequence[Token], before: Table, after: Table, has_values: Callable[[str], bool]) -> None:
    indexed = {*before.indexes.values(), *before.keys.values()}
    if any(columns in indexed for name, columns in after.indexes.items() if name not in before.indexes):
        raise refused(1408)
    for old in before.columns.values():
        new = after.columns.get(old.name, old)
        if new.kind != old.kind and has_values(old.name):
            raise refused(1439)
        if any(less < more for less, more in zip(new.digits, old.digits, strict=True)) and has_values(old.name):
            raise refused(1440)
    if before.referenced - after.columns.keys():
        raise refused(12992)
    uppers = [word.upper.strip('"') for word in words if word.text != "("]
    if "MODIFY" in uppers and ("NOT", "NULL") in pairwise(uppers):
        old = before.columns[uppers[uppers.index("MODIFY") + 1]]
        if not old.nullable:
            raise refused(1442)


def _column(column: Java) -> Column:
    kind = str(column.getType().getDeclaredTypeName())
    length, scale = int(column.getType().getPrecision()), int(column.getType().getScale())
    octets = _OCTETS.get(_BY_H2.get(kind, kind), length)
    digits = (length - scale, scale) if kind in {"NUMERIC", "DECIMAL"} else (_MOST_DIGITS, 0)
    if kind == "DECFLOAT":  # NUMBER
        digits = (_MOST_DIGITS, _MOST_DIGITS)
    elif kind == "CHARACTER VARYING":
        length, by_characters = length_of(length)
        octets = min(4 * length, 4000) if by_characters else length
    elif (kind, scale) == ("TIMESTAMP", 0):
        kind = "DATE"
    name, is_identity = str(column.getName()), bool(column.isIdentity())
    return Column(name, _BY_H2.get(kind, kind), length, bool(column.isNullable()), digits, octets, is_identity)
