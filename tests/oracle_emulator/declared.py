"""Columns and constraints as CREATE TABLE and ALTER TABLE declare them, and as the dictionary has them."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.oracle_emulator.database import Connection
from tests.oracle_emulator.tokens import Token, closing, tokens_of, top_level

LOBS = frozenset({"CLOB", "BLOB", "NCLOB"})
_SAME = {
    **dict.fromkeys(("NUMERIC", "DECIMAL", "DEC", "INTEGER", "INT", "SMALLINT"), "NUMBER"),
    **dict.fromkeys(("VARCHAR", "CHARACTER VARYING"), "VARCHAR2"),
    **dict.fromkeys(("REAL", "DOUBLE PRECISION"), "FLOAT"),
    "CHARACTER": "CHAR",
    "BINARY VARYING": "RAW",
    "CHARACTER LARGE OBJECT": "CLOB",
    "BINARY LARGE OBJECT": "BLOB",
}
_MORE_OF_A_TYPE = {"WITH", "LOCAL", "TIME", "ZONE", "PRECISION", "VARYING", "RAW"}
_BYTES = {"NUMBER": 22, "FLOAT": 22, "DATE": 7, "TIMESTAMP": 11, "TIMESTAMP WITH TIME ZONE": 13}
_KINDS = {"PRIMARY": "P", "UNIQUE": "U", "FOREIGN": "R", "REFERENCES": "R", "CHECK": "C"}
_OPTIONS = {"DEFAULT", "NOT", "NULL", "CONSTRAINT", "GENERATED", "DROP", "ENABLE", "DISABLE", "VISIBLE", *_KINDS}


class Column(NamedTuple):
    """A column. `kind` is its type's main name, empty if a change leaves it; `sizes`: its lengths or precisions."""

    name: str
    kind: str
    sizes: tuple[int, ...] = ()
    in_characters: bool = False
    nullable: bool | None = None  # None: not declared
    identity: bool = False
    options: tuple[Token, ...] = ()  # the words behind its type
    quoted: bool = False

    @property
    def bytes(self) -> int:
        """The longest value, as a part of an index's key."""
        size = self.sizes[0] if self.sizes else 1
        return _BYTES.get(self.kind, min(size * (4 if self.in_characters else 1), 4000))

    def says(self, word: str) -> bool:
        """Whether the definition has this word outside parentheses."""
        return any(each.upper == word for each in top_level(self.options))


class Key(NamedTuple):
    """A constraint: P, U, R or C as in ALL_CONSTRAINTS. `inline`: it stands behind a column."""

    kind: str
    name: str
    columns: tuple[str, ...]
    parent: str = ""
    parents: tuple[str, ...] = ()  # the columns of the parent; empty: those of its primary key
    condition: tuple[Token, ...] = ()
    inline: bool = False


class Table(NamedTuple):
    """A table, with the names and columns (or expressions) of its indexes. `place`: its name in H2's SQL."""

    place: str
    columns: dict[str, Column]
    keys: list[Key]
    indexes: dict[str, tuple[str, ...]]


def name_of(words: Sequence[Token]) -> tuple[str, int]:
    """The name at the beginning, without its schema, and the number of its words."""
    length = 3 if len(words) > 2 and words[1].text == "." else 1
    return (words[length - 1].upper.strip('"') if len(words) >= length else ""), length


def names_in(words: Sequence[Token]) -> tuple[str, ...]:
    """The names in the first parentheses."""
    opening = next((position for position, word in enumerate(words) if word.text == "("), len(words))
    return tuple(squeezed(each) for each in split(words[opening + 1 : closing(words, opening)]))


def squeezed(words: Sequence[Token] | str) -> str:
    """A name or expression without quotes and spaces, in capitals, to compare it."""
    text = words if isinstance(words, str) else "".join(f" {word.upper}" if word.upper == "DESC" else word.upper for word in words)
    return re.sub(r'"|\s+(?!DESC$)', "", text.strip()).upper()


def split(words: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The elements that commas outside parentheses separate."""
    start = depth = 0
    for position, word in enumerate(words):
        depth += (word.text == "(") - (word.text == ")")
        if word.text == "," and depth == 0:
            yield words[start:position]
            start = position + 1
    if words[start:]:
        yield words[start:]


def declared(words: Sequence[Token]) -> tuple[list[Column], list[Key]]:
    """The columns and constraints of a list of definitions."""
    columns: list[Column] = []
    keys: list[Key] = []
    for each in split(words):
        name, start = (name_of(each[1:])[0], 2) if each[0].upper == "CONSTRAINT" else ("", 0)
        if each[start:] and each[start].upper in _KINDS and each[start].kind == "word":
            keys.append(_key(each[start:], name, ""))
        else:
            columns.append(_column(each))
            keys.extend(_inline(columns[-1]))
    return columns, keys


def _column(words: Sequence[Token]) -> Column:
    end = 1
    parts: list[str] = []
    sizes: list[int] = []
    unit = ""
    if words[1:] and words[1].kind == "word" and words[1].upper not in _OPTIONS:
        parts, end = [words[1].upper], 2
        if words[2:] and words[2].text == "(":
            end = closing(words, 2) + 1
            inside = words[3 : end - 1]
            signs = [-1 if before.text == "-" else 1 for before in (words[2], *inside)]
            sizes = [int(each.text) * sign for each, sign in zip(inside, signs, strict=False) if each.text.isdigit()]
            unit = inside[-1].upper if inside else ""
        while end < len(words) and words[end].upper in _MORE_OF_A_TYPE:
            parts.append(words[end].upper)
            end += 1
    options = tuple(words[end:])
    outside = [word.upper for word in top_level(options)]
    nulls = [before for before, word in zip(["", *outside], outside, strict=False) if word == "NULL" and before != "DEFAULT"]
    main = " ".join(parts)
    identity = "IDENTITY" in outside and "DROP" not in outside
    nullable = None if not nulls else nulls[-1] != "NOT"
    kind, quoted = _SAME.get(main, main), words[0].kind == "quoted"
    return Column(name_of(words)[0], kind, tuple(sizes), unit == "CHAR", nullable, identity, options, quoted)


def _inline(column: Column) -> Iterator[Key]:
    """The constraints behind a column."""
    words = column.options
    depth = 0
    for position, word in enumerate(words):
        if depth == 0 and word.upper in _KINDS:
            named = position > 1 and words[position - 2].upper == "CONSTRAINT"
            yield _key(words[position:], words[position - 1].upper if named else "", column.name)
        depth += (word.text == "(") - (word.text == ")")


def _key(words: Sequence[Token], name: str, column: str) -> Key:
    kind = _KINDS[words[0].upper]
    columns = (column,) if column else names_in(words)
    if kind == "C":
        return Key(kind, name, columns, condition=tuple(words[1 : closing(words, 1) + 1]), inline=bool(column))
    if kind != "R":
        return Key(kind, name, columns, inline=bool(column))
    uppers = [word.upper for word in words]
    at = uppers.index("REFERENCES") + 1 if "REFERENCES" in uppers else len(words)
    parent, length = name_of(words[at:])
    parents = names_in(words[at:]) if uppers[at + length : at + length + 1] == ["("] else ()
    return Key(kind, name, columns, parent, parents)


def tables(connection: Connection, owner: str) -> dict[str, Table]:
    """The tables of a schema (empty: the current one), by name."""
    schema = f"'{owner}'" if owner else "CURRENT_SCHEMA"
    found: dict[str, Table] = {}
    for table, name, kind, size, precision, scale, seconds, nullable, identity in connection.rows(
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, "
        f"DATETIME_PRECISION, IS_NULLABLE, IS_IDENTITY FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_SCHEMA = {schema} "
        "AND IS_VISIBLE ORDER BY ORDINAL_POSITION"
    ):
        entry = found.setdefault(table, Table(f'"{owner}"."{table}"' if owner else f'"{table}"', {}, [], {}))
        entry.columns[name] = _stored(name, kind, size, (precision, scale), seconds, nullable, identity)
    parts: dict[str, list[str]] = {}
    for name, column in connection.rows(
        f"SELECT CONSTRAINT_NAME, COLUMN_NAME FROM SYS.ALL_CONS_COLUMNS WHERE OWNER = {schema} ORDER BY \"POSITION\""
    ):
        parts.setdefault(name, []).append(column)
    keys = connection.rows(
        "SELECT TABLE_NAME, CONSTRAINT_NAME, CONSTRAINT_TYPE, R_CONSTRAINT_NAME, SEARCH_CONDITION "
        f"FROM SYS.ALL_CONSTRAINTS WHERE OWNER = {schema}"
    )
    owners = {name: table for table, name, *_ in keys}
    for table, name, kind, parent, condition in keys:
        columns, parents = tuple(parts.get(name, ())), tuple(parts.get(parent, ()))
        key = Key(kind, name, columns, owners.get(parent, ""), parents, tuple(tokens_of(condition)))
        found[table].keys.append(key)
    for table, name, column, order, expression in connection.rows(
        "SELECT C.TABLE_NAME, C.INDEX_NAME, C.COLUMN_NAME, C.DESCEND, E.COLUMN_EXPRESSION FROM SYS.ALL_IND_COLUMNS C "
        "LEFT JOIN SYS.ALL_IND_EXPRESSIONS E ON E.INDEX_OWNER = C.INDEX_OWNER AND E.INDEX_NAME = C.INDEX_NAME "
        f"AND E.COLUMN_POSITION = C.COLUMN_POSITION WHERE C.INDEX_OWNER = {schema} ORDER BY C.COLUMN_POSITION"
    ):
        if table in found:  # and not a view
            part = squeezed(expression or column) + (" DESC" if order == "DESC" else "")
            found[table].indexes[name] = (*found[table].indexes.get(name, ()), part)
    return found


def others(connection: Connection, owner: str) -> dict[str, str]:
    """The other names that tables may not have, with their kinds."""
    schema = f"'{owner}'" if owner else "CURRENT_SCHEMA"
    found = connection.rows(
        f"SELECT TABLE_NAME, 'VIEW' FROM INFORMATION_SCHEMA.VIEWS WHERE TABLE_SCHEMA = {schema} UNION ALL "
        f"SELECT SEQUENCE_NAME, 'SEQUENCE' FROM INFORMATION_SCHEMA.SEQUENCES WHERE SEQUENCE_SCHEMA = {schema} UNION ALL "
        f"SELECT SYNONYM_NAME, 'SYNONYM' FROM INFORMATION_SCHEMA.SYNONYMS WHERE SYNONYM_SCHEMA = {schema}"
    )
    return {name: kind for name, kind in found}


def owner_of(words: Sequence[Token]) -> str:
    """The schema that a definition names; empty if it names none."""
    for position, word in enumerate(words):
        if word.text == "(":
            break
        if word.text == ".":
            return words[position - 1].upper.strip('"')
    return ""


def _stored(
    name: str, kind: str, size: str, number: tuple[str, str], seconds: str, nullable: str, identity: str
) -> Column:
    """H2's column as Oracle's."""
    kind = "NUMBER" if kind in {"BIGINT", "DECFLOAT"} else _SAME.get(kind, kind)
    sizes: tuple[int, ...] = ()
    characters = False
    if kind == "VARCHAR2":
        sizes, characters = (int(size) // 2,), int(size) % 2 == 0  # see `rewriting.VARCHAR2`
    elif kind in {"CHAR", "RAW"}:
        sizes = (int(size),)
    elif kind == "TIMESTAMP" and seconds == "0":
        kind = "DATE"
    elif kind.startswith("TIMESTAMP"):
        sizes = (int(seconds),)
    elif kind == "NUMBER" and number[0] and number[0] != "64":
        sizes = (int(number[0]), int(number[1] or 0))
    return Column(name, kind, sizes, characters, nullable == "YES", identity == "YES")

