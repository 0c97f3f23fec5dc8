"""Decodes the records of a topic by its mapping, which has CEL expressions for type, id, tenant and body. Pure.

docs/mappings.md has the rules.
"""

import re
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Annotated, Any, Literal, NamedTuple, Self

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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

MOST_TOPICS = 1000  # of a mapping
MOST_EXPRESSIONS = 20  # of a field
MOST_CHARACTERS = 4000  # of an expression
MOST_ATTRIBUTES = 20
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
_NAME = re.compile(r"\*|[A-Za-z0-9._-]{1,245}(?:\.\*\*?)?")  # of a topic, or a pattern
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")  # CloudEvents 1.0, naming convention
_OTHER_FIELDS = frozenset(("specversion", "type", "data", "data_base64", "datacontenttype"))


class _TooSlow(Undecodable):
    """The expressions of a mapping took too long on a record."""


class Rule:
    """A compiled expression of a field."""

    __slots__ = ("expression", "is_field", "reads_value", "shown")

    def __init__(self, source: str, variables: Variables) -> None:
        """Raises ValueError, whose text says what to write instead."""
        self.shown = source[:_LONGEST]
        self.expression = Expression(source, variables)
        self.is_field = self.expression.is_field
        self.reads_value = not self.is_over(_OF_TOMBSTONE)

    def is_over(self, variables: Variables) -> bool:
        """Whether the expression reads none but these variables."""
        try:
            Expression(self.expression.source, variables)
        except ValueError:
            return False
        return True


def _rules(value: object, variables: Variables = _OF_RECORD) -> tuple[Rule, ...]:
    """The expressions of a field in the file: one, or a list of them."""
    sources = value if isinstance(value, list) else [value]
    if not 0 < len(sources) <= MOST_EXPRESSIONS:
        raise ValueError(f"write one expression, or a list of 1 to {MOST_EXPRESSIONS}")
    return tuple(_rule(source, variables) for source in sources)


def _rule(source: object, variables: Variables) -> Rule:
    if not isinstance(source, str) or len(source) > MOST_CHARACTERS:
        raise ValueError(f'write a text of up to {MOST_CHARACTERS} characters with an expression, such as "headers.id"')
    try:
        return Rule(source, variables)
    except ValueError as error:
        advice = f"; a text has quotes of its own: \"'{source}'\"" if re.fullmatch(r"[\w.-]{1,80}", source) else ""
        raise ValueError(f"{source!r:.80} is not an expression: {error}{advice}") from None


def _of_tombstone(value: object) -> tuple[Rule, ...]:
    return _rules(value, _OF_TOMBSTONE)


def _bodies(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    # The runtime could change what any other expression makes.
    if not all(rule.is_field and rule.is_over(_OF_VALUE) for rule in rules):
        raise ValueError("takes value, the whole value, or a field in it, such as value.order")
    return rules


def _ids(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    if any(rule.is_over(_OF_TOPIC) for rule in rules):
        raise ValueError("is the same for each event, and receivers drop repeated ids; use headers or value")
    return rules


def _topic(name: str) -> str:
    if not _NAME.fullmatch(name):
        what = "write a topic's name, shop.* (one segment below shop), shop.** (any depth below shop) or *"
        raise ValueError(f"{name!r:.80} is not a topic; {what}")
    return name


def _attribute_name(name: str) -> str:
    if not _ATTRIBUTE.fullmatch(name) or name in _OTHER_FIELDS:
        raise ValueError(
            "the name of an attribute is 1 to 20 of a-z and 0-9; type, body and content_type have keys of their own"
        )
    return name


# The expressions of a field: the first that has a value counts.
Alternatives = Annotated[tuple[Rule, ...], BeforeValidator(_rules)]


class Fields(BaseModel):
    """A mapping, as it stands in the file. A field's value is that of its first expression that has one.

    `unwrap`: the JSON that Kafka Connect and Spring write around a value, a key or a header is removed.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True, strict=True)

    topics: list[Annotated[str, AfterValidator(_topic)]] = Field(min_length=1, max_length=MOST_TOPICS)
    type: Alternatives
    id: Annotated[Alternatives, AfterValidator(_ids)] = ()
    source: Alternatives = ()
    tenant: Alternatives = ()
    content_type: Alternatives = ()
    body: Annotated[Alternatives, AfterValidator(_bodies)] = ()
    attributes: dict[Annotated[str, AfterValidator(_attribute_name)], Alternatives] = Field(
        default={}, max_length=MOST_ATTRIBUTES
    )
    tombstone: Literal["ignore", "event", "dead_letter"] = "ignore"
    tombstone_type: Annotated[tuple[Rule, ...], BeforeValidator(_of_tombstone)] = ()
    unwrap: bool = False

    @model_validator(mode="after")
    def _has_type_of_tombstone(self) -> Self:
        if (self.tombstone == "event") != bool(self.tombstone_type):
            raise ValueError('tombstone = "event" and tombstone_type, such as "topic + \'.deleted\'", need each other')
        return self


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


class _Field(NamedTuple):
    """A field's expressions, and the text of a value; None: the next expression counts.

    `exact`: a number that a parser may have rounded, and an empty text, are missing parts of expressions.
    """

    name: str
    rules: tuple[Rule, ...]
    accept: Callable[[object], str | None]
    exact: bool = False

    def first(self, reading: Reading) -> Step | None:
        """The first accepted text, with its expression. Raises Undecodable (expression_failed, too_deep)."""
        for rule in self.rules:
            value = _value(rule, reading, self.name, exact=self.exact)
            try:
                text = None if value is None else self.accept(value)
            except Undecodable as error:
                raise Undecodable(error.reason, f"{self.name}, by {rule.shown}: {error}") from None
            if text is not None:
                return Step(self.name, rule.shown, text)
        return None


def _nothing(name: str, rules: tuple[Rule, ...]) -> str:
    """Why no expression has a value."""
    return f"{name}: the record has nothing that {', '.join(rule.shown for rule in rules[:_SHOWN])} reads"


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
        self._fields = fields
        self._type = _Field("type", fields.type, _any)
        self._tombstone_type = _Field("tombstone_type", fields.tombstone_type, _any)
        self._others = [
            (_Field("source", fields.source, _identity, exact=True), "the topic"),
            (_Field("id", fields.id, _identity, exact=True), BY_PLACE),
            (_Field("tenant", fields.tenant, _tenant), NO_TENANT),
        ]
        self._content_type = _Field("content_type", fields.content_type, _media_type)
        self._attributes = [
            _Field(f"attributes.{name}", rules, _attribute) for name, rules in fields.attributes.items()
        ]

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
        reading = Reading(record, dict(record.headers or ()), unwrap=self._fields.unwrap)
        if reading.is_null():
            if self._fields.tombstone == "ignore":
                raise no_event(None)
            if self._fields.tombstone == "dead_letter":
                raise Undecodable("null", "no value")
            reading.value = None
        return reading

    def _steps(self, reading: Reading) -> Iterator[Step]:
        """The source of each field, and `reading.body`."""
        yield self._type_of(reading)
        reading.body, whole, by = self._body_of(reading)
        yield Step("body", by, None)
        for field, otherwise in self._others:
            yield field.first(reading) or Step(field.name, otherwise, None)
        yield self._content_type_of(reading, whole=whole)
        yield from filter(None, (field.first(reading) for field in self._attributes))

    def _type_of(self, reading: Reading) -> Step:
        field = self._tombstone_type if reading.value is None else self._type
        found = field.first(reading)
        if found is None:
            raise Undecodable("no_type", _nothing(field.name, field.rules))
        if not found.value:
            raise Undecodable(
                "bad_type", f"{field.name}, by {found.by}: it is empty, or not a text; string(…) makes a text"
            )
        try:
            return Step("type", found.by, checked_type(found.value))
        except Undecodable as error:
            raise Undecodable(error.reason, f"{field.name}, by {found.by}: {error}") from None

    def _body_of(self, reading: Reading) -> tuple[bytes, bool, str]:
        """The body, whether it is the whole value, and the expression."""
        if reading.value is None:
            return _limited(reading.key_body()), False, "the key, as JSON"
        rules = self._fields.body
        for rule in rules:
            if rule.shown.strip() == "value":
                break
            found = _value(rule, reading, "body", exact=False)
            if found is not None:
                return _limited(json_of(found)), False, rule.shown
        else:
            if rules:
                raise Undecodable("no_body", _nothing("body", rules))
        return _limited(reading.whole()), True, "value"

    def _content_type_of(self, reading: Reading, *, whole: bool) -> Step:
        if reading.value is None:
            return Step("content_type", "the key, as JSON", JSON)
        if (found := self._content_type.first(reading)) is not None:
            return found
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
