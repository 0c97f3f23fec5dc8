"""A real Apicurio Registry: its forms of Protobuf schemas, its ids, and the headers of its own serializers."""

import json
import struct
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from consumer.config.settings import SchemaSettings
from consumer.intake.record import Headers
from consumer.schemas.registry import Registry
from consumer.schemas.translation import translator
from consumer.schemas.wire_format import APICURIO_CONTENT
from tests.apicurio import Apicurio
from tests.provided import or_skip
from tests.records import in_front, record, refusal
from tests.schemas.orders import as_json, serializers

MONEY = 'syntax = "proto3"; package common; import "google/type/date.proto"; message Money { int64 cents = 1; }'
BILL = """
    syntax = "proto3"; package shop; import "common/money.proto";
    message Other {}
    message Bill { common.Money sum = 1; optional int32 n = 2; map<string, int32> sizes = 3; }
"""


@pytest.fixture(scope="module")
def apicurio() -> Iterator[Apicurio]:
    """A running registry. Without one the tests are skipped visibly, or fail with KAFKA_TEST_REQUIRED, as in CI."""
    with or_skip(Apicurio) as registry:
        yield registry


@pytest.fixture
def client(apicurio: Apicurio) -> Iterator[Registry]:
    """The workers' client of it."""
    with closing(Registry(SchemaSettings(url=apicurio.url))) as client:
        yield client


@pytest.fixture
def producer(apicurio: Apicurio) -> Iterator[SchemaRegistryClient]:
    """A producer's client of it."""
    with SchemaRegistryClient({"url": apicurio.url}) as client:
        yield client


def body(client: Registry, value: bytes, headers: Headers | None = None) -> Any:
    """The JSON of a record."""
    found = translator(client.decoder)(record(value, headers)).value
    return None if found is None else json.loads(found)


def test_values_of_confluents_serializers(apicurio: Apicurio, client: Registry) -> None:
    """It gives a Protobuf schema back as it was registered, in base64."""
    with serializers(apicurio.url) as by_format:
        found = {name: body(client, serialize("orders", 5, [])) for name, serialize in by_format.items()}
    assert found["avro"] == as_json(5)
    assert (found["protobuf"]["id"], found["protobuf"]["tags"]) == (5, ["new"])
    assert found["json"] == {"id": 5, "type": "order.paid"}


def test_protobuf_registered_as_text(client: Registry, producer: SchemaRegistryClient) -> None:
    """With imports, which it knows as references."""
    producer.register_schema("money", Schema(MONEY, "PROTOBUF"))
    references = [SchemaReference("common/money.proto", "money", 1)]
    number = producer.register_schema("bills-value", Schema(BILL, "PROTOBUF", references))
    expected = {"sum": {"cents": "5"}, "sizes": {"a": 7}}
    value = b"\x0a\2\x08\5\x1a\5\x0a\1a\x10\7"
    assert body(client, in_front(number, b"\2\2" + value)) == expected
    named = b"\6\x0a\4Bill" + value  # as Apicurio's serializer writes it
    assert body(client, named, [(APICURIO_CONTENT, struct.pack(">q", number))]) == expected


@pytest.mark.parametrize("header", [(APICURIO_CONTENT, b"\xff" * 8), ("__value_schema_id", b"\1" + bytes(16))])
def test_unknown_ids(client: Registry, header: tuple[str, bytes]) -> None:
    """Each is a dead letter. It has no GUIDs, and answers requests for one as for any wrong path."""
    assert refusal(body, client, b"\2a", [header]).reason == "unknown_schema"
