"""Builds the signed HTTP request of a delivery or of a batch."""

from collections.abc import Sequence
from hashlib import blake2b

from consumer.events.event import Event
from consumer.sending.compression import compressed, compressed_for
from consumer.sending.header_lines import encoded
from consumer.sending.payloads import Payload, attribute_lines, body_of, render_batch
from consumer.sending.plugins import call
from consumer.sending.signed_request import SignedRequest
from consumer.sending.signing import hex_signature, standard_signature
from consumer.sending.template import Template
from consumer.subscriptions.endpoint import Endpoint


def build(
    template: Template, endpoint: Endpoint, event: Event, timestamp: int, traceparent: str | None = None
) -> SignedRequest:
    """The signed request of one attempt, made at `timestamp` (unix seconds).

    `traceparent`: of the attempt's span; without one, the event's own is passed on.

    Raises Unrenderable as `body_of` does, InvalidHeader if no header can hold the event's id, type or content type, and
    NotAuthorized if a plug-in fails.
    """
    body, content_type = body_of(endpoint, event)
    stamp = _stamped
    if stamp.event is not event or stamp.timestamp != timestamp or stamp.content_type != content_type:
        stamp = _stamp(event, timestamp, content_type)
    lines = stamp.lines if traceparent is None else stamp.untraced + _traced(traceparent)
    if endpoint.payload_format == "cloudevents-binary":
        lines += attribute_lines(event)
    request = _signed(template, stamp.start, lines, body)
    if template.gzip_above is not None and len(body) > template.gzip_above:
        request.send_as(compressed_for(event, body))
    return _authorized(template, request)


def build_batch(
    template: Template,
    endpoint: Endpoint,
    payloads: Sequence[Payload],
    timestamp: int,
    traceparent: str | None = None,
) -> SignedRequest:
    """The signed request of one attempt to send all `payloads`, which `render` gave for this endpoint.

    `traceparent`: of the attempt's span; without one, none is sent, because each event has its own. Raises
    NotAuthorized if a plug-in fails.
    """
    body, content_type = render_batch(endpoint, payloads)
    types = {payload.event.type for payload in payloads}
    only = types.pop() if len(types) == 1 else None
    webhook_id = batch_id(payloads)
    lines = _lines(content_type, webhook_id, timestamp, only)
    if traceparent is not None:
        lines += _traced(traceparent)
    request = _signed(template, _start(webhook_id, timestamp), lines, body)
    if template.gzip_above is not None and len(body) > template.gzip_above:
        request.send_as(compressed(body))
    return _authorized(template, request)


def batch_id(payloads: Sequence[Payload]) -> str:
    """The `webhook-id` of a batch: the same for the same events in the same order."""
    digest = blake2b(digest_size=16)
    for payload in payloads:
        digest.update(b"%d:%b" % (len(payload.event.webhook_id), payload.event.webhook_id.encode("ascii")))
    return "msg_" + digest.hexdigest()


class _Stamp:
    """The header lines and the start of the signed text that all requests of an event at one timestamp share.

    `untraced`: the lines without the event's `traceparent`.
    """

    __slots__ = ("content_type", "event", "lines", "start", "timestamp", "untraced")

    def __init__(self) -> None:
        self.event: Event | None = None
        self.timestamp = 0
        self.content_type = ""
        self.lines = self.untraced = self.start = b""


_stamped = _Stamp()  # a fan-out builds requests for the same event again and again


def _stamp(event: Event, timestamp: int, content_type: str) -> _Stamp:
    stamp = _stamped
    stamp.event = None
    stamp.lines = stamp.untraced = _lines(content_type, event.webhook_id, timestamp, event.type)
    if event.traceparent is not None:
        stamp.lines += _traced(event.traceparent)
    stamp.start = _start(event.webhook_id, timestamp)
    stamp.event, stamp.timestamp, stamp.content_type = event, timestamp, content_type
    return stamp


def _start(webhook_id: str, timestamp: int) -> bytes:
    return f"{webhook_id}.{timestamp}.".encode("ascii")


def _traced(traceparent: str) -> bytes:
    return encoded([f"traceparent: {traceparent}"])


def _lines(content_type: str, webhook_id: str, timestamp: int, event_type: str | None) -> bytes:
    lines = [f"content-type: {content_type}", f"webhook-id: {webhook_id}", f"webhook-timestamp: {timestamp}"]
    if event_type is not None:
        lines.append(f"x-webhook-event: {event_type}")
    return encoded(lines)


def _signed(template: Template, start: bytes, lines: bytes, body: bytes) -> SignedRequest:
    signature = standard_signature(template.keys, template.private_keys, start, body)
    key = template.hex_key
    if key is None:
        lines = b"%bwebhook-signature: %b\r\n" % (lines, signature)
    else:
        hexed = hex_signature(key, body)
        lines = b"%bwebhook-signature: %b\r\n%b%b\r\n" % (lines, signature, template.hex_start, hexed)
    return SignedRequest(template, lines, body)


def _authorized(template: Template, request: SignedRequest) -> SignedRequest:
    """The request as it goes out: a plug-in sees the bytes on the wire."""
    if template.plugin is not None:
        call(template.plugin, request)
    return request
