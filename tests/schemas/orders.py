"""The same order in Avro, Protobuf and JSON Schema, written by confluent-kafka's own serializers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from consumer.intake.record import Headers
from tests.schemas.descriptors import class_of, field, file_of

AVRO = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "type", "type": "string"},
        {"name": "customer", "type": ["null", "string"], "default": None},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "created", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid", "type": "boolean"},
        {"name": "weight", "type": "double"},
        {"name": "size", "type": {"type": "enum", "name": "Size", "symbols": ["SMALL", "LARGE"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "notes", "type": {"type": "map", "values": "string"}},
    ],
}
JSON_SCHEMA = {"title": "Order", "type": "object", "properties": {"id": {"type": "integer"}}}

Serialize = Callable[[str, int, Headers | None], bytes]  # topic, the order's id, and the record's headers


def order(number: int, event_type: str = "order.paid") -> dict[str, Any]:
    """The order as Avro's serializer takes it."""
    return {
        "id": number,
        "type": event_type,
        "customer": "Jane Doe",
        "amount": Decimal("12.50"),
        "created": datetime(2026, 2, 28, 12, 30, tzinfo=UTC),
        "paid": True,
        "weight": 0.75,
        "size": "LARGE",
        "tags": ["new", "gift"],
        "notes": {"door": "blue"},
    }


def as_json(number: int, event_type: str = "order.paid") -> dict[str, Any]:
    """The JSON that a receiver gets."""
    return {**order(number, event_type), "amount": "12.50", "created": "2026-02-28T12:30:00.000Z"}


def message_class() -> Any:
    """The class of the Protobuf message."""
    return class_of("shop.Order", protobuf_file())


def protobuf_file() -> FileDescriptorProto:
    """The file with the message."""
    file = file_of("order.proto")
    message = file.message_type.add(name="Order")
    kinds = {"id": "int32", "type": "string", "customer": "string", "amount": "string", "created": "int32"}
    for name, kind in {**kinds, "paid": "bool", "weight": "double", "size": "string"}.items():
        field(message, name, kind)
    field(message, "tags", "string", repeated=True)
    field(message, "notes", "string", repeated=True)
    return file


@contextmanager
def serializers(url: str, *, in_header: bool = False) -> Iterator[dict[str, Serialize]]:
    """Serializers by format. `in_header`: the schema's GUID is in the record's headers."""
    with SchemaRegistryClient({"url": url}) as client:
        yield _serializers(client, in_header=in_header)


def _serializers(client: SchemaRegistryClient, *, in_header: bool) -> dict[str, Serialize]:
    config: dict[str, Any] = {"subject.name.strategy": topic_subject_name_strategy}
    if in_header:
        config["schema.id.serializer"] = header_schema_id_serializer
    order_class = message_class()
    avro = AvroSerializer(client, json.dumps(AVRO), conf=config)
    protobuf = ProtobufSerializer(order_class, client, {**config, "use.deprecated.format": False})
    json_schema = JSONSerializer(json.dumps(JSON_SCHEMA), client, conf=config)

    def context(name: str, topic: str, headers: Headers | None) -> SerializationContext:
        return SerializationContext(f"{topic}-{name}", MessageField.VALUE, cast("Any", headers))

    def with_avro(topic: str, number: int, headers: Headers | None) -> bytes:
        return bytes(avro(order(number), context("avro", topic, headers)))

    def with_protobuf(topic: str, number: int, headers: Headers | None) -> bytes:
        message = order_class(id=number, type="order.paid", tags=["new"], paid=True)
        return bytes(protobuf(message, context("protobuf", topic, headers)))

    def with_json(topic: str, number: int, headers: Headers | None) -> bytes:
        return bytes(json_schema({"id": number, "type": "order.paid"}, context("json", topic, headers)))

    return {"avro": with_avro, "protobuf": with_protobuf, "json": with_json}
