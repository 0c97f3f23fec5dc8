"""Decodes the records of a topic by its mapping, which has CEL expressions for type, id, tenant and body. Pure.

docs/mappings.md has the rules.
"""

from collections.abc import Callable, Iterator, Mapping
from time import thread_time
from typing import Any, Literal, NamedTuple

import orjson

from consumer.errors import Undecodable
from consumer.events.cloud_event import PREFIX
from consumer.events.event import Event, extra_of
from consumer.expressions.expression import LONGEST, Expression, ExpressionFailed, PartMissing, Variables
from consumer.intake.decode import (
    JSON,
    MAX_VALUE_BYTES,
    checked_type,
    media_type,
    no_event,
    structured_type,
    usable_tenant,
    valid_traceparent,
    webhook_id,
)
from consumer.intake.reading import Reading, dumped, json_of
from consumer.intake.record import Record, Unreadable

OnTombstone = Literal["ignore", "event", "dead_letter"]
Accept = Callable[[object], str | None]  # the text of an expression's value; None: the next expression counts

BY_PLACE = "the record's place: topic, partition, offset and timestamp"
NO_TENANT = "none: only subscriptions of every tenant get it"
NO_CONTENT_TYPE = "the rule for events without one"
_SHOWN, _LONGEST = 3, 200  # expressions of a field that a dead letter names at most, and characters of each
_TOPIC = {"topic": "string"}
_WITHOUT_VALUE = {"headers": "map<string, string>", "key": "dyn", **_TOPIC}
_OF_RECORD = Variables("record", {"value": "dyn", **_WITHOUT_VALUE})
_OF_TOMBSTONE = Variables("record", _WITHOUT_VALUE)
_OF_VALUE = Variables("record", {"value": "dyn"})
_OF_TOPIC = Variables("record", _TOPIC)


class _TooSlow(Undecodable):
    """The expressions of a mapping took too long on a record."""


class Rule:
    """A compiled expression of a field."""

    __slots__ = ("expression", "is_field", "reads_value", "shown", "source")

    def __init__(self, source: str, *, of_tombstone: bool = False) -> None:
        """`of_tombstone`: there is no value to read. Raises ValueError, whose text says what to write instead."""
        self.source = source
        self.shown = source[:_LONGEST]
        self.expression = Expression(source, _OF_TOMBSTONE if of_tombstone else _OF_RECORD)
        self.is_field = self.expression.is_field
        self.reads_value = not of_tombstone and not _compiles(source, _OF_TOMBSTONE)

    @property
    def is_constant(self) -> bool:
        """Whether its value is the same for each record of a topic."""
        return _compiles(self.source, _OF_TOPIC)

    @property
    def is_body(self) -> bool:
        """Whether it is `value`, or a field in it: what else an expression makes, the runtime could have changed."""
        return self.is_field and _compiles(self.source, _OF_VALUE)


Alternatives = tuple[Rule, ...]  # of a field: the first that has a value counts


def _compiles(source: str, variables: Variables) -> bool:
    try:
        Expression(source, variables)
    except ValueError:
        return False
    return True


class Fields(NamedTuple):
    """A mapping as it stands in the file. A field's value is that of its first expression that has one.

    `unwrap`: the JSON that Kafka Connect and Spring write around a value, a key or a header is removed.
    """

    topics: tuple[str, ...]
    type: Alternatives
    id: Alternatives = ()
    source: Alternatives = ()
    tenant: Alternatives = ()
    content_type: Alternatives = ()
    body: Alternatives = ()
    attributes: Mapping[str, Alternatives] = {}
    tombstone: OnTombstone = "ignore"
    tombstone_type: Alternatives = ()
    unwrap: bool = False


class Step(NamedTuple):
    """The source of an event's field: the expression, or a rule in words, and the resulting value."""

    field: str
    by: str
    value: str | None


def _any(value: object) -> str:
    """A text; empty for all else, so that a wrong value is an error and the next expression does not count."""
    return value if isinstance(value, str) else ""


def _tenant(value: object) -> str:
    return orjson.dumps(value).decode() if isinstance(value, int) else _any(value)


def _identity(value: object) -> str | None:
    """A text or a whole number: two fractions, or two integers above 64 bits, could become one."""
    return _tenant(value) or None


def _attribute(value: object) -> str | None:
    if isinstance(value, int | float | dict | list):
        return dumped(value).decode()
    return _any(value) or None


def _media_type(value: object) -> str | None:
    return media_type(value.encode()) if isinstance(value, str) else None


class _Field:
    """A field's expressions, and what its value may be."""

    __slots__ = ("_accept", "_exact", "name", "rules")

    def __init__(self, name: str, rules: Alternatives, accept: Accept, *, exact: bool = False) -> None:
        """`exact`: a number that a parser may have rounded, and an empty text, are missing parts of expressions."""
        self.name = name
        self.rules = rules
        self._accept = accept
        self._exact = exact

    def first(self, reading: Reading) -> tuple[str, str] | None:
        """The first accepted text, with its expression. Raises Undecodable (expression_failed, too_deep)."""
        for rule in self.rules:
            value = _value(rule, reading, self.name, exact=self._exact)
            try:
                text = None if value is None else self._accept(value)
            except Undecodable as error:
                raise Undecodable(error.reason, f"{self.name}, by {rule.shown}: {error}") from None
            if text is not None:
                return text, rule.source
        return None

    def nothing(self) -> str:
        """Why no expression has a value."""
        sources = ", ".join(rule.shown for rule in self.rules[:_SHOWN])
        return f"{self.name}: the record has nothing that {sources} reads"


def _value(rule: Rule, reading: Reading, field: str, *, exact: bool) -> Any:
    """The value of an expression for a record; None if it reads what the record lacks."""
    if rule.reads_value:
        reading.load()
    began = None if rule.is_field else thread_time()  # to take a field takes less than to read the clock
    try:
        value = rule.expression.value(reading.given if rule.is_field else reading.safe(rule.expression, exact=exact))
    except PartMissing:
        value = None
    except ExpressionFailed as error:
        raise Undecodable("expression_failed", f"{field}, by {rule.shown}: {error}") from None
    if began is not None and reading.takes(thread_time() - began) > LONGEST:
        why = f"the expressions of a record may take {LONGEST * 1000:g} ms, and took longer with this one"
        raise _TooSlow("expression_failed", f"{field}, by {rule.shown}: {why}")
    return value


class TopicMapping:
    """Decodes the records of a mapping's topics."""

    def __init__(self, fields: Fields) -> None:
        """Dead letters name the mapping by the first of its topics."""
        more = f" and {len(fields.topics) - 1} more" if len(fields.topics) > 1 else ""
        self.name = f"the mapping of {fields.topics[0]}{more}"
        self._unwrap = fields.unwrap
        self._tombstone = fields.tombstone
        self._type = _Field("type", fields.type, _any)
        self._tombstone_type = _Field("tombstone_type", fields.tombstone_type, _any)
        self._body = fields.body
        self._others = [
            (_Field("source", fields.source, _identity, exact=True), "the topic"),
            (_Field("id", fields.id, _identity, exact=True), BY_PLACE),
            (_Field("tenant", fields.tenant, _tenant), NO_TENANT),
        ]
        self._content_type = _Field("content_type", fields.content_type, _media_type)
        named = {f"attributes.{name}": rules for name, rules in fields.attributes.items()}
        self._attributes = [_Field(name, rules, _attribute) for name, rules in named.items()]

    def decode(self, record: Record) -> Event:
        """The event that a record carries. Raises Tombstone, and Undecodable with a detail that names the mapping.

        The reasons are those of `decode.decode`, and null, no_type, no_body and expression_failed.
        """
        try:
            try:
                return self._event(record)
            except _TooSlow:  # it may have been the machine; the second time it is the record
                return self._event(record)
        except Undecodable as error:
            raise Undecodable(error.reason, f"{self.name}: {error}") from None

    def explain(self, record: Record) -> Iterator[Step]:
        """The source of each field of the event; raises as `decode` does, at the field at fault."""
        return self._steps(self._begun(record))

    def _event(self, record: Record) -> Event:
        reading = self._begun(record)
        found = {step.field: step.value for step in self._steps(reading)}
        record_id, event_type, event_id = record.id, found["type"] or "", found["id"]
        source = found["source"] or record_id.topic
        headers = reading.headers
        if self._attributes:  # the headers of a CloudEvent in binary mode
            added = {each.name.partition(".")[2]: found.get(each.name) for each in self._attributes}
            texts = {"type": event_type, **added}
            headers = headers | {f"{PREFIX}{name}": text.encode() for name, text in texts.items() if text is not None}
        return Event(
            record_id,
            event_type,
            webhook_id(source.encode(), event_id.encode() if event_id else None, record_id),
            reading.body,
            found["content_type"] or JSON,
            record.key,
            valid_traceparent(reading.headers),
            headers or None,
            usable_tenant(found["tenant"]),
            extra_of(record.key, headers),
        )

    def _begun(self, record: Record) -> Reading:
        value = record.value
        if isinstance(record.headers, Unreadable):
            raise Undecodable(*record.headers)
        if value is not None and (not value or len(value) > MAX_VALUE_BYTES):
            raise no_event(value)
        reading = Reading(record, dict(record.headers or ()), unwrap=self._unwrap)
        if reading.is_null():
            if self._tombstone == "ignore":
                raise no_event(None)
            if self._tombstone == "dead_letter":
                raise Undecodable("null", "no value")
            reading.value = None
        return reading

    def _steps(self, reading: Reading) -> Iterator[Step]:
        """The source of each field, and `reading.body`."""
        yield self._type_of(reading)
        reading.body, whole, by = self._body_of(reading)
        yield Step("body", by, None)
        for field, otherwise in self._others:
            found = field.first(reading)
            yield Step(field.name, otherwise, None) if found is None else Step(field.name, found[1], found[0])
        yield self._content_type_of(reading, whole=whole)
        for field in self._attributes:
            if (found := field.first(reading)) is not None:
                yield Step(field.name, found[1], found[0])

    def _type_of(self, reading: Reading) -> Step:
        field = self._tombstone_type if reading.value is None else self._type
        found = field.first(reading)
        if found is None:
            raise Undecodable("no_type", field.nothing())
        text, source = found
        if not text:
            raise Undecodable(
                "bad_type", f"{field.name}, by {source[:_LONGEST]}: it is empty, or no text; string(…) makes a text"
            )
        try:
            return Step("type", source, checked_type(text))
        except Undecodable as error:
            raise Undecodable(error.reason, f"{field.name}, by {source[:_LONGEST]}: {error}") from None

    def _body_of(self, reading: Reading) -> tuple[bytes, bool, str]:
        """The body, whether it is the whole value, and the expression."""
        if reading.value is None:
            return _limited(reading.key_body()), False, "the key, as JSON"
        for rule in self._body:
            if rule.source.strip() == "value":
                break
            found = _value(rule, reading, "body", exact=False)
            if found is not None:
                return _limited(json_of(found)), False, rule.source
        else:
            if self._body:
                raise Undecodable("no_body", _Field("body", self._body, _any).nothing())
        return _limited(reading.whole()), True, "value"

    def _content_type_of(self, reading: Reading, *, whole: bool) -> Step:
        if reading.value is None:
            return Step("content_type", "the key, as JSON", JSON)
        if (found := self._content_type.first(reading)) is not None:
            return Step("content_type", found[1], found[0])
        declared = media_type(reading.headers.get("content-type"))
        if whole and reading.is_cloud_event():
            return Step("content_type", "a structured CloudEvent", structured_type(declared))
        if declared is not None:
            return Step("content_type", "the header content-type", declared)
        return Step("content_type", NO_CONTENT_TYPE, JSON)


def _limited(body: bytes) -> bytes:
    """The body. Undecodable: too_large; JSON may be several times as long as the text that it was made of."""
    if len(body) > MAX_VALUE_BYTES:
        raise Undecodable("too_large", f"body: it has {len(body)} bytes; the limit is {MAX_VALUE_BYTES}")
    return body
