"""Definitions that Oracle refuses and H2 accepts, or refuses with another error."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.oracle_emulator.declared import LOBS, Column, Key, Table, declared, name_of, names_in, split, squeezed
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.refusals import RESERVED
from tests.oracle_emulator.rules import refused
from tests.oracle_emulator.tokens import Token, closing, text_of

_NOT_IN_A_CHECK = re.compile(
    r" (?:SYSDATE|SYSTIMESTAMP|CURRENT_DATE|CURRENT_TIMESTAMP|LOCALTIMESTAMP|UID|USER|USERENV|ROWNUM|LEVEL) "
)
_KEY_LENGTH, _KEY_LENGTH_ONLINE = 6398, 3215  # of 8 KiB blocks
_MOST_COLUMNS = 1000
_CREATED = re.compile(r"CREATE (?:GLOBAL TEMPORARY )?(TABLE|VIEW|SEQUENCE|SYNONYM) ")
_OTHER_ALTERATIONS = frozenset(
    {"RENAME", "SET", "MOVE", "SHRINK", "ENABLE", "DISABLE", "COMPRESS", "NOCOMPRESS", "PARALLEL", "NOPARALLEL", "READ"}
    | {"LOGGING", "NOLOGGING", "CACHE", "NOCACHE", "PCTFREE", "INITRANS", "ROW", "TRUNCATE", "SPLIT", "MERGE"}
)
# Errors of changes of rows, and what a definition that meets such rows says instead.
_OF_EXISTING_ROWS = (
    ("CREATE UNIQUE INDEX", 1, 1452, "cannot CREATE UNIQUE INDEX; duplicate keys found"),
    ("PRIMARY KEY", 1, 2437, "cannot validate - primary key violated"),
    ("PRIMARY KEY", 1400, 1449, "column contains NULL values; cannot alter to NOT NULL"),
    ("UNIQUE", 1, 2299, "cannot validate - duplicate keys found"),
    ("CHECK", 2290, 2293, "cannot validate - check constraint violated"),
    ("REFERENCES", 2291, 2298, "cannot validate - parent keys not found"),
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
    (1723, lambda new: new.kind in _LONGEST and _size(new) == 0),
    (910, lambda new: new.kind in _LONGEST and not _in(_size(new), 1, _LONGEST[new.kind])),
    (1727, lambda new: new.kind == "NUMBER" and not _in(_size(new), 1, 38)),
    (1728, lambda new: new.kind == "NUMBER" and not _in(_size(new, 1), -84, 127)),
    (30088, lambda new: new.kind.startswith("TIMESTAMP") and not _in(_size(new), 0, 9)),
    (30675, lambda new: new.identity and new.kind not in {"NUMBER", "FLOAT", ""}),
)


def _refuse_column(new: Column, release: int) -> None:
    """Refuses the declaration of a column."""
    for code, wrong in _OF_A_COLUMN:
        if wrong(new):
            raise refused(code, new.name)
    if release < _NEW_TYPES.get(new.kind, 0):
        raise refused(902)


def _retyped(old: Column, new: Column) -> bool:
    return bool(new.kind) and new.kind != old.kind


def _narrowed(old: Column, new: Column) -> bool:
    """Whether a NUMBER gets fewer digits before or behind the decimal point."""
    if new.kind != "NUMBER" or old.kind != "NUMBER" or not new.sizes:
        return False
    (digits, scale), (more, behind) = ((*each.sizes, 0)[:2] if each.sizes else (1000, 100) for each in (new, old))
    return digits - scale < more - behind or scale < behind


_OF_A_MODIFICATION: tuple[tuple[int, Callable[[Column, Column], bool]], ...] = (
    (30673, lambda old, new: (new.says("GENERATED") or new.says("DROP")) and not old.identity),
    (30674, lambda old, new: old.identity and new.says("DEFAULT") and not new.says("GENERATED")),
    (1442, lambda old, new: new.nullable is False and old.nullable is False),
    (1451, lambda old, new: new.nullable is True and old.nullable is True),
    (22858, lambda old, new: _retyped(old, new) and new.kind in LOBS),
    (22859, lambda old, new: _retyped(old, new) and old.kind in LOBS),
)
_OF_A_FILLED_COLUMN: tuple[tuple[int, Callable[[Column, Column], bool]], ...] = (
    (1439, _retyped),
    (1440, _narrowed),
    (30082, lambda old, new: new.kind.startswith("TIMESTAMP") and () < new.sizes < old.sizes),
)


def _refuse_modification(old: Column, new: Column, has_values: Callable[[], bool]) -> None:
    """Refuses ALTER TABLE … MODIFY of a column. `has_values`: whether it is not NULL in some row."""
    for code, wrong in _OF_A_MODIFICATION:
        if wrong(old, new):
            raise refused(code)
    for code, wrong in _OF_A_FILLED_COLUMN:
        if wrong(old, new) and has_values():
            raise refused(code)


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
        elif verb in {"DROP", "TRUNCATE"} and what == "TABLE" and "CASCADE" not in text:
            name, _ = name_of(words[2:])
            if any(key not in self.tables[name].keys for key in self._keys_to(name)):
                raise refused(2449 if verb == "DROP" else 2266)

    def _creation(self, kind: str, words: Sequence[Token]) -> None:
        name, length = name_of(words)
        if self.others.get(name, kind) != kind or (name in self.tables and kind != "TABLE"):
            raise refused(955)
        rest = words[length:]
        if kind == "TABLE" and name not in self.tables and rest[:1] == [Token("operator", "(")]:
            columns, keys = declared(rest[1 : closing(rest, 0)])
            if len(columns) > _MOST_COLUMNS:
                raise refused(1792)
            if len({column.name for column in columns}) < len(columns):
                raise refused(957)
            self._additions(name, Table("", {}, [], {}), columns, keys)

    def _additions(self, name: str, table: Table, columns: Sequence[Column], keys: Sequence[Key]) -> None:
        """Refuses new columns and constraints of a table."""
        so_far = table._replace(columns=table.columns | {column.name: column for column in columns}, keys=[*table.keys])
        references = {column for key in keys if key.kind == "R" for column in key.columns}
        for column in columns:
            if not (column.kind or column.says("AS") or column.name in references):
                raise refused(2263)
            _refuse_column(column, self.release)
            if set(so_far.columns) & set(column.default):
                raise refused(984)
        if sum(column.identity for column in so_far.columns.values()) > 1:
            raise refused(30669)
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
            _check(key, table)
            return
        columns = _columns(key.columns, table)
        if len(set(key.columns)) < len(columns):
            raise refused(957)
        for column in columns:
            if column.kind in LOBS or (key.kind in "PU" and column.kind.endswith("WITH TIME ZONE")):
                raise refused(2329, column.kind)
        if key.kind == "R":
            _reference(key, columns, table, table if key.parent == name else self.tables.get(key.parent))
            return
        if key.kind == "P" and any(each.kind == "P" for each in table.keys):
            raise refused(2260)
        if any(each.kind in "PU" and each.columns == key.columns for each in table.keys):
            raise refused(2261)
        _key_length(columns, _KEY_LENGTH)

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
        online = any(word.upper == "ONLINE" for word in words[end:])
        _key_length(whole, _KEY_LENGTH_ONLINE if online else _KEY_LENGTH)

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
        elif "CONSTRAINT" in [word.upper for word in rest[:2]] and verb != "DROP":
            self._state(table, [word.upper.strip('"') for word in words])
        elif verb == "MODIFY":
            self._modification(name, *declared(rest))
        elif verb == "DROP" or [word.upper for word in words[:2]] == ["SET", "UNUSED"]:
            words = words if verb == "DROP" else words[1:]
            self._drop(table, words[1:], list(self._keys_to(name)))
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

    def _state(self, table: Table, words: Sequence[str]) -> None:
        """MODIFY or ENABLE CONSTRAINT: the constraint exists, and existing rows satisfy it."""
        wanted = (*words[words.index("CONSTRAINT") + 1 :], "")[0]
        key = next((each for each in table.keys if each.name == wanted), None)
        if key is None:
            raise refused(2431 if "DISABLE" in words else 2430, wanted)
        if "NOVALIDATE" in words or "DISABLE" in words:
            return
        if key.kind == "C" and self.asks(f"SELECT 1 FROM {table.place} WHERE NOT ({text_of(key.condition)})"):  # noqa: S608 (H2's own texts)
            raise refused(2293, wanted)
        if key.kind == "R":
            same = " AND ".join(f'p."{up}" = c."{down}"' for down, up in zip(key.columns, key.parents, strict=True))
            filled = " AND ".join(f'c."{column}" IS NOT NULL' for column in key.columns)
            parents = f"SELECT 1 FROM {self.tables[key.parent].place} p WHERE {same}"  # noqa: S608 (the same)
            if self.asks(f"SELECT 1 FROM {table.place} c WHERE {filled} AND NOT EXISTS ({parents})"):  # noqa: S608 (the same)
                raise refused(2298, wanted)

    def _drop(self, table: Table, words: Sequence[Token], children: Sequence[Key]) -> None:
        uppers = [word.upper for word in words]
        what, cascades, columns = (*uppers, "")[0], "CASCADE" in uppers, names_in(words)
        if what == "CONSTRAINT":
            found, missing = [key for key in table.keys if key.name == name_of(words[1:])[0]], 2443
        elif what == "PRIMARY":
            found, missing = [key for key in table.keys if key.kind == "P"], 2441
        elif what == "UNIQUE":
            found, missing = [key for key in table.keys if (key.kind, key.columns) == ("U", columns)], 2442
        else:
            dropped = {name_of(words[1:])[0]} if what == "COLUMN" else set(columns)
            _drop_columns(table, dropped, [] if cascades else children, [] if cascades else table.keys)
            return
        if not found:
            raise refused(missing)
        if found[0].kind in "PU" and not cascades and any(child.parents == found[0].columns for child in children):
            raise refused(2273)

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


def _key_length(columns: Sequence[Column], limit: int) -> None:
    if sum(column.bytes + 1 for column in columns) > limit:
        raise refused(1450, limit)


def _check(key: Key, table: Table) -> None:
    text = " " + " ".join("''" if word.kind == "string" else word.upper for word in key.condition) + " "
    if " SELECT " in text:
        raise refused(2251)
    if _NOT_IN_A_CHECK.search(text):
        raise refused(2436)
    if key.inline and any(f" {name} " in text for name in table.columns if name not in key.columns):
        raise refused(2438)


def _reference(key: Key, columns: Sequence[Column], table: Table, parent: Table | None) -> None:
    if parent is None:
        raise refused(942)
    primary = next((each.columns for each in parent.keys if each.kind == "P"), ())
    if not key.parents and not primary:
        raise refused(2268)
    parents = _columns(key.parents or primary, parent)
    if len(parents) != len(columns):
        raise refused(2256)
    if not any(each.kind in "PU" and set(each.columns) == {column.name for column in parents} for each in parent.keys):
        raise refused(2270)
    if any(ours.kind and ours.kind != theirs.kind for ours, theirs in zip(columns, parents, strict=True)):
        raise refused(2267)
    if any(each.kind == "R" and (each.parent, each.columns) == (key.parent, key.columns) for each in table.keys):
        raise refused(2275)


def _drop_columns(table: Table, dropped: set[str], children: Sequence[Key], keys: Sequence[Key]) -> None:
    _columns(sorted(dropped), table)
    if dropped == set(table.columns):
        raise refused(12983)
    if any(dropped.intersection(key.parents) for key in children):
        raise refused(12992)
    if any(dropped & set(key.columns) and set(key.columns) - dropped for key in keys):
        raise refused(12991)
