"""Columns and constraints as CREATE TABLE and ALTER TABLE declare them, and as the dictionary has them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.oracle_emulator.java import Java
from tests.oracle_emulator.tokens import Token, closing, tokens_of, top_level, without_space

# H2 counts UTF-16 units, so a VARCHAR2 has a domain there that counts bytes or characters. Its length in H2 is beyond
# any real one, and tells what was declared: twice the length, plus 1 if it counts bytes.
WIDE = 100_000
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
_KINDS = {"PRIMARY": "P", "UNIQUE": "U", "FOREIGN": "R", "REFERENTIAL": "R", "REFERENCES": "R", "CHECK": "C"}
_OPTIONS = {"DEFAULT", "NOT", "NULL", "CONSTRAINT", "GENERATED", "DROP", "ENABLE", "DISABLE", "VISIBLE", *_KINDS}


def length_of(h2: int) -> tuple[int, bool]:
    """The declared length of a text, and whether it counts characters, by its length in H2."""
    return ((h2 - WIDE) // 2, h2 % 2 == 0) if WIDE < h2 < 2 * WIDE else (h2, True)


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

    @property
    def default(self) -> tuple[str, ...]:
        """The words of its default."""
        uppers = [word.upper for word in self.options]
        if "DEFAULT" not in uppers or self.identity:
            return ()
        start = uppers.index("DEFAULT") + 1
        end = next((at for at in range(start + 1, len(uppers)) if uppers[at] in _OPTIONS), len(uppers))
        return tuple(uppers[start:end])

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


def squeezed(words: Iterable[Token]) -> str:
    """A name or expression without quotes and spaces, in capitals, to compare it."""
    return "".join(f" {word.text.upper()}" if word.upper == "DESC" else word.text.upper() for word in words).replace(
        '"', ""
    )


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
    nulls = [
        before for before, word in zip(["", *outside], outside, strict=False) if word == "NULL" and before != "DEFAULT"
    ]
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


def tables(schema: Java, known: dict[str, Table]) -> dict[str, Table]:
    """The tables of a schema, from H2's own objects: INFORMATION_SCHEMA scans those of all schemas for each query.

    `known` are those read before, to which this adds the others.
    """
    found = {str(table.getName()): table for table in schema.getAllTablesAndViews(None)}
    for name in known.keys() - found.keys():
        del known[name]
    for name in found.keys() - known.keys():
        if str(found[name].getTableType()) == "TABLE":
            known[name] = _table(found[name])
    return known


def columns_of(table: Java) -> list[Column]:
    """The visible columns of a table or view."""
    return [_stored(str(each.getName()), each) for each in table.getColumns() if each.getVisible()]


def others(schema: Java) -> dict[str, str]:
    """The other names that tables may not have, with their kinds."""
    views = (each for each in schema.getAllTablesAndViews(None) if str(each.getTableType()) == "VIEW")
    kinds = (("VIEW", views), ("SEQUENCE", schema.getAllSequences()), ("SYNONYM", schema.getAllSynonyms()))
    return {str(each.getName()): kind for kind, found in kinds for each in found}


def _table(table: Java) -> Table:
    columns, expressions = {each.name: each for each in columns_of(table)}, {}
    for column in table.getColumns():
        name = str(column.getName())
        if not column.getVisible():  # see `rewriting._index`
            text = str(column.getDefaultExpression().getSQL(0))
            text = text.removeprefix("CAST(").removesuffix(" AS CHARACTER VARYING(4000))")
            expressions[name] = squeezed(without_space(tokens_of(text)))
    indexes = {}
    for index in table.getIndexes():
        if not index.getIndexType().isScan() and not index.getIndexType().getBelongsToConstraint():
            parts = [(str(part.column.getName()), part.sortType & 1) for part in index.getIndexColumns()]
            indexes[str(index.getName())] = tuple(expressions.get(name, name) + " DESC" * down for name, down in parts)
    keys = [_stored_key(key, table) for key in table.getConstraints() or ()]
    own = [key for key in keys if key is not None]
    return Table(f'"{table.getSchema().getName()}"."{table.getName()}"', columns, own, indexes)


def _stored_key(key: Java, table: Java) -> Key | None:
    """H2's constraint as Oracle's; a foreign key also stands among its parent's."""
    kind, name = _KINDS[str(key.getConstraintType()).split("_")[0]], str(key.getName())
    if kind == "C":
        used = tuple(str(column.getName()) for column in key.getReferencedColumns(table))
        return Key(kind, name, used, condition=tuple(tokens_of(str(key.getExpression().getSQL(0)))))
    columns = tuple(str(each.column.getName()) for each in key.getColumns())
    if kind != "R":
        return Key(kind, name, columns)
    if not key.getTable().equals(table):
        return None
    parents = tuple(str(each.column.getName()) for each in key.getRefColumns())
    return Key(kind, name, columns, str(key.getRefTable().getName()), parents)


def owner_of(words: Sequence[Token]) -> str:
    """The schema that a statement names first; empty if it names none."""
    for position, word in enumerate(words):
        if word.text == "(":
            break
        if word.text == ".":
            return words[position - 1].upper.strip('"')
    return ""


def _stored(name: str, column: Java) -> Column:
    """H2's column as Oracle's."""
    kind = str(column.getType().getDeclaredTypeName())
    size, scale = int(column.getType().getPrecision()), int(column.getType().getScale())
    sizes: tuple[int, ...] = (size,) if kind in {"CHARACTER", "BINARY VARYING"} else ()
    if kind == "CHARACTER VARYING":
        sizes = length_of(size)[:1]
    elif kind.startswith("TIMESTAMP"):
        kind, sizes = ("DATE", ()) if (kind, scale) == ("TIMESTAMP", 0) else (kind, (scale,))
    elif kind == "NUMERIC":
        sizes = (size, scale)
    oracle = "NUMBER" if kind in {"BIGINT", "DECFLOAT"} else _SAME.get(kind, kind)
    in_characters = oracle == "VARCHAR2" and length_of(size)[1]
    return Column(name, oracle, sizes, in_characters, bool(column.isNullable()), bool(column.isIdentity()))
