"""Avro to JSON: each type and logical type, compared with fastavro's writer, and malformed bytes."""

import io
import json
import math
import struct
import time
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from consumer.schemas.avro import avro_decoder, date_text, time_text, timestamp_text
from consumer.schemas.wire_format import Framed
from tests.records import refusal

NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


def record_of(kind: Any) -> dict[str, Any]:
    """A record whose field `a` has this type."""
    return {"type": "record", "name": "R", "namespace": "n", "fields": [{"name": "a", "type": kind}]}


def written(schema: Any, value: Any) -> bytes:
    """The value as a producer writes it."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(schema), value)
    return out.getvalue()


def read(schema: Any, data: bytes) -> Any:
    """Its JSON, parsed."""
    return json.loads(avro_decoder(schema)(Framed(1, data)))


def as_json(kind: Any, value: Any) -> Any:
    """The JSON for a field of this type."""
    return read(record_of(kind), written(record_of(kind), {"a": value}))["a"]


def reason(schema: Any, data: bytes) -> str:
    """The reason why these bytes are refused."""
    return refusal(avro_decoder(schema), Framed(1, data)).reason


def logical(kind: str, name: str, /, **more: Any) -> dict[str, Any]:
    """A logical type."""
    return {"type": kind, "logicalType": name, **more}


UUID_TEXT = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
ENUM = {"type": "enum", "name": "Size", "symbols": ["SMALL", "LARGE"]}
FIXED = {"type": "fixed", "name": "Four", "size": 4}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("null", None, None),
        ("boolean", True, True),
        ("int", -(2**31), -(2**31)),
        ("long", 2**63 - 1, 2**63 - 1),
        ("float", 0.1, 0.1),
        ("float", 3.4028234663852886e38, 3.4028235e38),
        ("float", -math.inf, "-Infinity"),
        ("double", 0.1, 0.1),
        ("double", math.nan, "NaN"),
        ("double", math.inf, "Infinity"),
        ("bytes", b"\x00\xff", "AP8="),
        ("string", "grün", "grün"),
        (FIXED, b"abcd", "YWJjZA=="),
        (ENUM, "LARGE", "LARGE"),
        ({"type": "array", "items": "long"}, [1, 2, 3], [1, 2, 3]),
        ({"type": "map", "values": "string"}, {"k": "v", "": ""}, {"k": "v", "": ""}),
        (["null", "string"], None, None),
        (["null", "string"], "x", "x"),
        (["null", "long", ENUM], "SMALL", "SMALL"),
        (logical("bytes", "decimal", precision=9, scale=2), Decimal("-12.5"), "-12.50"),
        (logical("bytes", "decimal", precision=9, scale=3), Decimal("0.005"), "0.005"),
        (logical("fixed", "decimal", name="D", size=8, precision=9), Decimal(7), "7"),
        (logical("string", "uuid"), UUID(UUID_TEXT), UUID_TEXT),
        (logical("int", "date"), date(2024, 2, 29), "2024-02-29"),
        (logical("int", "time-millis"), time_of_day(23, 59, 59, 7000), "23:59:59.007"),
        (logical("long", "time-micros"), time_of_day(0, 0, 0, 1), "00:00:00.000001"),
        (logical("long", "timestamp-millis"), datetime(2024, 2, 29, 1, 2, 3, 4000, UTC), "2024-02-29T01:02:03.004Z"),
        (
            logical("long", "timestamp-micros"),
            datetime(1969, 12, 31, 23, 59, 59, 1, UTC),
            "1969-12-31T23:59:59.000001Z",
        ),
        (logical("long", "timestamp-nanos"), 1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        (logical("long", "local-timestamp-millis"), datetime(2024, 2, 29, 1), "2024-02-29T01:00:00.000"),  # noqa: DTZ001
        (logical("long", "local-timestamp-micros"), datetime(2024, 2, 29, 1), "2024-02-29T01:00:00.000000"),  # noqa: DTZ001
        (logical("fixed", "duration", name="P", size=12), struct.pack("<III", 14, 3, 90_004), "P14M3DT90.004S"),
        (logical("long", "unknown"), 5, 5),
        (logical("string", "decimal"), "5", "5"),
        (logical("bytes", "decimal", precision=2000, scale=1500), b"\x01", "AQ=="),
    ],
)
def test_conversions(kind: Any, value: Any, expected: Any) -> None:
    """They are those of the table in docs/schemas.md. An unknown or broken logical type becomes its underlying type."""
    assert as_json(kind, value) == expected


def test_a_uuid_of_sixteen_bytes() -> None:
    """Fastavro does not write this type."""
    kind = logical("fixed", "uuid", name="U", size=16)
    assert read(record_of(kind), UUID(UUID_TEXT).bytes) == {"a": UUID_TEXT}


def test_names_are_found_in_namespaces_and_references() -> None:
    """A record's fields keep their order and names. A type may be named once and reused, or be a reference."""
    money = {"type": "record", "name": "Money", "namespace": "common", "fields": [{"name": "cents", "type": "long"}]}
    order = {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [
            {"name": "total", "type": "common.Money"},
            {"name": "size", "type": ENUM},
            {"name": "other", "type": "Size"},
            {"name": "parts", "type": {"type": "array", "items": "common.Money"}},
        ],
    }
    decode = avro_decoder(order, [money])
    assert decode(Framed(1, bytes([2, 0, 2, 4, 4, 6, 0]))) == (
        b'{"total":{"cents":1},"size":"SMALL","other":"LARGE","parts":[{"cents":2},{"cents":3}]}'
    )


def test_a_recursive_type() -> None:
    """It may be as deep as the limit."""
    assert read(NODE, b"\2\2\0") == {"next": {"next": {"next": None}}}
    read(NODE, b"\2" * 99 + b"\0")
    assert reason(NODE, b"\2" * 100 + b"\0") == "too_deep"
    assert reason(NODE, b"\2" * 1_000_000) == "too_deep"


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ANYTHING: Any = {
    "type": "record",
    "name": "Any",
    "fields": [
        {
            "name": "v",
            "type": [
                "null",
                "boolean",
                "long",
                "double",
                "string",
                {"type": "array", "items": "Any"},
                {"type": "map", "values": "Any"},
            ],
        }
    ],
}


def wrapped(value: Any) -> dict[str, Any]:
    """The value in the form of ANYTHING."""
    if isinstance(value, list):
        return {"v": [wrapped(each) for each in value]}
    if isinstance(value, dict):
        return {"v": {name: wrapped(each) for name, each in value.items()}}
    return {"v": value}


def plain(value: Any) -> Any:
    """The inverse of `wrapped`."""
    inner = value["v"]
    if isinstance(inner, list):
        return [plain(each) for each in inner]
    if isinstance(inner, dict):
        return {name: plain(each) for name, each in inner.items()}
    return inner


@given(JSON_LIKE)
def test_values_written_by_fastavro_are_read_back(value: Any) -> None:
    """Numbers of all lengths, texts, blocks of arrays and maps, unions and nesting."""
    back = plain(read(ANYTHING, written(ANYTHING, wrapped(value))))
    assert back == value
    assert json.dumps(back) == json.dumps(value)  # 1 is not true


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_in_the_format_of_rfc_3339(moment: datetime) -> None:
    """The same instant is read back. A date and a time of day are its parts."""
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    text = timestamp_text(micros, "micros", "Z")
    assert datetime.fromisoformat(text) == moment
    assert text == f"{date_text(micros // 86_400_000_000)}T{time_text(micros % 86_400_000_000, 'micros')}Z"


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (record_of("string"), b""),
        (record_of("string"), b"\x08abc"),
        (record_of("string"), b"\x01"),
        (record_of("string"), b"\x04\xff\xff"),
        (record_of("bytes"), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (record_of("long"), b"\xff" * 10 + b"\x01"),
        (record_of("long"), b"\xff" * 9 + b"\x7f"),
        (record_of("long"), b"\x80"),
        (record_of("long"), b"\x02\x02"),
        (record_of("double"), b"1234567"),
        (record_of("boolean"), b"\x02"),
        (record_of(["null", "long"]), b"\x04"),
        (record_of(["null", "long"]), b"\x01"),
        (record_of(ENUM), b"\x04"),
        (record_of(FIXED), b"abc"),
        (record_of(logical("int", "date")), b"\xfe\xff\xff\xff\x0f"),
        (record_of(logical("int", "time-millis")), b"\x01"),
        (record_of(logical("long", "timestamp-millis")), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        (record_of(logical("bytes", "decimal", precision=9, scale=2)), b"\x82\x08" + b"\x01" * 513),
    ],
)
def test_values_that_do_not_fit(schema: Any, data: bytes) -> None:
    """Too short, too long, not in the schema, or a time beyond the calendar."""
    assert reason(schema, data) == "bad_avro"


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"type": "array", "items": "null"}, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({"type": "array", "items": "null"}, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"),
        ({"type": "array", "items": "null"}, b"\xfe\x3f" * 500_000),
        ({"type": "map", "values": "null"}, b"\xfe\xff\xff\xff\x0f"),
        ({"type": "array", "items": "boolean"}, b"\x80\x80\x80\x01" + b"\x00" * 1_048_576),
        (
            {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Wide",
                    "fields": [{"name": f"n{number}", "type": "null"} for number in range(1000)],
                },
            },
            b"\xfe\x7f",
        ),
        *(
            ({"type": "array", "items": items}, b"\x80\x80\x20" + item * 2**18 + b"\0")
            for items, item in (
                ({"type": "enum", "name": "Long", "symbols": ["A" * 2000]}, b"\0"),
                (logical("bytes", "decimal", precision=1001, scale=1000), b"\0"),
                (logical("int", "date"), b"\0"),
                (logical("int", "time-millis"), b"\0"),
                (logical("long", "timestamp-millis"), b"\0"),
                (logical("long", "local-timestamp-nanos"), b"\0"),
            )
        ),
    ],
)
def test_few_bytes_do_not_become_much(schema: Any, data: bytes) -> None:
    """Counts and texts that no JSON of a mebibyte could hold are refused at once, with little memory."""
    tracemalloc.start()
    began = time.process_time()
    try:
        assert reason(schema, data) == "too_large"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 5
    assert most < 64 * 2**20
