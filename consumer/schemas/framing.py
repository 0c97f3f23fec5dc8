"""Finds the id of a value's schema: in front of the value, or in a header. Pure.

In front, as Confluent's serializers write it: a zero byte, then the schema's id in four bytes. JSON never begins with a
zero byte. In the header `__value_schema_id`: a byte 1 and the schema's GUID in 16 bytes, or the form above; the value
is then the payload alone. Protobuf's message indexes follow the id in either place.
"""

from typing import NamedTuple
from uuid import UUID

from consumer.errors import Undecodable
from consumer.intake.record import Record, Unreadable

HEADER = "__value_schema_id"
_ID_LENGTH, _GUID_LENGTH = 5, 17  # bytes, with the byte in front
_MOST_ID = 2**31 - 1  # registries number schemas with a signed integer

SchemaId = int | str  # a schema's id, or its GUID as text


class Framed(NamedTuple):
    """A value's schema and its payload. `indexes`: the header's bytes after the id; None: the id is in the value."""

    schema: SchemaId
    payload: bytes
    indexes: bytes | None = None


def framed(record: Record) -> Framed | None:
    """The schema and the payload of a record's value; None if the value names no schema.

    Undecodable: bad_schema_id, unknown_schema (no registry can know such an id).
    """
    value, headers = record.value, record.headers
    if value is None or isinstance(headers, Unreadable):
        return None
    if headers:
        found = [content for name, content in headers if name == HEADER]
        if found and found[-1] is not None:
            schema, length = _schema(found[-1], f"the header {HEADER}")
            return Framed(schema, value, found[-1][length:])
    if value[:1] != b"\0":
        return None
    schema, length = _schema(value[:_ID_LENGTH], "the value begins with a zero byte and")
    return Framed(schema, value[length:])


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
