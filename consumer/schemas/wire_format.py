"""Finds the schema of a record's value, and gives the record its value as JSON, within limits. Pure.

The id of a schema is in front of the value, or in a header. In front, as Confluent's serializers write it: a zero byte,
then the id in four bytes. JSON never begins with a zero byte. In the header `__value_schema_id`: a byte 1 and the
schema's GUID in 16 bytes, or the form above; the value is then the payload alone. Protobuf's message indexes follow the
id in either place. Apicurio's serializers write an id of eight bytes into a header of their own, and the message's name
in front of a Protobuf payload.
"""

import math
import struct
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from consumer.errors import Undecodable
from consumer.intake.decode import MAX_VALUE_BYTES
from consumer.intake.record import Record, Unreadable

MOST_DEPTH = 100  # nested objects and arrays; it keeps hostile bytes from exhausting the stack
HEADER = "__value_schema_id"
APICURIO_CONTENT, APICURIO_GLOBAL = "apicurio.value.contentId", "apicurio.value.globalId"
APICURIO_ENCODING = "apicurio.value.encoding"
_HEADERS = frozenset((HEADER, APICURIO_CONTENT, APICURIO_GLOBAL, APICURIO_ENCODING))
_ID_LENGTH, _GUID_LENGTH = 5, 17  # bytes, with the byte in front
_APICURIO_LENGTH = 8
_MOST_ID = 2**31 - 1  # registries number schemas with a signed integer
_FLOAT = struct.Struct("<f")
_JSON_TYPES = (b"application/json", b"application/cloudevents+json")


SchemaId = int | str  # a schema's id, or its GUID as text


class Framed(NamedTuple):
    """A value's schema and its payload. `indexes`: the header's bytes after the id; None: the id is in the value.

    `name_in_front`: a Protobuf payload begins with the message's name instead of indexes.
    """

    schema: SchemaId
    payload: bytes
    indexes: bytes | None = None
    name_in_front: bool = False


def framed(record: Record) -> Framed | None:
    """The schema and the payload of a record's value; None if the value names no schema.

    Undecodable: bad_schema_id, unknown_schema (no registry can know such an id).
    """
    value, headers = record.value, record.headers
    if value is None or isinstance(headers, Unreadable):
        return None
    if headers:
        found = {name: content for name, content in headers if name in _HEADERS}
        if (content := found.get(HEADER)) is not None:
            schema, length = _schema(content, f"the header {HEADER}")
            return Framed(schema, value, content[length:])
        ids = found.get(APICURIO_CONTENT), found.get(APICURIO_GLOBAL)
        if ids != (None, None) and found.get(APICURIO_ENCODING) != b"JSON":
            return _apicurio(ids[0] or b"", value)
    if value[:1] != b"\0":
        return None
    schema, length = _schema(value[:_ID_LENGTH], "the value begins with a zero byte and")
    return Framed(schema, value[length:])


def _apicurio(content: bytes, value: bytes) -> Framed:
    """A value of one of Apicurio's serializers."""
    if len(content) != _APICURIO_LENGTH:
        advice = "let its producer write one (apicurio.registry.use-id=contentId)"
        raise Undecodable("bad_schema_id", f"no header {APICURIO_CONTENT} of {_APICURIO_LENGTH} bytes: {advice}")
    return Framed(int.from_bytes(content), value, name_in_front=True)


def _schema(content: bytes, where: str) -> tuple[SchemaId, int]:
    """The id that `content` begins with, and how many bytes it takes."""
    if content[:1] == b"\0" and len(content) >= _ID_LENGTH:
        number = int.from_bytes(content[1:_ID_LENGTH])
        if number > _MOST_ID:
            raise Undecodable("unknown_schema", f"no registry has a schema {number}; the largest id is {_MOST_ID}")
        return number, _ID_LENGTH
    if content[:1] == b"\1" and len(content) >= _GUID_LENGTH:
        return str(UUID(bytes=content[1:_GUID_LENGTH])), _GUID_LENGTH
    raise Undecodable("bad_schema_id", f"{where} holds no id of a schema")


Decode = Callable[[Framed], bytes]  # JSON of a payload; raises Undecodable


class Misfit(ValueError):
    """The bytes do not fit the schema; the text says where, and quotes no value."""


class JsonLimit:
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


def in_json(record: Record, framed: Framed, decode: Decode) -> Record:
    """The record with its value as JSON, and without a content type other than JSON's.

    Undecodable: too_large, and the reasons of `decode`.
    """
    if len(framed.payload) > MAX_VALUE_BYTES:
        size = len(framed.payload)
        raise Undecodable("too_large", f"the value has {size} bytes; the limit is {MAX_VALUE_BYTES}")
    headers = record.headers
    if headers and not isinstance(headers, Unreadable):
        headers = [each for each in headers if each[0] != "content-type" or _is_json(each[1])]
    return record._replace(value=decode(framed), headers=headers)


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
