"""Gives each event the attributes of CloudEvents 1.0. Pure.

A CloudEvent's own attributes are used, in either content mode of the Kafka protocol binding. Missing attributes are
derived from the record: its topic is the source, its timestamp the time.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

import orjson

from consumer.events.event import EPOCH, Event, utc

PREFIX = "ce_"  # of headers, in binary content mode (Kafka protocol binding for CloudEvents, section 3.2.3.1)
_ATTRIBUTES = frozenset(("specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype"))
_DATA = frozenset(("data", "data_base64"))
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


def cloud_event_of(event: Event) -> CloudEvent:
    """The event with its attributes. Its `type` is the event type that subscriptions are matched with."""
    data, is_json = _data(event.body)
    headers = event.headers or {}
    given: Mapping[str, Any]
    if headers.get("ce_type") is not None or not (isinstance(data, dict) and "specversion" in data):
        given = {name.removeprefix(PREFIX): text for name, text in texts(headers).items() if name.startswith(PREFIX)}
        content_type: str | None = event.content_type or None
        structured = None
    else:
        given = structured = data
        content_type = _text(data.get("datacontenttype"))
        data, is_json = _structured(given)
    return CloudEvent(
        id=_text(given.get("id")) or event.webhook_id,
        source=_text(given.get("source")) or event.record.topic,
        type=event.type,
        time=_rfc3339(given.get("time")) or rfc3339(event.record.timestamp / 1000),
        data=data,
        subject=_text(given.get("subject")),
        datacontenttype=content_type or ("application/json" if is_json else None),
        dataschema=_text(given.get("dataschema")),
        extensions={name: value for name, value in given.items() if name not in _ATTRIBUTES | _DATA},
        structured=structured,
    )


def variables_of(event: Event, cloud: CloudEvent | None = None) -> dict[str, object]:
    """The variables that filters and projections see. `cloud`: the result of `cloud_event_of`, if already computed.

    CEL's runtime cuts texts and bytes at a NUL. So U+FFFD replaces each NUL in texts, and `event.data` is left out if
    it is bytes with a NUL.
    """
    parts = (event.body, event.key or b"", *chain.from_iterable((event.headers or {}).items()))
    sizes = [part.encode() if isinstance(part, str) else part or b"" for part in parts]
    if any(b"\0" in part for part in sizes) or (b"\\u0000" in event.body and _NUL.search(event.body)):
        event, cloud = _without_nul(event), None
    cloud = cloud or cloud_event_of(event)
    variables = {
        "event.data": cloud.data,
        "event.id": cloud.id,
        "event.source": cloud.source,
        "event.type": cloud.type,
        "event.subject": cloud.subject or "",
        "event.time": _moment(cloud.time),
        "event.extensions": cloud.extensions,
        "event.headers": texts(event.headers or {}),
        "event.tenant": event.tenant or "",
        "event.topic": event.record.topic,
        "event.partition": event.record.partition,
        "event.offset": event.record.offset,
        "event.key": (event.key or b"").decode("utf-8", "replace"),
    }
    if isinstance(cloud.data, bytes) and b"\0" in cloud.data:
        del variables["event.data"]
    return variables


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
