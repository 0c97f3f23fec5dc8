"""The examples of docs/mappings, with records as these systems write them."""

import json
from typing import Any

import pytest

from consumer.errors import Tombstone
from consumer.events.cloud_event import cloud_event_of
from consumer.events.event import Event
from consumer.intake.decode import decode
from consumer.intake.mapping_file import parse
from consumer.intake.record import Headers
from tests.processes import ROOT
from tests.records import record

FOLDER = ROOT / "docs/mappings"


def made(
    example: str, topic: str, value: object, headers: Headers | None = None, key: object = None, offset: int = 7
) -> Event:
    """The event by an example's mapping. Text and objects are written as JSON, bytes unchanged."""
    mapped = parse((FOLDER / f"{example}.toml").read_text(), example)
    assert mapped.of(topic) is not None
    name = key if isinstance(key, bytes | None) else json.dumps(key).encode()
    return decode(record(value, headers, key=name, topic=topic, offset=offset), mapped=mapped)


def enveloped(schema: dict[str, Any], payload: object) -> dict[str, Any]:
    """The value as JsonConverter writes it with schemas.enable=true."""
    return {"schema": schema, "payload": payload}


# Debezium's outbox event router.

PAYLOAD = '{"orderId": 17, "total": 10.50}'
OUTBOX: Headers = [("id", b"5b0b1bd0-4b0c-4a7e-9f0e-2f9e1b1f7a10"), ("eventType", b"OrderCreated")]
JSON_TEXT = {"type": "string", "optional": True, "name": "io.debezium.data.Json", "version": 1}
STRUCT = {"type": "struct", "fields": [{"type": "int32", "optional": False, "field": "orderId"}], "optional": False}


@pytest.mark.parametrize(
    ("value", "key", "body"),
    [
        (PAYLOAD.encode(), b"17", PAYLOAD),  # StringConverter
        (PAYLOAD, "17", PAYLOAD),  # JsonConverter without schemas: a string that holds JSON
        (enveloped(JSON_TEXT, PAYLOAD), enveloped({"type": "string", "optional": False}, "17"), PAYLOAD),
        ({"orderId": 17}, "17", '{"orderId": 17}'),  # table.expand.json.payload
        (enveloped(STRUCT, {"orderId": 17}), enveloped({"type": "string", "optional": False}, "17"), '{"orderId":17}'),
    ],
)
def test_debezium_outbox(value: object, key: object, body: str) -> None:
    """The payload of each converter; the type and the id from headers; the aggregate's id as subject."""
    event = made("debezium-outbox", "outbox.event.order", value, OUTBOX, key)
    assert (event.type, event.body.decode()) == ("OrderCreated", body)
    assert cloud_event_of(event).subject == "17"
    again = made("debezium-outbox", "outbox.event.order", value, OUTBOX, key, offset=99)
    assert again.webhook_id == event.webhook_id


@pytest.mark.parametrize("with_schemas", [False, True])
def test_debezium_outbox_with_json_headers(with_schemas: bool) -> None:  # noqa: FBT001 (a table's column)
    """Debezium Server's default is JSON around each header; the event is that of plain headers."""

    def written(text: bytes) -> bytes:
        value = enveloped({"type": "string", "optional": False}, text.decode()) if with_schemas else text.decode()
        return json.dumps(value).encode()

    plain = made("debezium-outbox", "outbox.event.order", PAYLOAD, OUTBOX)
    headers: Headers = [(name, written(text or b"")) for name, text in OUTBOX]
    wrapped = made("debezium-outbox", "outbox.event.order", PAYLOAD, headers)
    assert wrapped == plain


def test_debezium_outbox_without_a_type() -> None:
    """The type is that of the router's topic, the aggregate's."""
    assert made("debezium-outbox", "outbox.event.order", PAYLOAD, OUTBOX[:1]).type == "outbox.event.order"


# Debezium's change events.

SOURCE = {
    "version": "3.1.0.Final",
    "connector": "postgresql",
    "name": "shop",
    "ts_ms": 1750000000000,
    "snapshot": "false",
    "db": "shop",
    "sequence": '["24023119","24023128"]',
    "schema": "public",
    "table": "customers",
    "txId": 555,
    "lsn": 24023128,
    "xmin": None,
}
ROW = {"id": 1004, "first_name": "Anne", "email": "annek@noanswer.org"}
ENVELOPE = {"type": "struct", "fields": [], "optional": False, "name": "shop.public.customers.Envelope", "version": 2}
KEY = {"type": "struct", "fields": [], "optional": False, "name": "shop.public.customers.Key"}


def change(op: str, before: object, after: object) -> dict[str, Any]:
    """The value of a change event."""
    at = {"ts_ms": 1750000000100, "ts_us": 1750000000100200, "ts_ns": 1750000000100200300}
    return {"before": before, "after": after, "source": SOURCE, "transaction": None, "op": op, **at}


@pytest.mark.parametrize("with_schemas", [False, True])
@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        ("c", None, ROW, "customers.created"),
        ("u", None, ROW, "customers.updated"),
        ("r", None, ROW, "customers.read"),
        ("d", ROW, None, "customers.deleted"),
    ],
)
def test_debezium_changes(op: str, before: object, after: object, expected: str, with_schemas: bool) -> None:  # noqa: FBT001 (a table's column)
    """The type is made of table and operation. The body is the row, or its last state if it was deleted."""
    value, key = change(op, before, after), {"id": 1004}
    if with_schemas:
        value, key = enveloped(ENVELOPE, value), enveloped(KEY, key)
    event = made("debezium-changes", "shop.public.customers", value, key=key)
    cloud = cloud_event_of(event)
    assert (event.type, json.loads(event.body), cloud.source) == (expected, ROW, "debezium/shop")
    assert json.loads(cloud.subject or "") == {"id": 1004}


@pytest.mark.parametrize("with_schemas", [False, True])
def test_debezium_changes_truncate(with_schemas: bool) -> None:  # noqa: FBT001 (a table's column)
    """It has no row and no key: its body says which table was emptied."""
    value: dict[str, Any] = {"source": SOURCE, "op": "t", "ts_ms": 1750000000100}
    for each in (value, value | {"before": None, "after": None}):
        event = made("debezium-changes", "shop.public.customers", enveloped(ENVELOPE, each) if with_schemas else each)
        assert (event.type, json.loads(event.body)) == ("customers.truncated", SOURCE)


@pytest.mark.parametrize("key", [{"id": 1004}, enveloped(KEY, {"id": 1004})])
def test_debezium_changes_tombstones(key: object) -> None:
    """The tombstone after a deletion is not an event."""
    with pytest.raises(Tombstone):
        made("debezium-changes", "shop.public.customers", None, key=key)


@pytest.mark.parametrize(("value", "key"), [(ROW, {"id": 1004}), (enveloped({}, ROW), enveloped(KEY, {"id": 1004}))])
def test_debezium_rows(value: dict[str, Any], key: dict[str, Any]) -> None:
    """The row is the event. A tombstone is the event of its deletion, with the key as body."""
    row = value.get("payload", value) | {"__op": "u"}
    value = value | {"payload": row} if "payload" in value else row
    event = made("debezium-rows", "stock.public.items", value, key=key)
    assert (event.type, json.loads(event.body)) == ("stock.public.items.updated", row)
    gone = made("debezium-rows", "stock.public.items", None, key=key)
    assert (gone.type, json.loads(gone.body)) == ("stock.public.items.deleted", {"id": 1004})
    assert gone.webhook_id == made("debezium-rows", "stock.public.items", None, key=key).webhook_id


# Spring Cloud Stream.


@pytest.mark.parametrize("quote", ["", '"'])
def test_spring_cloud_stream(quote: str) -> None:
    """Headers as the mapper writes them, with and without quotes."""
    named = {"contentType": "application/json", "eventType": "invoice.paid", "eventId": "0190a3c4"}
    types = json.dumps(dict.fromkeys(named, "java.lang.String")).encode()
    headers: Headers = [(name, f"{quote}{text}{quote}".encode()) for name, text in named.items()]
    headers.append(("spring_json_header_types", types))
    event = made("spring-cloud-stream", "billing-out-0", b'{"invoice":  7}', headers)
    assert (event.type, event.content_type, event.body) == ("invoice.paid", "application/json", b'{"invoice":  7}')
    plain: Headers = [("event-id", b"0190a3c4")]
    assert event.webhook_id == decode(record({}, plain, topic="billing-out-0")).webhook_id


def test_spring_kafka_names_the_class() -> None:
    """Its JsonSerializer names the class if the application names no type."""
    headers: Headers = [("__TypeId__", b"com.example.InvoicePaid")]
    assert made("spring-cloud-stream", "billing-out-0", b"{}", headers).type == "com.example.InvoicePaid"


# MassTransit.


@pytest.mark.parametrize(
    ("urn", "expected"),
    [
        ("urn:message:Shop.Contracts:OrderSubmitted", "order.submitted"),
        ("urn:message:Shop.Contracts:OrderShipped", "urn:message:Shop.Contracts:OrderShipped"),
    ],
)
def test_masstransit(urn: str, expected: str) -> None:
    """The message is the body. A word replaces the urn of its type, if the mapping has one."""
    envelope = {
        "messageId": "b8a40000-5d4c-0015-9d8a-08dcd0a1c2d3",
        "requestId": None,
        "correlationId": "b8a40000-5d4c-0015-aaaa-08dcd0a1c2d3",
        "conversationId": "b8a40000-5d4c-0015-bbbb-08dcd0a1c2d3",
        "initiatorId": None,
        "sourceAddress": "rabbitmq://rabbit/shop-api",
        "destinationAddress": "rabbitmq://rabbit/Shop.Contracts:OrderSubmitted",
        "responseAddress": None,
        "faultAddress": None,
        "messageType": [urn, "urn:message:Shop.Contracts:IOrderEvent"],
        "message": {"orderId": "A-17", "lines": [{"sku": "x", "quantity": 2}]},
        "expirationTime": None,
        "sentTime": "2026-06-15T10:20:30.1234567Z",
        "headers": {},
        "host": {"machineName": "api-1", "massTransitVersion": "8.2.5.0"},
    }
    event = made("masstransit", "masstransit.orders", envelope)
    cloud = cloud_event_of(event)
    assert (event.type, json.loads(event.body)) == (expected, envelope["message"])
    assert (cloud.source, cloud.time) == ("rabbitmq://rabbit/shop-api", "2026-06-15T10:20:30.1234567Z")
    assert event.webhook_id == made("masstransit", "masstransit.orders", envelope, offset=99).webhook_id


# EventBridge.


def test_eventbridge() -> None:
    """The detail is the body. Words without blanks replace types with blanks."""
    envelope = {
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Order Placed",
        "source": "com.example.shop",
        "account": "123456789012",
        "time": "2026-06-15T10:20:30Z",
        "region": "eu-central-1",
        "resources": [],
        "detail": {"order": 17},
    }
    event = made("eventbridge", "bus.orders", envelope)
    cloud = cloud_event_of(event)
    assert (event.type, event.tenant, json.loads(event.body)) == ("order.placed", "123456789012", {"order": 17})
    assert (cloud.source, cloud.time) == ("com.example.shop", "2026-06-15T10:20:30Z")
    assert made("eventbridge", "bus.orders", envelope | {"detail-type": "OrderPaid"}).type == "OrderPaid"
    assert made("eventbridge", "bus.other", envelope, offset=99).webhook_id == event.webhook_id
