"""Decodes the records of a topic by its mapping, which states the sources of type, id, tenant and body. Pure.

A mapping is compiled once, into a function for each template. docs/mappings.md has the rules.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import orjson

from consumer.errors import Undecodable
from consumer.events.cloud_event import PREFIX
from consumer.events.event import Event, extra_of
from consumer.intake.decode import (
    JSON,
    MAX_TENANT_LENGTH,
    MAX_VALUE_BYTES,
    checked_type,
    media_type,
    no_event,
    structured_type,
    valid_traceparent,
    webhook_id,
)
from consumer.intake.reading import Reading, json_of, reader
from consumer.intake.record import Record, Unreadable
from consumer.intake.templates import Reference, Template, parse_body, parse_template

OnTombstone = Literal["ignore", "event", "dead_letter"]
Templates = tuple[Template, ...]

_SHOWN = 3  # templates of one field that a dead letter names at most
_WHOLE = (parse_body("{value}"),)
_CONTENT_TYPE = (parse_template("{header.content-type}"),)


class Rules(NamedTuple):
    """A mapping as it stands in the file. Each field's value is that of its first template whose references all exist.

    `words` replace the text that a reference (given as its own text) reads. `connect_envelope`: what Kafka Connect
    writes around a value, a key or a header is removed. `quoted_headers`: a header that is a JSON string stands for its
    text.
    """

    topics: tuple[str, ...]
    type: Templates
    id: Templates = ()
    source: Templates = ()
    tenant: Templates = ()
    content_type: Templates = _CONTENT_TYPE
    body: Templates = _WHOLE
    attributes: Mapping[str, Templates] = {}
    words: Mapping[str, Mapping[str, str]] = {}
    tombstone: OnTombstone = "ignore"
    tombstone_type: Templates = ()
    connect_envelope: bool = False
    quoted_headers: bool = False


class Step(NamedTuple):
    """The source of an event's field: the template, or a rule in words, and the resulting value."""

    field: str
    by: str
    value: str | None


class _Field:
    """The templates of a field."""

    def __init__(
        self,
        name: str,
        templates: Templates,
        rules: Rules,
        numbers: tuple[type, ...] = (),
        accepts: Callable[[bytes], object] = bool,
    ) -> None:
        """`numbers`: the kinds of numbers that stand for their text. A text that is not accepted does not count."""
        self.name = name
        self.templates = templates
        self._accepts = accepts
        self._renders = [_Render(template, name, rules, numbers) for template in templates]

    def first(self, reading: Reading) -> tuple[bytes, Template] | None:
        """The first accepted text whose references all exist, with its template."""
        for render in self._renders:
            text = render(reading)
            if text is not None and self._accepts(text):
                return text, render.template
        return None


class _Render:
    """A compiled template: its text for a record. None: a reference is missing. Empty: a reference is no text."""

    __slots__ = ("_parts", "template")

    def __init__(self, template: Template, field: str, rules: Rules, numbers: tuple[type, ...]) -> None:
        alone = field == "type" and len(template.parts) == 1
        self.template = template
        self._parts = [
            part.encode() if isinstance(part, str) else _Part(part, field, rules, () if alone else numbers)
            for part in template.parts
        ]

    def __call__(self, reading: Reading) -> bytes | None:
        pieces = [part if isinstance(part, bytes) else part(reading) for part in self._parts]
        if None in pieces:
            return None
        return b"".join(pieces) if all(pieces) else b""  # type: ignore[arg-type]  # None is out


class _Part:
    """A compiled reference: its text for a record."""

    __slots__ = ("_kinds", "_read", "_words")

    def __init__(self, reference: Reference, field: str, rules: Rules, numbers: tuple[type, ...]) -> None:
        identity = field in {"id", "source"}
        words = rules.words.get(str(reference), {})
        self._read = reader(reference, quoted=rules.quoted_headers, filled=identity)
        # The id and source of a CloudEvent are strings; a word may stand for a number.
        self._kinds = () if identity and reference.kind == "cloudevent" else (int, float) if words else numbers
        self._words = {word.encode(): instead.encode() for word, instead in words.items()}

    def __call__(self, reading: Reading) -> bytes | None:
        found = self._read(reading)
        if found is None:
            return None
        if isinstance(found, bytes):
            text = found
        elif isinstance(found, str):
            text = found.encode()
        elif isinstance(found, self._kinds):
            text = orjson.dumps(found)
        else:
            return b""
        return self._words.get(text, text) if self._words else text


def _any(_text: bytes) -> bool:
    """Accept each text, so that a wrong one is an error and does not fall back to the next template."""
    return True


class Decoder:
    """Decodes the records of a mapping's topics."""

    def __init__(self, rules: Rules, name: str = "") -> None:
        """`name` identifies the mapping in dead letters; by default it is the first of its topics."""
        more = f" and {len(rules.topics) - 1} more" if len(rules.topics) > 1 else ""
        self.name = name or f"the mapping of {rules.topics[0]}{more}"
        self._connect = rules.connect_envelope
        self._tombstone = rules.tombstone
        self._type = _Field("type", rules.type, rules, (int, float), _any)
        self._tombstone_type = _Field("tombstone_type", rules.tombstone_type, rules, (int, float), _any)
        # No fractions, nor integers above 64 bits, which a parser reads as fractions: two ids could become one.
        self._id = _Field("id", rules.id, rules, (int,))
        self._source = _Field("source", rules.source, rules, (int,))
        self._tenant = _Field("tenant", rules.tenant, rules, (int,), _any)
        self._content_type = _Field("content_type", rules.content_type, rules, (), media_type)
        self._attributes = [
            _Field(name, templates, rules, (int, float)) for name, templates in rules.attributes.items()
        ]
        self._body = [(template, template.references[0].path) for template in rules.body]

    def decode(self, record: Record) -> Event:
        """The event that a record carries. Raises Tombstone, and Undecodable with a detail that names the mapping.

        The reasons are those of `decode.decode`, and null, no_type and no_body.
        """
        try:
            return self._event(record)
        except Undecodable as error:
            raise Undecodable(error.reason, f"{self.name}: {error}") from None

    def explain(self, record: Record) -> Iterator[Step]:
        """The source of each field of the event; raises as `decode` does, at the field at fault."""
        reading = self._begun(record)
        event_type, by = self._type_of(reading)
        yield Step("type", by, event_type)
        _, by = self._body_of(reading)
        yield Step("body", by, None)
        for field, otherwise in (
            (self._source, "the topic"),
            (self._id, "the record's place: topic, partition, offset and timestamp"),
            (self._tenant, "none: only subscriptions of every tenant get it"),
            (self._content_type, "the rule for events without one"),
        ):
            found = field.first(reading)
            by = otherwise if found is None else found[1].text
            yield Step(field.name, by, None if found is None else found[0].decode("utf-8", "replace"))
        for field in self._attributes:
            if (found := field.first(reading)) is not None:
                yield Step(f"attributes.{field.name}", found[1].text, found[0].decode("utf-8", "replace"))

    def _event(self, record: Record) -> Event:
        reading = self._begun(record)
        event_type, _ = self._type_of(reading)
        (body, whole), _ = self._body_of(reading)
        source = self._source.first(reading)
        event_id = self._id.first(reading)
        headers = reading.headers
        if self._attributes:
            headers = {**headers, **self._attributes_of(reading, event_type)}
        record_id = record.id
        return Event(
            record_id,
            event_type,
            webhook_id(source[0] if source else reading.topic.encode(), event_id and event_id[0], record_id),
            body,
            self._content_type_of(reading, whole=whole),
            record.key,
            valid_traceparent(reading.headers),
            headers or None,
            self._tenant_of(reading),
            extra_of(record.key, headers),
        )

    def _begun(self, record: Record) -> Reading:
        value = record.value
        if isinstance(record.headers, Unreadable):
            raise Undecodable(*record.headers)
        if value is not None and (not value or len(value) > MAX_VALUE_BYTES):
            raise no_event(value)
        reading = Reading(record, connect=self._connect)
        if reading.is_null():
            if self._tombstone == "ignore":
                raise no_event(None)
            if self._tombstone == "dead_letter":
                raise Undecodable("null", "no value")
            reading.value = None
        return reading

    def _type_of(self, reading: Reading) -> tuple[str, str]:
        field = self._tombstone_type if reading.value is None else self._type
        found = field.first(reading)
        if found is None:
            texts = ", ".join(template.text for template in field.templates[:_SHOWN])
            raise Undecodable("no_type", f"{field.name}: the record has nothing that {texts} refers to")
        text, template = found
        if not text:
            raise Undecodable("bad_type", f"{field.name}, by {template.text}: a part of it is empty, or no text")
        try:
            return checked_type(text.decode("latin-1")), template.text
        except Undecodable as error:
            raise Undecodable(error.reason, f"{field.name}, by {template.text}: {error}") from None

    def _body_of(self, reading: Reading) -> tuple[tuple[bytes, bool], str]:
        """The body, whether it is the whole value, and the template."""
        if reading.value is None:
            return (_limited(reading.key_body()), False), "the key, as JSON"
        for template, path in self._body:
            found = reading.field(path) if path else reading.body()
            if found is not None:
                return (_limited(json_of(found) if path else found), not path), template.text
        texts = ", ".join(template.text for template, _ in self._body[:_SHOWN])
        raise Undecodable("no_body", f"body: the record has nothing that {texts} refers to")

    def _tenant_of(self, reading: Reading) -> str | None:
        """None for a text that no subscription can have; the later templates are then not consulted."""
        found = self._tenant.first(reading)
        if found is None:
            return None
        try:
            tenant = found[0].decode()
        except UnicodeDecodeError:
            return None
        return tenant if 0 < len(tenant) <= MAX_TENANT_LENGTH else None

    def _content_type_of(self, reading: Reading, *, whole: bool) -> str:
        if reading.value is None:
            return JSON
        found = self._content_type.first(reading)
        text = None if found is None else found[0].decode("ascii")
        if whole and (found is None or found[1] == _CONTENT_TYPE[0]) and reading.is_structured():
            return structured_type(text)
        return text or JSON

    def _attributes_of(self, reading: Reading, event_type: str) -> dict[str, bytes]:
        """The headers of a CloudEvent in binary mode that has the mapping's attributes."""
        found = {f"{PREFIX}type": event_type.encode()}
        for field in self._attributes:
            if (text := field.first(reading)) is not None:
                found[f"{PREFIX}{field.name}"] = text[0]
        return found


def _limited(body: bytes) -> bytes:
    """The body. Undecodable: too_large; JSON may be several times as long as the text that it was made of."""
    if len(body) > MAX_VALUE_BYTES:
        raise Undecodable("too_large", f"body: it has {len(body)} bytes; the limit is {MAX_VALUE_BYTES}")
    return body


def references_of(rules: Rules) -> Iterator[Reference]:
    """Each reference of a mapping's templates, in no order."""
    fields: Sequence[Templates] = (
        rules.type,
        rules.id,
        rules.source,
        rules.tenant,
        rules.content_type,
        rules.tombstone_type,
        *rules.attributes.values(),
    )
    return (reference for templates in fields for template in templates for reference in template.references)
