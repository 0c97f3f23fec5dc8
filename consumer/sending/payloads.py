"""Renders a request's body: the record as received, a Standard Webhooks envelope, a CloudEvent, or a projection.

A CloudEvent in binary mode has header lines too. A body may be compressed.

Pure and deterministic: an event gives the same bytes in each attempt and process, and after storage in the database,
so that signatures and a receiver's logged bodies can be compared.
"""

import re
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from consumer.events.cloud_event import CloudEvent, Content, cloud_event_of, content_of, variables_of
from consumer.events.event import Event
from consumer.expressions.expression import Expression, ExpressionFailed
from consumer.http.header_rules import is_value
from consumer.subscriptions.endpoint import Endpoint, PayloadFormat

JSON = "application/json"
CLOUD_EVENT = "application/cloudevents+json"  # CloudEvents 1.0, HTTP protocol binding, section 3.2
CLOUD_EVENTS = "application/cloudevents-batch+json"  # the same, section 3.3
PROJECTION_BYTES = 2 * 2**20  # limit of a projection's JSON; twice the size of the largest accepted record
_LEVEL = 1  # compresses 1 MiB of JSON to 27 % in 5.5 ms; level 6: to 23 % in 14 ms
_GZIP = 31  # as zlib calls this format; it writes no time into the header
MOST_FORMS = 8  # rendered forms kept per event: subscriptions with different projections share none
HEADERS_BYTES = 8192  # limit of a CloudEvent's attributes as headers: many servers refuse more
_ATTRIBUTE = re.compile(r"[a-z0-9]+")  # CloudEvents 1.0, naming convention
# All that a header may hold as it is; the rest is percent-encoded (CloudEvents, HTTP protocol binding, 3.1.3.2).
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_TEXT, _OCTETS = "text/plain; charset=utf-8", "application/octet-stream"


class Unrenderable(ValueError):
    """The event cannot be rendered as the subscription asks; the text says why and holds no content of the event."""


class Rendered(NamedTuple):
    """An event rendered as a subscription asks."""

    event: Event
    body: bytes
    content_type: str


class _Asked(NamedTuple):
    """The options of an endpoint that determine the form. `in_array`: the event becomes a member of a batch."""

    kind: PayloadFormat
    projection: Expression | None
    in_array: bool


class _Parsed:
    """An event and its forms rendered so far, shared by all subscriptions that receive it."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self._content: Content | None = None
        self._cloud: CloudEvent | None = None
        self._variables: Mapping[str, object] | None = None
        self._attributes: bytes | None = None
        self._forms: dict[_Asked, tuple[bytes, str]] = {}
        self._packed: dict[int, tuple[bytes, bytes]] = {}  # by the identity of the body

    # mypyc takes a `cached_property` for a property, and would compute it each time.

    @property
    def content(self) -> Content:
        if self._content is None:
            self._content = content_of(self.event)
        return self._content

    @property
    def cloud(self) -> CloudEvent:
        if self._cloud is None:
            self._cloud = cloud_event_of(self.event, self.content)
        return self._cloud

    @property
    def variables(self) -> Mapping[str, object]:
        if self._variables is None:
            self._variables = variables_of(self.event, self.content)
        return self._variables

    @property
    def attributes(self) -> bytes:
        if self._attributes is None:
            self._attributes = self._attribute_lines()
        return self._attributes

    def _attribute_lines(self) -> bytes:
        cloud = self.cloud
        given: dict[str, Any] = {"specversion": "1.0", "id": cloud.id, "source": cloud.source, "type": cloud.type}
        given |= {"time": cloud.time, "subject": cloud.subject, "dataschema": cloud.dataschema, **cloud.extensions}
        found = b""
        for name, value in given.items():
            if _ATTRIBUTE.fullmatch(name) and value not in (None, ""):
                text = value if isinstance(value, str) else _dumps(value)
                found += f"ce-{name}: {quote(text, _PLAIN)}\r\n".encode("ascii")
        if len(found) > HEADERS_BYTES:
            raise Unrenderable(f"its attributes have {len(found)} bytes as headers; at most {HEADERS_BYTES} are sent")
        return found

    def form(self, asked: _Asked) -> tuple[bytes, str]:
        form = self._forms.get(asked)
        if form is None:
            if len(self._forms) >= MOST_FORMS:
                del self._forms[next(iter(self._forms))]
            form = self._forms[asked] = _FORMS[asked.kind](self, asked)
        return form

    def compressed(self, body: bytes) -> bytes:
        known, packed = self._packed.get(id(body), (None, b""))
        if known is not body:
            if len(self._packed) >= MOST_FORMS:
                del self._packed[next(iter(self._packed))]
            packed = compressed(body)
            self._packed[id(body)] = body, packed
        return packed


_last: _Parsed | None = None  # a fan-out renders the same event again and again


def render(endpoint: Endpoint, event: Event) -> Rendered:
    """Render the event as the subscription asks, or as a member if that sends batches. Raises Unrenderable.

    An id or type that no header can hold (from a stored row edited by hand) is refused: it would spoil its whole batch.
    """
    if not (is_value(event.webhook_id) and is_value(event.type)):
        raise Unrenderable("its webhook-id and its type must be visible ASCII")
    return Rendered(event, *body_of(endpoint, event))


def body_of(endpoint: Endpoint, event: Event) -> tuple[bytes, str]:
    """The body and content type of `render`."""
    try:
        return _parsed(event).form(_Asked(endpoint.payload_format, endpoint.projection, endpoint.batch is not None))
    except ExpressionFailed as error:
        raise Unrenderable(f"projection: {error}") from None
    except RecursionError:
        raise Unrenderable("its JSON is nested too deeply") from None


def attribute_lines(event: Event) -> bytes:
    """The header lines of a CloudEvent in binary mode. Raises Unrenderable.

    An attribute whose name CloudEvents does not allow is left out: no other name may become a header.
    """
    return _parsed(event).attributes


def compressed(body: bytes) -> bytes:
    """The body compressed with gzip (RFC 1952). Equal bodies give equal bytes."""
    return zlib.compress(body, _LEVEL, _GZIP)


def compressed_for(event: Event, body: bytes) -> bytes:
    """The same for a body of this event, once for all subscriptions that receive it."""
    return _parsed(event).compressed(body)


def variables_for(event: Event) -> Mapping[str, object]:
    """The variables of expressions, parsed once for all subscriptions that receive the event. Raises Unrenderable."""
    try:
        return _parsed(event).variables
    except RecursionError:
        raise Unrenderable("its JSON is nested too deeply") from None


def _parsed(event: Event) -> _Parsed:
    global _last  # noqa: PLW0603 (a memo of one, replaced whole)
    if _last is None or _last.event is not event:
        _last = _Parsed(event)
    return _last


def render_batch(endpoint: Endpoint, payloads: Sequence[Rendered]) -> tuple[bytes, str]:
    """The body and content type of a batch: a JSON array of `payloads` (from `render` for this endpoint), in order."""
    body = b"[" + b",".join([payload.body for payload in payloads]) + b"]"
    return body, CLOUD_EVENTS if endpoint.payload_format == "cloudevents" else JSON


def _record(parsed: _Parsed, asked: _Asked) -> tuple[bytes, str]:
    event = parsed.event
    if asked.projection is not None:
        return _projected(parsed, asked.projection), JSON
    if asked.in_array and not _is_json(event.body):
        raise Unrenderable("it is not JSON, and a batch is a JSON array")
    return event.body, event.content_type


def _standard(parsed: _Parsed, asked: _Asked) -> tuple[bytes, str]:
    """The envelope of Standard Webhooks, "Payload structure": `type`, `timestamp` in ISO 8601, `data`."""
    data = _data(parsed)[0] if asked.projection is None else _projected(parsed, asked.projection)
    if data is None:
        raise Unrenderable("its data is bytes, which the standard format cannot hold")
    cloud = parsed.cloud
    return _dumps({"type": cloud.type, "timestamp": cloud.time, "data": orjson.Fragment(data)}), JSON


def _cloud_event(parsed: _Parsed, asked: _Asked) -> tuple[bytes, str]:
    """CloudEvents 1.0 in the JSON format; a record that is a CloudEvent already is sent unchanged."""
    cloud = parsed.cloud
    if asked.projection is None and _is_cloud_event(cloud):
        return parsed.event.body, CLOUD_EVENT
    data, kind = _data(parsed) if asked.projection is None else (_projected(parsed, asked.projection), JSON)
    members: dict[str, Any] = {"specversion": "1.0", "id": cloud.id, "source": cloud.source, "type": cloud.type}
    optional = {"subject": cloud.subject, "datacontenttype": kind, "dataschema": cloud.dataschema}
    members |= {"time": cloud.time} | {name: value for name, value in optional.items() if value is not None}
    members |= cloud.extensions
    if data is None:
        return _dumps(members | {"data_base64": b64encode(cloud.data).decode()}), CLOUD_EVENT
    return _dumps(members | {"data": orjson.Fragment(data)}), CLOUD_EVENT


def _binary(parsed: _Parsed, asked: _Asked) -> tuple[bytes, str]:
    """The data of a CloudEvent, byte for byte unless the record holds it in structured mode or in base64."""
    if asked.projection is not None:
        return _projected(parsed, asked.projection), JSON
    cloud, kind = parsed.cloud, parsed.cloud.datacontenttype
    if cloud.structured is None:
        return parsed.event.body, kind or _OCTETS
    if kind is not None and not is_value(kind):
        raise Unrenderable("no header can hold its datacontenttype")
    if isinstance(cloud.data, bytes):
        return cloud.data, kind or _OCTETS
    if isinstance(cloud.data, str) and kind is not None and not _says_json(kind):
        return cloud.data.encode(), kind
    return _dumps(cloud.data), kind or JSON


_FORMS: Mapping[PayloadFormat, Callable[[_Parsed, _Asked], tuple[bytes, str]]] = {
    "record": _record,
    "standard": _standard,
    "cloudevents": _cloud_event,
    "cloudevents-binary": _binary,
}


def _is_cloud_event(cloud: CloudEvent) -> bool:
    """Whether the body is complete and can be sent unchanged, which preserves its numbers and the order of members."""
    given = cloud.structured
    if given is None or given.get("specversion") != "1.0":
        return False
    return (given.get("id"), given.get("source"), given.get("type")) == (cloud.id, cloud.source, cloud.type)


def _data(parsed: _Parsed) -> tuple[bytes | None, str | None]:
    """The event's data as JSON, or None for bytes; and its media type.

    Data with a declared type other than JSON is text (CloudEvents JSON format, section 3.1). Data that is declared as
    JSON, or has no declared type, but is not JSON is sent as text or bytes with that media type.
    """
    cloud, body = parsed.cloud, parsed.event.body
    kind = cloud.datacontenttype
    if cloud.structured is not None:
        return None if isinstance(cloud.data, bytes) else _dumps(cloud.data), kind
    if isinstance(cloud.data, bytes):
        return None, _OCTETS if _says_json(kind) else kind
    if not _says_json(kind):
        return _dumps(body.decode()), kind
    if isinstance(cloud.data, str) and not _is_json(body):
        return _dumps(cloud.data), _TEXT
    return body, kind


def _says_json(media_type: str | None) -> bool:
    name = (media_type or JSON).partition(";")[0].strip().lower()
    return name.endswith(("/json", "+json"))


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return True


def _projected(parsed: _Parsed, projection: Expression) -> bytes:
    """The value of a projection as JSON. The keys are sorted, because CEL's maps have no order."""
    value = projection.value(parsed.variables)
    is_json = projection.is_field and isinstance(value, dict | list)  # a part of the event's JSON
    body = _dumps(value if is_json else _plain(value), orjson.OPT_SORT_KEYS)
    if len(body) > PROJECTION_BYTES:
        raise Unrenderable(f"projection: its value has {len(body)} bytes of JSON; at most {PROJECTION_BYTES} are sent")
    return body


def _plain(value: object) -> Any:
    """A CEL value in JSON types, by the rules of Protocol Buffers: bytes in base64, times and durations as text.

    Whole numbers stay numbers. Raises Unrenderable for a value that JSON cannot represent.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        if not isfinite(value):
            raise Unrenderable(f"projection: JSON cannot represent the number {value}")
        return value
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise Unrenderable("projection: the keys of a JSON object must be texts; convert them with string(...)")
        return {key: _plain(each) for key, each in value.items()}
    if (as_text := _TEXTS.get(type(value))) is not None:
        return as_text(value)
    raise Unrenderable(f"projection: JSON cannot represent {type(value).__name__.lower()}")


def _seconds(duration: timedelta) -> str:
    """`90.5s`, as CEL writes a duration."""
    microseconds = duration // timedelta(microseconds=1)
    whole, fraction = divmod(abs(microseconds), 1_000_000)
    digits = f".{fraction:06}".rstrip("0") if fraction else ""
    return f"{'-' if microseconds < 0 else ''}{whole}{digits}s"


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    bytes: lambda value: b64encode(value).decode(),
    bytearray: lambda value: b64encode(value).decode(),
    datetime: lambda value: value.isoformat().replace("+00:00", "Z"),
    timedelta: _seconds,
}


def _dumps(value: object, option: int = 0) -> bytes:
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError as error:
        raise Unrenderable(f"JSON cannot represent it: {error}") from None
