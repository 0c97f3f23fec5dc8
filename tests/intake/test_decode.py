import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import Tombstone
from consumer.events.event import Event, RecordId
from consumer.intake.decode import MAX_TYPE_LENGTH, MAX_VALUE_BYTES, decode
from consumer.intake.record import BAD_HEADERS, Headers
from tests.records import record, refusal

CLOUDEVENT: dict[str, Any] = {"specversion": "1.0", "type": "order.paid", "id": "A1", "source": "/shop"}
NO_IDS: tuple[object, ...] = (5, None, "", [], {})
NO_TENANTS: tuple[object, ...] = ("", "x" * 256, 1.5, [], {"name": "acme"})
UNUSABLE = (b"", b"\xff", b"x" * 256)  # as a tenant
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_plain_event() -> None:
    """The type is from the body. The body, the record's place and the key are kept unchanged."""
    body = b'{"type": "user.created",  "id": 123}'
    event = decode(record(body))
    assert event._replace(webhook_id="") == Event(
        RecordId("orders", 2, 7, 1_700_000_000_000), "user.created", "", body, "application/json", b"k", None, extra=1
    )
    assert re.fullmatch("msg_[0-9a-f]{32}", event.webhook_id)


@pytest.mark.parametrize(
    ("value", "headers", "expected"),
    [
        ({"type": "b"}, [("ce_type", b"a"), ("event-type", b"c")], "a"),
        (
            CLOUDEVENT,
            [("event-type", b"c"), ("content-type", b"application/cloudevents+json; charset=UTF-8")],
            "order.paid",
        ),
        (CLOUDEVENT, None, "order.paid"),
        ({"type": "b"}, [("event-type", b"c")], "c"),
        ({"eventType": "3", "event_type": "2", "type": "1"}, None, "1"),
        ({"eventType": "3", "event_type": "2"}, None, "2"),
        ({"eventType": "3"}, None, "3"),
        ({"type": None, "event_type": "2"}, None, "2"),
        ({}, None, "orders"),
        ({"type": "b"}, [("ce_type", None)], "b"),
        ({}, [("ce_type", b"first"), ("ce_type", b"last")], "last"),
    ],
)
def test_the_first_available_type_counts(value: object, headers: Headers | None, expected: str) -> None:
    """As in docs/publishing.md: ce_type, structured type, event-type, fields, topic. The last header of a name wins."""
    assert decode(record(value, headers)).type == expected


@pytest.mark.parametrize("name", ["ce_type", "event-type"])
def test_with_a_type_from_a_header_the_value_passes_unparsed(name: str) -> None:
    """A producer that names the type in a header may send any value."""
    event = decode(record(b"\xff\x00 no json", [(name, b"image.made"), ("content-type", b"image/png")]))
    assert (event.type, event.body, event.content_type) == ("image.made", b"\xff\x00 no json", "image/png")


@pytest.mark.parametrize("headers", [None, [("ce_type", b"a")]])
@pytest.mark.parametrize(("value", "expected"), [(b"", "empty"), (b" " * (MAX_VALUE_BYTES + 1), "too_large")])
def test_an_unusable_value(value: bytes, headers: Headers | None, expected: str) -> None:
    """An empty value, or one above 1 MiB, is not an event, even with a type from a header."""
    assert refusal(decode, record(value, headers)).reason == expected


@pytest.mark.parametrize("headers", [None, [("ce_type", b"a")]])
def test_a_record_without_a_value_is_a_tombstone(headers: Headers | None) -> None:
    """It is no mistake, so it is not a dead letter unless its headers cannot be read: its type may be in one."""
    with pytest.raises(Tombstone):
        decode(record(None, headers))
    assert refusal(decode, record(None, BAD_HEADERS)).reason == "bad_headers"


def test_a_value_of_the_largest_size_passes() -> None:
    """The limit is inclusive."""
    assert decode(record(b'{"a":"' + b"x" * (MAX_VALUE_BYTES - 8) + b'"}')).type == "orders"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"a": "\xff"}', "not_utf8"),
        ('{"a": 1}'.encode("utf-16"), "not_utf8"),
        ('{"a": 1}'.encode("utf-16-le"), "not_json"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b'{"a": "\\ud800"}', "not_json"),
        (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
        (b'{"a": NaN}', "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 1', "not_json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "too_deep"),
        (b"[{}]", "not_object"),
        (b"1", "not_object"),
        (b"null", "not_object"),
        (b'{"type": 5}', "bad_type"),
        (b'{"type": ["a"]}', "bad_type"),
        (b'{"type": ""}', "bad_type"),
        (b'{"type": "a b"}', "bad_type"),
        (b'{"type": "{a}"}', "bad_type"),
        (b'{"type": "a\\r\\nx: y"}', "bad_type"),
        ('{"type": "é"}'.encode(), "bad_type"),
        (b'{"specversion": "1.0", "type": 5, "event_type": "a"}', "bad_type"),
        (b'{"type": "' + b"x" * (MAX_TYPE_LENGTH + 1) + b'"}', "bad_type"),
    ],
)
def test_invalid_events(value: bytes, expected: str) -> None:
    """Each violation has its own reason: invalid UTF-8 or JSON, not an object, a type that is not visible ASCII."""
    assert refusal(decode, record(value)).reason == expected


@pytest.mark.parametrize("compression", [b"\0", b"\5"])
def test_the_framing_of_aws_glue_is_named(compression: bytes) -> None:
    """The dead letter says whose framing the value has, and what to do."""
    refused = refusal(decode, record(b"\3" + compression + bytes(16) + b"\2a"))
    assert refused.reason == "not_json"
    assert re.search("AWS Glue's schema registry, .*let its producer", str(refused))


@pytest.mark.parametrize("value", [b"", b"a b", b"\xff", b"a\n", b"\xc3\xa9", b'"a"', b'{"schema":null,"payload":"a"}'])
def test_an_invalid_type_in_a_header(value: bytes) -> None:
    """The same rule applies to a header's type. If it is invalid, the rest of the list is not consulted."""
    assert refusal(decode, record({"type": "good"}, [("ce_type", value)])).reason == "bad_type"


def test_a_type_that_is_json_says_what_to_set() -> None:
    """Kafka Connect and Spring write JSON around a header; the type would match no subscription, in silence."""
    refused = refusal(decode, record({}, [("event-type", b'{"schema":null,"payload":"a"}')]))
    assert re.search("begins with {.*unwrap = true", str(refused))


def test_the_detail_of_an_error_shows_no_payload() -> None:
    """Details are logged, payloads are not."""
    for value in (b'{"secret-123": }', b'{"type": {"secret-123": 1}}', b'{"type": "secret-123 \xff"}', b'"secret-123"'):
        assert "secret-123" not in str(refusal(decode, record(value)))


def webhook_id(value: object, headers: Headers | None = None, topic: str = "orders", offset: int = 7) -> str:
    return decode(record(value, headers, topic=topic, offset=offset)).webhook_id


def test_a_producers_id_does_not_depend_on_the_records_place() -> None:
    """A producer's retry, at another offset, is the same event. Structured and binary mode give the same id."""
    binary: Headers = [("ce_type", b"order.paid"), ("ce_id", b"A1"), ("ce_source", b"/shop")]
    ids = {
        webhook_id(CLOUDEVENT),
        webhook_id(CLOUDEVENT, offset=8),
        webhook_id({"x": 1}, binary),
        webhook_id(CLOUDEVENT, topic="b"),
    }
    assert len(ids) == 1
    named: Headers = [("event-id", b"A1")]
    assert webhook_id({}, named) == webhook_id({"other": 1}, named, offset=9) != webhook_id({}, named, topic="b")


@pytest.mark.parametrize("value", [{"id": 123}, *(CLOUDEVENT | {"id": each} for each in NO_IDS)])
def test_an_id_of_the_entity_or_that_is_no_string_is_not_the_events(value: object) -> None:
    """The event is sent, with the id of the record's place: two events of user 123 have different webhook ids."""
    assert webhook_id(value) == webhook_id(value) != webhook_id(value, offset=8)


@given(st.binary(min_size=2, max_size=30), st.data())
def test_ids_differ_if_source_or_id_differ(text: bytes, data: st.DataObject) -> None:
    """Source and id are kept apart: ("a", "bc") is not ("ab", "c")."""
    cuts = st.integers(1, len(text) - 1)
    one, other = data.draw(cuts), data.draw(cuts)

    def cut(at: int) -> str:
        return webhook_id(b"x", [("ce_type", b"t"), ("ce_source", text[:at]), ("ce_id", text[at:])])

    assert (cut(one) == cut(other)) == (one == other)


def test_a_producers_id_cannot_equal_the_id_of_a_place() -> None:
    """No id that a producer chooses is the id of a record without one."""
    place = webhook_id({}, topic="orders", offset=7)
    for guess in (b"2:7:1700000000000", b"orders:2:7:1700000000000", b"@orders:2:7:1700000000000"):
        assert webhook_id({}, [("event-id", guess)]) != place


@pytest.mark.parametrize(
    ("value", "header", "expected"),
    [
        ({}, b"text/plain; charset=utf-8", "text/plain; charset=utf-8"),
        ({}, b"application/json\r\nx-evil: 1", "application/json"),
        ({}, b"json", "application/json"),
        ({}, b"text/pl\xffain", "application/json"),
        ({}, b"a/" + b"b" * 300, "application/json"),
        (CLOUDEVENT, None, "application/cloudevents+json"),
        (CLOUDEVENT, b"application/json", "application/cloudevents+json"),
        (CLOUDEVENT, b"application/CloudEvents+json; x=1", "application/CloudEvents+json; x=1"),
    ],
)
def test_content_type(value: object, header: bytes | None, expected: str) -> None:
    """The record's own media type if it is valid, else by the body; a structured CloudEvent is never plain JSON."""
    assert decode(record(value, [("content-type", header)])).content_type == expected


@pytest.mark.parametrize(
    ("header", "passed"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT + b"\r\nx: y", False),
        (TRACEPARENT.upper(), False),
        (b"ff" + TRACEPARENT[2:], False),
        (b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01", False),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01", False),
        (None, False),
    ],
)
def test_traceparent(header: bytes | None, passed: bool) -> None:  # noqa: FBT001 (a table's column)
    """It is passed on only if it is valid by the W3C's definition."""
    traceparent = decode(record({}, [("traceparent", header)])).traceparent
    assert traceparent == (header.decode() if passed and header is not None else None)


@pytest.mark.parametrize(
    ("value", "headers", "tenant"),
    [
        ({}, None, None),
        ({"tenant": "field"}, None, None),
        ({}, [("tenant", b"acme")], "acme"),
        ({}, [("ce_tenant", b"acme"), ("tenant", b"other")], "acme"),
        ({}, [("ce_tenant", b"old"), ("ce_tenant", b"new")], "new"),
        ({}, [("ce_tenant", None), ("tenant", b"acme")], "acme"),
        (CLOUDEVENT | {"tenant": "acme"}, None, "acme"),
        (CLOUDEVENT | {"tenant": "acme"}, [("tenant", b"other")], "acme"),
        (CLOUDEVENT | {"tenant": "body"}, [("ce_tenant", b"acme")], "acme"),
        (CLOUDEVENT | {"tenant": None}, [("tenant", b"acme")], "acme"),
        (CLOUDEVENT | {"tenant": 42}, None, "42"),
        (CLOUDEVENT | {"tenant": True}, None, "true"),
        ({}, [("tenant", "Zoë & Söhne".encode())], "Zoë & Söhne"),
        ({}, [("tenant", b"x" * 255)], "x" * 255),
        ({}, [("Tenant", b"acme")], None),
        ({}, [("event-type", b"a"), ("tenant", b"*")], "*"),
        *(({}, [(name, text)], None) for name in ("ce_tenant", "tenant") for text in UNUSABLE),
        *(({}, [("ce_tenant", text), ("tenant", b"acme")], None) for text in UNUSABLE),
        *((CLOUDEVENT | {"tenant": each}, [("tenant", b"acme")], None) for each in NO_TENANTS),
    ],
)
def test_the_tenant_of_an_event(value: object, headers: Headers | None, tenant: str | None) -> None:
    """The attribute's header, the attribute of a body, or the header, whichever is found first, unchanged.

    An invalid one is none, and no other place replaces it, since that might name another tenant.
    """
    assert decode(record(value, headers)).tenant == tenant


def test_the_name_of_the_tenant_header_can_be_set() -> None:
    """The usual header is then ignored."""
    headers: Headers = [("ce_tenant", b"a"), ("tenant", b"b"), ("x-account", b"c")]
    assert decode(record({}, headers), "x-account").tenant == "c"
    assert decode(record({}, headers), "account").tenant is None


@pytest.mark.parametrize(
    ("key", "value", "headers", "size", "extra"),
    [
        (None, b"{}", None, 2, 0),
        (b"key", b"{}", None, 5, 3),
        (b"key", b"{}", [("a", b"1234"), ("bc", None)], 5 + 7 + 2 * 100, 3 + 7),
    ],
)
def test_headers_and_key_of_a_record_are_counted(
    key: bytes | None, value: bytes, headers: Headers | None, size: int, extra: int
) -> None:
    """The bounds on memory include them: a mebibyte of empty headers takes more than a large value."""
    each = record(value, headers, key=key)
    assert (each.size, decode(each).extra) == (size, extra)
