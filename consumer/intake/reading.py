"""A record as the expressions of a mapping read it: its JSON is parsed when an expression first needs it. Pure."""

from collections.abc import Mapping
from typing import Any

import orjson

from consumer.errors import Undecodable
from consumer.events.cloud_event import texts
from consumer.expressions.expression import TOO_LARGE, EventTooLarge, Expression, ExpressionFailed
from consumer.intake.decode import media_type, no_object, parse, type_header
from consumer.intake.record import Record

MOST_READ = 20_000  # values that are searched for rounded numbers and zero bytes

_UNREAD: Any = object()
_AS_IS: Any = object()
_UNFIT: Any = object()
_ENVELOPE = frozenset(("schema", "payload"))
_WRAPPED = (b"{", b'"')  # how JSON begins that Kafka Connect or Spring writes around a text
_DEEPEST = 254  # levels; orjson reads 1,024 of them and writes these


class Reading:
    """One record. `value` is None for a tombstone, and `headers` holds the last header of each name.

    `given` has the variables of expressions, once `load` was called also the value. `body` is the event's body, set by
    its decoder. `unwrap`: what Kafka Connect and Spring write around a content is removed from value, key and headers.
    Raises Undecodable (too_deep) if a header's content cannot be written.
    """

    def __init__(self, record: Record, headers: dict[str, bytes | None], *, unwrap: bool) -> None:
        self.record = record
        self.headers = {name: _bare(header) for name, header in headers.items()} if unwrap else headers
        self.key = _key(record.key, unwrap=unwrap)
        self.value = record.value
        self.body = b""
        self._seconds = 0.0
        self._unwrap = unwrap
        self._has_zeros: bool | None = None
        self._parsed = _UNREAD
        self._inner = _AS_IS
        self.given: dict[str, Any] = {
            "record.topic": record.partition.topic,
            "record.headers": texts(self.headers),
            "record.key": self.key,
        }

    def takes(self, seconds: float) -> float:
        """Count the time of an expression. Returns the time of all of them so far."""
        self._seconds += seconds
        return self._seconds

    def is_null(self) -> bool:
        """Whether the record is a tombstone, also in the JSON form of Kafka Connect."""
        if self.value is None or not self._unwrap:
            return self.value is None
        try:
            return self._document() is None
        except Undecodable:
            return False

    def load(self) -> None:
        """Add the value to `given`. Raises Undecodable (not_utf8, not_json, too_deep, not_object)."""
        if "record.value" not in self.given:
            found = {} if self.value is None else self._document()
            if not isinstance(found, dict):
                raise no_object(found)
            self.given["record.value"] = found

    def safe(self, expression: Expression, *, exact: bool) -> Mapping[str, object]:
        """The variables that an expression reads, without values that the runtime would change.

        It cuts texts at a zero byte: such a text is left out of a map, and elsewhere counts as null. `exact`: so is an
        empty text, and a number that is not whole, or was above 64 bits before it was parsed. Raises ExpressionFailed.
        """
        if self._has_zeros is None:
            parts = self.value, self.record.key, *self.headers.values()
            self._has_zeros = any(part and (b"\0" in part or b"\\u0000" in part) for part in parts)
        if not exact and not self._has_zeros:
            return self.given
        fit = _Fit(exact=exact)
        return {name: fit.or_null(value) for name, value in expression.parts(self.given).items()}

    def is_cloud_event(self) -> bool:
        """Whether the value is a CloudEvent in structured mode."""
        declared = media_type(self.headers.get("content-type"))
        if b"specversion" not in (self.value or b"") or type_header(self.headers, declared) is not None:
            return False
        try:
            found = self._document()
        except Undecodable:
            return False
        return isinstance(found, dict) and "specversion" in found

    def whole(self) -> bytes:
        """The value byte for byte, or the content of Kafka Connect's envelope. Raises Undecodable (too_deep)."""
        return (self.value or b"") if self._inner is _AS_IS else json_of(self._inner)

    def key_body(self) -> bytes:
        """The key as JSON: unchanged if it is JSON, else as a string. Raises Undecodable (no_body) if there is none."""
        key = self.record.key or b""
        if not (self._unwrap and key.startswith(_WRAPPED)) and _loaded(key) is not None:
            return key
        if self.key is None or self.key == "":
            raise Undecodable("no_body", "tombstone: the record has neither a value nor a key that is text")
        return dumped(self.key, "key")

    def _document(self) -> Any:
        """The value's JSON. Raises Undecodable (not_utf8, not_json, too_deep)."""
        if self._parsed is _UNREAD:
            found = parse(self.value or b"")
            if self._unwrap:
                found, self._inner = _unwrapped(found)
            self._parsed = found
        return self._parsed


class _Fit:
    """Copies values without what does not fit."""

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._left = MOST_READ

    def or_null(self, value: Any, depth: int = 0) -> Any:
        """The copy of a value; None for one that does not fit."""
        fit = self._of(value, depth)
        return None if fit is _UNFIT else fit

    def _of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise EventTooLarge(TOO_LARGE)
        if depth > _DEEPEST:
            raise ExpressionFailed("the record is nested too deeply")
        if isinstance(value, dict):
            fit = {name: self._of(each, depth + 1) for name, each in value.items() if "\0" not in name}
            return {name: each for name, each in fit.items() if each is not _UNFIT}
        if isinstance(value, list):
            return [self.or_null(each, depth + 1) for each in value]
        if isinstance(value, str):
            return _UNFIT if "\0" in value or (self._exact and not value) else value
        return _UNFIT if self._exact and isinstance(value, float) else value


def json_of(found: Any) -> bytes:
    """A parsed value as JSON. A text that holds a JSON object or array stays as it is. Raises Undecodable (too_deep).

    Debezium's outbox and others write JSON inside a JSON string.
    """
    if isinstance(found, str) and _inside(found) is not _AS_IS:
        return found.encode()
    return dumped(found, "body")


def dumped(found: Any, part: str = "") -> bytes:
    """A value as JSON. Raises Undecodable, which names the `part` of the record: too_deep, expression_failed.

    A parsed value has JSON, but one that an expression made may hold what JSON has not, such as bytes.
    """
    try:
        return orjson.dumps(found)
    except orjson.JSONEncodeError as error:
        reason, why = "expression_failed", f"its value has no JSON: {error}"
        if "ecursion" in str(error):  # orjson reads 1,024 levels and writes 254
            reason, why = "too_deep", "it is nested too deeply"
        raise Undecodable(reason, f"{part}: {why}" if part else why) from None


def _loaded(content: bytes | str) -> Any:
    """The content's JSON; None if it is none."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _inside(text: str) -> Any:
    """The object or array whose JSON the text is."""
    found = _loaded(text) if text.lstrip()[:1] in {"{", "["} else None
    return _AS_IS if found is None else found


def _unwrapped(found: Any) -> tuple[Any, Any]:
    """The value without Kafka Connect's envelope, and the source of the event's body."""
    inner = found["payload"] if isinstance(found, dict) and found.keys() == _ENVELOPE else found
    if isinstance(inner, str) and (document := _inside(inner)) is not _AS_IS:
        return document, inner
    return inner, _AS_IS if inner is found else inner


def _key(key: bytes | None, *, unwrap: bool) -> Any:
    """The object or array of JSON in a key, else its text; None if there is neither."""
    if key is None:
        return None
    if unwrap and key.startswith(_WRAPPED) and (found := _loaded(key)) is not None:
        return _unwrapped(found)[0]
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return text if (found := _inside(text)) is _AS_IS else found


def _bare(header: bytes | None) -> bytes | None:
    """The content of a header: the text of a JSON string, the payload of Kafka Connect's envelope."""
    if header is None or not header.startswith(_WRAPPED):
        return header
    found = _loaded(header)
    if isinstance(found, dict) and found.keys() == _ENVELOPE:
        found = found["payload"]
        if found is None:
            return None
    elif not isinstance(found, str):
        return header
    return found.encode() if isinstance(found, str) else dumped(found, "header")
