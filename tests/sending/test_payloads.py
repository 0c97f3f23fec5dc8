"""Rendering of request bodies."""

import json
import re
from base64 import b64decode
from typing import Any
from unittest.mock import Mock
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.events.cloud_event import cloud_event_of
from consumer.events.event import Event, RecordId
from consumer.expressions.expression import compile_projection
from consumer.ledger import store
from consumer.sending import payloads
from consumer.sending.payloads import CLOUD_EVENT, CLOUD_EVENTS, JSON, Rendered, Unrenderable, render_batch
from consumer.sending.payloads import render as render_for
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Batch, Endpoint, PayloadFormat
from tests.ledger.rows_kit import GROUP, find, parked

TIMESTAMP, TIME = 1793620800123, "2026-11-02T12:00:00.123Z"
TEXT, OCTETS = "text/plain; charset=utf-8", "application/octet-stream"
ATTRIBUTES = {"specversion": "1.0", "id": "7", "source": "/orders", "type": "order.paid"}
BINARY: dict[str, bytes | None] = {f"ce_{name}": value.encode() for name, value in ATTRIBUTES.items()}

numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
formats: st.SearchStrategy[PayloadFormat] = st.sampled_from(("record", "standard", "cloudevents"))


def event_of(body: bytes, content_type: str = JSON, headers: dict[str, bytes | None] | None = None) -> Event:
    record = RecordId("orders", 2, 7, TIMESTAMP)
    return Event(record, "order.paid", "msg_0a", body, content_type, b"k", None, headers)


def endpoint_of(kind: PayloadFormat, projection: str | None = None, *, batch: bool = False) -> Endpoint:
    expression = None if projection is None else compile_projection(projection)
    url, batching = "https://example.com/hook", Batch(10, 1.0) if batch else None
    return Endpoint(7, url, (b"key",), payload_format=kind, projection=expression, batch=batching)


def render(kind: PayloadFormat, event: Event, projection: str | None = None) -> Rendered:
    """Render without the memo."""
    return render_for(endpoint_of(kind, projection), event._replace())


def parsed(payload: Rendered) -> Any:
    """The body as another parser reads it."""
    return json.loads(payload.body)


def cloud_event(event: Event, projection: str | None = None) -> dict[str, Any]:
    payload = render("cloudevents", event, projection)
    assert payload.content_type == CLOUD_EVENT
    return dict(parsed(payload))


def structured(**members: Any) -> Event:
    body = ATTRIBUTES | members
    return event_of(json.dumps({name: value for name, value in body.items() if value is not ...}).encode(), CLOUD_EVENT)


def binary(event: Event, projection: str | None = None) -> tuple[bytes, str, dict[str, str]]:
    """The body, its media type, and the attributes as a receiver decodes them (HTTP binding, section 3.1.3.2)."""
    _, body, content_type = render("cloudevents-binary", event, projection)
    lines = payloads.attribute_lines(event).decode("ascii").removesuffix("\r\n").split("\r\n")
    found = dict(line.removeprefix("ce-").split(": ", 1) for line in lines)
    assert len(found) == len(lines)
    assert all(re.fullmatch("[!#-~]+", value) for value in found.values())
    return body, content_type, {name: unquote(value, errors="strict") for name, value in found.items()}


# The record unchanged.


@given(st.binary(min_size=1), st.sampled_from((JSON, "text/plain", "application/octet-stream")))
def test_a_record_goes_byte_for_byte(body: bytes, content_type: str) -> None:
    """The record's value is the body, whatever it is, with the record's content type."""
    event = event_of(body, content_type)
    assert render("record", event) == (event, body, content_type)


# Standard Webhooks.


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (event_of(b'{"amount": 5}'), {"amount": 5}),
        (structured(data={"a": 1}), {"a": 1}),
        (event_of(b'{"a":1}', headers=BINARY), {"a": 1}),
        (event_of("plain é".encode(), "text/plain"), "plain é"),
        (event_of(b"plain"), "plain"),
        (event_of(b"5", "text/csv"), "5"),
    ],
)
def test_the_envelope(event: Event, data: object) -> None:
    """`type`, `timestamp` and `data`, in this order, of a CloudEvent too. Content declared as text is text."""
    payload = render("standard", event)
    assert payload.content_type == JSON
    assert list(parsed(payload).items()) == [("type", "order.paid"), ("timestamp", TIME), ("data", data)]


@given(values)
def test_data_in_an_envelope_is_the_value(value: Any) -> None:
    """Any JSON value parses back from the envelope."""
    assert parsed(render("standard", event_of(json.dumps(value).encode())))["data"] == value


def test_numbers_and_members_are_copied_unchanged() -> None:
    """No number is rounded in an envelope or a CloudEvent, however long it is."""
    body = b'{"amount": 12345678901234567890123.10, "n": 1E400}'.replace(b"1E400", b"1E4")
    assert body in render("standard", event_of(body)).body
    assert body in render("cloudevents", event_of(body)).body


def test_the_timestamp_is_the_time_of_the_event() -> None:
    """It is `ce_time`, or `time` of a structured CloudEvent; otherwise the record's timestamp."""
    at = "2026-01-02T03:04:05.123456789+01:00"
    assert parsed(render("standard", event_of(b"{}", headers=BINARY | {"ce_time": at.encode()})))["timestamp"] == at
    assert parsed(render("standard", structured(time=at, data=1)))["timestamp"] == at
    for wrong in ("yesterday", "2026-01-02", "2026-13-02T03:04:05Z", 5, None):
        assert parsed(render("standard", structured(time=wrong)))["timestamp"] == TIME


@pytest.mark.parametrize("event", [event_of(b"\xff\xfe", "image/png"), structured(data_base64="//4=")])
def test_bytes_are_refused_in_an_envelope(event: Event) -> None:
    """Standard Webhooks defines no encoding for bytes."""
    with pytest.raises(Unrenderable, match="bytes"):
        render("standard", event)


# CloudEvents.


MEMBERS = {**ATTRIBUTES, "time": TIME, "datacontenttype": JSON}
HEADERS = BINARY | {"ce_subject": b"a/7", "ce_time": b"2026-01-02T03:04:05Z", "ce_dataschema": b"https://a.test/"}
PNG = {"data_base64": "//4=", "datacontenttype": "image/png"}
KEPT = {"subject": "a/7", "time": "2026-01-02T03:04:05Z", "dataschema": "https://a.test/", "tenant": "é"}


@pytest.mark.parametrize(
    ("event", "members"),
    [
        (event_of(b'{"amount":5}'), {"id": "msg_0a", "source": "orders", "data": {"amount": 5}}),
        (event_of(b"[1]", headers=HEADERS | {"ce_tenant": "é".encode(), "event-type": b"x"}), KEPT | {"data": [1]}),
        (structured(specversion="0.3", data=1), {"data": 1}),
        (
            structured(id=..., source=..., data_base64="//4=", datacontenttype="image/png", subject="s", n=1),
            {"id": "msg_0a", "source": "orders", "subject": "s", "n": 1} | PNG,
        ),
        (event_of(b"plain", headers=BINARY), {"data": "plain", "datacontenttype": TEXT}),
        (event_of(b"\xff", headers=BINARY), {"data_base64": "/w==", "datacontenttype": OCTETS}),
    ],
    ids=["a plain record", "binary", "another version", "bytes", "text declared as JSON", "bytes declared as JSON"],
)
def test_a_record_becomes_a_cloud_event(event: Event, members: dict[str, Any]) -> None:
    """All attributes and extensions are kept, and other headers left out. Its media type is true."""
    assert cloud_event(event) == MEMBERS | members


def test_a_structured_cloud_event_is_unchanged() -> None:
    """It is not serialized again: members, order and numbers stay."""
    body = b'{"type":"order.paid" , "data":{"z":1,"a":1.50}, "ext":true,"specversion":"1.0","id":"7","source":"/o"}'
    payload = render("cloudevents", event_of(body, "application/cloudevents+json; charset=utf-8"))
    assert payload == (payload.event, body, CLOUD_EVENT)


@given(st.binary(min_size=1), st.sampled_from(("text/csv", "image/png", JSON, "application/xml; charset=utf-8")))
def test_any_bytes_can_be_recovered_from_a_cloud_event(body: bytes, content_type: str) -> None:
    """As in CloudEvents: JSON is a value, text is a string, all else is base64. `datacontenttype` says which."""
    found = cloud_event(event_of(body, content_type))
    if "data_base64" in found:
        assert b64decode(found["data_base64"]) == body
    elif found["datacontenttype"] == JSON:
        assert found["data"] == json.loads(body)
    else:
        assert found["data"].encode() == body
    assert found["datacontenttype"] in {content_type, TEXT, OCTETS}
    assert content_type == JSON or found["datacontenttype"] == content_type


# Projections.


@pytest.mark.parametrize(
    ("projection", "value"),
    [
        ("data.amount", "5"),
        ('{"b": data.amount, "a": type, "c": {"z": 1, "y": null}}', '{"a":"order.paid","b":5,"c":{"y":null,"z":1}}'),
        ("null", "null"),
        ("data", '{"amount":5,"list":[1,2]}'),
        ("data.list.map(each, each * 2)", "[2,4]"),
        ("data.amount > 3", "true"),
        ("1.5", "1.5"),
        ("18446744073709551615u", "18446744073709551615"),
        ("time", f'"{TIME.replace("123", "123000")}"'),
        ('timestamp("2026-01-02T03:04:05Z")', '"2026-01-02T03:04:05Z"'),
        ('duration("90.5s")', '"90.5s"'),
        ('duration("-90.000001s")', '"-90.000001s"'),
        ('duration("1h")', '"3600s"'),
        ('b"\\xff\\xfe"', '"//4="'),
        ('[b"a", {"t": duration("0s")}]', '["YQ==",{"t":"0s"}]'),
        ('topic + "/" + string(offset)', '"orders/7"'),
        ("tenant", '""'),
    ],
)
def test_the_value_of_a_projection_as_json(projection: str, value: str) -> None:
    """The whole body of format `record`. Times, durations and bytes are text. Keys are sorted: CEL has no order."""
    event = event_of(b'{"list":[1,2],"amount":5}', "text/plain")
    assert render("record", event, projection)[1:] == (value.encode(), JSON)


def test_a_projection_replaces_the_data() -> None:
    """This holds in an envelope and in a CloudEvent, whose data then is JSON, even of bytes. The attributes stay."""
    event = structured(data={"a": {"b": 1}}, subject="s", ext=True, datacontenttype="text/plain")
    assert parsed(render("standard", event, "data.a")) == {"type": "order.paid", "timestamp": TIME, "data": {"b": 1}}
    assert parsed(render("standard", event_of(b"\xff\xfe", "image/png"), "size(data)"))["data"] == 2
    found = cloud_event(event, "data.a")
    assert (found["data"], found["datacontenttype"], found["subject"], found["ext"]) == ({"b": 1}, JSON, "s", True)


@pytest.mark.parametrize("kind", ["record", "standard", "cloudevents"])
@pytest.mark.parametrize(
    ("projection", "why"),
    [
        ("data.nothing", "nothing"),
        ("0.0 / 0.0", "nan"),
        ('{"a": [1.0 / 0.0]}', "inf"),
        ('{1: "a"}', "keys"),
        ('{"a": {true: 1}}', "keys"),
        ("type(1)", "cannot represent"),
        ("1 / (data.amount - 5)", "zero"),
        ("[data.text, data.text, data.text]", "too large for this expression"),
        ("data.numbers", f"at most {payloads.PROJECTION_BYTES}"),
    ],
)
def test_a_value_without_a_json_form_is_refused(kind: PayloadFormat, projection: str, why: str) -> None:
    """If a projection fails, or JSON cannot represent its value, the error names the projection."""
    event = event_of(b'{"amount":5,"text":"%b","numbers":[%b]}' % (b"x" * 400_000, b",".join([b"1e15"] * 120_000)))
    with pytest.raises(Unrenderable, match=rf"^projection: .*{why}"):
        render(kind, event, projection)


def test_the_values_of_a_projected_field_are_not_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are JSON already: examining each of them would take five times as long as writing them."""
    monkeypatch.setattr(payloads, "_plain", None)
    assert render("record", event_of(b'{"a": [{"b": 1}]}'), "data.a").body == b'[{"b":1}]'


@pytest.mark.parametrize("kind", ["record", "standard", "cloudevents"])
def test_json_nested_too_deeply(kind: PayloadFormat) -> None:
    """JSON that is too deep to be written is refused like any other invalid event."""
    deep = b'{"id":"1","specversion":"0.3","data":' + b"[" * 1000 + b"]" * 1000 + b"}"
    with pytest.raises(Unrenderable, match=r"deeply|JSON"):
        render(kind, event_of(deep), "data" if kind == "record" else None)


def without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [without_nul(each) for each in value]
    return {without_nul(key): without_nul(each) for key, each in value.items()} if isinstance(value, dict) else value


@given(values)
def test_a_projection_returns_the_data_unchanged(value: Any) -> None:
    """Only U+0000 is replaced, by U+FFFD, since CEL's runtime would cut a text there."""
    event = event_of(json.dumps({"a": value}).encode())
    assert parsed(render("record", event, "data.a")) == without_nul(value)


# All formats.


def test_an_event_renders_as_itself_after_another() -> None:
    """The memo holds the last event, by identity."""
    first, second = event_of(b"[1]"), event_of(b"[2]")
    bodies = [parsed(render_for(endpoint_of("standard"), event))["data"] for event in (first, second, first)]
    assert bodies == [[1], [2], [1]]


def test_a_stored_event_renders_as_before(engine: Engine) -> None:
    """After it is stored and read again, each form of an event is byte for byte that of the first attempt."""
    extras: dict[str, bytes | None] = {"ce_time": b"2026-01-02T03:04:05Z", "ce_ext": "é".encode(), "ce_odd": b"\xff"}
    events = [
        event_of(b'{"amount":5}'),
        event_of(b'{"amount":5}', "", BINARY | extras | {"nothing": None}),
        event_of(b"\xff\x00", "image/png", BINARY | extras),
        event_of("é".encode(), "text/plain", {"event-type": b"order.paid"}),
        structured(data={"b": 1.50, "a": 2}),
        structured(id=..., data=1, tenant="t")._replace(tenant="t"),
    ]
    events = [event._replace(record=event.record._replace(offset=offset)) for offset, event in enumerate(events)]
    sub = repository.add(engine, "https://example.com/hook", "order.paid")
    store.park(engine, GROUP, [parked(event, sub) for event in events], 96.0)
    stored = [row.event for row in find(engine, places=[("orders", 2)])]
    assert [event.record for event in stored] == [event.record for event in events]
    for before, after in zip(events, stored, strict=True):
        forms: list[tuple[PayloadFormat, str | None]] = [
            ("cloudevents", None),
            ("record", "[headers, extensions, time, tenant, source, id]"),
        ]
        for kind, projection in forms:
            assert render(kind, after, projection)[1:] == render(kind, before, projection)[1:]


def test_the_memo_holds_few_forms() -> None:
    """Ten thousand subscriptions with ten thousand projections do not keep ten thousand bodies in memory."""
    event = event_of(b'{"amount":5}')
    for number in range(50):
        render_for(endpoint_of("record", f"[data.amount, {number}]"), event)
    assert payloads._last is not None
    assert len(payloads._last._forms) == payloads.MOST_FORMS
    assert render_for(endpoint_of("record", "[data.amount, 0]"), event).body == b"[5,0]"


def test_one_event_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fan-out to many subscriptions of one format renders the event once."""
    read = Mock(wraps=cloud_event_of)
    monkeypatch.setattr(payloads, "cloud_event_of", read)
    event = event_of(b'{"amount":5}')
    bodies = [render_for(endpoint_of("standard"), event).body for _ in range(100)]
    render_for(endpoint_of("cloudevents"), event)
    assert read.call_count == 1
    assert bodies[0] is bodies[99]


@given(st.lists(values, min_size=1, max_size=5), formats)
def test_a_batch_parses_back_to_its_members(bodies: list[Any], kind: PayloadFormat) -> None:
    """A batch is a JSON array of the events' bodies, in order."""
    endpoint = endpoint_of(kind, batch=True)
    payloads = [render_for(endpoint, event_of(json.dumps(body).encode())) for body in bodies]
    body, content_type = render_batch(endpoint, payloads)
    assert json.loads(body) == [json.loads(payload.body) for payload in payloads]
    assert content_type == (CLOUD_EVENTS if kind == "cloudevents" else JSON)
    if kind == "record":
        assert json.loads(body) == bodies


@pytest.mark.parametrize("body", [b"plain", b"\xff", b'{"a":1} {"b":2}', b"1,2", b"NaN"])
def test_a_record_that_is_no_json_cannot_be_in_a_batch(body: bytes) -> None:
    """Only that record, which would break the array, is refused. In an envelope it may be included as text."""
    with pytest.raises(Unrenderable, match="not JSON"):
        render_for(endpoint_of("record", batch=True), event_of(body, "text/plain"))


# CloudEvents in binary mode.


@pytest.mark.parametrize(
    ("event", "body", "content_type"),
    [
        (event_of(b'{"a":  1}'), b'{"a":  1}', JSON),
        (event_of(b"\xff", "image/png", BINARY), b"\xff", "image/png"),
        (event_of(b"\xff", ""), b"\xff", OCTETS),
        (structured(data={"a": 1}), b'{"a":1}', JSON),
        (structured(data={"a": 1}, datacontenttype="application/x+json"), b'{"a":1}', "application/x+json"),
        (structured(data="<a/>", datacontenttype="text/xml"), b"<a/>", "text/xml"),
        (structured(data="text"), b'"text"', JSON),
        (structured(data_base64="/w==", datacontenttype="image/png"), b"\xff", "image/png"),
        (structured(data_base64="/w=="), b"\xff", OCTETS),
        (structured(), b"null", JSON),
    ],
)
def test_the_data_of_binary_mode(event: Event, body: bytes, content_type: str) -> None:
    """The body is the data alone, and its media type is `content-type`; there is no header `ce-datacontenttype`."""
    assert binary(event)[:2] == (body, content_type)
    assert "datacontenttype" not in binary(event)[2]


def test_the_attributes_of_binary_mode() -> None:
    """They are those of structured mode, as text; names that CloudEvents does not allow become no headers.

    The value of a projection is the body, as JSON.
    """
    event = structured(
        subject='a "b" 100% é\r\nx: y', dataschema="https://a.example/s", n=7, yes=True, no=False, empty="", none=None,
        **{"Upper": "x", "a-b": "x", "a\r\nx": "y"},
    )  # fmt: skip
    schema = {"dataschema": "https://a.example/s", "subject": 'a "b" 100% é\r\nx: y'}
    assert binary(event)[2] == ATTRIBUTES | schema | {"time": TIME, "n": "7", "yes": "true", "no": "false"}
    assert binary(event, "type") == (b'"order.paid"', JSON, binary(event)[2])
    assert b"ce-subject: a%20%22b%22%20100%25%20%C3%A9%0D%0Ax:%20y\r\n" in payloads.attribute_lines(event)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"more": "x" * 9000}, "its attributes have 91.. bytes as headers; at most 8192 are sent"),
        ({"datacontenttype": "text/plain\r\nx: y"}, "no header can hold its datacontenttype"),
    ],
)
def test_what_does_not_fit_into_headers_is_refused(members: dict[str, str], why: str) -> None:
    """Receivers refuse requests with large heads, and a line end would be another header."""
    with pytest.raises(Unrenderable, match=why):
        binary(structured(data="a", **members))
