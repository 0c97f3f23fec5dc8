"""Records described by inputs, and the guarantees for each event."""

import re
from collections.abc import Callable
from typing import TypeVar, get_args
from urllib.parse import unquote_to_bytes

import orjson

from consumer.errors import Tombstone, Undecodable
from consumer.events.event import Event
from consumer.expressions.expression import compile_projection
from consumer.intake.decode import MAX_TENANT_LENGTH, MAX_VALUE_BYTES
from consumer.intake.record import BAD_HEADERS, Headers, Record, Unreadable
from consumer.sending.payloads import Unrenderable, render, render_batch
from consumer.sending.request import build
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Batch, Endpoint, PayloadFormat
from consumer.subscriptions.patterns import candidates
from tests.records import record

T = TypeVar("T")
REASONS = frozenset(
    (
        *("unreadable", "empty", "too_large", "bad_headers", "bad_type", "not_utf8", "not_json", "too_deep"),
        *("not_object", "null", "no_type", "no_body", "bad_schema_id", "unknown_schema", "bad_avro", "bad_protobuf"),
    )
)
KEYS = (b"a key of thirty-two bytes, or so",)
PLACE = "https://example.com/hook"
_LINE = re.compile(r"[ -~]+")
_NOT_IN_TOPICS = re.compile(rb"[^A-Za-z0-9._-]")  # Kafka has no other topic names
_WEBHOOK_ID = re.compile(r"msg_[0-9a-f]{32}")
_FORMATS: tuple[PayloadFormat, ...] = get_args(PayloadFormat)
_ENDPOINTS = {
    endpoint: prepare(endpoint)
    for endpoint in (
        *(Endpoint(1, PLACE, KEYS, payload_format=kind) for kind in _FORMATS),
        *(Endpoint(1, PLACE, KEYS, payload_format=kind, batch=Batch(2, 1)) for kind in _FORMATS[:3]),
        Endpoint(1, PLACE, KEYS, projection=compile_projection('{"all": data, "from": source, "by": extensions}')),
    )
}


# Records, as text: lines such as `ce_type: order.paid`, an empty line, and the value. `:key:`, `:topic:` and `:null:`
# are the record's own parts. Percent-encoding stands for any byte, and a line without a colon for a null header.


def record_of(data: bytes) -> Record:
    """The record that an input describes."""
    head, _, value = data.partition(b"\n\n")
    parts: dict[bytes, bytes] = {}
    headers: Headers | Unreadable = []
    for line in filter(None, head.split(b"\n")):
        if line.startswith(b":"):
            name, _, text = line[1:].partition(b":")
            parts[name] = unquote_to_bytes(text.strip(b" "))
        elif isinstance(headers, list):
            name, colon, text = line.partition(b":")
            try:
                named = unquote_to_bytes(name).decode()
            except UnicodeDecodeError:
                headers = BAD_HEADERS
                continue
            headers.append((named, unquote_to_bytes(text.removeprefix(b" ")) if colon else None))
    topic = _NOT_IN_TOPICS.sub(b"-", parts.get(b"topic", b"")[:249]).decode() or "orders"
    return record(None if b"null" in parts else value, headers or None, key=parts.get(b"key"), topic=topic)


def made_or_refused(by: Callable[[Record], T], record: Record) -> T | str:
    """The event that a decoder makes of a record, or the reason of its refusal. Any other error is a mistake."""
    try:
        return by(record)
    except Tombstone:
        return "tombstone"
    except Undecodable as error:
        assert error.reason in REASONS, error.reason
        assert 0 < len(str(error)) < 2000, len(str(error))
        return error.reason


def check_event(event: Event, record: Record) -> None:
    """Checks that each way of sending the event makes a safe request, or reports that it cannot."""
    assert event.record == record.id
    assert _WEBHOOK_ID.fullmatch(event.webhook_id), event.webhook_id
    assert "." not in event.webhook_id
    for text in (event.type, event.content_type, event.traceparent or "-"):
        assert _LINE.fullmatch(text), text
    assert isinstance(event.body, bytes)
    assert 0 < len(event.body) <= MAX_VALUE_BYTES
    assert event.tenant is None or 0 < len(event.tenant) <= MAX_TENANT_LENGTH
    assert event.size >= len(event.body)
    assert event.type in candidates(event.type) or len(event.type) > 50
    for endpoint, template in _ENDPOINTS.items():
        try:
            first = build(template, endpoint, event, 1_700_000_000)
            payload = render(endpoint, event)
        except Unrenderable as error:
            assert endpoint.payload_format != "record" or endpoint.projection or endpoint.batch, error
            continue
        assert isinstance(first.body, bytes)
        assert first.headers["webhook-id"] == event.webhook_id
        for line in (build(template, endpoint, event, 1).lines or b"").split(b"\r\n"):
            assert not line or _LINE.fullmatch(line.decode("ascii")), line
        if endpoint.payload_format not in {"record", "cloudevents-binary"} or endpoint.projection:
            orjson.loads(payload.body)
        if endpoint.batch:
            assert len(orjson.loads(render_batch(endpoint, [payload, payload])[0])) == 2
