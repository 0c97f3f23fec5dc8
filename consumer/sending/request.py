"""The signed HTTP request of a delivery or of a batch: what all requests of a subscription share, headers and body.

Pure, but for a plug-in's code.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from requests import PreparedRequest, Request, RequestException
from requests.auth import AuthBase
from requests.exceptions import InvalidHeader, InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer import __version__
from consumer.crypto.credentials import OAuth2, PluginAuth
from consumer.errors import NotAuthorized
from consumer.events.event import Event
from consumer.http.header_rules import encoded, header_lines
from consumer.http.urls import check_target
from consumer.sending.payloads import Rendered, attribute_lines, body_of, compressed, compressed_for, render_batch
from consumer.sending.signing import hex_signature, hmac_key, standard_signature
from consumer.subscriptions.endpoint import Endpoint

REQUEST_ORIGIN = "webhook-request-origin"  # CloudEvents' web hooks, section 4.1.2: for each delivery, once permitted
# Set for each request; an endpoint's own headers of these names are ignored.
_OURS = ("content-length", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature")
_GZIP_LINE = b"content-encoding: gzip\r\n"
_METHODS = {name: name.encode() for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}
# These belong to an HTTP/1.1 connection (RFC 9113, 8.2.2).
_HTTP1_ONLY = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te"))


class Template:
    """The shared headers and signing keys of an endpoint's requests; made once (40 µs).

    `lines`: the endpoint's headers and those that its `auth` adds, as sent. `request`: a request with these alone.
    Each request needs a token of `oauth2`, or is passed to `plugin`, if they are set; it goes out with `tls`.
    `is_plain`: the body is the record's value.
    """

    def __init__(self, request: PreparedRequest, endpoint: Endpoint) -> None:
        self.request = request
        self.http2 = endpoint.http2
        self.is_plain = endpoint.payload_format == "record" and endpoint.projection is None
        # A header of the subscription's own says that its bodies are encoded already.
        self.gzip_above = None if "content-encoding" in request.headers else endpoint.gzip_above
        self.keys = tuple(map(hmac_key, endpoint.secrets))
        self.private_keys = endpoint.private_keys
        self.oauth2 = endpoint.auth if isinstance(endpoint.auth, OAuth2) else None
        self.plugin = endpoint.auth if isinstance(endpoint.auth, PluginAuth) else None
        self.tls = endpoint.tls
        # The hex header holds one signature. The oldest valid key makes it, so that receivers which check this header
        # keep their old secret during a rotation's overlap too.
        self.hex_key = self.keys[-1] if self.keys and endpoint.hex_header is not None else None
        self.hex_start = b""
        ours = set(_OURS)
        if endpoint.hex_header is not None and self.hex_key is not None:
            self.hex_start = header_lines({endpoint.hex_header: f"{endpoint.hex_prefix}_"}).removesuffix(b"_\r\n")
            ours.add(endpoint.hex_header.lower())
        self.lines = header_lines({name: value for name, value in request.headers.items() if name.lower() not in ours})


def prepare(endpoint: Endpoint) -> Template:
    """Make the endpoint's template.

    Raises requests.exceptions.InvalidURL and InvalidHeader; their texts do not quote the URL or the header, which may
    hold a password.
    """
    try:
        check_target(endpoint.url)
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    given = CaseInsensitiveDict({"user-agent": f"kafka-webhooks/{__version__}"})
    given.update(endpoint.headers)
    if isinstance(endpoint.auth, OAuth2):  # as with basic and bearer; two such lines would make the request invalid
        given.pop("authorization", None)
    if endpoint.origin is not None:
        given[REQUEST_ORIGIN] = endpoint.origin
    try:
        always = endpoint.auth if isinstance(endpoint.auth, AuthBase) else None
        return Template(Request("POST", endpoint.url, headers=given, auth=always).prepare(), endpoint)
    except InvalidHeader:  # the original text quotes the value; that of InvalidURL quotes the whole URL
        raise InvalidHeader("a header of the subscription cannot be sent") from None
    except InvalidURL:
        raise InvalidURL("the URL is malformed: its host is not valid") from None


class SignedRequest(PreparedRequest):
    """A request with its header lines ready to send, in `lines`. Other attributes are built on first access.

    `payload` is covered by the signatures: the body before compression. `authorization`: the header line of an access
    token, which `authorize` sets just before the request is sent. `added`: the headers of a plug-in.
    """

    authorization = b""
    added: Mapping[str, str | bytes] = {}

    def __init__(self, template: Template, lines: bytes, body: bytes) -> None:  # does not call the parent's
        self.template = template
        self.method = "POST"
        self.url = template.request.url
        self.body = self.payload = body
        self.lines: bytes | None = lines

    @property
    def is_compressed(self) -> bool:
        """The body is not the payload itself."""
        return self.body is not self.payload

    def send_as(self, packed: bytes) -> None:
        """Send the payload in this compressed form, if that is smaller."""
        if len(packed) + len(_GZIP_LINE) < len(self.payload):
            self.body = packed
            self.lines = (self.lines or b"") + _GZIP_LINE

    def authorize(self, token: str) -> None:
        """Go out with this access token, which is visible ASCII."""
        if self.lines is None:
            self.headers["Authorization"] = f"Bearer {token}"
        else:
            self.authorization = b"authorization: Bearer %b\r\n" % token.encode("ascii")

    def __getattr__(self, name: str) -> Any:
        if name == "headers":
            value: Any = self._headers()
            self.lines = None  # the caller may change the headers from now on
        elif name in ("hooks", "_cookies", "_body_position"):
            value = getattr(self.template.request, name)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def _headers(self) -> CaseInsensitiveDict[str]:
        headers = CaseInsensitiveDict(self.template.request.headers)
        headers["content-length"] = str(len(self.body or b""))
        for line in ((self.lines or b"") + self.authorization).decode("ascii").split("\r\n"):
            name, _, value = line.partition(": ")
            if value:
                headers[name] = value
        return headers


class _Stamp(NamedTuple):
    """The header lines and the start of the signed text that all requests of an event at one timestamp share.

    `untraced`: the lines without the event's `traceparent`.
    """

    event: Event | None
    timestamp: int
    content_type: str
    lines: bytes
    untraced: bytes
    start: bytes


_stamped = _Stamp(None, 0, "", b"", b"", b"")  # a fan-out builds requests for the same event again and again


def build(
    template: Template, endpoint: Endpoint, event: Event, timestamp: int, traceparent: str | None = None
) -> SignedRequest:
    """The signed request of one attempt, made at `timestamp` (unix seconds).

    `traceparent`: of the attempt's span; without one, the event's own is passed on.

    Raises Unrenderable as `body_of` does, InvalidHeader if no header can hold the event's id, type or content type, and
    NotAuthorized if a plug-in fails.
    """
    body, content_type = (event.body, event.content_type) if template.is_plain else body_of(endpoint, event)
    stamp = _stamped
    if stamp.event is not event or stamp.timestamp != timestamp or stamp.content_type != content_type:
        stamp = _stamp(event, timestamp, content_type)
    lines = stamp.lines if traceparent is None else stamp.untraced + _traced(traceparent)
    if endpoint.payload_format == "cloudevents-binary":
        lines += attribute_lines(event)
    request = _signed(template, stamp.start, lines, body)
    if template.gzip_above is not None and len(body) > template.gzip_above:
        request.send_as(compressed_for(event, body))
    if template.plugin is not None:
        call_plugin(template.plugin, request)
    return request


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
    request = _signed(template, _start(webhook_id, timestamp), lines, body)
    if template.gzip_above is not None and len(body) > template.gzip_above:
        request.send_as(compressed(body))
    if template.plugin is not None:
        call_plugin(template.plugin, request)
    return request


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
    _stamped = _Stamp(event, timestamp, content_type, lines, untraced, _start(event.webhook_id, timestamp))
    return _stamped


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


def call_plugin(plugin: PluginAuth, request: SignedRequest) -> None:
    """Let the plug-in add its headers to the request. It runs on the loop, so it must not wait for anything.

    Raises NotAuthorized if it fails, changes the body or the URL, which are signed or judged already, sets a header
    that is not text or that cannot be sent, or registers a hook for the answer: a delivery is one exchange, and a hook
    is never called. The text quotes neither the plug-in's own error nor a header's value.
    """
    body, url = request.body, request.url
    try:
        before = frozenset(map(str.lower, request.headers))
        result = plugin.auth(request)
        why = _fault(result, body, url)
        if why is None:
            request.headers = result.headers
            request.lines = None
            request.added = {name: value for name, value in result.headers.items() if name.lower() not in before}
    except Exception as error:  # noqa: BLE001 (a plug-in's own)
        raise NotAuthorized(f"the plug-in {plugin.name} failed ({type(error).__name__})") from None
    if why is not None:
        raise NotAuthorized(f"the plug-in {plugin.name} {why}")


def _fault(result: object, body: object, url: str | None) -> str | None:
    """Why the request that a plug-in returned cannot be sent, or None."""
    if not isinstance(result, PreparedRequest):
        return "returned no request"
    if result.body is not body or result.url != url:
        return "changed the body or the URL; it may only add headers"
    if any(result.hooks.values()):
        return "waits for a challenge in the answer, which is not supported"
    # Its arguments are JSON of the subscription, so a value may be a number or null.
    if not all(isinstance(name, str) and isinstance(value, str | bytes) for name, value in result.headers.items()):
        return "set a header that is not text"
    for name, value in result.headers.items():
        try:
            header_lines({name: value})
        except InvalidHeader as error:
            return f"set the header {name!r}, which cannot be sent: {error}"
    return None


def message(request: PreparedRequest, line: bytes) -> tuple[bytes, bytes]:
    """The head and the body to write; `line` is that of a Place. RequestException for what cannot be sent."""
    method, body = request.method, request.body
    if method not in _METHODS:
        raise RequestException(f"method {method!r} is not supported")
    if isinstance(body, str):
        body = body.encode()
    elif body is not None and not isinstance(body, bytes):
        raise RequestException("only a body of bytes or text can be sent")
    body = body or b""
    if isinstance(request, SignedRequest) and request.lines is not None:
        own, lines = request.template.lines, request.lines
        if request.authorization:
            lines += request.authorization
    else:
        own, lines = b"", header_lines(request.headers)
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
