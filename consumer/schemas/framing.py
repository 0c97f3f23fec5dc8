"""Finds the id of a value's schema: in front of the value, or in a header. Pure.

In front, as Confluent's serializers write it: a zero byte, then the schema's id in four bytes. JSON never begins with a
zero byte. In the header `__value_schema_id`: a byte 1 and the schema's GUID in 16 bytes, or the form above; the value
is then the payload alone. Protobuf's message indexes follow the id in either place. Apicurio's serializers write an id
of eight bytes into a header of their own, and the message's name in front of a Protobuf payload.
"""

from typing import NamedTuple
from uuid import UUID

from consumer.errors import Undecodable
from consumer.intake.record import Record, Unreadable

HEADER = "__value_schema_id"
APICURIO_CONTENT, APICURIO_GLOBAL = "apicurio.value.contentId", "apicurio.value.globalId"
APICURIO_ENCODING = "apicurio.value.encoding"
_HEADERS = frozenset((HEADER, APICURIO_CONTENT, APICURIO_GLOBAL, APICURIO_ENCODING))
_ID_LENGTH, _GUID_LENGTH = 5, 17  # bytes, with the byte in front
_APICURIO_LENGTH = 8
_MOST_ID = 2**31 - 1  # registries number schemas with a signed integer


class GlobalId(NamedTuple):
    """Apicurio's id of a version of a schema. The id of its content, which Confluent's API uses, is another number."""

    number: int

    def __str__(self) -> str:
        return f"with the global id {self.number}"


SchemaId = int | str | GlobalId  # a schema's id, or its GUID as text


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
        for name in (APICURIO_CONTENT, APICURIO_GLOBAL):
            if (content := found.get(name)) is not None:
                return None if found.get(APICURIO_ENCODING) == b"JSON" else _apicurio(name, content, value)
    if value[:1] != b"\0":
        return None
    schema, length = _schema(value[:_ID_LENGTH], "the value begins with a zero byte and")
    return Framed(schema, value[length:])


def _apicurio(name: str, content: bytes, value: bytes) -> Framed:
    """A value of one of Apicurio's serializers."""
    if len(content) != _APICURIO_LENGTH:
        raise Undecodable("bad_schema_id", f"the header {name} has {len(content)} bytes, not {_APICURIO_LENGTH}")
    number = int.from_bytes(content)
    return Framed(number if name == APICURIO_CONTENT else GlobalId(number), value, name_in_front=True)


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
