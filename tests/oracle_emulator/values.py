"""Oracle's encoding of values in rows and binds: NUMBER, DATE, TIMESTAMP."""

import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TypeAlias

VARCHAR, NUMBER, BINARY_INTEGER, LONG, DATE, RAW, LONG_RAW = 1, 2, 3, 8, 12, 23, 24
CHAR, CLOB, BLOB = 96, 112, 113
TIMESTAMP, TIMESTAMP_TZ, TIMESTAMP_LTZ, BOOLEAN = 180, 181, 231, 252
TEXTS = frozenset({VARCHAR, CHAR, LONG})
BYTES = frozenset({RAW, LONG_RAW})
INSTANTS = frozenset({DATE, TIMESTAMP, TIMESTAMP_TZ, TIMESTAMP_LTZ})
LOBS = frozenset({CLOB, BLOB})

NATIONAL = 2  # form of a bind: UTF-16
_ZERO = b"\x80"
_NEGATIVE_END = 0x66
_PAIRS = 20  # decimal digits of a NUMBER
_ZONE_HOUR, _ZONE_MINUTE = 20, 60
_WITH_FRACTION, _WITH_ZONE = 11, 13

Value: TypeAlias = str | bytes | bool | int | float | Decimal | datetime | None


def encode(value: Value, kind: int) -> bytes:
    """The bytes of a value in an Oracle type; empty for NULL."""
    if value is None:
        return b""
    if isinstance(value, datetime) and kind in INSTANTS:
        return encode_datetime(value, kind)
    if kind == BOOLEAN:
        return b"\x01\x01" if value else b"\x00"
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    assert isinstance(value, int | float | Decimal)
    return encode_number(value)


def decode(data: bytes | None, kind: int, form: int) -> Value:
    """The value of a bind. Empty bytes are NULL."""
    if data is None:
        return None
    if kind in TEXTS:
        return data.decode("utf-16-be" if form == NATIONAL else "utf-8")
    if kind not in _DECODERS:
        raise NotImplementedError(f"a bind of Oracle's type {kind}")
    return _DECODERS[kind](data)


def encode_number(value: float | Decimal) -> bytes:
    """NUMBER: an exponent, then pairs of digits (each plus 1, or 101 minus it in a negative number)."""
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    if number == 0:
        return _ZERO
    negative, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).rstrip("0")
    exponent += len(digits) - len(text)
    if exponent % 2:  # pairs are aligned to the decimal point
        text += "0"
        exponent -= 1
    if len(text) % 2:
        text = "0" + text
    pairs = [int(text[start : start + 2]) for start in range(0, len(text), 2)]
    exponent_of_pairs = exponent // 2 + len(pairs) - 1
    pairs = pairs[:_PAIRS]
    if not negative:
        return bytes([0xC1 + exponent_of_pairs, *(pair + 1 for pair in pairs)])
    end = [_NEGATIVE_END] if len(pairs) < _PAIRS else []
    return bytes([0x3E - exponent_of_pairs, *(101 - pair for pair in pairs), *end])


def decode_number(data: bytes) -> int | Decimal:
    """The NUMBER that `encode_number` writes."""
    if data == _ZERO:
        return 0
    positive = bool(data[0] & 0x80)
    if positive:
        exponent, pairs = data[0] - 0xC1, [byte - 1 for byte in data[1:]]
    else:
        body = data[1:-1] if data[-1] == _NEGATIVE_END else data[1:]
        exponent, pairs = 0x3E - data[0], [101 - byte for byte in body]
    digits = "".join(f"{pair:02}" for pair in pairs)
    shortest = digits.rstrip("0")
    exponent = 2 * (exponent - len(pairs) + 1) + len(digits) - len(shortest)
    # From text, because arithmetic would round to the context's 28 digits.
    number = Decimal(f"{'' if positive else '-'}{shortest}E{exponent}")
    return int(number) if exponent >= 0 else number


def encode_datetime(value: date, kind: int) -> bytes:
    """DATE takes 7 bytes, TIMESTAMP 11, TIMESTAMP WITH TIME ZONE 13: the fields in UTC, then the offset."""
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001 (Oracle's DATE has no zone)
    offset = 0
    if kind == TIMESTAMP_TZ:
        offset = int((moment.utcoffset() or timedelta()).total_seconds()) // 60
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    fields = (moment.year // 100 + 100, moment.year % 100 + 100, moment.month, moment.day)
    data = bytes([*fields, moment.hour + 1, moment.minute + 1, moment.second + 1])
    if kind == DATE or (kind == TIMESTAMP and moment.microsecond == 0):
        return data
    data += struct.pack(">I", moment.microsecond * 1000)
    if kind == TIMESTAMP_TZ:
        sign = -1 if offset < 0 else 1
        data += bytes([_ZONE_HOUR + sign * (abs(offset) // 60), _ZONE_MINUTE + sign * (abs(offset) % 60)])
    return data


def decode_datetime(data: bytes) -> datetime:
    """The time that `encode_datetime` wrote; aware if it has a zone."""
    micro = int.from_bytes(data[7:_WITH_FRACTION], "big") // 1000 if len(data) >= _WITH_FRACTION else 0
    year = (data[0] - 100) * 100 + data[1] - 100
    moment = datetime(year, data[2], data[3], data[4] - 1, data[5] - 1, data[6] - 1, micro)  # noqa: DTZ001 (its zone follows)
    if len(data) < _WITH_ZONE:
        return moment
    offset = timedelta(hours=data[11] - _ZONE_HOUR, minutes=data[12] - _ZONE_MINUTE)
    return moment.replace(tzinfo=UTC).astimezone(timezone(offset))


_DECODERS: dict[int, Callable[[bytes], Value]] = {
    **dict.fromkeys(BYTES, bytes),
    **dict.fromkeys((NUMBER, BINARY_INTEGER), decode_number),
    **dict.fromkeys(INSTANTS, decode_datetime),
    BOOLEAN: lambda data: data[0] == 1,
}
