"""The HTTP request of a delivery, or of a batch: bytes, and a `requests.PreparedRequest` for whoever looks."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from requests import PreparedRequest, Request
from requests.exceptions import InvalidHeader, InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer import __version__
from consumer.events.event import Event
from consumer.http.urls import check_target
from consumer.sending.header_lines import encoded, header_lines
from consumer.sending.payloads import Payload, body_of, render_batch
from consumer.sending.signing import hex_signature, hmac_key, standard_signature
from consumer.subscriptions.endpoint import Endpoint

# What `build` sets, whatever the endpoint says.
_OURS = ("content-length", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature")


class Template:
    """What all requests to an endpoint share, and their signing keys; made once (40 µs).

    `lines` are its own headers, and what its `auth` adds, as they are sent; `request` is a request of these alone.
    """

    __slots__ = ("hex_key", "hex_start", "keys", "lines", "private_keys", "request")

    def __init__(self, request: PreparedRequest, endpoint: Endpoint) -> None:
        self.request = request
        self.keys = tuple(map(hmac_key, endpoint.secrets))
        self.private_keys = endpoint.private_keys
        # It has room for one secret. By the oldest that still signs, a rotation's overlap covers its receivers too.
        self.hex_key = self.keys[-1] if self.keys and endpoint.hex_header is not None else None
        self.hex_start = b""
        ours = set(_OURS)
        if endpoint.hex_header is not None and self.hex_key is not None:
            self.hex_start = header_lines({endpoint.hex_header: f"{endpoint.hex_prefix}_"})[
                :-3
            ]  # without _ and its end
            ours.add(endpoint.hex_header.lower())
        self.lines = header_lines({name: value for name, value in request.headers.items() if name.lower() not in ours})


class SignedRequest(PreparedRequest):
    """A request whose header lines are there as they are sent, `lines`. All else is made when somebody asks for it."""

    def __init__(self, template: Template, lines: bytes, body: bytes) -> None:  # without the parent's
        self.template = template
        self.method = "POST"
        self.url = template.request.url
        self.body = body
        self.lines: bytes | None = lines

    def __getattr__(self, name: str) -> Any:
        if name == "headers":
            value: Any = self._headers()
            self.lines = None  # from now on somebody may change them
        elif name in ("hooks", "_cookies", "_body_position"):
            value = getattr(self.template.request, name)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def _headers(self) -> CaseInsensitiveDict[str]:
        headers = CaseInsensitiveDict(self.template.request.headers)
        headers["content-length"] = str(len(self.body or b""))
        for line in (self.lines or b"").decode("ascii").split("\r\n"):
            name, _, value = line.partition(": ")
            if value:
                headers[name] = value
        return headers


def prepare(endpoint: Endpoint) -> Template:
    """What all requests to an endpoint share. An `auth` that needs the body or an answer has no place here.

    Raises requests.exceptions.InvalidURL for a url that is none, and InvalidHeader; their texts hold nothing of either:
    it may be a password.
    """
    try:
        check_target(endpoint.url)
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    given = CaseInsensitiveDict({"user-agent": f"kafka-webhooks/{__version__}"})
    given.update(endpoint.headers)
    try:
        prepared = Request("POST", endpoint.url, headers=given, auth=endpoint.auth).prepare()
        return Template(prepared, endpoint)
    except InvalidHeader:  # its text repeats the value, that of InvalidURL the whole url
        raise InvalidHeader("a header of the subscription cannot be sent") from None
    except InvalidURL:
        raise InvalidURL("the URL is malformed: its host can be none") from None


def build(template: Template, endpoint: Endpoint, event: Event, timestamp: int) -> SignedRequest:
    """The signed request of one attempt, made at `timestamp` (unix seconds).

    Unrenderable, as `body_of` raises it; InvalidHeader: the event's id, type or content type can be in no header.
    """
    body, content_type = body_of(endpoint, event)
    stamp = _stamped
    if stamp.event is not event or stamp.timestamp != timestamp or stamp.content_type != content_type:
        stamp = _stamp(event, timestamp, content_type)
    return _signed(template, stamp.start, stamp.lines, body)


def build_batch(template: Template, endpoint: Endpoint, payloads: Sequence[Payload], timestamp: int) -> SignedRequest:
    """The signed request of one attempt at all `payloads`, which `render` gave for this endpoint."""
    body, content_type = render_batch(endpoint, payloads)
    types = {payload.event.type for payload in payloads}
    only = types.pop() if len(types) == 1 else None
    webhook_id = batch_id(payloads)
    return _signed(template, _start(webhook_id, timestamp), _lines(content_type, webhook_id, timestamp, only), body)


def batch_id(payloads: Sequence[Payload]) -> str:
    """The `webhook-id` of a batch: the same for the same events in the same order."""
    digest = blake2b(digest_size=16)
    for payload in payloads:
        digest.update(b"%d:%b" % (len(payload.event.webhook_id), payload.event.webhook_id.encode("ascii")))
    return "msg_" + digest.hexdigest()


class _Stamp:
    """An event at a time: the lines and the start of the signed text that its requests have in common."""

    __slots__ = ("content_type", "event", "lines", "start", "timestamp")

    def __init__(self) -> None:
        self.event: Event | None = None
        self.timestamp = 0
        self.content_type = ""
        self.lines = self.start = b""


_stamped = _Stamp()  # of a fan-out, which hands over one event again and again


def _stamp(event: Event, timestamp: int, content_type: str) -> _Stamp:
    stamp = _stamped
    stamp.event = None
    stamp.lines = _lines(content_type, event.webhook_id, timestamp, event.type, event.traceparent)
    stamp.start = _start(event.webhook_id, timestamp)
    stamp.event, stamp.timestamp, stamp.content_type = event, timestamp, content_type
    return stamp


def _start(webhook_id: str, timestamp: int) -> bytes:
    return f"{webhook_id}.{timestamp}.".encode("ascii")


def _lines(
    content_type: str, webhook_id: str, timestamp: int, event_type: str | None, traceparent: str | None = None
) -> bytes:
    lines = [f"content-type: {content_type}", f"webhook-id: {webhook_id}", f"webhook-timestamp: {timestamp}"]
    if event_type is not None:
        lines.append(f"x-webhook-event: {event_type}")
    if traceparent is not None:
        lines.append(f"traceparent: {traceparent}")
    return encoded(lines)


def _signed(template: Template, start: bytes, lines: bytes, body: bytes) -> SignedRequest:
    signature = standard_signature(template.keys, template.private_keys, start, body)
    key = template.hex_key
    if key is None:
        return SignedRequest(template, b"%bwebhook-signature: %b\r\n" % (lines, signature), body)
    return SignedRequest(
        template,
        b"%bwebhook-signature: %b\r\n%b%b\r\n" % (lines, signature, template.hex_start, hex_signature(key, body)),
        body,
    )
