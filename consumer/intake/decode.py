"""Decodes a record into an event: its type, id, tenant and content type. Pure, but for the log of faults.

docs/publishing.md has the rules. `mapping.py` decodes records of topics with a mapping of their own. The last value of
a repeated header counts, as with `Headers.lastHeader` of the Java clients, because interceptors append. A null header
or field counts as absent. `decoded` runs a decoder so that a bug in it costs the record at fault and no other.
"""

import logging
import re
import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from math import inf
from traceback import format_tb
from typing import Any, TypeVar

import orjson
import structlog

from consumer.errors import RegistryUnavailable, Tombstone, Undecodable
from consumer.events.event import Event, RecordId, extra_of
from consumer.intake.record import Record, Unreadable

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_VALUE_BYTES = 1024 * 1024
# The type is sent in a header, and receivers refuse requests whose headers reach 8 KiB.
MAX_TYPE_LENGTH = 1000
MAX_TENANT_LENGTH = 255  # the length of the column

JSON = "application/json"
CLOUDEVENT = "application/cloudevents+json"
_TYPE_FIELDS = ("type", "event_type", "eventType")
_WHOLE: tuple[type, ...] = (int,)  # hidden from mypyc: where it knows the type int, it turns True into 1
_TYPE = re.compile(r'(?![{"])[!-~]+')
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(_TOKEN + rb"/" + _TOKEN + rb"(?:[ \t]*;[ -~]*)?")
# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and ids of zeros are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# https://docs.aws.amazon.com/glue: version 3, the compression (none or zlib), and a UUID of 16 bytes.
_GLUE, _GLUE_LENGTH = (b"\3\0", b"\3\5"), 18
_GLUE_ADVICE = (
    "it has the framing of AWS Glue's schema registry, which is not supported; let its producer write JSON, or use a "
    "registry with Confluent's API"
)

LINES, SECONDS = 10, 60.0  # of RecordLog: a topic may be full of records at fault

Mapped = Callable[[Record], Event | None]  # the event of a record whose topic has a mapping; None: it has none


def decode(record: Record, tenant_name: str = "tenant", mapped: Mapped | None = None) -> Event:
    """The event that a record carries. `tenant_name` names the attribute or header that holds its tenant.

    `mapped` decodes the records of topics with a mapping. Raises Tombstone for a record without a value that is to be
    ignored. Raises Undecodable with the reason unreadable, empty, too_large, bad_headers, bad_type, not_utf8, not_json,
    too_deep or not_object, or with a reason of `mapped`. Raises nothing else, for any bytes.
    """
    if mapped is not None and (event := mapped(record)) is not None:
        return event
    partition, offset, timestamp, key, value, header_list = record
    topic = partition.topic
    if header_list and isinstance(header_list, Unreadable):
        raise Undecodable(*header_list)
    if not value or len(value) > MAX_VALUE_BYTES:
        raise no_event(value)
    headers: dict[str, bytes | None] = {}
    content_type = header_type = None
    if header_list:
        headers = dict(header_list)
        content_type = media_type(headers.get("content-type"))
        header_type = type_header(headers, content_type)
    structured: dict[str, Any] = {}
    if header_type is None:
        body = parse(value)
        if not isinstance(body, dict):
            raise no_object(body)
        event_type = _type_of(body, headers, topic)
        if "specversion" in body:
            structured = body
    else:
        event_type = checked_type(header_type.decode("latin-1"))

    if not (headers or structured):  # most records: there is nothing to look for
        # `tuple.__new__` takes a third of the time.
        place = tuple.__new__(RecordId, (topic, partition.number, offset, timestamp))
        extra = len(key) if key else 0
        named = webhook_id(topic.encode(), None, place)
        return tuple.__new__(Event, (place, event_type, named, value, JSON, key, None, None, None, extra))
    record_id = RecordId(topic, partition.number, offset, timestamp)
    source = headers.get("ce_source") or _text(structured.get("source")) or topic.encode()
    # An id that is empty or, in a body, not a string counts as absent: the record's place replaces it, and the event is
    # sent. The only cost is that a producer's own duplicates go unnoticed; a dead letter would lose the event.
    event_id = headers.get("ce_id") or _text(structured.get("id")) or headers.get("event-id")
    return Event(
        record_id,
        event_type,
        webhook_id(source, event_id, record_id),
        value,
        structured_type(content_type) if structured else content_type or JSON,
        key,
        valid_traceparent(headers),
        headers or None,
        _tenant(tenant_name, headers, structured),
        extra_of(key, headers),
    )


def type_header(headers: dict[str, bytes | None], declared: str | None) -> bytes | None:
    """The header with the event's type. Without one, the body may be a structured CloudEvent.

    `declared`: the media type. If it says that the body is such an event, the body's type precedes `event-type`.
    """
    header = headers.get("ce_type")
    if header is None and not (declared and declared.lower().startswith(CLOUDEVENT)):
        header = headers.get("event-type")
    return header


def structured_type(declared: str | None) -> str:
    """The media type of a structured CloudEvent: producers declare that of its data, or none.

    A receiver takes the body for a plain one if it has another type (CloudEvents HTTP binding, section 3).
    """
    return declared if declared and declared.lower().startswith(CLOUDEVENT) else CLOUDEVENT


def no_event(value: bytes | None) -> Tombstone | Undecodable:
    """Why a record whose value is missing, empty or too large is no event."""
    if value is None:
        return Tombstone("no value")
    if not value:
        return Undecodable("empty", "the value is empty")
    return Undecodable("too_large", f"the value has {len(value)} bytes; the limit is {MAX_VALUE_BYTES}")


def _type_of(body: dict[str, Any], headers: dict[str, bytes | None], topic: str) -> str:
    if "specversion" in body and body.get("type") is not None:
        return checked_type(body["type"])
    header_type = headers.get("event-type")
    if header_type is not None:
        return checked_type(header_type.decode("latin-1"))
    for field in _TYPE_FIELDS:
        value = body.get(field)
        if value is not None:
            return checked_type(value)
    return topic


def checked_type(value: object) -> str:
    """The value, if it can be an event type. Raises Undecodable (bad_type)."""
    if isinstance(value, str) and len(value) <= MAX_TYPE_LENGTH and _TYPE.fullmatch(value):
        return value
    # Not the value itself: details are logged.
    if isinstance(value, str) and value.startswith(("{", '"')):
        raise Undecodable(
            "bad_type",
            f"the event type begins with {value[0]}: it is JSON that Kafka Connect or Spring wrote around the type; "
            "set unwrap = true in the mapping of the topic",
        )
    kind = f"a string of {len(value)} characters" if isinstance(value, str) else type(value).__name__
    raise Undecodable(
        "bad_type", f"the event type must be 1 to {MAX_TYPE_LENGTH} visible ASCII characters; it is {kind}"
    )


def parse(value: bytes) -> Any:
    """The JSON of a value. Raises Undecodable (not_utf8, not_json, too_deep)."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _unparsable(value, error) from None


def no_object(body: object) -> Undecodable:
    """Why parsed JSON that is not an object is not an event."""
    return Undecodable("not_object", f"the value is JSON but no object: {type(body).__name__}")


def _unparsable(value: bytes, error: orjson.JSONDecodeError) -> Undecodable:
    if len(value) >= _GLUE_LENGTH and value[:2] in _GLUE:
        return Undecodable("not_json", f"the value is not JSON: {_GLUE_ADVICE}")
    try:
        value.decode()
    except UnicodeDecodeError as unicode_error:
        return Undecodable("not_utf8", f"the value is not UTF-8: {unicode_error.reason} at byte {unicode_error.start}")
    if "depth" in error.msg or "Recursion" in error.msg:  # wording of orjson 3.13, and of older versions
        return Undecodable("too_deep", "the value is JSON nested too deeply")
    return Undecodable("not_json", f"the value is not JSON: {error.msg} at byte {error.pos}")


def webhook_id(source: bytes, event_id: bytes | None, record: RecordId) -> str:
    """A digest of source and id, each prefixed with its length so that no two pairs concatenate to the same bytes.

    Ids are digested as bytes, so a header needs no valid encoding. The record's place replaces an id that is missing.
    """
    if event_id:
        identity = b"%d:%b%d:%b" % (len(source), source, len(event_id), event_id)
    else:
        # No length can start with "@": a record's place is never mistaken for a producer's id.
        identity = b"%d:%b@%b:%d:%d:%d" % (len(source), source, record.topic.encode(), *record[1:])
    return "msg_" + blake2b(identity, digest_size=16).hexdigest()


def _tenant(name: str, headers: dict[str, bytes | None], structured: dict[str, Any]) -> str | None:
    """The event's tenant: from the `ce_` header, else the body's attribute, else the plain header.

    A value that no subscription can have (empty, not UTF-8, longer than the column) counts as no tenant, and the later
    sources are not consulted. Such an event goes to the subscriptions for any tenant and never to a tenant's own.
    """
    value: object = headers.get(f"ce_{name}")
    if value is None:
        value = structured.get(name)
    if value is None:
        value = headers.get(name)
        if value is None:
            return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    elif isinstance(value, _WHOLE):
        value = orjson.dumps(value).decode()  # as CloudEvents writes integers and booleans in a header
    return usable_tenant(value)


def usable_tenant(value: object) -> str | None:
    """The value if a subscription can have it as its tenant; else None."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_TENANT_LENGTH else None


def _text(value: object) -> bytes | None:
    return value.encode() if isinstance(value, str) else None


@lru_cache(maxsize=256)
def media_type(header: bytes | None) -> str | None:
    """The header's text, if it is a media type."""
    if header is None or len(header) > 255 or not _MEDIA_TYPE.fullmatch(header):  # noqa: PLR2004 (RFC 6838: 127 + 127)
        return None
    return header.decode("ascii")


def traceparent_of(record: Record) -> str | None:
    """The `traceparent` of a record, whether or not it carries an event; None if it has no valid one."""
    headers = record.headers
    return None if headers is None or isinstance(headers, Unreadable) else valid_traceparent(dict(headers))


def valid_traceparent(headers: dict[str, bytes | None]) -> str | None:
    """The header `traceparent`, if it is as the W3C defines it."""
    header = headers.get("traceparent")
    return header.decode("ascii") if header is not None and _TRACEPARENT.fullmatch(header) else None


class RecordLog:
    """Logs records at fault: in a minute at most LINES with the same text, topic and kind, then how many more."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._numbers: dict[tuple[int, str, str, str], int] = {}
        self._until = inf

    def write(self, level: int, text: str, record: Record, kind: str, **fields: str) -> None:
        """Log one record, with the standard library's `level`, unless there were too many of its kind."""
        self.poll()
        if not self._numbers:
            self._until = self._monotonic() + SECONDS
        topic, partition = record.partition.topic_partition
        key = level, text, topic, kind
        self._numbers[key] = number = self._numbers.get(key, 0) + 1
        if number <= LINES:
            log.log(level, text, record=(topic, partition, record.offset), **fields)

    def poll(self) -> None:
        """Log how many lines were left out, once a minute has passed since the first one."""
        if self._monotonic() < self._until:
            return
        numbers, self._numbers, self._until = self._numbers, {}, inf
        for (level, text, topic, kind), number in numbers.items():
            if number > LINES:
                log.log(level, "more lines were left out", text=text, topic=topic, kind=kind, number=number - LINES)


_bugs = RecordLog()


def decoded(decoder: Callable[[Record], T], record: Record) -> T:
    """The result of `decoder`. Raises its Tombstone, Undecodable and RegistryUnavailable.

    Any other exception becomes that of `bug`.
    """
    try:
        return decoder(record)
    except (Tombstone, Undecodable, RegistryUnavailable):
        raise
    except Exception as error:  # noqa: BLE001 (raised, it would end each replay that reads the record)
        raise bug(record, error) from None


def bug(record: Record, error: Exception) -> Undecodable:
    """Log a decoder's unexpected exception; the record is a dead letter with the reason error."""
    kind, places = type(error).__name__, "".join(format_tb(error.__traceback__))
    # Without the exception's text, which may quote the record.
    _bugs.write(logging.ERROR, "a record's decoding failed: a bug", record, kind, error=kind, exception=places)
    return Undecodable("error", f"the service has failed to decode it: {kind}")
