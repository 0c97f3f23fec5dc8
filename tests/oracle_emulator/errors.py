"""Oracle's errors, and their mapping from H2's."""

import re

TOO_LONG = 12899  # for a column
H2_LOCK_TIMEOUT = 50200
H2_CONCURRENT_UPDATE = 90131


class OracleError(Exception):
    """A server's error: ORA- and five digits."""

    def __init__(self, code: int, text: str, *, rows: int = 0) -> None:
        """`rows`: the rows that an array had written before it failed."""
        super().__init__(f"ORA-{code:05d}: {text}")
        self.code = code
        self.rows = rows


class Unsupported(OracleError):
    """A request that the emulator lacks: answered with an error, and recorded among the failures."""


_BY_H2_CODE = {
    21002: (913, "too many values"),
    22003: (1438, "value larger than specified precision allowed for this column"),
    22004: (1438, "value larger than specified precision allowed for this column"),
    22007: (1843, "not a valid month"),
    22012: (1476, "divisor is equal to zero"),
    22018: (1722, "invalid number"),
    40001: (60, "deadlock detected while waiting for resource"),
    42101: (955, "name is already used by an existing object"),
    42102: (942, "table or view does not exist"),
    42103: (942, "table or view does not exist"),
    42104: (942, "table or view does not exist"),
    42111: (955, "name is already used by an existing object"),
    42112: (1418, "specified index does not exist"),
    42121: (957, "duplicate column name"),
    42122: (904, '"{name}": invalid identifier'),
    H2_LOCK_TIMEOUT: (54, "resource busy and acquire with NOWAIT specified or timeout expired"),
    57014: (1013, "user requested cancel of current operation"),
    90016: (979, "not a GROUP BY expression"),
    90022: (904, '"{name}": invalid identifier'),
    90035: (955, "name is already used by an existing object"),
    90036: (2289, "sequence does not exist"),
    90045: (2264, "name already used by an existing constraint"),
    90053: (1427, "single-row subquery returns more than one row"),
    90057: (2443, "Cannot drop constraint  - nonexistent constraint"),
    90059: (918, "column ambiguously defined"),
    90063: (1086, "savepoint '{name}' never established in this session or is invalid"),
    90081: (1400, 'cannot insert NULL into ("{schema}"."?"."{name}")'),
    90085: (2429, "cannot drop index used for enforcement of unique/primary key"),
    H2_CONCURRENT_UPDATE: (8177, "can't serialize access for this transaction"),
    90136: (32795, "cannot insert into a generated always identity column"),
    90154: (32795, "cannot insert into a generated always identity column"),
}
_UNIQUE, _VALUE_TOO_LONG, _CALL_FAILED = 23505, 22001, 90105
_GENERAL = 50000
# H2 checks names before it locks, so one of two sessions that create or drop the same object gets these.
_RACES = {
    "object already exists": (955, "name is already used by an existing object"),
    "not found: IX_": (1418, "specified index does not exist"),
}
_CONSTRAINTS = {
    23503: (2292, "integrity constraint ({schema}.{constraint}) violated - child record found"),
    23506: (2291, "integrity constraint ({schema}.{constraint}) violated - parent key not found"),
    23513: (2290, "check constraint ({schema}.{constraint}) violated"),
    23514: (2290, "check constraint ({schema}.{constraint}) violated"),
    23502: (1400, 'cannot insert NULL into ("{schema}"."?"."{name}")'),
}


def from_h2(code: int, message: str, schema: str, release: int) -> OracleError:
    """The error that a real server would most likely return instead of H2's."""
    message = message.partition("; SQL statement:")[0]
    quoted = re.search(r'"([^"]+)"', message)
    name = quoted.group(1) if quoted else ""
    if code == _UNIQUE:
        return _unique(name, schema, release)
    if code in {_VALUE_TOO_LONG, _CALL_FAILED}:
        return _too_long(message, schema)
    number, text = (_CONSTRAINTS | _BY_H2_CODE).get(code, (0, ""))
    if code == _GENERAL:
        number, text = next((answer for said, answer in _RACES.items() if said in message), (0, ""))
    if number == 0:
        return Unsupported(900, f"invalid SQL statement (H2 said {code}: {message})")
    if number == 942 and release >= 23:
        text = 'table or view "{schema}"."{name}" does not exist'
    return OracleError(number, text.format(schema=schema, name=name, constraint=name.partition(":")[0]))


def _unique(name: str, schema: str, release: int) -> OracleError:
    index = re.split(r"[ (]", name)[0].split(".")[-1]
    constraint = re.sub(r"_INDEX_\w+$", "", index)
    table = re.search(r" ON (?:\w+\.)?(\w+)\(", name)
    more = f" on table {schema}.{table.group(1)}" if release >= 23 and table else ""
    return OracleError(1, f"unique constraint ({schema}.{constraint}) violated{more}")


def _too_long(message: str, schema: str) -> OracleError:
    """ORA-12899, in the unit of the column's length, or ORA-01489 for more bytes than any text may have."""
    if re.search(r'long \d+"$', message):
        return OracleError(1489, "result of string concatenation is too long")
    table, column, limit, actual = "?", "?", "?", "?"
    if found := re.search(r'column "(\S+) [A-Z ]+\((\d+)\)".*\((\d+)\)', message, re.DOTALL):
        column, limit, actual = found.groups()
    if found := re.search(r'([^\s.]+)\.(\S+) (\d+) (?:CHAR|BYTE) (\d+)"$', message):
        table, column, limit, actual = found.groups()
    text = f'value too large for column "{schema}"."{table}"."{column}" (actual: {actual}, maximum: {limit})'
    return OracleError(TOO_LONG, text)
