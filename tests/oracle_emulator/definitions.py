"""Definitions that Oracle refuses and H2 accepts, or refuses with another error."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.oracle_emulator.declared import LOBS, Column, Key, Table, declared, name_of, names_in, split, squeezed
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.refusals import RESERVED
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.tokens import Token, closing

_NOT_IN_A_CHECK = re.compile(
    r" (?:SYSDATE|SYSTIMESTAMP|CURRENT_DATE|CURRENT_TIMESTAMP|LOCALTIMESTAMP|UID|USER|USERENV|ROWNUM|LEVEL) "
)
_KEY_LENGTH = 6398  # of 8 KiB blocks
_CREATED = re.compile(r"CREATE (?:GLOBAL TEMPORARY )?(TABLE|VIEW|SEQUENCE|SYNONYM) ")
_OTHER_ALTERATIONS = frozenset(
    {"RENAME", "SET", "MOVE", "SHRINK", "ENABLE", "DISABLE", "COMPRESS", "NOCOMPRESS", "PARALLEL", "NOPARALLEL", "READ"}
    | {"LOGGING", "NOLOGGING", "CACHE", "NOCACHE", "PCTFREE", "INITRANS", "ROW", "TRUNCATE", "SPLIT", "MERGE"}
)
# Errors of changes of rows, and what a definition that meets such rows says instead.
_OF_EXISTING_ROWS = (
    ("CREATE UNIQUE INDEX", 1, 1452, "cannot CREATE UNIQUE INDEX; duplicate keys found"),
    ("UNIQUE", 1, 2299, "cannot validate - duplicate keys found"),
    ("CHECK", 2290, 2293, "cannot validate - check constraint violated"),
    ("MODIFY", 1400, 2296, "cannot enable - null values found"),
    ("MODIFY", 12899, 1441, "cannot decrease column length because some value is too big"),
)
_NOT_TYPES = frozenset({"TEXT", "BIGINT", "DATETIME", "TIMESTAMPTZ", "SERIAL", "UUID", "BYTEA", "TINYINT"})
_NEW_TYPES = {"BOOLEAN": 23, "BOOL": 23, "JSON": 21}  # since these releases
_LONGEST = {"VARCHAR2": 4000, "CHAR": 2000, "RAW": 2000}


def of_existing_rows(sql: str, error: OracleError) -> OracleError:
    """The error of a definition that existing rows contradict, instead of that of a change."""
    text = " ".join(sql.upper().split())
    for said, code, number, words in _OF_EXISTING_ROWS:
        if code == error.code and said in text:
            return OracleError(number, words)
    return error


def _size(column: Column, position: int = 0) -> int | None:
    return column.sizes[position] if len(column.sizes) > position else None


def _in(value: int | None, low: int, high: int) -> bool:
    return value is None or low <= value <= high


_OF_A_COLUMN: tuple[tuple[int, Callable[[Column], bool]], ...] = (
    (904, lambda new: new.name in RESERVED and not new.quoted),
    (902, lambda new: new.kind in _NOT_TYPES),
    (906, lambda new: new.kind == "VARCHAR2" and not new.sizes),
    (910, lambda new: new.kind in _LONGEST and not _in(_size(new), 1, _LONGEST[new.kind])),
)


def _refuse_column(new: Column, release: int) -> None:
    """Refuses the declaration of a column."""
    for code, wrong in _OF_A_COLUMN:
        if wrong(new):
            raise refused(code, new.name)
    if release < _NEW_TYPES.get(new.kind, 0):
        raise refused(902)


def _refuse_modification(old: Column, new: Column, has_values: Callable[[], bool]) -> None:
    """Refuses ALTER TABLE … MODIFY of a column. `has_values`: whether it is not NULL in some row."""
    if new.nullable is False and old.nullable is False:
        raise refused(1442)
    if new.kind and new.kind != old.kind and has_values():
        raise refused(1439)


@dataclass(frozen=True)
class Definer:
    """Judges definitions in a schema. `others`: names that are not tables', with their kinds; `asks`: runs H2's SQL."""

    release: int
    tables: Mapping[str, Table]
    others: Mapping[str, str]
    asks: Callable[[str], bool]  # whether a query has rows

    def refuse(self, words: Sequence[Token]) -> None:
        """Raises OracleError if Oracle would refuse the definition. `words` are its tokens without spaces."""
        text = " ".join(word.upper for word in words)
        verb, what, *_ = (*text.split(), "", "")
        if created := _CREATED.match(text):
            self._creation(created[1], words[len(created[0].split()) :])
        elif verb == "CREATE" and re.match(r"CREATE (?:UNIQUE )?INDEX ", text):
            self._index(words[2 if what == "INDEX" else 3 :])
        elif (verb, what) == ("ALTER", "TABLE"):
            name, length = name_of(words[2:])
            if name in self.tables:
                self._alteration(name, words[2 + length :])
        elif (verb, what) == ("DROP", "INDEX"):
            if name_of(words[2:])[0] in self._indexes_of_keys():
                raise refused(2429)
        elif verb == "DROP" and what == "TABLE" and "CASCADE" not in text:
            name, _ = name_of(words[2:])
            if any(key not in self.tables[name].keys for key in self._keys_to(name)):
                raise refused(2449)

    def _creation(self, kind: str, words: Sequence[Token]) -> None:
        name, length = name_of(words)
        if self.others.get(name, kind) != kind or (name in self.tables and kind != "TABLE"):
            raise refused(955)
        rest = words[length:]
        if kind == "TABLE" and name not in self.tables and rest[:1] == [Token("operator", "(")]:
            columns, keys = declared(rest[1 : closing(rest, 0)])
            if len({column.name for column in columns}) < len(columns):
                raise refused(957)
            self._additions(name, Table("", {}, [], {}), columns, keys)

    def _additions(self, name: str, table: Table, columns: Sequence[Column], keys: Sequence[Key]) -> None:
        """Refuses new columns and constraints of a table."""
        so_far = table._replace(columns=table.columns | {column.name: column for column in columns}, keys=[*table.keys])
        for column in columns:
            _refuse_column(column, self.release)
            if set(so_far.columns) & set(column.default):
                raise refused(984)
        used = {key.name for each in self.tables.values() for key in each.keys}
        indexes = {index: parts for each in self.tables.values() for index, parts in each.indexes.items()}
        for key in keys:
            if key.name and key.name in used:
                raise refused(2264)
            if key.kind in "PU" and indexes.get(key.name, key.columns) != key.columns:
                raise refused(955)
            self._key(name, key, so_far)
            so_far.keys.append(key)
            used.add(key.name)

    def _key(self, name: str, key: Key, table: Table) -> None:
        """Refuses a constraint of `table`, which has its columns and its earlier constraints."""
        if key.kind == "C":
            _check(key)
            return
        columns = _columns(key.columns, table)
        if len(set(key.columns)) < len(columns):
            raise refused(957)
        for column in columns:
            if column.kind in LOBS or (key.kind in "PU" and column.kind.endswith("WITH TIME ZONE")):
                raise refused(2329, column.kind)
        if key.kind == "R":
            _reference(key, table if key.parent == name else self.tables.get(key.parent))
            return
        if key.kind == "P" and any(each.kind == "P" for each in table.keys):
            raise refused(2260)
        if any(each.kind in "PU" and each.columns == key.columns for each in table.keys):
            raise refused(2261)
        _key_length(columns)

    def _index(self, words: Sequence[Token]) -> None:
        name, length = name_of(words)
        owner, more = name_of(words[length + 1 :])
        table = self.tables.get(owner)
        if table is None:
            return
        if name in self._indexes_of_keys() or any(name in each.indexes for each in self.tables.values()):
            raise refused(955)
        opening = length + 1 + more
        end = closing(words, opening)
        parts = tuple(squeezed(part) for part in split(words[opening + 1 : end]))
        whole = [
            table.columns[part] for part in (each.removesuffix(" DESC") for each in parts) if part in table.columns
        ]
        if any(column.kind in LOBS for column in whole):
            raise refused(2327)
        if parts in {*table.indexes.values(), *(key.columns for key in table.keys if key.kind in "PU")}:
            raise refused(1408)
        _key_length(whole)

    def _alteration(self, name: str, words: Sequence[Token]) -> None:
        table, verb, rest = self.tables[name], words[0].upper if words else "", words[1:]
        if rest and rest[0].text == "(" and closing(rest, 0) == len(rest) - 1:
            rest = rest[1:-1]
        if verb == "ADD":
            columns, keys = declared(rest)
            if any(column.name in table.columns for column in columns):
                raise refused(1430)
            self._additions(name, table, columns, keys)
            mandatory = any(each.nullable is False and not each.default and not each.identity for each in columns)
            if mandatory and self.asks(f"SELECT 1 FROM {table.place}"):  # noqa: S608 (H2's own name)
                raise refused(1758)
        elif verb == "MODIFY":
            self._modification(name, *declared(rest))
        elif verb == "DROP":
            self._drop(table, words[1:])
        elif verb not in _OTHER_ALTERATIONS:
            raise refused(1735)

    def _modification(self, name: str, columns: Sequence[Column], keys: Sequence[Key]) -> None:
        table = self.tables[name]
        for new in columns:
            (old,) = _columns([new.name], table)
            _refuse_column(new._replace(quoted=True), self.release)
            filled = f'SELECT 1 FROM {table.place} WHERE "{old.name}" IS NOT NULL'  # noqa: S608 (H2's own names)
            _refuse_modification(old, new, lambda filled=filled: self.asks(filled))  # type: ignore[misc]  # a default
        for key in keys:
            self._key(name, key, table)

    def _drop(self, table: Table, words: Sequence[Token]) -> None:
        uppers = [word.upper for word in words]
        if uppers[0] == "CONSTRAINT":
            if name_of(words[1:])[0] not in {key.name for key in table.keys}:
                raise refused(2443)
            return
        dropped = {name_of(words[1:])[0]} if uppers[0] == "COLUMN" else set(names_in(words))
        _columns(sorted(dropped), table)
        keys = [] if "CASCADE" in uppers else table.keys
        if any(dropped & set(key.columns) and set(key.columns) - dropped for key in keys):
            raise refused(12991)

    def _keys_to(self, name: str) -> Iterator[Key]:
        """The foreign keys that refer to a table, its own too."""
        for table in self.tables.values():
            yield from (key for key in table.keys if key.kind == "R" and key.parent == name)

    def _indexes_of_keys(self) -> set[str]:
        return {key.name for table in self.tables.values() for key in table.keys if key.kind in "PU"}


def _columns(names: Sequence[str], table: Table) -> list[Column]:
    for name in names:
        if name not in table.columns:
            raise refused(904, name)
    return [table.columns[name] for name in names]


def _key_length(columns: Sequence[Column]) -> None:
    if sum(column.bytes + 1 for column in columns) > _KEY_LENGTH:
        raise refused(1450, _KEY_LENGTH)


def _check(key: Key) -> None:
    text = " " + " ".join("''" if word.kind == "string" else word.upper for word in key.condition) + " "
    if " SELECT " in text:
        raise refused(2251)
    if _NOT_IN_A_CHECK.search(text):
        raise refused(2436)


def _reference(key: Key, parent: Table | None) -> None:
    if parent is None:
        raise refused(942)
    primary = next((each.columns for each in parent.keys if each.kind == "P"), ())
    parents = _columns(key.parents or primary, parent)
    if not any(each.kind in "PU" and set(each.columns) == {column.name for column in parents} for each in parent.keys):
        raise refused(2270)
