"""A record as the templates of a mapping read it: its JSON is parsed when a template first needs it. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from consumer.errors import Undecodable
from consumer.intake.decode import CLOUDEVENT, media_type, no_object, parse
from consumer.intake.record import Record, Unreadable
from consumer.intake.templates import Reference

Read = Callable[["Reading"], object]  # a part of a record; None: it is missing

_UNREAD: Any = object()
_AS_IS: Any = object()
_ENVELOPE = frozenset(("schema", "payload"))
_QUOTED = (b"{", b'"')  # how JSON begins that Kafka Connect writes around a text


class Reading:
    """One record. `value` is None for a tombstone, and `headers` holds the last header of each name.

    `connect`: what Kafka Connect's JsonConverter writes around a content is removed from value, key and headers.
    Raises Undecodable (too_deep) if a header's content cannot be written.
    """

    __slots__ = ("_connect", "_inner", "_key", "_parsed", "headers", "key", "record", "topic", "value")

    def __init__(self, record: Record, *, connect: bool) -> None:
        headers = record.headers
        self.record = record
        self.topic = record.partition.topic
        self.headers = dict(headers) if headers and not isinstance(headers, Unreadable) else {}
        if connect:
            self.headers = {name: _bare(header, _QUOTED) for name, header in self.headers.items()}
        self.key = record.key
        self.value = record.value
        self._connect = connect
        self._parsed = self._key = _UNREAD
        self._inner = _AS_IS

    def is_null(self) -> bool:
        """Whether the record is a tombstone, also in the JSON form of Kafka Connect."""
        if self.value is None or not self._connect:
            return self.value is None
        try:
            return self.parsed() is None
        except Undecodable:
            return False

    def parsed(self) -> Any:
        """The value's JSON. Raises Undecodable (not_utf8, not_json, too_deep)."""
        if self._parsed is _UNREAD:
            found = parse(self.value or b"")
            if self._connect:
                found, self._inner = _unwrapped(found)
            self._parsed = found
        return self._parsed

    def field(self, path: Sequence[str]) -> Any:
        """A part of the value; None if it is missing. Raises Undecodable if the value is no JSON object."""
        if self.value is None:
            return None
        found = self.parsed()
        if not isinstance(found, dict):
            raise no_object(found)
        return _at(found, path)

    def structured(self) -> dict[str, Any]:
        """The attributes of a CloudEvent in structured mode; empty for other records. Raises as `field` does.

        A record is such a CloudEvent if its value has `specversion`, and it is declared as one or has no type in a
        header.
        """
        headers = self.headers
        if self.value is None or headers.get("ce_type") is not None:
            return {}
        if headers.get("event-type") is not None:
            declared = media_type(headers.get("content-type")) or ""
            if not declared.lower().startswith(CLOUDEVENT):
                return {}
        found: dict[str, Any] = self.field(())
        return found if "specversion" in found else {}

    def is_structured(self) -> bool:
        """Whether this is a CloudEvent in structured mode."""
        if self._parsed is _UNREAD and b"specversion" not in (self.value or b""):
            return False
        try:
            return bool(self.structured())
        except Undecodable:
            return False

    def body(self) -> bytes:
        """The value byte for byte, or the content of Kafka Connect's envelope. Raises Undecodable (too_deep)."""
        if self._connect and self._parsed is _UNREAD:
            self.is_null()
        return (self.value or b"") if self._inner is _AS_IS else json_of(self._inner)

    def key_part(self, path: Sequence[str]) -> Any:
        """A part of the key's JSON; None if it is missing."""
        return _at(self._key_json(), path)

    def key_text(self) -> object:
        """The whole key: its bytes, or the content of Kafka Connect's envelope. Raises Undecodable (too_deep)."""
        if not (self._connect and self.key and self.key.startswith(_QUOTED)):
            return self.key
        found = self._key_json()
        return found if found is None or isinstance(found, str | int) else _dumped(found, "key")

    def key_body(self) -> bytes:
        """The key as JSON: unchanged if it is JSON, else as a string. Raises Undecodable (no_body) if there is none."""
        found = self._key_json()
        if found is not None:
            wrapped = self._connect and self.key is not None and self.key.startswith(_QUOTED)
            return json_of(found) if wrapped else self.key or b""
        try:
            text = (self.key or b"").decode()
        except UnicodeDecodeError:
            text = ""
        if not text:
            raise Undecodable("no_body", "tombstone: the record has neither a value nor a key that is text")
        return orjson.dumps(text)

    def _key_json(self) -> Any:
        if self._key is _UNREAD:
            try:
                found = orjson.loads(self.key or b"")
            except orjson.JSONDecodeError:
                found = None
            self._key = _unwrapped(found)[0] if self._connect else found
        return self._key


def reader(reference: Reference, *, quoted: bool, filled: bool) -> Read:
    """The function that reads a reference.

    `quoted`: a header that is a JSON string stands for its text. `filled`: an empty header of a CloudEvent counts as
    missing.
    """
    match reference:
        case Reference("topic"):
            return lambda reading: reading.topic
        case Reference("key", ()):
            return Reading.key_text
        case Reference("key", path):
            return lambda reading: reading.key_part(path)
        case Reference("header", (name,)):
            return _header(name, quoted=quoted)
        case Reference("cloudevent", (name,)):
            return _attribute(name, filled=filled)
        case Reference(_, path):
            return lambda reading: reading.field(path)


def _header(name: str, *, quoted: bool) -> Read:
    if quoted:
        return lambda reading: _bare(reading.headers.get(name), b'"')
    return lambda reading: reading.headers.get(name)


def _attribute(name: str, *, filled: bool) -> Read:
    header = f"ce_{name}"

    def read(reading: Reading) -> object:
        given = reading.headers.get(header)
        if given or (given is not None and not filled):
            return given
        return reading.structured().get(name)

    return read


def json_of(found: Any) -> bytes:
    """A parsed value as JSON. A text that holds a JSON object or array stays as it is. Raises Undecodable (too_deep).

    Debezium's outbox and others write JSON inside a JSON string.
    """
    if isinstance(found, str) and _inside(found) is not _AS_IS:
        return found.encode()
    return _dumped(found, "body")


def _dumped(found: Any, part: str) -> bytes:
    try:
        return orjson.dumps(found)
    except orjson.JSONEncodeError:  # orjson reads 1,024 levels and writes 254
        raise Undecodable("too_deep", f"{part}: it is nested too deeply") from None


def _inside(text: str) -> Any:
    """The object or array whose JSON the text is."""
    if text.lstrip()[:1] in {"{", "["}:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    return _AS_IS


def _unwrapped(found: Any) -> tuple[Any, Any]:
    """The value without Kafka Connect's envelope, and the source of the event's body."""
    inner = found["payload"] if isinstance(found, dict) and found.keys() == _ENVELOPE else found
    if isinstance(inner, str) and (document := _inside(inner)) is not _AS_IS:
        return document, inner
    return inner, _AS_IS if inner is found else inner


def _at(found: Any, path: Sequence[str]) -> Any:
    for name in path:
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _bare(header: bytes | None, begins: bytes | tuple[bytes, ...]) -> bytes | None:
    """The content of a header that `begins` as JSON: the text of a string, the payload of Kafka Connect's envelope."""
    if header is None or not header.startswith(begins):
        return header
    try:
        found = orjson.loads(header)
    except orjson.JSONDecodeError:
        return header
    if isinstance(found, dict):
        if found.keys() != _ENVELOPE:
            return header
        found = found["payload"]
    if found is None:
        return None
    return found.encode() if isinstance(found, str) else _dumped(found, "header")
