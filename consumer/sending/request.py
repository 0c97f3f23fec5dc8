"""Builds the signed HTTP request of a delivery or of a batch, and renders it as bytes. Pure, but for a plug-in."""

from collections.abc import Sequence
from hashlib import blake2b

from requests import PreparedRequest, RequestException

from consumer.events.event import Event
from consumer.expressions.expression import Allowance, ExpressionFailed
from consumer.http.header_rules import check_value, header_lines
from consumer.sending.exchange import SignedRequest, call_plugin
from consumer.sending.payloads import (
    Rendered,
    Unrenderable,
    attribute_lines,
    body_of,
    compressed,
    compressed_for,
    render_batch,
    variables_for,
)
from consumer.sending.route import Place
from consumer.sending.signing import Template, prepare
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.follows import Follows

_METHODS = {name: name.encode() for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# These belong to an HTTP/1.1 connection (RFC 9113, 8.2.2).
_HTTP1_ONLY = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te"))


# All requests of an event at one timestamp share this. The event, the timestamp and the content type come first; then
# the header lines, the same without the event's `traceparent`, and the start of the signed text.
_Stamp = tuple[Event | None, int, str, bytes, bytes, bytes]
_stamped: _Stamp = None, 0, "", b"", b"", b""  # a fan-out builds requests for the same event again and again


def build(
    template: Template, endpoint: Endpoint, event: Event, timestamp: int, traceparent: str | None = None
) -> SignedRequest:
    """The signed request of one attempt, made at `timestamp` (unix seconds).

    `traceparent`: of the attempt's span; without one, the event's own is passed on.

    Raises Unrenderable as `body_of` does, InvalidHeader if no header can hold the event's id, type or content type, and
    NotAuthorized if a plug-in fails.
    """
    target, follows = ("", b"") if template.follows is None else _following(template, template.follows, event)
    body, content_type = (event.body, event.content_type) if template.is_plain else body_of(endpoint, event)
    stamped, at, kind, lines, untraced, start = _stamped
    if stamped is not event or at != timestamp or kind != content_type:
        *_, lines, untraced, start = _stamp(event, timestamp, content_type)
    if traceparent is not None:
        lines = untraced + _traced(traceparent)
    if endpoint.payload_format == "cloudevents-binary":
        lines += attribute_lines(event)
    return _finished(template, start, lines + follows, body, event, target)


def shown(endpoint: Endpoint, event: Event) -> str:
    """Method and URL of the request for an event, and the header lines that follow it. Raises as `build` does."""
    template = prepare(endpoint)
    target, lines = ("", b"") if template.follows is None else _following(template, template.follows, event)
    url = template.origin + target if target else endpoint.url
    return f"{endpoint.method} {url}\r\n{lines.decode('ascii')}".replace("\r\n", "\n").strip()


def build_batch(
    template: Template,
    endpoint: Endpoint,
    payloads: Sequence[Rendered],
    timestamp: int,
    traceparent: str | None = None,
) -> SignedRequest:
    """The signed request of one attempt to send all `payloads`, which `render` gave for this endpoint.

    `traceparent`: of the attempt's span; without one, none is sent, because each event has its own. Raises
    NotAuthorized if a plug-in fails.
    """
    body, content_type = render_batch(endpoint, payloads)
    types = {payload.event.type for payload in payloads}
    webhook_id = batch_id(payloads)
    lines = _lines(content_type, webhook_id, timestamp, types.pop() if len(types) == 1 else None)
    if traceparent is not None:
        lines += _traced(traceparent)
    return _finished(template, f"{webhook_id}.{timestamp}.".encode("ascii"), lines, body)


def batch_id(payloads: Sequence[Rendered]) -> str:
    """The `webhook-id` of a batch: the same for the same events in the same order."""
    digest = blake2b(digest_size=16)
    for payload in payloads:
        digest.update(b"%d:%b" % (len(payload.event.webhook_id), payload.event.webhook_id.encode("ascii")))
    return "msg_" + digest.hexdigest()


def _stamp(event: Event, timestamp: int, content_type: str) -> _Stamp:
    global _stamped  # noqa: PLW0603 (a memo of one, replaced whole)
    lines = untraced = _lines(content_type, event.webhook_id, timestamp, event.type)
    if event.traceparent is not None:
        lines += _traced(event.traceparent)
    _stamped = event, timestamp, content_type, lines, untraced, f"{event.webhook_id}.{timestamp}.".encode("ascii")
    return _stamped


def _traced(traceparent: str) -> bytes:
    check_value(traceparent)
    return f"traceparent: {traceparent}\r\n".encode("ascii")


def _lines(content_type: str, webhook_id: str, timestamp: int, event_type: str | None) -> bytes:
    check_value(f"{content_type}{webhook_id}{event_type or ''}")
    lines = f"content-type: {content_type}\r\nwebhook-id: {webhook_id}\r\nwebhook-timestamp: {timestamp}\r\n"
    if event_type is not None:
        lines += f"x-webhook-event: {event_type}\r\n"
    return lines.encode("ascii")


def _following(template: Template, follows: Follows, event: Event) -> tuple[str, bytes]:
    """Path and query, if the URL has expressions, and the header lines that follow the event."""
    variables, allowance = variables_for(event) if follows.evaluates else {}, Allowance()
    try:
        target = "" if follows.url is None else follows.url.target(variables, allowance)
    except ExpressionFailed as error:
        raise Unrenderable(f"url: {error}") from None
    try:
        return target, follows.lines(variables, event.headers, template.taken, allowance)
    except ExpressionFailed as error:
        raise Unrenderable(f"headers: {error}") from None


def _finished(
    template: Template, start: bytes, lines: bytes, body: bytes, event: Event | None = None, target: str = ""
) -> SignedRequest:
    """The request, signed, compressed if it is large (once for the event, if it has one), and passed to the plug-in."""
    request = SignedRequest(template, lines + template.signature_lines(start, body), body)
    if target:
        request.aim(template.origin, target)
    if template.gzip_above is not None and len(body) > template.gzip_above:
        request.send_as(compressed(body) if event is None else compressed_for(event, body))
    if template.plugin is not None:
        call_plugin(template.plugin, request)
    return request


def message(request: PreparedRequest, place: Place) -> tuple[bytes, bytes]:
    """The head and the body to write. RequestException for what cannot be sent."""
    method, body = request.method, request.body
    if method not in _METHODS:
        raise RequestException(f"method {method!r} is not supported")
    if not isinstance(body, bytes):
        if body is not None and not isinstance(body, str):
            raise RequestException("only a body of bytes or text can be sent")
        body = (body or "").encode()
    line, own, lines = place.line, b"", None
    if isinstance(request, SignedRequest):
        if request.target:
            line = place.before + request.target + place.after
        if request.lines is not None:
            own, lines = request.template.lines, request.lines + request.authorization
    if lines is None:
        lines = header_lines(request.headers)
    return b"%b %b%b%bContent-Length: %d\r\n\r\n" % (_METHODS[method], line, own, lines, len(body)), body


def http2_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a request by HTTP/2, whose head `message` has rendered."""
    first, host, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, path, _ = first.split(b" ")
    fields = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", host.partition(b": ")[2])]
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" ")))
    return [field for field in fields if field[0] not in _HTTP1_ONLY]
