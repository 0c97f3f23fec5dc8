"""Mappings: the events that a topic's expressions make of records."""

import json

import pytest

from consumer.errors import Tombstone
from consumer.events.cloud_event import cloud_event_of
from consumer.events.event import Event
from consumer.intake import mapping, reading
from consumer.intake.decode import MAX_VALUE_BYTES, decode
from consumer.intake.mapping_file import parse
from consumer.intake.record import Headers, Record
from tests.records import record, refusal

CLOUDEVENT = {"specversion": "1.0", "type": "order.paid", "id": "A1", "source": "/shop", "tenant": "acme"}
X, NEXT = "type = \"'x'\"\n", "'next'"
GONE = X + 'tombstone = "event"\ntombstone_type = "\'gone\'"'
SUBJECT = "expression_failed: the mapping of *: attributes.subject"


def mapped(text: str, record: Record) -> Event:
    """The event of a record by a mapping of its topic with these lines."""
    return decode(record, mapped=parse(f'[[mapping]]\ntopics = ["*"]\n{text}', "m.toml"))


def reason(text: str, record: Record) -> str:
    """The reason why the record is not an event."""
    refused = refusal(mapped, text, record)
    return f"{refused.reason}: {refused}"


@pytest.mark.parametrize(
    ("types", "value", "headers", "expected"),
    [
        (["'fixed'"], {}, None, "fixed"),
        (["topic + '.' + headers.kind"], {}, [("kind", b"no"), ("kind", b"paid")], "orders.paid"),
        (["value.a.b", "value.c"], {"a": {}, "c": "second"}, None, "second"),
        (["value.a.b", "value.c"], {"a": 5, "c": "second"}, None, "second"),
        (["value.a", "value.c"], {"a": None, "c": "second"}, None, "second"),
        (["value.a + '.x'", "value.c"], {"a": None, "c": "second"}, None, "second"),
        (["value.a + headers.no", "value.c"], {"a": "x", "c": "second"}, None, "second"),
        (["value.list[1].name"], {"list": [0, {"name": "deep"}]}, None, "deep"),
        (["value.list[1]", "'short'"], {"list": [0]}, None, "short"),
        (["'v' + string(value.version)"], {"version": 1.5}, None, "v1.5"),
        (["value.total > 100.0 ? 'large' : 'small'"], {"total": 100.5}, None, "large"),
        (["key.kind"], {}, None, "of-the-key"),
        (["{'c': 'created'}[value.op]"], {"op": "c"}, None, "created"),
        (["{'c': 'created'}[value.op]", "value.op"], {"op": "t"}, None, "t"),
        (["headers.kind", "topic"], {}, [("kind", b"\xff")], "orders"),
        (["headers.kind"], b"no JSON", [("kind", b"paid")], "paid"),
    ],
)
def test_a_type(types: list[str], value: object, headers: Headers | None, expected: str) -> None:
    """It is the value of the first expression whose parts the record has. A null, or what is not UTF-8, is missing."""
    text = f"type = {json.dumps(types)}"
    assert mapped(text, record(value, headers, key=b'{"kind": "of-the-key"}')).type == expected


@pytest.mark.parametrize(
    "source",
    [
        "{'c': 'created'}[value.x]",
        "value.x[0].a",
        "value.x ? 'a' : 'b'",
        "!value.x ? 'a' : 'b'",
        "value.x && true ? 'a' : 'b'",
        "'a' in value.x ? 'a' : 'b'",
        "value.x.exists(each, each == 'a') ? 'a' : 'b'",
        "value[value.x]",
        "string(value.x)",
        "{'c': 'created'}[value.y[0]]",
        "value.y[0] ? 'a' : 'b'",
        "!value.y[0] ? 'a' : 'b'",
        "value.y[1].a ? 'a' : 'b'",
    ],
)
def test_the_next_expression_counts_where_a_part_is_null(source: str) -> None:
    """Whatever the operation on the part is, as if the record lacked it; also where the part is of a list."""
    text = f"type = {json.dumps([source, NEXT])}"
    assert mapped(text, record({"x": None, "y": [None, {"a": None}]})).type == "next"
    assert mapped(text, record({})).type == "next"


def test_a_null_in_a_list_excuses_no_other_failure() -> None:
    """The record is a dead letter: its tenant or id would be another one."""
    text = 'type = ["string(value.n / value.zero) + string(size(value.x))", "\'next\'"]'
    assert reason(text, record({"n": 1, "zero": 0, "x": [None]})).startswith("expression_failed")


@pytest.mark.parametrize("source", ["{'c': 'created'}[value.x]", "value.x ? 'a' : 'b'", "value[value.x]"])
def test_a_part_of_a_wrong_type_is_not_missing(source: str) -> None:
    """The record is a dead letter, and the next expression does not count."""
    assert reason(f"type = {json.dumps([source, NEXT])}", record({"x": []})).startswith("expression_failed")


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        (
            'type = ["value.a", "headers.b"]',
            {},
            "no_type: the mapping of *: type: the record has nothing that value.a, ",
        ),
        (
            'type = "value.a"',
            {"a": ["secret"]},
            "bad_type: the mapping of *: type, by value.a: it is empty, or not a text",
        ),
        ('type = "value.a"', {"a": 5}, "bad_type"),
        ('type = ["value.a", "topic"]', {"a": ""}, "bad_type"),
        ('type = "value.a"', {"a": "two words"}, "bad_type"),
        ('type = "value.a"', {"a": "order\0paid"}, "bad_type"),
        ("type = \"value.a + ''\"", {"a": "order\0paid"}, "no_type"),
        ('type = "value.a"', b"no JSON", "not_json: the mapping of *: "),
        ('type = "value.a"', b"[]", "not_object"),
        (
            "type = \"value.a + '.x'\"",
            {"a": 5, "b": "secret"},
            "expression_failed: the mapping of *: type, by value.a + '.x': No matching overloads found : _+_(int64, s",
        ),
        (
            X + "id = \"value.a + 'x'\"",
            {"a": 5},
            "expression_failed: the mapping of *: id, by value.a + 'x': No matching",
        ),
        (
            X + 'body = "value.a"',
            {"b": 1},
            "no_body: the mapping of *: body: the record has nothing that value.a reads",
        ),
        (X + 'body = "value.a"', b'{"a":' * 400 + b"1" + b"}" * 400, "too_deep"),
        (X + 'body = "value.a"', b'{"a":[' + b"1e15," * 150_000 + b"1]}", "too_large"),
        (X + 'tombstone = "dead_letter"', None, "null: the mapping of *: no value"),
        *(
            (
                X + f'attributes.subject = "{source}"',
                {"a": "secret"},
                f"{SUBJECT}, by {source}: its value has no J",
            )
            for source in ("{1: value.a}", "[type(value.a)]", "[b'a']", "[{true: value.a}]")
        ),
        (X, b"", "empty"),
    ],
)
def test_reasons_why_a_record_is_no_event(text: str, value: object, expected: str) -> None:
    """The detail names the mapping, the field and the expression, but shows no payload."""
    told = reason(text, record(value))
    assert told.startswith(expected)
    assert "secret" not in told


# What a producer controls is bounded.

WIDE = {"id": "a", "all": list(range(reading.MOST_READ))}


@pytest.mark.parametrize(
    ("text", "value", "says"),
    [
        ("type = \"value.all.exists(each, each == 'x') ? 'a' : 'b'\"", WIDE, "type, by value.all"),
        (X + 'id = "string(value.all.size())"', WIDE, "id, by string(value.all.size())"),
    ],
)
def test_an_expression_that_would_read_too_much_is_not_run(text: str, value: object, says: str) -> None:
    """The record is a dead letter. An expression that reads a field reads no more than that, however large all is."""
    told = reason(text, record(value))
    assert told.startswith(f"expression_failed: the mapping of *: {says}")
    assert told.endswith("the event is too large for this expression")
    for expression in ("value.id", "value.id + ''"):
        assert mapped(f'type = "value.id"\nid = "{expression}"', record(value)).type == "a"


@pytest.mark.parametrize(("slow", "fails"), [(1, False), (2, True)])
def test_the_expressions_of_a_record_have_five_milliseconds(
    slow: int,
    fails: bool,  # noqa: FBT001 (a table's column)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All together, missing parts too. They are tried twice, because the first time it may have been the machine."""
    text = "type = [\"value.no + ''\", \"value.no + '.'\", \"'a' + 'b'\"]"
    times = iter([0.0, 0.003, 0.0, 0.003] * slow + [0.0] * 20)
    monkeypatch.setattr(mapping, "thread_time", lambda: next(times))
    if not fails:
        assert mapped(text, record({})).type == "ab"
        return
    told = reason(text, record({}))
    assert told.startswith("expression_failed: the mapping of *: type, by value.no + '.': the expressions of a record")


def same_id(text: str, one: Record, other: Record) -> bool:
    return mapped(text, one).webhook_id == mapped(text, other).webhook_id


@pytest.mark.parametrize("text", ["value.id", "string(value.id) + ':' + headers.h"])
def test_an_id_does_not_depend_on_the_records_place(text: str) -> None:
    """Two ids never become one: a fraction, an integer above 64 bits, an object or nothing gives that of the place."""
    by = X + f'id = "{text}"\nsource = "\'shop\'"'
    named: Headers = [("h", b"1")]
    for usable in (5, 2**64 - 1, "a"):
        assert same_id(by, record({"id": usable}, named), record({"id": usable}, named, topic="other", offset=8))
        assert not same_id(by, record({"id": usable}, named), record({"id": 6}, named))
    unusable: list[object] = [1.5, 2**70, None, "", *([[], {"a": 1}] if text == "value.id" else [])]
    for missing in unusable:
        assert not same_id(by, record({"id": missing}, named), record({"id": missing}, named, offset=8))


def test_an_id_or_source_with_an_empty_part_is_none() -> None:
    """Many records may have the empty part; receivers would drop all but the first of them."""
    composed = "value.t + ':' + value.e"
    one, other = record({"t": "a", "e": ""}), record({"t": "a", "e": ""}, offset=8)
    assert not same_id(X + f'id = "{composed}"', one, other)
    assert mapped(X + f'source = "{composed}"', one).webhook_id == mapped(X, one).webhook_id
    assert same_id(X + f'id = ["{composed}", "value.t"]', one, record({"t": "a"}))
    assert mapped(f'type = "{composed}"', one).type == "a:"


def test_texts_that_the_runtime_would_cut_are_no_ids() -> None:
    """It ends a text at a zero byte, and two ids would become one. A field alone is not given to it."""
    cut: Headers = [("h", b"a\0b")]
    for text, value, headers in (
        ("headers.h + ''", {}, cut),
        ("value.id + ''", {"id": "a\0b"}, cut),
        ("string(value.of[value.at])", {"of": {"a\0b": 1, "a": None}, "at": "a"}, cut),
    ):
        one, other = record(value, headers), record(value, headers, offset=8)
        assert not same_id(X + f'id = "{text}"', one, other)
    assert reason("type = \"headers.h + ''\"", record({}, cut)).startswith("no_type")
    assert same_id(X + 'id = "value.id"', record({"id": "a\0b"}), record({"id": "a\0b"}, offset=8))
    assert not same_id(X + 'id = "value.id"', record({"id": "a\0b"}), record({"id": "a\0c"}))


def test_a_null_stays_null_beside_what_is_left_out() -> None:
    """A zero byte elsewhere in the record, or the search for fractions in an id's parts, does not make it missing."""
    operation = "value.before == null ? 'created' : 'updated'"
    for value in ({"before": None, "other": "a"}, {"before": None, "other": "a\0b"}):
        assert mapped(f'type = "{operation}"', record(value)).type == "created"
    for changed in ({"before": None, "after": {"x": "a"}}, {"before": None, "after": {"x": "a\0b"}}):
        assert mapped("type = \"value == {} ? 'a' : string(value.size())\"", record(changed)).type == "2"
        by = X + f'source = "\'shop\'"\nid = "({operation}) + topic"'
        assert same_id(by, record(changed), record(changed, offset=8))
    assert mapped("type = [\"value.x == null ? 'a' : 'b'\", \"'c'\"]", record({"x": "a\0b"})).type == "c"


def test_an_id_by_a_mapping_equals_that_by_the_default_rules() -> None:
    """A topic that gets a mapping keeps its ids if source and id stay the same."""
    each = record({"id": "A1", "empty": ""}, [("event-id", b"A1")])
    assert mapped(X + 'id = "value.id"', each).webhook_id == decode(each).webhook_id
    assert mapped(X + 'id = ["headers.no", "value.empty", "value.id"]', each).webhook_id == decode(each).webhook_id


@pytest.mark.parametrize(
    ("value", "tenant"), [("acme", "acme"), (5, "5"), ("", None), ("x" * 256, None), ([], None), (1.5, None)]
)
def test_a_tenant(value: object, tenant: str | None) -> None:
    """An invalid tenant is none, and no later entry of the list replaces it."""
    text = X + 'tenant = ["value.t", "topic"]'
    assert mapped(text, record({"t": value})).tenant == tenant
    assert mapped(text, record({})).tenant == "orders"
    assert mapped(X, record({}, [("tenant", b"acme")])).tenant is None


def test_a_content_type() -> None:
    """The first media type counts. Without one, that of the default rules counts, unless the body is another."""
    text = X + 'content_type = ["headers.a", "headers.b"]'
    headers: Headers = [("a", b"no"), ("b", b"text/plain"), ("content-type", b"text/html")]
    assert mapped(text, record({}, headers)).content_type == "text/plain"
    assert mapped(text, record({}, headers[:1])).content_type == "application/json"
    assert mapped(X + 'body = "value.id"', record(CLOUDEVENT)).content_type == "application/json"
    assert mapped(X + "content_type = \"'application/json'\"", record(CLOUDEVENT)).content_type == "application/json"
    assert mapped(X, record(b"\xff specversion")).content_type == "application/json"


@pytest.mark.parametrize("value", [CLOUDEVENT, {"specversion": "1.0"}, {"type": "a"}])
@pytest.mark.parametrize("declared", [None, b"text/html", b"application/cloudevents+json; charset=utf-8"])
@pytest.mark.parametrize("name", ["ce_type", "event-type", "other"])
def test_a_content_type_is_that_of_the_default_rules(value: object, declared: bytes | None, name: str) -> None:
    """A mapping without one gives what records had before, whatever header or body names the type."""
    each = record(value, [(name, b"a"), ("content-type", declared)])
    assert mapped(X, each).content_type == decode(each).content_type


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b'{ "a": {"n":  1} }', b'{"n":1}'),
        (b'{"a": {"z": "\\u0000", "b": 1.50}}', b'{"z":"\\u0000","b":1.5}'),
        (b'{"a": "{\\"n\\":  1.10}"}', b'{"n":  1.10}'),
        (b'{"a": "text"}', b'"text"'),
        (b'{"a": "{no JSON"}', b'"{no JSON"'),
        (b'{"a": false}', b"false"),
        (b'{"a": null, "b": [1]}', b"[1]"),
        (b'{ "c":  1 }', b'{ "c":  1 }'),
    ],
)
def test_a_body(value: bytes, body: bytes) -> None:
    """It is a field as JSON, or the value byte for byte. Text that holds a JSON object or array is used unchanged."""
    assert mapped(X + 'body = ["value.a", "value.b", "value"]', record(value)).body == body


def test_a_body_from_the_whole_value() -> None:
    """The value is used byte for byte and unparsed. It need not be JSON."""
    assert mapped(X, record(b"\xff\x00")).body == b"\xff\x00"
    assert mapped('type = "value.t"', record(b'{ "t":  "x" }')).body == b'{ "t":  "x" }'


@pytest.mark.parametrize(
    ("value", "event_type", "body"),
    [
        (b'{"schema": {}, "payload": {"t":  "a"}}', "a", b'{"t":"a"}'),
        (b'{"schema": null, "payload": "{\\"t\\":  \\"a\\"}"}', "a", b'{"t":  "a"}'),
        (b'"{\\"t\\":  \\"a\\"}"', "a", b'{"t":  "a"}'),
        (b'{"t":  "a", "payload": 1, "schema": 1}', "a", b'{"t":  "a", "payload": 1, "schema": 1}'),
    ],
)
def test_the_wrapping_of_kafka_connect_is_removed(value: bytes, event_type: str, body: bytes) -> None:
    """Its envelope and its quotes are removed. Values without them stay unchanged, whether or not they are JSON."""
    event = mapped('type = "value.t"\nunwrap = true', record(value))
    assert (event.type, event.body) == (event_type, body)
    for plain in (b'"text"', b"no JSON", b"7"):
        assert mapped(X + "unwrap = true", record(plain)).body == plain


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'"a"', "a"),
        (b'{"schema": {"type": "string"}, "payload": "a"}', "a"),
        (b'{"schema": {"type": "int32"}, "payload": 7}', "7"),
        (b'{"schema": null, "payload": null}', "without"),
        (b"a", "a"),
        (b'x"a"', 'x"a"'),
    ],
)
def test_json_around_headers_is_removed(header: bytes, expected: str) -> None:
    """Expressions, filters and the trace see what a header holds, and not what Kafka Connect or Spring wrote around."""
    headers: Headers = [("t", header), ("traceparent", b'"00-' + b"1" * 32 + b"-" + b"1" * 16 + b'-01"')]
    event = mapped('type = ["headers.t", "\'without\'"]\nunwrap = true', record({}, headers))
    assert (event.type, bool(event.traceparent)) == (expected, True)
    assert (event.headers or {})["t"] == (None if expected == "without" else expected.encode())


def test_what_is_nested_too_deeply_makes_a_dead_letter() -> None:
    """What is read is written again; orjson reads more levels than it writes."""
    nested = b'{"schema": null, "payload": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}"
    text = X + "unwrap = true\n"
    assert reason(text, record({}, [("t", nested)])) == "too_deep: the mapping of *: header: it is nested too deeply"
    told = reason(text + 'attributes.subject = "key"', record({}, key=nested))
    assert told == "too_deep: the mapping of *: attributes.subject, by key: it is nested too deeply"
    told = reason(text + 'id = "string(key.a.size())"', record({}, key=nested))
    assert told.startswith("expression_failed: the mapping of *: id, by string(key.a.size()): ")
    assert told.endswith("nested too deeply")


@pytest.mark.parametrize(
    ("key", "text", "body"),
    [
        (b'{"schema": {}, "payload": {"id": 7}}', '{"id":7}', b'{"id":7}'),
        (b'{"id": 7}', '{"id":7}', b'{"id":7}'),
        (b'"a-7"', "a-7", b'"a-7"'),
        (b"a-7", "a-7", b'"a-7"'),
        (b"00012", "00012", b'"00012"'),
        (b"1e3", "1e3", b"1e3"),
    ],
)
def test_a_tombstone_as_an_event(key: bytes, text: str, body: bytes) -> None:
    """It has a type of its own, the id of the record's place, and the key as JSON. A null in an envelope counts too."""
    mapping = """type = "value.op"\nunwrap = true\ntombstone = "event"\ntombstone_type = "topic + '.gone'"
        id = "value.id"\nattributes = { subject = "key" }"""
    for value in (None, b"null", b'{"schema": null, "payload": null}'):
        event = mapped(mapping, record(value, [("content-type", b"text/plain")], key=key))
        assert (event.type, event.body, event.content_type) == ("orders.gone", body, "application/json")
        assert cloud_event_of(event).subject == text
        assert event.webhook_id == decode(record({}, key=key)).webhook_id


@pytest.mark.parametrize(
    ("key", "told"),
    [
        *((key, "no_body: the mapping of *: tombstone: ") for key in (None, b"", b"\xff")),
        (
            b"\x01" * (MAX_VALUE_BYTES // 2),
            f"too_large: the mapping of *: body: it has {MAX_VALUE_BYTES * 3 + 2} ",
        ),
    ],
)
def test_a_tombstone_whose_key_makes_no_body_is_no_event(key: bytes | None, told: str) -> None:
    """Receivers could not tell which entity was deleted. As JSON, a key may be several times as long."""
    assert reason(GONE, record(None, key=key)).startswith(told)


def test_a_tombstone_is_ignored_unless_a_mapping_uses_it() -> None:
    """This holds with and without a mapping."""
    for decoded in (decode, lambda each: mapped(X, each)):
        with pytest.raises(Tombstone):
            decoded(record(None))


def test_attributes() -> None:
    """Filters and the format `cloudevents` see them. Missing and empty ones are left out."""
    text = """type = "value.t"
        attributes = { source = "'db/' + value.db", time = "value.at", table = "value.no", subject = "value.e" }"""
    event = mapped(text, record({"t": "a", "db": "shop", "at": "2026-01-02T03:04:05Z", "e": ""}, [("h", b"1")]))
    cloud = cloud_event_of(event)
    assert (cloud.type, cloud.source, cloud.time) == ("a", "db/shop", "2026-01-02T03:04:05Z")
    assert (cloud.subject, cloud.extensions, cloud.data["db"]) == (None, {}, "shop")
    assert event.headers is not None
    assert set(event.headers) == {"h", "ce_type", "ce_source", "ce_time"}
    assert event.extra > len("h1")
