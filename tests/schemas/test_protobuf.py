"""Protobuf to JSON: by Protobuf's own mapping, and malformed bytes."""

import json
import time
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Undecodable
from consumer.schemas.protobuf import protobuf_decoder
from consumer.schemas.wire_format import Framed
from tests.records import refusal
from tests.schemas.descriptors import SCALARS, class_of, everything, field, file_of, map_field, text_of

FILE = everything()
EVERYTHING = class_of("shop.Everything", FILE)
DECODE = protobuf_decoder(text_of(FILE))
FIRST = b"\0"  # the message indexes of the first message


def read(payload: bytes, indexes: bytes = FIRST) -> Any:
    """Its JSON, parsed."""
    return json.loads(DECODE(Framed(1, indexes + payload)))


def reference(message: Any) -> Any:
    """The JSON that Protobuf's library makes of a message."""
    text = json.dumps(MessageToDict(message, always_print_fields_with_no_presence=True))
    return json.loads(text)


INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    **{kind: st.integers(*bounds) for kind, bounds in INTEGERS.items()},
    "sint32": st.integers(*INTEGERS["int32"]),
    "sfixed32": st.integers(*INTEGERS["int32"]),
    "fixed32": st.integers(*INTEGERS["uint32"]),
    "sint64": st.integers(*INTEGERS["int64"]),
    "sfixed64": st.integers(*INTEGERS["int64"]),
    "fixed64": st.integers(*INTEGERS["uint64"]),
    "bool": st.booleans(),
    "string": st.text(max_size=5),
    "bytes": st.binary(max_size=5),
    "double": st.floats(),
    "float": st.floats(width=32),
}


@st.composite
def messages(draw: st.DrawFn, depth: int = 1) -> Any:
    """An Everything with some of its fields set."""
    message = EVERYTHING()
    for kind in draw(st.sets(st.sampled_from(SCALARS), max_size=4)):
        setattr(message, f"a_{kind}", draw(VALUES[kind]))
        setattr(message, f"maybe_{kind}", draw(VALUES[kind]))
        getattr(message, f"some_{kind}s").extend(draw(st.lists(VALUES[kind], max_size=3)))
    message.size = draw(st.integers(0, 3))
    message.sizes.extend(draw(st.lists(st.integers(-1, 2), max_size=3)))
    message.bystring.update(draw(st.dictionaries(st.text(max_size=3), VALUES["int64"], max_size=2)))
    message.bybool.update(draw(st.dictionaries(st.booleans(), VALUES["int64"], max_size=2)))
    message.byint32.update(draw(st.dictionaries(VALUES["int32"], VALUES["int64"], max_size=2)))
    message.byuint64.update(draw(st.dictionaries(VALUES["uint64"], VALUES["int64"], max_size=2)))
    if depth:
        message.inners.extend(draw(st.lists(messages(depth - 1), max_size=2)))
        for name in draw(st.sets(st.text(max_size=3), max_size=1)):
            message.messages[name].CopyFrom(draw(messages(depth - 1)))
    return message


@given(messages())
def test_the_mapping_is_that_of_protobuf(message: Any) -> None:
    """Camel case names, long integers as strings, bytes as base64, enums by name; zeros and empty lists are kept."""
    assert read(message.SerializeToString()) == reference(message)


@pytest.mark.parametrize(
    "values",
    [
        {"theTimestamp": "2024-02-29T01:02:03.000000004Z", "theDuration": "-1.500s", "theFieldmask": "a.b,cD"},
        {"theStruct": {"a": None, "b": [1, "x", {"c": True}]}, "theValue": 2.5, "theListvalue": [None, {}]},
        {"theValue": None, "theEmpty": {}, "theStruct": {}},
        {"theAny": {"@type": "type.googleapis.com/shop.Other", "name": "x"}},
        {"theAny": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}},
        {"theAny": {}},
        {"wrappedDouble": 0.5, "wrappedFloat": 0.1, "wrappedInt64": "7", "wrappedUint64": "8", "wrappedInt32": -1},
        {"wrappedUint32": 1, "wrappedBool": False, "wrappedString": "", "wrappedBytes": "AP8="},
    ],
)
def test_well_known_types(values: dict[str, Any]) -> None:
    """Times, wrappers, free JSON and Any have forms of their own."""
    message = ParseDict(values, EVERYTHING(), descriptor_pool=EVERYTHING.DESCRIPTOR.file.pool)
    found = read(message.SerializeToString())
    assert {name: found[name] for name in values} == values
    assert "aBytes" in found
    assert found["nothing"] is None


@pytest.mark.parametrize(
    ("indexes", "payload", "expected"),
    [
        (b"\2\0", b"", "aBool"),
        (b"\2\2", b"\x0a\1x", "name"),
        (b"\4\2\0", b"\x08\1", "size"),
    ],
)
def test_message_indexes(indexes: bytes, payload: bytes, expected: str) -> None:
    """Their count and each index, as zigzag varints. In a header they follow the id, and the value is the payload."""
    assert expected in read(payload, indexes)
    assert expected in json.loads(DECODE(Framed("guid", payload, indexes)))


def test_the_message_name_of_apicurio() -> None:
    """Its serializers write it in front, as a message of its own, instead of indexes."""
    assert json.loads(DECODE(Framed(1, b"\7\x0a\5Other\x0a\1x", name_in_front=True)))["name"] == "x"
    for value in (b"", b"\7", b"\7\x0a\4Other", b"\6\x0a\4Gone", b"\3\x0a\1\xff", b"\7\x0a\5Oth", b"\2\0"):
        assert refusal(DECODE, Framed(1, value, name_in_front=True)).reason == "bad_protobuf"


@pytest.mark.parametrize(
    "value",
    [b"", b"\x80", b"\x80\x80\x80\x80\x80\x80\x01", b"\1", b"\2\6", b"\4\2\2", b"\xff\xff\x7f", b"\2\1",
     b"\0\xff", b"\0\x0a\xff\xff\xff\xff\x0f", b"\0\x0a\x05ab"],
)  # fmt: skip
def test_values_that_do_not_fit(value: bytes) -> None:
    """Indexes without an end or without a message, and bytes that are no message."""
    assert refusal(DECODE, Framed(1, value)).reason == "bad_protobuf"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("the_timestamp", b"\x08" + b"\xff" * 8 + b"\x7f"),
        ("the_any", b"\x0a\x0ashop.Gone/\x12\x00"),
        ("the_any", b"\x0a\x0ashop.Other\x12\x02\x0a\x05"),
        ("the_fieldmask", b"\x0a\x06Secret"),
        ("a_string", b"\xff\xfe"),
    ],
)
def test_fields_without_a_json_form(path: str, value: bytes) -> None:
    """A time beyond the calendar, an Any that is unknown or broken, a mask in other letters, text that is not UTF-8.

    The detail, which is logged, quotes no value.
    """
    number = EVERYTHING.DESCRIPTOR.fields_by_name[path].number
    tag = number << 3 | 2
    head = bytes([tag & 127 | 128, tag >> 7]) if tag > 127 else bytes([tag])
    refused = refusal(DECODE, Framed(1, FIRST + head + bytes([len(value)]) + value))
    assert (refused.reason, "Secret" in str(refused)) == ("bad_protobuf", False)


@pytest.mark.parametrize(
    "value", [b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x12\x01\xff", b"\x1a\x05\x0a\x01\xff\x10\x01"]
)
def test_a_string_of_proto2_that_is_not_utf8(value: bytes) -> None:
    """Parsing does not check it, in a field, a list or a map's key. It does not fit the schema, as in proto3."""
    file = file_of("old.proto")
    file.syntax = "proto2"
    message = file.message_type.add(name="Old")
    field(message, "note", "string")
    field(message, "notes", "string", repeated=True)
    map_field(message, ".shop.Old", "sizes", "string", "int64")
    decoder = protobuf_decoder(text_of(file))
    assert decoder(Framed(1, FIRST + b"\x0a\x02hi")) == b'{"note":"hi","notes":[],"sizes":{}}'
    with pytest.raises(Undecodable, match="not UTF-8") as refused:
        decoder(Framed(1, FIRST + value))
    assert refused.value.reason == "bad_protobuf"


def tree() -> Any:
    """A message type that contains itself."""
    file = file_of("tree.proto", "shop", "google/protobuf/timestamp.proto")
    message = file.message_type.add(name="Tree")
    field(message, "kids", ".shop.Tree", repeated=True)
    field(message, "n", "int32", repeated=True)
    field(message, "wide", ".shop.Wide", repeated=True)
    field(message, "sizes", "enum .shop.Long", repeated=True)
    field(message, "times", ".google.protobuf.Timestamp", repeated=True)
    field(file.message_type.add(name="Named"), "b" * 2000, "int32", optional=True)
    field(message, "named", ".shop.Named", repeated=True)
    file.enum_type.add(name="Long").value.add(name="A" * 2000, number=0)
    wide = file.message_type.add(name="Wide")
    for number in range(500):
        field(wide, f"n{number}", "int32")
    return protobuf_decoder(text_of(file))


def nested(levels: int) -> bytes:
    """This many nested messages."""
    return field_of(nested(levels - 1)) if levels else b""


def field_of(content: bytes) -> bytes:
    """A message as the first field, with a length of at most two bytes."""
    size = len(content)
    return b"\x0a" + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def test_few_bytes_do_not_become_much() -> None:
    """Reading a mebibyte of empty messages, of small numbers, of enums or of nesting ends soon."""
    for payload, reason in (
        (b"\x0a\x00" * 524_000, "too_large"),
        (b"\x12\xfc\xff\x3f" + b"\x00" * 1_048_572, "too_large"),
        (b"\x1a\x00" * 1000, "too_large"),
        (nested(60), "too_deep"),
        (b"\x22\x80\x80\x10" + b"\x00" * 2**18, "too_large"),
        (b"\x2a\x00" * 2**16, "too_large"),
        (b"\x32\x02\x08\x00" * 2**16, "too_large"),
        (b"\x0a\x02" * 500 + b"\x0a\x00", "bad_protobuf"),
    ):
        began = time.process_time()
        assert refusal(tree(), Framed(1, FIRST + payload)).reason == reason
        assert time.process_time() - began < 3


def test_imports_are_built_in_or_references() -> None:
    """Files of Google and Confluent are built in. Others are the schema's references, which may have imports."""
    money = file_of("money.proto", "common", "google/type/date.proto")
    message = money.message_type.add(name="Money")
    field(message, "cents", "int64")
    field(message, "day", ".google.type.Date")
    order = file_of("order.proto", "shop", "common/money.proto", "confluent/meta.proto")
    field(order.message_type.add(name="Order"), "total", ".common.Money")
    listed = ("google/type/date.proto", text_of(file_of("date.proto", "google.type")))  # not Google's
    decode = protobuf_decoder(text_of(order), [listed, ("common/money.proto", text_of(money))])
    assert decode(Framed(1, FIRST + b"\x0a\x06\x08\x05\x12\x02\x18\x07")) == (
        b'{"total":{"cents":"5","day":{"year":0,"month":0,"day":7}}}'
    )


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ("message {", ValueError),
        ("message A {" * 5000, ValueError),
        ("AAAA", ValueError),
        (text_of(file_of("a.proto", "a", "missing.proto")), TypeError),
        (text_of(file_of("a.proto", "a", "google/protobuf/os.proto")), ImportError),
    ],
)
def test_unusable_protobuf_schemas(schema: str, error: type[Exception]) -> None:
    """A text that is no .proto file, one nested without end, no descriptor, or a missing import."""
    with pytest.raises(error):
        protobuf_decoder(schema)
