"""Gives each event the attributes of CloudEvents 1.0. Pure.

A CloudEvent's own attributes are used, in either content mode of the Kafka protocol binding. Missing attributes are
derived from the record: its topic is the source, its timestamp the time.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from consumer.events.event import EPOCH, Event, utc

PREFIX = "ce_"  # of headers, in binary content mode (Kafka protocol binding for CloudEvents, section 3.2.3.1)
_ATTRIBUTES = frozenset(("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"))
_NO_EXTENSIONS = _ATTRIBUTES | {"data", "data_base64"}
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # as JSON writes it
_INSTEAD = "\ufffd".encode()


class CloudEvent(NamedTuple):
    """`data` is a parsed JSON value, text or bytes; `time` is in RFC 3339.

    `structured`: the whole parsed body of a record in structured content mode. In all other records the body is the
    data.
    """

    id: str
    source: str
    type: str
    time: str
    data: Any
    subject: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, Any] = {}
    structured: Mapping[str, Any] | None = None


class Content(NamedTuple):
    """The parsed body of an event: its `data`, and the whole of it in structured content mode."""

    data: Any
    is_json: bool
    structured: Mapping[str, Any] | None


def content_of(event: Event) -> Content:
    """Parse the body. It takes most of the time of an event's attributes and variables, so share it between them."""
    data, is_json = _data(event.body)
    in_binary_mode = event.headers is not None and event.headers.get("ce_type") is not None
    if in_binary_mode or not (isinstance(data, dict) and "specversion" in data):
        return Content(data, is_json, None)
    return Content(*_structured(data), data)


def cloud_event_of(event: Event, content: Content | None = None) -> CloudEvent:
    """The event with its attributes. Its `type` is the event type that subscriptions are matched with."""
    data, is_json, structured = content or content_of(event)
    given: Mapping[str, Any]
    if structured is None:
        found = texts(event.headers or {}).items()
        given = {name.removeprefix(PREFIX): text for name, text in found if name.startswith(PREFIX)}
        content_type: str | None = event.content_type or None
    else:
        given = structured
        content_type = _text(structured.get("datacontenttype"))
    return CloudEvent(
        id=_text(given.get("id")) or event.webhook_id,
        source=_text(given.get("source")) or event.record.topic,
        type=event.type,
        time=_rfc3339(given.get("time")) or rfc3339(event.record.timestamp / 1000),
        data=data,
        subject=_text(given.get("subject")),
        datacontenttype=content_type or ("application/json" if is_json else None),
        dataschema=_text(given.get("dataschema")),
        extensions={name: value for name, value in given.items() if name not in _NO_EXTENSIONS},
        structured=structured,
    )


class EventVariables(Mapping[str, object]):
    """The variables that expressions see, each made when it is first read: most expressions read one or two.

    The data is parsed at once, so that no expression is charged for it.
    """

    def __init__(self, event: Event, content: Content) -> None:
        self.event, self._content = event, content
        is_cut = isinstance(content.data, bytes) and b"\0" in content.data
        self._known: dict[str, object] = {} if is_cut else {"event.data": content.data}

    @cached_property
    def cloud(self) -> CloudEvent:
        """The event with its attributes."""
        return cloud_event_of(self.event, self._content)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a variable, by its name with the prefix."""
        value = self._known.get(name, self)
        if value is not self:
            return value
        make = _VARIABLES.get(name)
        if make is None:
            return default
        value = self._known[name] = make(self)
        return value

    def __getitem__(self, name: str) -> object:
        value = self.get(name, self)
        if value is self:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in _VARIABLES or name in self._known

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, **_VARIABLES})

    def __len__(self) -> int:
        return len({**self._known, **_VARIABLES})


_VARIABLES: Mapping[str, Callable[[EventVariables], object]] = {
    "event.id": lambda it: it.cloud.id,
    "event.source": lambda it: it.cloud.source,
    "event.type": lambda it: it.event.type,
    "event.subject": lambda it: it.cloud.subject or "",
    "event.time": lambda it: _moment(it.cloud.time),
    "event.extensions": lambda it: it.cloud.extensions,
    "event.headers": lambda it: texts(it.event.headers or {}),
    "event.tenant": lambda it: it.event.tenant or "",
    "event.topic": lambda it: it.event.record.topic,
    "event.partition": lambda it: it.event.record.partition,
    "event.offset": lambda it: it.event.record.offset,
    "event.key": lambda it: (it.event.key or b"").decode("utf-8", "replace"),
}


def variables_of(event: Event, content: Content | None = None) -> EventVariables:
    """The variables that filters and projections see. `content`: the result of `content_of`, if already computed.

    CEL's runtime cuts texts and bytes at a NUL. So U+FFFD replaces each NUL in texts, and `event.data` is left out if
    it is bytes with a NUL.
    """
    if _has_nul(event):
        event, content = _without_nul(event), None
    return EventVariables(event, content or content_of(event))


def _has_nul(event: Event) -> bool:
    body, key, headers = event.body, event.key, event.headers
    if b"\0" in body or (key is not None and b"\0" in key):
        return True
    if headers is not None and (b"\0" in b"".join(filter(None, headers.values())) or "\0" in "".join(headers)):
        return True
    return b"\\u0000" in body and _NUL.search(body) is not None


def _without_nul(event: Event) -> Event:
    def clean(value: bytes | None) -> bytes | None:
        return value and value.replace(b"\0", _INSTEAD)

    body = _NUL.sub(rb"\1\\ufffd", event.body)
    try:
        body.decode()
        body = body.replace(b"\0", _INSTEAD)
    except UnicodeDecodeError:
        pass  # not text: the bytes stay as they are
    headers = event.headers and {name.replace("\0", "\ufffd"): clean(value) for name, value in event.headers.items()}
    tenant = event.tenant and event.tenant.replace("\0", "\ufffd")
    return event._replace(body=body, key=clean(event.key), headers=headers, tenant=tenant)


def texts(headers: Mapping[str, bytes | None]) -> dict[str, str]:
    """The headers with a UTF-8 value, decoded."""
    found = {}
    for name, value in headers.items():
        if value is not None:
            try:
                found[name] = value.decode()
            except UnicodeDecodeError:
                continue
    return found


def _data(body: bytes) -> tuple[Any, bool]:
    try:
        return orjson.loads(body), True
    except orjson.JSONDecodeError:
        pass
    try:
        return body.decode(), False
    except UnicodeDecodeError:
        return body, False


def _structured(body: Mapping[str, Any]) -> tuple[Any, bool]:
    if "data" in body or not isinstance(body.get("data_base64"), str):
        return body.get("data"), True
    try:
        return b64decode(body["data_base64"], validate=True), False
    except ValueError:
        return body["data_base64"], False


def rfc3339(at: float) -> str:
    """Unix seconds in RFC 3339, in UTC and to the millisecond, as the service writes the `time` of its own events."""
    return utc(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _rfc3339(value: object) -> str | None:
    """The value if it is a time with a date, a time of day and a zone; else None, as for a missing time."""
    if not (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return None
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    return value


def _moment(text: str) -> datetime:
    """Parse a time of `_rfc3339` or `rfc3339` into UTC. The epoch if UTC would leave the calendar's range."""
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError:
        return EPOCH
