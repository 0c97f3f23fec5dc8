"""The registry is asked as producers' own serializers fill it; each way in which it fails says what to look at."""

import json
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import RegistryUnavailable, SettingsError, Undecodable
from consumer.intake.decode import decode
from consumer.intake.record import Headers, Partition, Record
from consumer.schemas.blocking import translator
from consumer.schemas.framing import HEADER, SchemaId
from consumer.schemas.known import REFUSED_FOR
from consumer.schemas.registry import Registry
from tests.schemas.descriptors import field, file_of, text_of
from tests.schemas.orders import AVRO, as_json, serializers
from tests.schemas.registry_server import SchemaRegistry, schema_registry

ClientOf = Callable[..., Registry]


def record(value: bytes | None, headers: Headers | None = None) -> Record:
    """A record of `orders`."""
    return Record(Partition("orders", 0), 7, 0, b"\0\0\0\0\1key", value, headers)


def prefixed(number: int, payload: bytes) -> bytes:
    """A value in Confluent's wire format."""
    return struct.pack(">bI", 0, number) + payload


def body_of(registry: SchemaRegistry, value: bytes, headers: Headers | None = None) -> Any:
    """What a receiver would get."""
    with closing(Registry(registry.settings())) as client:
        return json.loads(decode(translator(client.decoder)(record(value, headers))).body)


def written(registry: SchemaRegistry, number: int) -> bytes:
    """An order in Avro."""
    with serializers(registry.url) as serialize:
        return serialize["avro"]("orders", number, None)


@pytest.mark.parametrize("in_header", [False, True])
def test_what_confluents_serializers_write(registry: SchemaRegistry, *, in_header: bool) -> None:
    """The three formats, with the id in front or the GUID in a header."""
    found_in: dict[str, tuple[bytes, Headers]] = {}
    with serializers(registry.url, in_header=in_header) as by_format:
        for name, serialize in by_format.items():
            headers: Headers = []
            found_in[name] = serialize("orders", 5, headers), headers
            assert ([header for header, _ in headers] == [HEADER]) is in_header
    for name, (value, headers) in found_in.items():
        found = body_of(registry, value, headers)
        assert (found["id"], found["type"]) == (5, "order.paid")
        if name == "avro":
            assert found == as_json(5)
        elif name == "protobuf":
            assert found["tags"] == ["new"]
            assert found["amount"] == ""
        else:
            assert found == {"id": 5, "type": "order.paid"}


def test_the_event_is_that_of_the_json(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """Type by the body's field; the raw key, which orders; a content type that is true of the body.

    The webhook-id does not change with the schema's version.
    """
    json_of, value = translator(client_of(registry).decoder), written(registry, 5)
    event = decode(json_of(record(value, [("content-type", b"application/avro"), ("trace", b"7")])))
    assert (event.type, event.key, event.content_type) == ("order.paid", b"\0\0\0\0\1key", "application/json")
    assert event.headers == {"trace": b"7"}
    version = {**AVRO, "fields": [*AVRO["fields"], {"name": "more", "type": "null", "default": None}]}
    number = registry.add("orders-value", json.dumps(version))
    newer = decode(json_of(record(prefixed(number, value[5:]))))
    assert json.loads(newer.body) == {**json.loads(event.body), "more": None}
    assert newer.webhook_id == event.webhook_id


@pytest.mark.parametrize("content_type", [b"application/cloudevents+json; charset=utf-8", b"application/json"])
def test_a_content_type_of_json_stays(registry: SchemaRegistry, client_of: ClientOf, content_type: bytes) -> None:
    """A structured CloudEvent under JSON Schema is one."""
    number = registry.add("a", "{}", "JSON")
    body = b'{"specversion":"1.0","type":"a","id":"1","source":"s"}'
    json_of = translator(client_of(registry).decoder)
    event = decode(json_of(record(prefixed(number, body), [("content-type", content_type)])))
    assert (event.body, event.content_type) == (body, content_type.decode())


def test_other_values_stay_as_they_are(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """Plain JSON on the same topic, and tombstones; nobody asks for them."""
    json_of = translator(client_of(registry).decoder)
    for value in (b'{"type": "a"}', None, b""):
        same = record(value, [("content-type", b"text/plain")])
        assert json_of(same) is same
    assert registry.asked == []


def test_references(registry: SchemaRegistry) -> None:
    """A schema may use others, which may use others; one that two of them use is read once."""
    registry.add("day", '{"type":"enum","name":"Day","symbols":["MON","TUE"]}')
    for name in ("Left", "Right"):
        text = {"type": "record", "name": name, "fields": [{"name": "day", "type": "Day"}]}
        registry.add(name.lower(), json.dumps(text), references=[{"name": "Day", "subject": "day", "version": 1}])
    top = {"type": "record", "name": "Top", "fields": [{"name": each, "type": each} for each in ("Left", "Right")]}
    references = [{"name": each, "subject": each.lower(), "version": 1} for each in ("Left", "Right")]
    number = registry.add("top", json.dumps(top), references=references)
    assert body_of(registry, prefixed(number, b"\0\2")) == {"Left": {"day": "MON"}, "Right": {"day": "TUE"}}

    money = file_of("money.proto", "common")
    field(money.message_type.add(name="Money"), "cents", "int32")
    registry.add("money", text_of(money), "PROTOBUF")
    bill = file_of("bill.proto", "shop", "common/money.proto", "google/protobuf/timestamp.proto")
    message = bill.message_type.add(name="Bill")
    field(message, "sum", ".common.Money")
    field(message, "at", ".google.protobuf.Timestamp")
    references = [{"name": "common/money.proto", "subject": "money", "version": 1}]
    number = registry.add("bill", text_of(bill), "PROTOBUF", references)
    assert body_of(registry, prefixed(number, b"\0\x0a\2\x08\5\x12\0")) == {
        "sum": {"cents": 5},
        "at": "1970-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("kind", "schema", "references", "text"),
    [
        ("AVRO", "no JSON", (), "JSONDecodeError"),
        ("AVRO", '{"type": "record", "name": "a", "fields": [{"name": "b", "type": "Gone"}]}', (), "Gone"),
        ("AVRO", "[" * 5000, (), "cannot be used"),
        ("PROTOBUF", "AAAA", (), "format=serialized"),
        ("THRIFT", "x", (), "is of the type 'THRIFT'"),
        ("AVRO", '"string"', [{"name": "a", "subject": "gone", "version": 1}], "refers to one that is gone"),
    ],
)
def test_schemas_that_cannot_be_used(
    registry: SchemaRegistry, kind: str, schema: str, references: Any, text: str
) -> None:
    """A dead letter says which schema, and why."""
    number = registry.add("a", schema, kind, references)
    with pytest.raises(Undecodable, match=f"schema {number}.*{text}") as refused:
        body_of(registry, prefixed(number, b"x"))
    assert refused.value.reason == "bad_schema"


@pytest.mark.parametrize("schema", [99, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"])
def test_an_unknown_schema_is_asked_for_once_a_minute(
    registry: SchemaRegistry, client_of: ClientOf, schema: SchemaId
) -> None:
    """However many records name it; then the registry may have it."""
    now = 0.0
    json_of = translator(client_of(registry).decoder, lambda: now)
    header = (
        b"\1" + bytes.fromhex(schema.replace("-", "")) if isinstance(schema, str) else struct.pack(">bI", 0, schema)
    )
    for _ in range(3):
        with pytest.raises(Undecodable, match=f"has no schema {schema}") as refused:
            json_of(record(b"{}", [(HEADER, header)]))
        assert refused.value.reason == "unknown_schema"
    assert len(registry.asked) == 1
    now = REFUSED_FOR
    with pytest.raises(Undecodable):
        json_of(record(b"{}", [(HEADER, header)]))
    assert len(registry.asked) == 2


def down(registry: SchemaRegistry) -> None:
    registry.down = True


def slow(registry: SchemaRegistry) -> None:
    registry.slow = 1.0


def status(number: int) -> Callable[[SchemaRegistry], None]:
    def answer(registry: SchemaRegistry) -> None:
        registry.status = number

    return answer


@pytest.mark.parametrize(
    ("fail", "text"),
    [
        (down, "does not answer: .*check SCHEMA_REGISTRY_URL"),
        (slow, "does not answer: .*imeout.*check SCHEMA_REGISTRY_URL"),
        (status(500), "answers 500: not today"),
        (status(429), "answers 429"),
        (status(401), "answers 401: check SCHEMA_REGISTRY_USER, SCHEMA_REGISTRY_PASSWORD"),
        (status(403), "answers 403: check SCHEMA_REGISTRY_USER"),
        (status(404), "answers 404: SCHEMA_REGISTRY_URL leads to no registry"),
    ],
)
def test_a_registry_that_fails_is_asked_again(
    registry: SchemaRegistry, client_of: ClientOf, fail: Callable[[SchemaRegistry], None], text: str
) -> None:
    """No record is given up, for a proxy's 404 neither; the text names the setting to look at."""
    number = registry.add("a", "{}", "JSON")
    client = client_of(registry, timeout=0.2)
    fail(registry)
    for question in (lambda: client.decoder(number), client.ping):
        with pytest.raises(RegistryUnavailable, match=text):
            question()
    registry.down, registry.slow, registry.status = False, 0.0, 0
    assert callable(client.decoder(number))
    assert client.ping() == f"schema registry at {registry.url.removeprefix('http://')} answers"


def test_a_registry_without_guids_is_told_from_one_that_lacks_this_one(
    registry: SchemaRegistry, client_of: ClientOf
) -> None:
    """Older registries answer as for any wrong path."""
    registry.status = 404
    with pytest.raises(RegistryUnavailable, match="or to one that knows no GUIDs of schemas"):
        client_of(registry).decoder("4bf92f35-77b3-4da6-a3ce-929d0e0e4736")


def test_user_and_password(client_of: ClientOf) -> None:
    """By basic authentication; a wrong one is never in the text."""
    with schema_registry("webhooks", "right:one") as registry:
        assert client_of(registry, user="webhooks", password="right:one").ping()
        with pytest.raises(RegistryUnavailable, match="answers 401") as refused:
            client_of(registry, user="webhooks", password="wrong-one").ping()
    assert "wrong-one" not in str(refused.value)


def test_one_of_several_registries_is_enough(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """The next URL is asked if one does not answer."""
    assert client_of(registry, url=f"http://127.0.0.1:1,{registry.url}").ping()


def test_certificates_that_cannot_be_read(registry: SchemaRegistry, tmp_path: Path) -> None:
    """Said at the start, with the setting's name."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(SettingsError, match=f"SCHEMA_REGISTRY_CA_FILE: .*{name} cannot be used"):
            Registry(registry.settings(ca_file=str(tmp_path / name)))
