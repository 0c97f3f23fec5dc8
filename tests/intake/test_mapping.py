"""Mappings: the events that a topic's templates make of records, and the default rules as a mapping file."""

import json
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer.errors import Tombstone, Undecodable
from consumer.events.cloud_event import cloud_event_of
from consumer.events.event import Event
from consumer.intake.decode import MAX_VALUE_BYTES, decode
from consumer.intake.mapping_file import Mappings, default_decoder, parse
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import BAD_HEADERS, Headers, Partition, Record, Unreadable

CLOUDEVENT = {"specversion": "1.0", "type": "order.paid", "id": "A1", "source": "/shop", "tenant": "acme"}
Made = Event | tuple[str, str]


def record(
    value: object,
    headers: Headers | Unreadable | None = None,
    *,
    key: bytes | None = b"k",
    topic: str = "orders",
    offset: int = 7,
) -> Record:
    body = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Record(Partition(topic, 2, OffsetTracker(None)), offset, 1_700_000_000_000, key, body, headers)


def mapped(text: str, record: Record) -> Event:
    """The event of a record by a mapping of its topic with these lines."""
    return decode(record, mapped=Mappings(parse(f'[[mapping]]\ntopics = ["*"]\n{text}', "m.toml")))


def reason(text: str, record: Record) -> str:
    """The reason why the record is not an event."""
    with pytest.raises(Undecodable) as caught:
        mapped(text, record)
    return f"{caught.value.reason}: {caught.value}"


# The default rules.

# Mostly valid values, few of them, and one or two invalid ones, so that examples reach the later rules.
NAMES = ["ce_type", "ce_id", "ce_source", "event-type", "event-id", "traceparent", "tenant", "ce_tenant", "x-account"]
FIELDS = ["type", "event_type", "eventType", "id", "source", "specversion", "tenant", "x-account"]
scalars: st.SearchStrategy[object] = st.sampled_from(["", "é", "two words", 5, 1.5, True, None, [], {}, 2**70])
good_fields = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(["a", "b", "c"]))
odd_fields = st.dictionaries(st.sampled_from(FIELDS), scalars, max_size=2)
documents = st.builds(lambda good, odd: json.dumps(good | odd).encode(), good_fields, odd_fields)
bodies = st.one_of(documents, documents, documents, st.binary(), st.sampled_from([None, b"", b"[]", b'{"a": \xff}']))
DECLARED = b"Application/CloudEvents+JSON;a=b"
media = st.sampled_from([b"application/cloudevents+json", DECLARED, b"text/plain", b"no"])
good_headers = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([b"a", b"b"]), max_size=4)
odd_headers = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([b"", b"\xff", None]), max_size=2)
declared = st.dictionaries(st.just("content-type"), media, max_size=1)
lists = st.builds(lambda *parts: [pair for part in parts for pair in part.items()], good_headers, odd_headers, declared)
all_headers = st.one_of(lists, lists, lists, lists, st.none(), st.just(BAD_HEADERS))
DEFAULT = {name: default_decoder(name).decode for name in ("tenant", "x-account", "a{b")}


def made(by: Callable[[Record], Event], record: Record) -> Made:
    """The event, or the reason why there is none."""
    try:
        return by(record)
    except Tombstone:
        return "tombstone", ""
    except Undecodable as error:
        return error.reason, ""


@settings(max_examples=500)  # most pairs of rules occur; it takes half a second
@given(bodies, all_headers, st.sampled_from(list(DEFAULT)))
@example(b'{"specversion": "1.0", "type": "a", "id": 5}', [("event-id", b"a")], "tenant")
@example(b'{"specversion": "1.0", "tenant": 1.5}', None, "tenant")
@example(b'{"specversion": "1.0", "type": "a"}', [("event-type", b"b"), ("content-type", DECLARED)], "tenant")
@example(b"{}", [("ce_tenant", b""), ("tenant", b"a")], "tenant")
def test_the_default_rules_equal_their_mapping_file(
    value: bytes | None, headers: Headers | Unreadable | None, tenant: str
) -> None:
    """The fast implementation and the interpreted file give the same event, or the same reason, for any record."""
    each = record(value, headers)
    assert made(DEFAULT[tenant], each) == made(lambda it: decode(it, tenant), each)


@pytest.mark.parametrize("size", [MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1])
def test_the_limit_of_a_value_is_the_same_for_both(size: int) -> None:
    """This is tested with large values, which Hypothesis does not generate."""
    each = record(b'{"a":"' + b"x" * (size - 8) + b'"}')
    assert made(DEFAULT["tenant"], each) == made(decode, each)


def test_the_default_file_is_a_valid_mapping_file() -> None:
    """Users can copy it and change it."""
    text = files("consumer.intake").joinpath("default_mapping.toml").read_text()
    each = record(CLOUDEVENT)
    assert decode(each, mapped=Mappings(parse(text, "m.toml"))) == decode(each)


# Fields.


@pytest.mark.parametrize(
    ("text", "value", "headers", "expected"),
    [
        ('type = "fixed"', {}, None, "fixed"),
        ('type = "{topic}.{header.kind}"', {}, [("kind", b"paid")], "orders.paid"),
        ('type = ["{value.a.b}", "{value.c}"]', {"a": {}, "c": "second"}, None, "second"),
        ('type = ["{value.a}.{header.no}", "{value.c}"]', {"a": "x", "c": "second"}, None, "second"),
        ('type = "{value.list.1.name}"', {"list": [0, {"name": "deep"}]}, None, "deep"),
        ('type = "v{value.version}.{value.flag}"', {"version": 2, "flag": True}, None, "v2.true"),
        ('type = "{key.kind}"', {}, None, "of-the-key"),
        ('type = "{cloudevent.type}"', CLOUDEVENT, None, "order.paid"),
        ('type = "{cloudevent.type}"', {}, [("ce_type", b"binary")], "binary"),
        ('type = "x{{{value.a}}}"', {"a": "x"}, None, "x{x}"),
        ('type = "{value.op}"\nwords = { "value.op" = { c = "created" } }', {"op": "c"}, None, "created"),
        ('type = "{value.op}"\nwords = { "value.op" = { c = "created" } }', {"op": "t"}, None, "t"),
        ('type = "{value.op}"\nwords = { "value.op" = { 1 = "one" } }', {"op": 1}, None, "one"),
        ('type = "{header.kind}"\nquoted_headers = true', {}, [("kind", b'"paid"')], "paid"),
        ('type = "{header.kind}"\nquoted_headers = true', {}, [("kind", b"paid")], "paid"),
    ],
)
def test_a_type(text: str, value: object, headers: Headers | None, expected: str) -> None:
    """It is made of constants and parts of the record. The first template with all references present counts."""
    assert mapped(text, record(value, headers, key=b'{"kind": "of-the-key"}')).type == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ('type = ["{value.a}", "{header.b}"]', {}, "no_type: the mapping of *: type: "),
        ('type = "{value.a}"', {"a": ["secret"]}, "bad_type: the mapping of *: type, by {value.a}: a part of it"),
        ('type = "{value.a}"', {"a": 5}, "bad_type"),
        ('type = "{value.a}.x"', {"a": ""}, "bad_type"),
        ('type = "{value.a}"', {"a": "two words"}, "bad_type"),
        ('type = "{value.a}"', b"no JSON", "not_json: the mapping of *: "),
        ('type = "{value.a}"', b"[]", "not_object"),
        ('type = "x"\nbody = "{value.a}"', {"b": 1}, "no_body: the mapping of *: body: "),
        ('type = "x"\nbody = "{value.a}"', b'{"a":' * 400 + b"1" + b"}" * 400, "too_deep"),
        ('type = "x"\nbody = "{value.a}"', b'{"a":[' + b"1e15," * 150_000 + b"1]}", "too_large"),
        ('type = "x"\ntombstone = "dead_letter"', None, "null: the mapping of *: no value"),
        ('type = "x"', b"", "empty"),
    ],
)
def test_reasons_why_a_record_is_no_event(text: str, value: object, expected: str) -> None:
    """The detail names the mapping, the field and the template, but shows no payload."""
    told = reason(text, record(value))
    assert told.startswith(expected)
    assert "secret" not in told


@pytest.mark.parametrize("text", ['type = "x"\nid = "{key}"', 'type = "{key}"'])
def test_a_key_nested_too_deeply_makes_a_dead_letter(text: str) -> None:
    """The content of Kafka Connect's envelope is read and written again; orjson reads more levels than it writes."""
    for depth in (255, 1000):
        key = b'{"schema": null, "payload": %b1%b}' % (b'{"a":' * depth, b"}" * depth)
        told = reason(f"{text}\nconnect_envelope = true", record({"a": 1}, key=key))
        assert told == "too_deep: the mapping of *: key: it is nested too deeply"


def same_id(text: str, one: Record, other: Record) -> bool:
    return mapped(text, one).webhook_id == mapped(text, other).webhook_id


def test_an_id_does_not_depend_on_the_records_place() -> None:
    """A number works too. A fraction, a number above 64 bits, an empty part or none gives the id of the place."""
    text = 'type = "x"\nid = "{value.id}:{header.h}"\nsource = "shop"'
    named: Headers = [("h", b"1")]
    assert same_id(text, record({"id": 5}, named), record({"id": 5}, named, topic="other", offset=8))
    assert not same_id(text, record({"id": 5}, named), record({"id": 6}, named))
    numbered: list[object] = [1.5, 2**70, "", [], None]
    unusable: list[tuple[object, Headers | None]] = [({"id": each}, named) for each in numbered]
    unusable += [({"id": 5}, [("h", b"")]), ({"id": 5}, None)]
    for value, headers in unusable:
        assert not same_id(text, record(value, headers), record(value, headers, offset=8))


def test_an_id_by_a_mapping_equals_that_by_the_default_rules() -> None:
    """A topic that gets a mapping keeps its ids if source and id stay the same."""
    each = record({"id": "A1"}, [("event-id", b"A1")])
    assert mapped('type = "x"\nid = "{value.id}"', each).webhook_id == decode(each).webhook_id


@pytest.mark.parametrize(
    ("value", "tenant"), [("acme", "acme"), (5, "5"), ("", None), ("x" * 256, None), ([], None), (1.5, None)]
)
def test_a_tenant(value: object, tenant: str | None) -> None:
    """An invalid tenant is none, and no later entry of the list replaces it."""
    text = 'type = "x"\ntenant = ["{value.t}", "{topic}"]'
    assert mapped(text, record({"t": value})).tenant == tenant
    assert mapped(text, record({})).tenant == "orders"
    assert mapped('type = "x"', record({}, [("tenant", b"acme")])).tenant is None


def test_a_content_type() -> None:
    """The first media type counts. Without templates for it, that of the header counts, as without a mapping."""
    text = 'type = "x"\ncontent_type = ["{header.a}", "{header.b}"]'
    headers: Headers = [("a", b"no"), ("b", b"text/plain"), ("content-type", b"text/html")]
    assert mapped(text, record({}, headers)).content_type == "text/plain"
    assert mapped(text, record({}, headers[:1])).content_type == "application/json"
    assert mapped('type = "x"', record({}, headers)).content_type == "text/html"
    for declared in (None, b"application/json"):
        each = record(CLOUDEVENT, [("content-type", declared)])
        assert mapped('type = "x"', each).content_type == "application/cloudevents+json"
    constant = 'type = "x"\ncontent_type = "application/json"'
    assert mapped(constant, record(CLOUDEVENT)).content_type == "application/json"
    assert mapped('type = "x"', record(b"\xff specversion")).content_type == "application/json"


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b'{ "a": {"n":  1} }', b'{"n":1}'),
        (b'{"a": "{\\"n\\":  1.10}"}', b'{"n":  1.10}'),
        (b'{"a": "text"}', b'"text"'),
        (b'{"a": "{no JSON"}', b'"{no JSON"'),
        (b'{"a": 0}', b"0"),
        (b'{"a": false}', b"false"),
        (b'{"a": null, "b": [1]}', b"[1]"),
    ],
)
def test_a_body_from_a_part_of_the_value(value: bytes, body: bytes) -> None:
    """The body is its JSON. Text that holds a JSON object or array is used unchanged."""
    assert mapped('type = "x"\nbody = ["{value.a}", "{value.b}"]', record(value)).body == body


def test_a_body_from_the_whole_value() -> None:
    """The value is used byte for byte and unparsed. It need not be JSON."""
    assert mapped('type = "x"', record(b"\xff\x00")).body == b"\xff\x00"
    assert mapped('type = "{value.t}"', record(b'{ "t":  "x" }')).body == b'{ "t":  "x" }'


@pytest.mark.parametrize(
    ("value", "event_type", "body"),
    [
        (b'{"schema": {}, "payload": {"t":  "a"}}', "a", b'{"t":"a"}'),
        (b'{"schema": null, "payload": "{\\"t\\":  \\"a\\"}"}', "a", b'{"t":  "a"}'),
        (b'"{\\"t\\":  \\"a\\"}"', "a", b'{"t":  "a"}'),
        (b'{"t":  "a"}', "a", b'{"t":  "a"}'),
        (b'{"t":  "a", "payload": 1, "schema": 1}', "a", b'{"t":  "a", "payload": 1, "schema": 1}'),
    ],
)
def test_the_wrapping_of_kafka_connect_is_removed(value: bytes, event_type: str, body: bytes) -> None:
    """Its envelope and its quotes are removed. Values without them stay unchanged."""
    event = mapped('type = "{value.t}"\nconnect_envelope = true', record(value))
    assert (event.type, event.body) == (event_type, body)


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
def test_the_wrapping_of_kafka_connect_is_removed_from_headers(header: bytes, expected: str) -> None:
    """Templates, filters and the trace see what a header holds, and not the JSON around it."""
    text = 'type = ["{header.t}", "{cloudevent.t}", "without"]\nconnect_envelope = true'
    for name in ("t", "ce_t"):
        headers: Headers = [(name, header), ("traceparent", b'"00-' + b"1" * 32 + b"-" + b"1" * 16 + b'-01"')]
        event = mapped(text, record({}, headers))
        assert (event.type, bool(event.traceparent)) == (expected, True)
        assert (event.headers or {})[name] == (None if expected == "without" else expected.encode())


def test_a_header_nested_too_deeply_makes_a_dead_letter() -> None:
    """The decoder reads more levels than it writes."""
    nested = b'{"schema": null, "payload": ' + b"[" * 300 + b"]" * 300 + b"}"
    with pytest.raises(Undecodable, match="header: it is nested too deeply"):
        mapped('type = "x"\nconnect_envelope = true', record({}, [("t", nested)]))


@pytest.mark.parametrize("value", [b'"text"', b"no JSON", b"7"])
def test_a_value_without_an_envelope_is_unchanged(value: bytes) -> None:
    """This holds if no template refers to a part of it."""
    assert mapped('type = "x"\nconnect_envelope = true', record(value)).body == value


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
    mapping = """type = "{value.op}"\nconnect_envelope = true\ntombstone = "event"\ntombstone_type = "{topic}.gone"
        id = "{value.id}"\nattributes = { subject = "{key}" }"""
    for value in (None, b"null", b'{"schema": null, "payload": null}'):
        event = mapped(mapping, record(value, [("content-type", b"text/plain")], key=key))
        assert (event.type, event.body, event.content_type) == ("orders.gone", body, "application/json")
        assert cloud_event_of(event).subject == text
        assert event.webhook_id == decode(record({}, key=key)).webhook_id


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_tombstone_without_a_key_is_no_event(key: bytes | None) -> None:
    """Receivers could not tell which entity was deleted."""
    text = 'type = "x"\ntombstone = "event"\ntombstone_type = "gone"'
    assert reason(text, record(None, key=key)).startswith("no_body: the mapping of *: tombstone: ")


def test_a_tombstones_body_is_limited() -> None:
    """The JSON of a key may be several times as long as the key. It is limited as the body of a value is."""
    text = 'type = "x"\ntombstone = "event"\ntombstone_type = "gone"'
    told = reason(text, record(None, key=b"\x01" * (MAX_VALUE_BYTES // 2)))
    assert told == f"too_large: the mapping of *: body: it has {MAX_VALUE_BYTES * 3 + 2} bytes; the limit is 1048576"


def test_a_tombstone_is_ignored_unless_a_mapping_uses_it() -> None:
    """This holds with and without a mapping."""
    with pytest.raises(Tombstone):
        decode(record(None))
    with pytest.raises(Tombstone):
        mapped('type = "x"', record(None))


def test_attributes() -> None:
    """Filters and the format `cloudevents` see them. Missing and empty ones are left out."""
    text = """type = "{value.t}"
        attributes = { source = "db/{value.db}", time = "{value.at}", table = "{value.no}", subject = "{value.e}" }"""
    event = mapped(text, record({"t": "a", "db": "shop", "at": "2026-01-02T03:04:05Z", "e": ""}, [("h", b"1")]))
    cloud = cloud_event_of(event)
    assert (cloud.type, cloud.source, cloud.time) == ("a", "db/shop", "2026-01-02T03:04:05Z")
    assert (cloud.subject, cloud.extensions, cloud.data["db"]) == (None, {}, "shop")
    assert event.headers is not None
    assert set(event.headers) == {"h", "ce_type", "ce_source", "ce_time"}
    assert event.extra > len("h1")


keys = st.none() | st.binary(max_size=9) | documents
texts = st.sampled_from(
    ["{value.type}", "{value.id}-{key}", "{key.id}", "{header.ce_id}", "{cloudevent.id}", "{topic}.{value.tenant}", "c"]
)
mappings = st.fixed_dictionaries(
    {"type": st.lists(texts, min_size=1, max_size=3), "topics": st.just(["*"])},
    optional={
        "id": texts.filter(lambda text: text != "c"),
        "source": texts,
        "tenant": texts,
        "content_type": texts,
        "body": st.sampled_from(["{value}", "{value.id}", "{value.0}"]),
        "connect_envelope": st.booleans(),
        "quoted_headers": st.booleans(),
    },
)


@given(mappings, bodies, all_headers, keys)
def test_no_bytes_raise_an_undeclared_exception(
    mapping: dict[str, object], value: bytes | None, headers: Headers | Unreadable | None, key: bytes | None
) -> None:
    """Any mapping and record give an event, the same one each time, or a tombstone, or a dead letter."""
    lines = "\n".join(f"{name} = {json.dumps(each)}" for name, each in mapping.items())
    decoder = Mappings(parse(f"[[mapping]]\n{lines}", "m.toml"))
    each = record(value, headers, key=key)
    assert made(lambda it: decode(it, mapped=decoder), each) == made(lambda it: decode(it, mapped=decoder), each)
