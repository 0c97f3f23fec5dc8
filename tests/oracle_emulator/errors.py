"""Oracle's errors, and their mapping from H2's."""

import re

TOO_LONG = 12899  # for a column
H2_LOCK_TIMEOUT = 50200
BUSY = 54
H2_CONCURRENT_UPDATE = 90131


class OracleError(Exception):
    """A server's error: ORA- and five digits."""

    def __init__(self, code: int, text: str, *, rows: int = 0) -> None:
        """`rows`: the rows that an array had written before it failed."""
        super().__init__(f"ORA-{code:05d}: {text}")
        self.code = code
        self.rows = rows


# The rules that the emulator applies itself: those of the SQL Language Reference (19c) and of "Logical Database Limits"
# in Database Reference. A number's cause and action are on docs.oracle.com/error-help/db/ora-00932/ and so on.
_RULES = {
    900: "invalid SQL statement",
    902: "invalid datatype",
    904: '"{}": invalid identifier',
    905: "missing keyword",
    906: "missing left parenthesis",
    907: "missing right parenthesis",
    910: "specified length too long for its datatype",
    918: "column ambiguously defined",
    920: "invalid relational operator",
    923: "FROM keyword not found where expected",
    936: "missing expression",
    938: "not enough arguments for function",
    2436: "date or system variable wrongly specified in CHECK constraint",
    932: "inconsistent datatypes: expected {} got {}",
    933: "SQL command not properly ended",
    934: "group function is not allowed here",
    937: "not a single-group group function",
    942: "table or view does not exist",
    955: "name is already used by an existing object",
    972: "identifier is too long",
    975: "date + date not allowed",
    979: "not a GROUP BY expression",
    1404: "ALTER COLUMN will make an index too large",
    1408: "such column list already indexed",
    1439: "column to be modified must be empty to change datatype",
    1440: "column to be modified must be empty to decrease precision or scale",
    1442: "column to be modified to NOT NULL is already NOT NULL",
    1450: "maximum key length ({}) exceeded",
    1453: "SET TRANSACTION must be first statement of transaction",
    1461: "can bind a LONG value only for insert into a LONG column",
    1704: "string literal too long",
    1727: "numeric precision specifier is out of range (1 to 38)",
    1728: "numeric scale specifier is out of range (-84 to 127)",
    1745: "invalid host/bind variable name",
    1786: "FOR UPDATE of this query expression is not allowed",
    1790: "expression must have same datatype as corresponding expression",
    1795: "maximum number of expressions in a list is {}",
    1796: "this operator cannot be used with lists",
    1843: "not a valid month",
    2014: "cannot select FOR UPDATE from view with DISTINCT, GROUP BY, etc.",
    2248: "invalid option for ALTER SESSION",
    2261: "such unique or primary key already exists in the table",
    2293: "cannot validate - check constraint violated",
    2329: "column of datatype TIMESTAMP WITH TIME ZONE cannot be unique or a primary key",
    2429: "cannot drop index used for enforcement of unique/primary key",
    2430: "cannot enable constraint ({}) - no such constraint",
    12992: "cannot drop parent key column",
    22818: "subquery expressions not allowed here",
    24816: "Expanded non LONG bind data supplied after actual LONG or LOB column",
    30087: "Adding two datetime values is not allowed",
    30669: "table can have only one identity column",
    32039: "recursive WITH clause must have column alias list",
    32040: "recursive WITH clause must use a UNION ALL operation",
    32042: "recursive WITH clause must reference itself directly in one of the UNION ALL branches",
}


def refused(code: int, *values: object) -> OracleError:
    """The error of a rule, to be raised."""
    return OracleError(code, _RULES[code].format(*values, "", ""))


class Unsupported(OracleError):
    """A request that the emulator lacks: answered with an error, and recorded among the failures."""


_BY_H2_CODE = {
    22003: (1438, "value larger than specified precision allowed for this column"),
    22004: (1438, "value larger than specified precision allowed for this column"),
    22007: (1843, "not a valid month"),
    22012: (1476, "divisor is equal to zero"),
    22018: (1722, "invalid number"),
    40001: (60, "deadlock detected while waiting for resource"),
    42101: (955, "name is already used by an existing object"),
    42102: (942, "table or view does not exist"),
    42111: (955, "name is already used by an existing object"),
    42112: (1418, "specified index does not exist"),
    42121: (957, "duplicate column name"),
    42122: (904, '"{name}": invalid identifier'),
    H2_LOCK_TIMEOUT: (BUSY, "resource busy and acquire with NOWAIT specified or timeout expired"),
    57014: (1013, "user requested cancel of current operation"),
    90022: (904, '"{name}": invalid identifier'),
    90035: (955, "name is already used by an existing object"),
    90053: (1427, "single-row subquery returns more than one row"),
    90059: (918, "column ambiguously defined"),
    90063: (1086, "savepoint '{name}' never established in this session or is invalid"),
    90081: (1400, 'cannot insert NULL into ("{schema}"."?"."{name}")'),
    H2_CONCURRENT_UPDATE: (8177, "can't serialize access for this transaction"),
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
