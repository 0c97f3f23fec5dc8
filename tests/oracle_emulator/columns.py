"""H2's result sets, described as Oracle does, and their rows as Python values."""

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

from tests.oracle_emulator import values
from tests.oracle_emulator.definitions import length_of
from tests.oracle_emulator.errors import OracleError, Unsupported
from tests.oracle_emulator.java import Java
from tests.oracle_emulator.values import Value

ANY_NUMBER = (0, -127)  # precision and scale of a NUMBER declared without them
LONGEST = 32767
_MAX_STRING = 4000  # bytes of a text: MAX_STRING_SIZE=STANDARD

# Oracle's kinds by java.sql.Types.
_KINDS = {
    **dict.fromkeys((-6, 5, 4, -5, 2, 3, 6, 7, 8), values.NUMBER),
    **dict.fromkeys((1, -15), values.CHAR),
    **dict.fromkeys((12, -9, -1, 0), values.VARCHAR),
    **dict.fromkeys((-2, -3, -4), values.RAW),
    **dict.fromkeys((2005, 2011), values.CLOB),
    **dict.fromkeys((93, 91), values.TIMESTAMP),
    2004: values.BLOB,
    2014: values.TIMESTAMP_TZ,
    16: values.BOOLEAN,
}
_INTEGERS, _FLOATS, _NULL = {-6, 5, 4, -5}, {6, 7, 8}, 0
_SIZES = {
    values.NUMBER: 22,
    values.CLOB: 4000,
    values.BLOB: 4000,
    values.TIMESTAMP: 11,
    values.TIMESTAMP_TZ: 13,
    values.DATE: 1,
    values.BOOLEAN: 1,
}

_MOMENT = re.compile(r"(\d+)-(\d+)-(\d+)(?:[ T](\d+):(\d+):(\d+)(?:\.(\d+))?)?(?:([+-])(\d+)(?::(\d+))?)?$")


class Column(NamedTuple):
    """A column as described to the client."""

    name: str
    kind: int
    size: int  # in bytes; 0 if it is NULL in every row
    precision: int = 0
    scale: int = 0
    characters: int = 0  # of a text column
    nullable: bool = True

    @property
    def is_lob(self) -> bool:
        """Whether a locator is sent instead of the value."""
        return self.kind in values.LOBS

    @property
    def is_text(self) -> bool:
        """Whether it has a character set."""
        return self.kind in {values.CHAR, values.VARCHAR, values.CLOB}


def describe(result: Java, release: int) -> list[Column]:
    """The columns of a result set."""
    data = result.getMetaData()
    return [_column(data, number, release) for number in range(1, int(data.getColumnCount()) + 1)]


def fetch(result: Java, columns: list[Column]) -> list[Value] | None:
    """The next row; None after the last."""
    if not result.next():
        return None
    return [_value(result, number, column.kind) for number, column in enumerate(columns, 1)]


def _column(data: Java, number: int, release: int) -> Column:
    name, jdbc = str(data.getColumnLabel(number)), int(data.getColumnType(number))
    if jdbc not in _KINDS:
        raise Unsupported(932, f"inconsistent datatypes: {data.getColumnTypeName(number)}")
    kind, precision, scale, characters = _KINDS[jdbc], 0, 0, 0
    if kind == values.NUMBER:
        precision, scale = _precision(data, number, jdbc)
    elif kind in values.INSTANTS:
        scale = int(data.getScale(number))
        if kind == values.TIMESTAMP and scale == 0:  # Oracle's DATE
            kind = values.DATE
    elif kind == values.BOOLEAN and release < 23:
        kind = values.NUMBER
    if kind in _SIZES:
        size = _SIZES[kind]
    elif jdbc == _NULL:
        size = 0
    else:
        length, in_characters = length_of(int(data.getPrecision(number)))
        length = min(length, LONGEST)
        characters = 0 if kind == values.RAW else length
        size = (min(characters * 4, LONGEST) if in_characters else 0) or length
    return Column(name, kind, size, precision, scale, characters, nullable=int(data.isNullable(number)) != 0)


def _precision(data: Java, number: int, jdbc: int) -> tuple[int, int]:
    """Precision and scale as declared for a column; none for an expression."""
    if jdbc in _FLOATS:
        return 126, -127
    if not data.getTableName(number) or str(data.getColumnTypeName(number)).startswith("DECFLOAT"):
        return ANY_NUMBER
    return (38, 0) if jdbc in _INTEGERS else (int(data.getPrecision(number)), int(data.getScale(number)))


def _value(result: Java, number: int, kind: int) -> Value:
    """A column of the row; empty text reads as NULL, as in Oracle."""
    if kind in {values.BLOB, values.RAW}:
        data = result.getBytes(number)
        return None if data is None else bytes(memoryview(data))
    text: str | None = result.getString(number)
    if not text:
        return None
    if kind == values.NUMBER:
        return Decimal({"TRUE": "1", "FALSE": "0"}.get(text, text))
    if kind in values.INSTANTS:
        return _moment(text)
    if kind == values.VARCHAR and len(text) > _MAX_STRING // 4 and len(text.encode()) > _MAX_STRING:
        raise OracleError(1489, "result of string concatenation is too long")
    return text == "TRUE" if kind == values.BOOLEAN else text


def _moment(text: str) -> datetime:
    found = _MOMENT.match(text)
    assert found, text
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    zone = None
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
        zone = timezone(-offset if sign == "-" else offset)
    micro = int(f"{fraction or ''}000000"[:6])
    return datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micro, zone)
