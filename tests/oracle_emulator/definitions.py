"""Definitions that Oracle refuses and H2 accepts, or refuses with another error."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from tests.oracle_emulator.declared import LOBS, Column, Key, Table, declared, name_of, names_in, split, squeezed
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.refusals import RESERVED
from tests.oracle_emulator.tokens import Token, closing, text_of, top_level

# Each number's cause and action are on docs.oracle.com/error-help/db/ora-02329/ and so on. The page of the SQL Language
# Reference (19c) that states the rule stands beside it.
_INDEX, _CREATE, _ALTER, _DROP = "CREATE INDEX", "CREATE TABLE", "ALTER TABLE", "DROP TABLE"
_CONSTRAINT, _TYPES, _NAMES = "constraint", "Data Types", "Database Object Names and Qualifiers"
_RULES = {
    902: ("invalid datatype", _TYPES),
    904: ('"{}": invalid identifier', _NAMES),
    906: ("missing left parenthesis", _TYPES),
    910: ("specified length too long for its datatype", _TYPES),
    942: ("table or view does not exist", _ALTER),
    955: ("name is already used by an existing object", _NAMES),
    957: ("duplicate column name", _CREATE),
    984: ("column not allowed here", "CREATE TABLE, DEFAULT"),
    1408: ("such column list already indexed", _INDEX),
    1418: ("specified index does not exist", "DROP INDEX"),
    1430: ("column being added already exists in table", _ALTER),
    1439: ("column to be modified must be empty to change datatype", "ALTER TABLE, modify_col_properties"),
    1440: ("column to be modified must be empty to decrease precision or scale", "ALTER TABLE, modify_col_properties"),
    1442: ("column to be modified to NOT NULL is already NOT NULL", "ALTER TABLE, modify_col_properties"),
    1450: ("maximum key length ({}) exceeded", "Logical Database Limits"),
    1451: ("column to be modified to NULL cannot be modified to NULL", "ALTER TABLE, modify_col_properties"),
    1723: ("zero-length columns are not allowed", _TYPES),
    1727: ("numeric precision specifier is out of range (1 to 38)", "Data Types, NUMBER"),
    1728: ("numeric scale specifier is out of range (-84 to 127)", "Data Types, NUMBER"),
    1735: ("invalid ALTER TABLE option", _ALTER),
    1758: ("table must be empty to add mandatory (NOT NULL) column", "ALTER TABLE, add_column_clause"),
    1792: ("maximum number of columns in a table or view is 1000", "Logical Database Limits"),
    2251: ("subquery not allowed here", "constraint, check constraints"),
    2256: ("number of referencing columns must match referenced columns", "constraint, foreign key constraints"),
    2258: ("duplicate or conflicting NULL and/or NOT NULL specifications", _CONSTRAINT),
    2260: ("table can have only one primary key", "constraint, primary key constraints"),
    2261: ("such unique or primary key already exists in the table", "constraint, unique constraints"),
    2263: ("need to specify the datatype for this column", _CREATE),
    2264: ("name already used by an existing constraint", _CONSTRAINT),
    2266: ("unique/primary keys in table referenced by enabled foreign keys", "TRUNCATE TABLE"),
    2267: ("column type incompatible with referenced column type", "constraint, foreign key constraints"),
    2268: ("referenced table does not have a primary key", "constraint, foreign key constraints"),
    2270: ("no matching unique or primary key for this column-list", "constraint, foreign key constraints"),
    2273: ("this unique/primary key is referenced by some foreign keys", "ALTER TABLE, drop_constraint_clause"),
    2275: ("such a referential constraint already exists in the table", "constraint, foreign key constraints"),
    2293: ("cannot validate ({}) - check constraint violated", "constraint, constraint_state"),
    2298: ("cannot validate ({}) - parent keys not found", "constraint, constraint_state"),
    2327: ("cannot create index on expression with datatype LOB", _INDEX),
    2329: ("column of datatype {} cannot be unique or a primary key", "constraint, unique constraints"),
    2429: ("cannot drop index used for enforcement of unique/primary key", "DROP INDEX"),
    2430: ("cannot enable constraint ({}) - no such constraint", "ALTER TABLE, enable_disable_clause"),
    2431: ("cannot disable constraint ({}) - no such constraint", "ALTER TABLE, enable_disable_clause"),
    2436: ("date or system variable wrongly specified in CHECK constraint", "constraint, check constraints"),
    2438: ("Column check constraint cannot reference other columns", "constraint, check constraints"),
    2441: ("Cannot drop nonexistent primary key", "ALTER TABLE, drop_constraint_clause"),
    2442: ("Cannot drop nonexistent unique key", "ALTER TABLE, drop_constraint_clause"),
    2443: ("Cannot drop constraint  - nonexistent constraint", "ALTER TABLE, drop_constraint_clause"),
    2449: ("unique/primary keys in table referenced by foreign keys", _DROP),
    12983: ("cannot drop all columns in a table", "ALTER TABLE, drop_column_clause"),
    12991: ("column is referenced in a multi-column constraint", "ALTER TABLE, drop_column_clause"),
    12992: ("cannot drop parent key column", "ALTER TABLE, drop_column_clause"),
    22858: ("invalid alteration of datatype", "ALTER TABLE, modify_col_properties"),
    22859: ("invalid modification of columns", "ALTER TABLE, modify_col_properties"),
    30082: (
        "datetime/interval column to be modified must be empty to decrease fractional second or leading field precision",
        "ALTER TABLE, modify_col_properties",
    ),
    30088: ("datetime/interval precision is out of range", "Data Types, TIMESTAMP"),
    30669: ("table can have only one identity column", "CREATE TABLE, identity_clause"),
    30673: ("column to be modified is not an identity column", "ALTER TABLE, modify_col_properties"),
    30674: ("identity column cannot have a default value", "CREATE TABLE, identity_clause"),
    30675: ("identity column must be a numeric type", "CREATE TABLE, identity_clause"),
}
# Errors of changes of rows, as a definition that reads the rows has them.
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
_NOT_IN_A_CHECK = re.compile(
    r" (?:SYSDATE|SYSTIMESTAMP|CURRENT_DATE|CURRENT_TIMESTAMP|LOCALTIMESTAMP|UID|USER|USERENV|ROWNUM|LEVEL) "
)
_KEY_LENGTH, _KEY_LENGTH_ONLINE = 6398, 3215  # of 8 KiB blocks
_LONGEST = {"VARCHAR2": 4000, "CHAR": 2000, "RAW": 2000}
_NOT_TYPES = {"TEXT", "BIGINT", "DATETIME", "TIMESTAMPTZ", "SERIAL", "UUID", "BYTEA", "TINYINT"}
_OTHER_ALTERATIONS = frozenset(
    """RENAME SET MOVE SHRINK ENABLE DISABLE COMPRESS NOCOMPRESS PARALLEL NOPARALLEL LOGGING NOLOGGING CACHE NOCACHE READ
    PCTFREE INITRANS ROW TRUNCATE SPLIT MERGE EXCHANGE COALESCE INMEMORY MODIFY""".split()  # noqa: SIM905 (as above)
)
_CREATED = re.compile(r"CREATE (?:GLOBAL TEMPORARY )?(TABLE|VIEW|SEQUENCE|SYNONYM) ")

Asks = Callable[[str], bool]  # whether a query in H2's SQL has rows


def refusal(code: int, about: object = "") -> OracleError:
    """The error with this number."""
    return OracleError(code, _RULES[code][0].format(about))


def of_existing_rows(sql: str, error: OracleError) -> OracleError:
    """The error of a definition that existing rows contradict, instead of that of a change."""
    text = " ".join(sql.upper().split())
    for said, code, number, words in _OF_EXISTING_ROWS:
        if code == error.code and said in text:
            return OracleError(number, words)
    return error


def refuse_definition(
    words: Sequence[Token], release: int, tables: Mapping[str, Table], others: Mapping[str, str], asks: Asks
) -> None:
    """Raises OracleError if Oracle would refuse the definition.

    `words` are its tokens without spaces, `tables` those of the schema, `others` its further names with their kinds.
    """
    text = " ".join(word.upper for word in words)
    first = [word.upper for word in words[:2]]
    if created := _CREATED.match(text):
        name, length = name_of(words[len(created[0].split()) :])
        if others.get(name, created[1]) != created[1] or (name in tables and created[1] != "TABLE"):
            raise refusal(955)
        if created[1] == "TABLE":
            _refuse_table(name, words[len(created[0].split()) + length :], tables, release)
    elif first == ["ALTER", "TABLE"]:
        name, length = name_of(words[2:])
        if name in tables:
            _refuse_alteration(name, words[2 + length :], tables, asks, release)
    elif re.match(r"CREATE (?:UNIQUE )?INDEX ", text):
        _refuse_index(words[2 if first[1] == "INDEX" else 3 :], tables)
    elif first == ["DROP", "INDEX"]:
        name, _ = name_of(words[2:])
        if any(key.name == name and key.kind in "PU" for table in tables.values() for key in table.keys):
            raise refusal(2429)
    elif first in (["DROP", "TABLE"], ["TRUNCATE", "TABLE"]):
        name, _ = name_of(words[2:])
        others_refer = any(key not in tables[name].keys for key in _keys_to(name, tables))
        if "CASCADE" not in text and others_refer:
            raise refusal(2449 if first[0] == "DROP" else 2266)


def _refuse_table(name: str, words: Sequence[Token], tables: Mapping[str, Table], release: int) -> None:
    if not words or words[0].text != "(" or name in tables:
        return
    inside = words[1 : closing(words, 0)]
    columns, keys = declared(inside)
    if len(columns) > 1000:
        raise refusal(1792)
    if len({column.name for column in columns}) < len(columns):
        raise refusal(957)
    _refuse_new(name, Table("", {}, [], {}), columns, keys, tables, release)


def _refuse_new(
    name: str, table: Table, columns: Sequence[Column], keys: Sequence[Key], tables: Mapping[str, Table], release: int
) -> None:
    """Refuses new columns and constraints of a table."""
    everything = table.columns | {column.name: column for column in columns}
    for column in columns:
        if column.name in RESERVED and not column.quoted:
            raise refusal(904, column.name)
        if not column.kind and not column.says("AS") and not any(key.kind == "R" for key in keys if column.name in key.columns):
            raise refusal(2263)
        _refuse_type(column, release)
        _refuse_default(column, everything)
    if sum(column.identity for column in everything.values()) > 1:
        raise refusal(30669)
    all_names = {key.name for each in tables.values() for key in each.keys}
    index_names = {index: columns for each in tables.values() for index, columns in each.indexes.items()}
    so_far = Table(table.place, everything, list(table.keys), table.indexes)
    for key in keys:
        if key.name and key.name in all_names | {each.name for each in so_far.keys}:
            raise refusal(2264)
        if key.kind in "PU" and key.name in index_names and index_names[key.name] != key.columns:
            raise refusal(955)
        _refuse_key(name, key, so_far, tables)
        so_far.keys.append(key)


def _refuse_type(column: Column, release: int) -> None:
    kind, sizes = column.kind, column.sizes
    if kind in _NOT_TYPES or (kind in {"BOOLEAN", "BOOL"} and release < 23) or (kind == "JSON" and release < 21):
        raise refusal(902)
    if kind == "VARCHAR2" and not sizes:
        raise refusal(906)
    if kind in _LONGEST and sizes:
        if sizes[0] == 0:
            raise refusal(1723)
        if sizes[0] > _LONGEST[kind]:
            raise refusal(910)
    if kind == "NUMBER" and sizes:
        if not 1 <= sizes[0] <= 38:
            raise refusal(1727)
        if sizes[1:] and not -84 <= sizes[1] <= 127:
            raise refusal(1728)
    if kind == "FLOAT" and sizes and not 1 <= sizes[0] <= 126:
        raise refusal(1727)
    if kind.startswith("TIMESTAMP") and sizes and sizes[0] > 9:
        raise refusal(30088)
    if column.identity and kind and kind not in {"NUMBER", "FLOAT"}:
        raise refusal(30675)
    outside = [word.upper for word in top_level(column.options)]
    nulls = sum(1 for before, word in zip(["", *outside], outside, strict=False) if word == "NULL" and before != "DEFAULT")
    if nulls > 1:
        raise refusal(2258)


def _refuse_default(column: Column, columns: Mapping[str, Column]) -> None:
    uppers = [word.upper for word in column.options]
    if "DEFAULT" not in uppers or column.identity:
        return
    start = uppers.index("DEFAULT") + 1
    end = next((at for at in range(start, len(uppers)) if uppers[at] in {"NOT", "CONSTRAINT", "CHECK"}), len(uppers))
    if any(name.strip('"') in columns for name in uppers[start:end]):
        raise refusal(984)


def _refuse_key(name: str, key: Key, table: Table, tables: Mapping[str, Table]) -> None:
    """Refuses a constraint of `table`, which has its columns and its earlier constraints."""
    if key.kind == "C":
        _refuse_check(key, table)
        return
    columns = _columns(key.columns, table)
    if len(set(key.columns)) < len(columns):
        raise refusal(957)
    for column in columns:
        if column.kind in LOBS or (key.kind in "PU" and column.kind.endswith("WITH TIME ZONE")):
            raise refusal(2329, column.kind)
    if key.kind == "R":
        _refuse_reference(name, key, columns, table, tables)
        return
    if key.kind == "P" and any(each.kind == "P" for each in table.keys):
        raise refusal(2260)
    if any(each.kind in "PU" and each.columns == key.columns for each in table.keys):
        raise refusal(2261)
    _refuse_length(columns, _KEY_LENGTH)


def _refuse_check(key: Key, table: Table) -> None:
    text = " " + " ".join("''" if word.kind == "string" else word.upper for word in key.condition) + " "
    if " SELECT " in text:
        raise refusal(2251)
    if _NOT_IN_A_CHECK.search(text):
        raise refusal(2436)
    if key.inline and any(f" {name} " in text for name in table.columns if name not in key.columns):
        raise refusal(2438)


def _refuse_reference(
    name: str, key: Key, columns: Sequence[Column], table: Table, tables: Mapping[str, Table]
) -> None:
    parent = table if key.parent == name else tables.get(key.parent)
    if parent is None:
        raise refusal(942)
    primary = next((each.columns for each in parent.keys if each.kind == "P"), ())
    if not key.parents and not primary:
        raise refusal(2268)
    parents = _columns(key.parents or primary, parent)
    if len(parents) != len(columns):
        raise refusal(2256)
    if not any(each.kind in "PU" and set(each.columns) == {column.name for column in parents} for each in parent.keys):
        raise refusal(2270)
    if any(ours.kind and ours.kind != theirs.kind for ours, theirs in zip(columns, parents, strict=True)):
        raise refusal(2267)
    if any(each.kind == "R" and (each.parent, each.columns) == (key.parent, key.columns) for each in table.keys):
        raise refusal(2275)


def _columns(names: Sequence[str], table: Table) -> list[Column]:
    for name in names:
        if name not in table.columns:
            raise refusal(904, name)
    return [table.columns[name] for name in names]


def _refuse_length(columns: Sequence[Column], limit: int) -> None:
    if sum(column.bytes + 1 for column in columns) > limit:
        raise refusal(1450, limit)


def _refuse_index(words: Sequence[Token], tables: Mapping[str, Table]) -> None:
    name, length = name_of(words)
    if [word.upper for word in words[length : length + 1]] != ["ON"]:
        return
    owner, more = name_of(words[length + 1 :])
    table = tables.get(owner)
    if table is None:
        return
    if any(name in each.indexes or any(key.name == name and key.kind in "PU" for key in each.keys) for each in tables.values()):
        raise refusal(955)
    opening = length + 1 + more
    end = closing(words, opening)
    parts = [squeezed(part) for part in split(words[opening + 1 : end])]
    whole = [table.columns[part] for part in (each.removesuffix(" DESC") for each in parts) if part in table.columns]
    if any(column.kind in LOBS for column in whole):
        raise refusal(2327)
    listed = [*table.indexes.values(), *(key.columns for key in table.keys if key.kind in "PU")]
    if tuple(parts) in listed:
        raise refusal(1408)
    online = any(word.upper == "ONLINE" for word in words[end:])
    _refuse_length(whole, _KEY_LENGTH_ONLINE if online else _KEY_LENGTH)


def _refuse_alteration(
    name: str, words: Sequence[Token], tables: Mapping[str, Table], asks: Asks, release: int
) -> None:
    table, verb, rest = tables[name], words[0].upper if words else "", list(words[1:])
    following = rest[0].upper if rest else ""
    if rest and rest[0].text == "(" and closing(rest, 0) == len(rest) - 1:
        rest = rest[1:-1]
    if verb == "ADD":
        columns, keys = declared(rest)
        if any(column.name in table.columns for column in columns):
            raise refusal(1430)
        _refuse_new(name, table, columns, keys, tables, release)
        mandatory = [column for column in columns if column.nullable is False and not column.says("DEFAULT")]
        if any(not column.identity for column in mandatory) and asks(f"SELECT 1 FROM {table.place}"):  # noqa: S608 (H2's own name)
            raise refusal(1758)
    elif verb in {"MODIFY", "ENABLE", "DISABLE"} and following in {"CONSTRAINT", "NOVALIDATE", "VALIDATE"}:
        _refuse_state(name, [word.upper.strip('"') for word in words], tables, asks)
    elif verb == "MODIFY":
        columns, keys = declared(rest)
        for column in columns:
            if column.name not in table.columns:
                raise refusal(904, column.name)
            _refuse_modification(table, table.columns[column.name], column, asks, release)
        for key in keys:
            _refuse_key(name, key, table, tables)
    elif verb == "DROP":
        _refuse_drop(name, words[1:], tables)
    elif verb not in _OTHER_ALTERATIONS:
        raise refusal(1735)


def _refuse_modification(table: Table, old: Column, new: Column, asks: Asks, release: int) -> None:
    generated, drops = new.says("GENERATED"), new.says("DROP")
    if (generated or drops) and not old.identity:
        raise refusal(30673)
    if new.says("DEFAULT") and old.identity and not generated:
        raise refusal(30674)
    if new.nullable is False and old.nullable is False:
        raise refusal(1442)
    if new.nullable is True and old.nullable is True:
        raise refusal(1451)
    _refuse_type(new, release)
    _refuse_default(new, {})
    if not new.kind or (new.kind, new.sizes, new.in_characters) == (old.kind, old.sizes, old.in_characters):
        return
    filled = f'SELECT 1 FROM {table.place} WHERE "{old.name}" IS NOT NULL'  # noqa: S608 (H2's own names)
    if new.kind != old.kind:
        if new.kind in LOBS:
            raise refusal(22858)
        if old.kind in LOBS:
            raise refusal(22859)
        if asks(filled):
            raise refusal(1439)
    elif new.kind == "NUMBER":
        if _decreases(old, new) and asks(filled):
            raise refusal(1440)
    elif new.kind.startswith("TIMESTAMP") and new.sizes and new.sizes < old.sizes and asks(filled):
        raise refusal(30082)


def _decreases(old: Column, new: Column) -> bool:
    """Whether a NUMBER gets fewer digits before or behind the decimal point."""
    if not new.sizes:
        return False
    (digits, scale), (more, behind) = ((*each.sizes, 0)[:2] if each.sizes else (10**3, 10**2) for each in (new, old))
    return digits - scale < more - behind or scale < behind


def _refuse_state(name: str, words: Sequence[str], tables: Mapping[str, Table], asks: Asks) -> None:
    """MODIFY CONSTRAINT or ENABLE CONSTRAINT: the constraint exists, and existing rows satisfy it."""
    wanted = words[words.index("CONSTRAINT") + 1] if "CONSTRAINT" in words else ""
    key = next((each for each in tables[name].keys if each.name == wanted), None)
    if key is None:
        raise refusal(2431 if "DISABLE" in words else 2430, wanted)
    if "NOVALIDATE" in words or "DISABLE" in words:
        return
    if key.kind == "C" and asks(f'SELECT 1 FROM {tables[name].place} WHERE NOT ({text_of(key.condition)})'):  # noqa: S608 (H2's own texts)
        raise refusal(2293, wanted)
    if key.kind == "R":
        pairs = zip(key.columns, key.parents, strict=True)
        same = " AND ".join(f'p."{parent}" = c."{child}"' for child, parent in pairs)
        filled = " AND ".join(f'c."{child}" IS NOT NULL' for child in key.columns)
        parent = tables[key.parent].place
        orphans = f"SELECT 1 FROM {tables[name].place} c WHERE {filled} AND NOT EXISTS (SELECT 1 FROM {parent} p WHERE {same})"  # noqa: S608 (the same)
        if asks(orphans):
            raise refusal(2298, wanted)


def _refuse_drop(name: str, words: Sequence[Token], tables: Mapping[str, Table]) -> None:
    table, uppers = tables[name], [word.upper for word in words]
    cascades = "CASCADE" in uppers
    children = list(_keys_to(name, tables))
    if uppers[:1] == ["CONSTRAINT"]:
        key = next((each for each in table.keys if each.name == name_of(words[1:])[0]), None)
        wrong = 2443
    elif uppers[:1] in (["PRIMARY"], ["UNIQUE"]):
        kind, wrong = ("P", 2441) if uppers[0] == "PRIMARY" else ("U", 2442)
        columns = names_in(words)
        key = next((each for each in table.keys if each.kind == kind and kind == "P" or each.columns == columns), None)
    else:
        dropped = {name_of(words[1:])[0]} if uppers[:1] == ["COLUMN"] else set(names_in(words))
        _refuse_drop_of_columns(table, dropped, children, cascades=cascades)
        return
    if key is None:
        raise refusal(wrong)
    if key.kind in "PU" and not cascades and any(child.parents == key.columns for child in children):
        raise refusal(2273)


def _refuse_drop_of_columns(table: Table, dropped: set[str], children: Sequence[Key], *, cascades: bool) -> None:
    for column in dropped - set(table.columns):
        raise refusal(904, column)
    if dropped == set(table.columns):
        raise refusal(12983)
    if cascades:
        return
    if any(dropped.intersection(key.parents) for key in children):
        raise refusal(12992)
    if any(dropped & set(key.columns) and set(key.columns) - dropped for key in table.keys):
        raise refusal(12991)


def _keys_to(name: str, tables: Mapping[str, Table]) -> Iterator[Key]:
    """The foreign keys that refer to a table, its own too."""
    for table in tables.values():
        yield from (key for key in table.keys if key.kind == "R" and key.parent == name)
