"""Code that all formats share: the limits of one value, the writing of JSON, and the translated record. Pure."""

import math
import struct
from base64 import b64encode
from collections.abc import Callable

import orjson

from consumer.errors import Undecodable
from consumer.intake.decode import MAX_VALUE_BYTES
from consumer.intake.record import Record, Unreadable
from consumer.schemas.framing import Framed

MOST_DEPTH = 100  # nested objects and arrays; it keeps hostile bytes from exhausting the stack
Decode = Callable[[Framed], bytes]  # JSON of a payload; raises Undecodable

_FLOAT = struct.Struct("<f")
_JSON_TYPES = (b"application/json", b"application/cloudevents+json")


class Budget:
    """Limits the JSON that one value may become, so that a few bytes cannot take up memory and time.

    `left` is in bytes of JSON. `depth` is the number of objects and arrays around the present value.
    """

    __slots__ = ("depth", "left")

    def __init__(self) -> None:
        self.left = MAX_VALUE_BYTES
        self.depth = 0

    def spend(self, size: int) -> None:
        """Count a part of at least so many bytes of JSON. Undecodable: too_large."""
        self.left -= size
        if self.left < 0:
            raise Undecodable("too_large", f"the value is more than {MAX_VALUE_BYTES} bytes as JSON")

    def counted(self, text: str) -> str:
        """The text, counted: a few bytes, such as the number of an enum's symbol, may become a long one."""
        self.spend(len(text))
        return text

    def enter(self, size: int) -> None:
        """Begin an object or array of at least so many bytes of JSON. Undecodable: too_large, too_deep."""
        self.spend(size)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise Undecodable("too_deep", f"the value is nested more than {MOST_DEPTH} levels deep")

    def leave(self) -> None:
        """It ends."""
        self.depth -= 1


def key_cost(name: str) -> int:
    """The least bytes of JSON that a member of this name takes: quotes, colon, a value, comma."""
    return len(name) + 5


def translated(record: Record, framed: Framed | None, decode: Decode | None) -> Record:
    """The record with its value as JSON, and without a content type other than JSON's; unchanged if not `framed`.

    Undecodable: too_large, and the reasons of `decode`.
    """
    if framed is None or decode is None:
        return record
    if len(framed.payload) > MAX_VALUE_BYTES:
        size = len(framed.payload)
        raise Undecodable("too_large", f"the value has {size} bytes; the limit is {MAX_VALUE_BYTES}")
    headers = record.headers
    if headers and not isinstance(headers, Unreadable):
        headers = [each for each in headers if each[0] != "content-type" or _is_json(each[1])]
    return record._replace(value=decode(framed), headers=headers)


def dumps(value: object) -> bytes:
    """`value` as JSON."""
    return orjson.dumps(value)


def number(value: float) -> float | str:
    """A floating-point number. JSON has only finite numbers, so the others are strings, as in Protobuf's mapping."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def single(value: float) -> float | str:
    """A 32-bit number with the fewest digits that distinguish it from its neighbours: 0.1, not 0.10000000149011612."""
    if not math.isfinite(value):
        return number(value)
    packed = _FLOAT.pack(value)
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if _FLOAT.pack(short) == packed:
            return short
    return float(f"{value:.9g}")


def base64(value: bytes) -> str:
    """Bytes as text: standard base64, with padding."""
    return b64encode(value).decode("ascii")


def _is_json(content_type: bytes | None) -> bool:
    return content_type is not None and content_type.partition(b";")[0].strip().lower() in _JSON_TYPES
