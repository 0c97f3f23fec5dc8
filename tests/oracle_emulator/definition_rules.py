"""What Oracle refuses in definitions: the numbers, with the pages of its documentation, and the rules for columns.

Each number's cause and action are on docs.oracle.com/error-help/db/ora-02329/ and so on; a page is the chapter of the
SQL Language Reference (19c) that states the rule.
"""

from collections.abc import Callable

from tests.oracle_emulator.declared import LOBS, Column
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.refusals import RESERVED

_MODIFY, _DROP_COLUMN, _IDENTITY = (
    "ALTER TABLE, modify_col_properties",
    "ALTER TABLE, drop_column_clause",
    "identity_clause",
)
_KEYS, _FOREIGN_KEYS, _CHECKS = (
    "constraint, unique constraints",
    "constraint, foreign key constraints",
    "constraint, check",
)
_DROP_KEY, _STATE, _LIMITS = "ALTER TABLE, drop_constraint_clause", "constraint_state", "Logical Database Limits"
_TYPES, _NAMES = "Data Types", "Database Object Names and Qualifiers"
RULES = {
    902: ("invalid datatype", _TYPES),
    904: ('"{}": invalid identifier', _NAMES),
    906: ("missing left parenthesis", _TYPES),
    910: ("specified length too long for its datatype", _TYPES),
    942: ("table or view does not exist", _NAMES),
    955: ("name is already used by an existing object", _NAMES),
    957: ("duplicate column name", "CREATE TABLE"),
    984: ("column not allowed here", "CREATE TABLE, DEFAULT"),
    1408: ("such column list already indexed", "CREATE INDEX"),
    1430: ("column being added already exists in table", "ALTER TABLE, add_column_clause"),
    1439: ("column to be modified must be empty to change datatype", _MODIFY),
    1440: ("column to be modified must be empty to decrease precision or scale", _MODIFY),
    1442: ("column to be modified to NOT NULL is already NOT NULL", _MODIFY),
    1450: ("maximum key length ({}) exceeded", _LIMITS),
    1451: ("column to be modified to NULL cannot be modified to NULL", _MODIFY),
    1723: ("zero-length columns are not allowed", _TYPES),
    1727: ("numeric precision specifier is out of range (1 to 38)", _TYPES),
    1728: ("numeric scale specifier is out of range (-84 to 127)", _TYPES),
    1735: ("invalid ALTER TABLE option", "ALTER TABLE"),
    1758: ("table must be empty to add mandatory (NOT NULL) column", "ALTER TABLE, add_column_clause"),
    1792: ("maximum number of columns in a table or view is 1000", _LIMITS),
    2251: ("subquery not allowed here", _CHECKS),
    2256: ("number of referencing columns must match referenced columns", _FOREIGN_KEYS),
    2260: ("table can have only one primary key", "constraint, primary key constraints"),
    2261: ("such unique or primary key already exists in the table", _KEYS),
    2263: ("need to specify the datatype for this column", "CREATE TABLE"),
    2264: ("name already used by an existing constraint", "constraint"),
    2266: ("unique/primary keys in table referenced by enabled foreign keys", "TRUNCATE TABLE"),
    2267: ("column type incompatible with referenced column type", _FOREIGN_KEYS),
    2268: ("referenced table does not have a primary key", _FOREIGN_KEYS),
    2270: ("no matching unique or primary key for this column-list", _FOREIGN_KEYS),
    2273: ("this unique/primary key is referenced by some foreign keys", _DROP_KEY),
    2275: ("such a referential constraint already exists in the table", _FOREIGN_KEYS),
    2293: ("cannot validate ({}) - check constraint violated", _STATE),
    2298: ("cannot validate ({}) - parent keys not found", _STATE),
    2327: ("cannot create index on expression with datatype LOB", "CREATE INDEX"),
    2329: ("column of datatype {} cannot be unique or a primary key", _KEYS),
    2429: ("cannot drop index used for enforcement of unique/primary key", "DROP INDEX"),
    2430: ("cannot enable constraint ({}) - no such constraint", _STATE),
    2431: ("cannot disable constraint ({}) - no such constraint", _STATE),
    2436: ("date or system variable wrongly specified in CHECK constraint", _CHECKS),
    2438: ("Column check constraint cannot reference other columns", _CHECKS),
    2441: ("Cannot drop nonexistent primary key", _DROP_KEY),
    2442: ("Cannot drop nonexistent unique key", _DROP_KEY),
    2443: ("Cannot drop constraint  - nonexistent constraint", _DROP_KEY),
    2449: ("unique/primary keys in table referenced by foreign keys", "DROP TABLE"),
    12983: ("cannot drop all columns in a table", _DROP_COLUMN),
    12991: ("column is referenced in a multi-column constraint", _DROP_COLUMN),
    12992: ("cannot drop parent key column", _DROP_COLUMN),
    22858: ("invalid alteration of datatype", _MODIFY),
    22859: ("invalid modification of columns", _MODIFY),
    30082: ("datetime/interval column to be modified must be empty to decrease fractional second precision", _MODIFY),
    30088: ("datetime/interval precision is out of range", _TYPES),
    30669: ("table can have only one identity column", _IDENTITY),
    30673: ("column to be modified is not an identity column", _IDENTITY),
    30674: ("identity column cannot have a default value", _IDENTITY),
    30675: ("identity column must be a numeric type", _IDENTITY),
}
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


def refusal(code: int, about: object = "") -> OracleError:
    """The error with this number."""
    return OracleError(code, RULES[code][0].format(about))


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


def refuse_column(new: Column, release: int) -> None:
    """Refuses the declaration of a column."""
    for code, wrong in _OF_A_COLUMN:
        if wrong(new):
            raise refusal(code, new.name)
    if release < _NEW_TYPES.get(new.kind, 0):
        raise refusal(902)


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


def refuse_modification(old: Column, new: Column, has_values: Callable[[], bool]) -> None:
    """Refuses ALTER TABLE … MODIFY of a column. `has_values`: whether it is not NULL in some row."""
    for code, wrong in _OF_A_MODIFICATION:
        if wrong(old, new):
            raise refusal(code)
    for code, wrong in _OF_A_FILLED_COLUMN:
        if wrong(old, new) and has_values():
            raise refusal(code)
