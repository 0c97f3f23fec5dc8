"""Avro to JSON, by docs/schemas.md. Pure.

fastavro parses schemas. It does not read the values here: 200 KB of hostile bytes under a recursive schema overflow its
stack and kill the process, and ten bytes make it append to a list for ever. This reader has limits.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from fastavro.schema import parse_schema

from consumer.errors import Undecodable
from consumer.schemas.wire_format import Decode, Framed, JsonLimit, Misfit, base64, key_cost, number, single

MOST_SCALE = 1000  # digits of a decimal after the point
MOST_DECIMAL = 512  # bytes of a decimal's unscaled value: 1,233 digits
_MORE = 128  # in a byte of a number: another byte follows
_LONGEST_NUMBER = 10  # bytes of 64 bits
_EPOCH = date(1970, 1, 1).toordinal()
_DAY = 86_400
_PER_SECOND = {"millis": 10**3, "micros": 10**6, "nanos": 10**9}
_FLOAT, _DOUBLE, _DURATION = struct.Struct("<f"), struct.Struct("<d"), struct.Struct("<III")
_DURATION_SIZE, _UUID_SIZE = 12, 16


class _Source(JsonLimit):
    """The bytes of one value, how far they are read, and how much JSON they may become."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data
        self.at = 0
        self.end = len(data)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        begin, after = self.at, self.at + size
        if size < 0 or after > self.end:
            raise Misfit(f"a length of {size} at byte {begin} of {self.end}")
        self.at = after
        return self.data[begin:after]


_Read = Callable[[_Source], Any]


def avro_decoder(schema: Any, references: Sequence[Any] = ()) -> Decode:
    """A function that turns payloads of this schema, parsed from JSON, into JSON.

    `references` are the schemas whose names it uses, each after its own references. The function raises
    Undecodable: bad_avro, too_large, too_deep. ValueError, or an error of fastavro: the schema cannot be used.
    """
    named: dict[str, Any] = {}
    for each in references:
        parse_schema(each, named_schemas=named)
    read = _Readers(named).of(parse_schema(schema, named_schemas=named))

    def decode(framed: Framed) -> bytes:
        source = _Source(framed.payload)
        try:
            value = read(source)
            if source.at != source.end:
                raise Misfit(f"{source.end - source.at} bytes too many")
        except (ValueError, OverflowError, struct.error) as error:
            why = str(error) if isinstance(error, Misfit) else f"{type(error).__name__} at byte {source.at}"
            raise Undecodable("bad_avro", f"the value does not fit its schema: {why}") from None
        return orjson.dumps(value)

    return decode


class _Readers:
    """Makes the readers of a schema's types."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._made: dict[str, _Read] = {}

    def of(self, schema: Any) -> _Read:
        """The reader of a type: a name, a union's list, or a definition."""
        if isinstance(schema, list):
            return _union([self.of(each) for each in schema])
        if isinstance(schema, str):
            return _PRIMITIVES.get(schema) or self._by_name(schema)
        match schema["type"]:
            case "record" | "error" | "enum" | "fixed":
                return self._by_name(schema["name"])
            case "array":
                return _array(self.of(schema["items"]))
            case "map":
                return _map(self.of(schema["values"]))
            case kind:
                return _logical(schema) or self.of(kind)

    def _by_name(self, name: str) -> _Read:
        if name not in self._made:
            made: list[_Read] = []
            self._made[name] = lambda source: made[0](source)  # noqa: PLW0108 (made below: the type may hold itself)
            made.append(self._defined(self._named[name]))
            self._made[name] = made[0]
        return self._made[name]

    def _defined(self, schema: Mapping[str, Any]) -> _Read:
        if schema["type"] == "enum":
            return _enum(tuple(schema["symbols"]))
        if schema["type"] == "fixed":
            if not isinstance(schema["size"], int) or schema["size"] < 0:  # fastavro takes any
                raise ValueError(f"the size of {schema['name']} is not a whole number")
            return _logical(schema) or _fixed(schema["size"])
        return _record([(field["name"], self.of(field["type"])) for field in schema["fields"]])


# Types of the specification.


def _null(_source: _Source) -> None:
    return None


def _boolean(source: _Source) -> bool:
    (value,) = source.take(1)
    if value > 1:
        raise Misfit(f"a boolean of {value} at byte {source.at - 1}")
    return bool(value)


def _long(source: _Source) -> int:
    data, at = source.data, source.at
    if at < source.end and data[at] < _MORE:  # most are short
        source.at = at + 1
        return (data[at] >> 1) ^ -(data[at] & 1)
    result = shift = 0
    for byte in data[at : at + _LONGEST_NUMBER]:
        source.at += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < _MORE:
            if result >> 64:
                break
            return (result >> 1) ^ -(result & 1)
    raise Misfit(f"a number without an end, or of more than 64 bits, before byte {source.at}")


def _float(source: _Source) -> float | str:
    value: float = _FLOAT.unpack(source.take(4))[0]
    return single(value)


def _double(source: _Source) -> float | str:
    value: float = _DOUBLE.unpack(source.take(8))[0]
    return number(value)


def _bytes(source: _Source) -> str:
    return source.counted(base64(source.take(_long(source))))


def _string(source: _Source) -> str:
    return source.take(_long(source)).decode()


_PRIMITIVES: dict[str, _Read] = {
    "null": _null,
    "boolean": _boolean,
    "int": _long,
    "long": _long,
    "float": _float,
    "double": _double,
    "bytes": _bytes,
    "string": _string,
}


def _record(fields: list[tuple[str, _Read]]) -> _Read:
    cost = 2 + sum(key_cost(name) for name, _ in fields)

    def read(source: _Source) -> dict[str, Any]:
        source.enter(cost)
        result = {}
        for name, field in fields:
            result[name] = field(source)
        source.leave()
        return result

    return read


def _array(item: _Read) -> _Read:
    def read(source: _Source) -> list[Any]:
        source.enter(2)
        result: list[Any] = []
        while count := _count(source):
            source.spend(2 * count)
            for _ in range(count):
                result.append(item(source))  # noqa: PERF401 (a comprehension is a frame more for each level)
        source.leave()
        return result

    return read


def _map(item: _Read) -> _Read:
    def read(source: _Source) -> dict[str, Any]:
        source.enter(2)
        result = {}
        while count := _count(source):
            source.spend(key_cost("") * count)
            for _ in range(count):
                name = _string(source)
                result[name] = item(source)
        source.leave()
        return result

    return read


def _count(source: _Source) -> int:
    """The number of items of the next block; 0 at the end. A negative one is followed by the block's size in bytes."""
    count = _long(source)
    if count < 0:
        _long(source)
        return -count
    return count


def _index(source: _Source, number: int) -> int:
    """Which of a `number` of branches or symbols."""
    index = _long(source)
    if not 0 <= index < number:
        raise Misfit(f"number {index} of {number} choices before byte {source.at}")
    return index


def _union(branches: list[_Read]) -> _Read:
    return lambda source: branches[_index(source, len(branches))](source)


def _enum(symbols: tuple[str, ...]) -> _Read:
    return lambda source: source.counted(symbols[_index(source, len(symbols))])


def _fixed(size: int) -> _Read:
    return lambda source: source.counted(base64(source.take(size)))


# Logical types.


def _logical(schema: Mapping[str, Any]) -> _Read | None:
    """The reader of a type by its logicalType; None if that is unknown or does not fit, as the specification wants."""
    kind, logical = schema["type"], schema.get("logicalType")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        return _decimal(schema)
    if kind == "fixed":
        fixed = {("uuid", _UUID_SIZE): _uuid, ("duration", _DURATION_SIZE): _duration}
        return fixed.get((str(logical), schema["size"]))
    return _LOGICAL.get((str(kind), str(logical)))


def _decimal(schema: Mapping[str, Any]) -> _Read | None:
    scale, size = schema.get("scale", 0), schema.get("size")
    if not isinstance(scale, int) or not 0 <= scale <= MOST_SCALE:
        return None

    def read(source: _Source) -> str:
        length = _long(source) if size is None else size
        if length > MOST_DECIMAL:
            raise Misfit(f"a decimal of {length} bytes at byte {source.at}")
        return source.counted(decimal_text(int.from_bytes(source.take(length), signed=True), scale))

    return read


def decimal_text(unscaled: int, scale: int) -> str:
    """A decimal in plain notation, with all digits of its scale: 1250 and 2 give `12.50`."""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{text}" if unscaled < 0 else text


def _uuid(source: _Source) -> str:
    return source.counted(str(UUID(bytes=source.take(_UUID_SIZE))))


def _duration(source: _Source) -> str:
    months, days, millis = _DURATION.unpack(source.take(_DURATION_SIZE))
    return source.counted(f"P{months}M{days}DT{millis // 1000}.{millis % 1000:03}S")


def date_text(days: int) -> str:
    """A day since 1970 as RFC 3339 has it. ValueError or OverflowError outside of the years 1 to 9999."""
    return date.fromordinal(_EPOCH + days).isoformat()


def time_text(units: int, unit: str) -> str:
    """A time of day in `millis`, `micros` or `nanos`. ValueError unless it is within a day."""
    seconds, fraction = divmod(units, _PER_SECOND[unit])
    if not 0 <= seconds < _DAY:
        raise Misfit(f"a time of {units} {unit}, which is not within a day")
    digits = len(str(_PER_SECOND[unit])) - 1
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:0{digits}}"


def timestamp_text(units: int, unit: str, zone: str) -> str:
    """A moment since 1970 as RFC 3339 has it. ValueError or OverflowError outside of the years 1 to 9999."""
    days, rest = divmod(units, _DAY * _PER_SECOND[unit])
    return f"{date_text(days)}T{time_text(rest, unit)}{zone}"


def _number_as(text: Callable[[int], str]) -> _Read:
    return lambda source: source.counted(text(_long(source)))


_LOGICAL: dict[tuple[str, str], _Read] = {
    ("int", "date"): _number_as(date_text),
    ("int", "time-millis"): _number_as(partial(time_text, unit="millis")),
    ("long", "time-micros"): _number_as(partial(time_text, unit="micros")),
    **{("long", f"timestamp-{unit}"): _number_as(partial(timestamp_text, unit=unit, zone="Z")) for unit in _PER_SECOND},
    **{
        ("long", f"local-timestamp-{unit}"): _number_as(partial(timestamp_text, unit=unit, zone=""))
        for unit in _PER_SECOND
    },
}
