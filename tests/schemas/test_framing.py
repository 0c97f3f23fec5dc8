"""The place of a value's schema id: in front, in a header, or nowhere."""

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.intake.record import BAD_HEADERS, Headers
from consumer.schemas.wire_format import (
    APICURIO_CONTENT,
    APICURIO_ENCODING,
    APICURIO_GLOBAL,
    HEADER,
    Framed,
    framed,
)
from tests.records import in_front, record, refusal

GUID = UUID("4bf92f35-77b3-4da6-a3ce-929d0e0e4736")


@given(st.integers(0, 2**31 - 1), st.binary(max_size=20))
def test_the_id_in_front(number: int, payload: bytes) -> None:
    """A zero byte and four bytes precede the payload."""
    assert framed(record(in_front(number, payload))) == Framed(number, payload)


@given(st.uuids(), st.binary(max_size=9), st.binary(max_size=20))
def test_the_guid_in_a_header(guid: UUID, indexes: bytes, payload: bytes) -> None:
    """The whole value is the payload, even if it is empty or begins with a zero byte."""
    headers: Headers = [("a", b"b"), (HEADER, b"\1" + guid.bytes + indexes)]
    for value in (payload, b"\0" + payload):
        assert framed(record(value, headers)) == Framed(str(guid), value, indexes)


def test_the_id_in_a_header() -> None:
    """The short form is valid there too. The last header of a name counts, and a null header does not."""
    last = (HEADER, struct.pack(">bI", 0, 5))
    assert framed(record(b"x", [(HEADER, b"\1" + GUID.bytes), last])) == Framed(5, b"x", b"")
    assert framed(record(b"{}", [last, (HEADER, None)])) is None


def test_the_headers_of_apicurio() -> None:
    """An id of eight bytes; the whole value is the payload. A value in JSON needs no schema."""
    header = (APICURIO_CONTENT, struct.pack(">q", 5))
    assert framed(record(b"\0x", [header])) == Framed(5, b"\0x", name_in_front=True)
    assert framed(record(b"\0x", [header, (APICURIO_ENCODING, b"BINARY")])) is not None
    assert framed(record(b"{}", [header, (APICURIO_ENCODING, b"JSON")])) is None
    for wrong in ((APICURIO_CONTENT, b"\0\0\0\5"), (APICURIO_GLOBAL, struct.pack(">q", 5))):
        refused = refusal(framed, record(b"x", [wrong]))
        assert (refused.reason, "of 8 bytes: let its producer write one" in str(refused)) == ("bad_schema_id", True)


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\1abcdefghijklmnopqrst", b" \0"])
def test_other_values_name_no_schema(value: bytes | None) -> None:
    """JSON, tombstones and empty values are passed on unchanged. So are records with unreadable headers."""
    assert framed(record(value)) is None
    assert framed(record(b"\0\0\0\0\1", BAD_HEADERS)) is None


@pytest.mark.parametrize(
    ("value", "header", "reason"),
    [
        (b"\0\0\0", None, "bad_schema_id"),
        (b"\0\xff\xff\xff\xff{}", None, "unknown_schema"),
        (b"{}", b"", "bad_schema_id"),
        (b"{}", b"\1short", "bad_schema_id"),
        (b"{}", b"\2" + GUID.bytes, "bad_schema_id"),
    ],
)
def test_an_invalid_id(value: bytes, header: bytes | None, reason: str) -> None:
    """The record is a dead letter with the reason, and the registry gets no request."""
    assert refusal(framed, record(value, None if header is None else [(HEADER, header)])).reason == reason
