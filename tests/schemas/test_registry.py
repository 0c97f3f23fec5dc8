"""The client of the registry, with schemas from producers' own serializers. Each failure names the cause to check."""

import json
import re
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import RegistryUnavailable, SettingsError
from consumer.intake.decode import decode
from consumer.intake.record import Headers
from consumer.schemas.registry import Registry
from consumer.schemas.translation import REFUSED_FOR, translator
from consumer.schemas.wire_format import HEADER, SchemaId
from tests.records import in_front, record, refusal
from tests.schemas.descriptors import field, file_of, text_of
from tests.schemas.orders import AVRO, as_json, serializers
from tests.schemas.registry_server import SchemaRegistry, schema_registry

ClientOf = Callable[..., Registry]


def body_of(registry: SchemaRegistry, value: bytes, headers: Headers | None = None) -> Any:
    """The body that a receiver would get."""
    with closing(Registry(registry.settings())) as client:
        return json.loads(decode(translator(client.decoder)(record(value, headers))).body)


def written(registry: SchemaRegistry, number: int) -> bytes:
    """An order in Avro."""
    with serializers(registry.url) as serialize:
        return serialize["avro"]("orders", number, None)


@pytest.mark.parametrize("in_header", [False, True])
def test_values_of_confluents_serializers(registry: SchemaRegistry, *, in_header: bool) -> None:
    """In the three formats, with the id in front or the GUID in a header."""
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


def test_the_event_is_made_from_the_json(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """The type is from the body's field. The key, for the order, stays raw. The content type is that of the new body.

    A new version of the schema does not change the webhook-id.
    """
    json_of, value = translator(client_of(registry).decoder), written(registry, 5)
    event = decode(
        json_of(record(value, [("content-type", b"application/avro"), ("trace", b"7")], key=b"\0\0\0\0\1key"))
    )
    assert (event.type, event.key, event.content_type) == ("order.paid", b"\0\0\0\0\1key", "application/json")
    assert event.headers == {"trace": b"7"}
    version = {**AVRO, "fields": [*AVRO["fields"], {"name": "more", "type": "null", "default": None}]}
    number = registry.add("orders-value", json.dumps(version))
    newer = decode(json_of(record(in_front(number, value[5:]))))
    assert json.loads(newer.body) == {**json.loads(event.body), "more": None}
    assert newer.webhook_id == event.webhook_id


def test_a_json_content_type_is_kept(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """A structured CloudEvent with a JSON Schema keeps its own."""
    content_type, body = "application/cloudevents+json; charset=utf-8", b'{"specversion":"1.0","type":"a","source":"s"}'
    value = in_front(registry.add("a", "{}", "JSON"), body)
    json_of = translator(client_of(registry).decoder)
    event = decode(json_of(record(value, [("content-type", content_type.encode())])))
    assert (event.body, event.content_type) == (body, content_type)


def test_other_values_are_unchanged(registry: SchemaRegistry, client_of: ClientOf) -> None:
    """Plain JSON on the same topic, and tombstones. The registry gets no request for them."""
    json_of = translator(client_of(registry).decoder)
    for value in (b'{"type": "a"}', None, b""):
        same = record(value, [("content-type", b"text/plain")])
        assert json_of(same) is same
    assert registry.asked == []


def test_references(registry: SchemaRegistry) -> None:
    """A schema may refer to others, which may refer to others. One that two of them refer to is read once."""
    registry.add("day", '{"type":"enum","name":"Day","symbols":["MON","TUE"]}')
    for name in ("Left", "Right"):
        text = {"type": "record", "name": name, "fields": [{"name": "day", "type": "Day"}]}
        registry.add(name.lower(), json.dumps(text), references=[{"name": "Day", "subject": "day", "version": 1}])
    top = {"type": "record", "name": "Top", "fields": [{"name": each, "type": each} for each in ("Left", "Right")]}
    references = [{"name": each, "subject": each.lower(), "version": 1} for each in ("Left", "Right")]
    number = registry.add("top", json.dumps(top), references=references)
    assert body_of(registry, in_front(number, b"\0\2")) == {"Left": {"day": "MON"}, "Right": {"day": "TUE"}}


@pytest.mark.parametrize(
    ("kind", "schema", "references", "text"),
    [
        ("AVRO", "no JSON", (), "JSONDecodeError"),
        ("AVRO", '{"type": "record", "name": "a", "fields": [{"name": "b", "type": "Gone"}]}', (), "Gone"),
        ("AVRO", "[" * 5000, (), "cannot be used"),
        ("PROTOBUF", "AAAA", (), "protoc refuses its text"),
        ("THRIFT", "x", (), "is of the type 'THRIFT'"),
        ("AVRO", '"string"', [{"name": "a", "subject": "gone", "version": 1}], "refers to one that is gone"),
    ],
)
def test_unusable_schemas(registry: SchemaRegistry, kind: str, schema: str, references: Any, text: str) -> None:
    """The dead letter names the schema and the reason."""
    number = registry.add("a", schema, kind, references)
    refused = refusal(body_of, registry, in_front(number, b"x"))
    assert (refused.reason, bool(re.search(f"schema {number}.*{text}", str(refused)))) == ("bad_schema", True)


MONEY = """
    syntax = "proto3"; package common;
    import "google/type/date.proto"; import 'confluent/meta.proto';
    message Money { int64 cents = 1 [json_name = "cent"]; google.type.Date day = 2; }
"""
BILL = """
    syntax = "proto3"; package shop;
    import "common/money.proto"; import public "country.proto"; import "google/protobuf/timestamp.proto";
    message Other {}
    message Bill {
        common.Money sum = 1; optional int32 n = 2; map<string, int32> sizes = 3; google.protobuf.Timestamp at = 4;
        Country country = 5;
    }
"""


def test_protobuf_as_text(registry: SchemaRegistry) -> None:
    """It is compiled, with built-in imports and references in either form."""
    country = file_of("country.proto", "shop")
    field(country.message_type.add(name="Country"), "code", "string")
    registry.add("country", text_of(country), "PROTOBUF")
    registry.add("money", MONEY, "PROTOBUF")
    references = [{"name": name, "subject": subject, "version": 1}
                  for name, subject in (("common/money.proto", "money"), ("country.proto", "country"))]  # fmt: skip
    number = registry.add("bill", BILL, "PROTOBUF", references)
    value = b"\2\2\x0a\2\x08\5\x10\0\x1a\5\x0a\1a\x10\7\x2a\4\x0a\2DE"
    assert body_of(registry, in_front(number, value)) == {
        "sum": {"cent": "5"},
        "n": 0,
        "sizes": {"a": 7},
        "country": {"code": "DE"},
    }


@pytest.mark.parametrize("schema", [99, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"])
def test_an_unknown_schema_is_requested_once_a_minute(
    registry: SchemaRegistry, client_of: ClientOf, schema: SchemaId
) -> None:
    """However many records name it. After the minute the registry may have it."""
    now = 0.0
    json_of = translator(client_of(registry).decoder, lambda: now)
    header = (
        b"\1" + bytes.fromhex(schema.replace("-", "")) if isinstance(schema, str) else struct.pack(">bI", 0, schema)
    )
    for now, asked in ((0.0, 1), (1.0, 1), (REFUSED_FOR, 2)):  # noqa: B007 (the clock's)
        refused = refusal(json_of, record(b"{}", [(HEADER, header)]))
        assert (refused.reason, f"has no schema {schema}" in str(refused)) == ("unknown_schema", True)
        assert len(registry.asked) == asked


@pytest.mark.parametrize(
    ("fails", "text"),
    [
        ({"down": True}, "does not answer: .*check SCHEMA_REGISTRY_URL"),
        ({"slow": 1.5}, "does not answer: .*imeout.*check SCHEMA_REGISTRY_URL"),
        ({"status": 500}, "answers 500: not today"),
        ({"status": 429}, "answers 429"),
        ({"status": 401}, "answers 401: check SCHEMA_REGISTRY_USER, SCHEMA_REGISTRY_PASSWORD"),
        ({"status": 403}, "answers 403: check SCHEMA_REGISTRY_USER"),
        ({"status": 404}, "answers 404: SCHEMA_REGISTRY_URL leads to no registry"),
    ],
)
def test_a_failing_registry_is_asked_again(
    registry: SchemaRegistry, client_of: ClientOf, fails: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record is given up, not even for a proxy's 404. The error names the setting to check."""
    number = registry.add("a", "{}", "JSON")
    if "slow" in fails:
        monkeypatch.setattr("consumer.schemas.registry.TIMEOUT", 0.7)
    client = client_of(registry)
    with monkeypatch.context() as failing:
        for name, value in fails.items():
            failing.setattr(registry, name, value)
        for question in (lambda: client.decoder(number), client.ping):
            with pytest.raises(RegistryUnavailable, match=text):
                question()
    assert callable(client.decoder(number))
    assert client.ping() == f"schema registry at {registry.url.removeprefix('http://')} answers"


def test_a_registry_without_guids_is_distinguished_from_an_unknown_guid(
    registry: SchemaRegistry, client_of: ClientOf
) -> None:
    """Older ones answer as for any wrong path: a dead letter, if they answer as a registry for an id without schema."""
    registry.guids, guid = False, "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
    refused = refusal(client_of(registry).decoder, guid)
    assert refused.reason == "unknown_schema"
    assert re.search(f"names the schema {guid}.* such ids", str(refused))
    registry.status = 404
    with pytest.raises(RegistryUnavailable, match="SCHEMA_REGISTRY_URL leads to no registry"):
        client_of(registry).decoder(guid)


def test_user_password_and_several_urls(client_of: ClientOf) -> None:
    """They are sent by basic authentication; errors never show them. If one URL does not answer, the next is used."""
    with schema_registry("webhooks", "right:one") as registry:
        url = f"http://127.0.0.1:1,{registry.url}"
        assert client_of(registry, url=url, user="webhooks", password="right:one").ping()
        with pytest.raises(RegistryUnavailable, match="answers 401") as refused:
            client_of(registry, user="webhooks", password="wrong-one").ping()
    assert "wrong-one" not in str(refused.value)


def test_unreadable_certificates(registry: SchemaRegistry, tmp_path: Path) -> None:
    """The error comes at the start and names the setting."""
    (tmp_path / "empty.pem").write_text("")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(SettingsError, match=f"SCHEMA_REGISTRY_CA_FILE: .*{name} cannot be used"):
            Registry(registry.settings(ca_file=str(tmp_path / name)))
