"""Reads the mappings of topics from a file (KAFKA_MAPPINGS_FILE) and checks them. Each mistake is reported by line.

The file is TOML, because Python's standard library reads it and reports the position of a mistake. docs/mappings.md
describes it.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.events.event import Event
from consumer.intake.mapping import Decoder, OnTombstone, Rules, Templates, references_of
from consumer.intake.record import Record
from consumer.intake.templates import Reference, Template, parse_body, parse_reference, parse_template
from consumer.subscriptions.patterns import EVERY, candidates

SETTING = "KAFKA_MAPPINGS_FILE"
MOST_BYTES = 256 * 1024  # of the file
MOST_MAPPINGS = 1000
MOST_TOPICS = 1000  # of a mapping
MOST_TEMPLATES = 20  # of a field
MOST_ATTRIBUTES = 20
MOST_WORDS = 1000  # for one reference
_MOST_MISTAKES = 20  # that are reported at once

_TEMPLATES = ("type", "id", "source", "tenant", "content_type", "tombstone_type")
_SWITCHES = ("connect_envelope", "quoted_headers")
_KEYS = ("topics", *_TEMPLATES, "body", "attributes", "words", "tombstone", *_SWITCHES)
_TOPIC = re.compile(r"\*|[A-Za-z0-9._-]{1,245}(?:\.\*\*?)?")
_HEAD = re.compile(r"\s*\[\[\s*mapping\s*\]\]")
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")  # CloudEvents 1.0, naming convention
_NOT_THESE = {
    "specversion": "each event has version 1.0",
    "type": "it is the field type",
    "data": "it is the field body",
    "data_base64": "it is the field body",
    "datacontenttype": "it is the field content_type",
}
_ON_TOMBSTONE: tuple[OnTombstone, ...] = get_args(OnTombstone)

Place = tuple[str | int, ...]  # the keys that lead to a value in the file, then the text at fault
Mistake = tuple[Place, str]


class Mappings:
    """The mappings of a deployment. A call decodes a record whose topic has a mapping; it returns None for others."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        """`rules` by topic or pattern."""
        decoders = {id(each): Decoder(each) for each in rules.values()}
        self._decoders = {pattern: decoders[id(each)] for pattern, each in rules.items()}
        self._found: dict[str, Decoder | None] = {}

    def __call__(self, record: Record) -> Event | None:
        """The event. Raises as `Decoder.decode` does."""
        decoder = self.of(record.partition.topic)
        return None if decoder is None else decoder.decode(record)

    def of(self, topic: str) -> Decoder | None:
        """The most specific mapping of a topic: of its name, else of the longest pattern that matches."""
        try:
            return self._found[topic]
        except KeyError:
            matching = (self._decoders[each] for each in _most_specific(topic) if each in self._decoders)
            found = self._found[topic] = next(matching, None)
            return found

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topics and patterns with a mapping."""
        return tuple(self._decoders)


def mappings_of(kafka: KafkaSettings) -> Mappings | None:
    """The mappings of KAFKA_MAPPINGS_FILE; None if it is not set.

    Raises SettingsError with a line for each mistake: the file, the line in it, and what to write instead.
    """
    path = kafka.mappings_file
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SettingsError(f"{SETTING}: {path}: has more than {MOST_BYTES} bytes; split the deployment")
        return Mappings(parse(content.decode(), path))
    except OSError as error:
        raise SettingsError(f"{SETTING}: {path}: cannot be read: {error.strerror}; correct the name") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{SETTING}: {path}: is not UTF-8; save it as UTF-8") from None
    except ValueError as error:  # a NUL in the name
        raise SettingsError(f"{SETTING}: it cannot be opened: {error}") from None


def default_decoder(tenant_name: str = "tenant") -> Decoder:
    """The rules for topics without a mapping, which `decode.decode` has in its fast form."""
    text = files("consumer.intake").joinpath("default_mapping.toml").read_text()
    rules = parse(text, "default_mapping.toml")[EVERY]
    tenant = tuple(
        Template(f"{{{kind}.{tenant_name}}}", (Reference(kind, (tenant_name,)),)) for kind in ("cloudevent", "header")
    )
    return Decoder(rules._replace(tenant=tenant), "the rules for topics without a mapping")


def parse(text: str, path: str) -> dict[str, Rules]:
    """The mappings in a file's text, by topic or pattern. Raises SettingsError as `mappings_of` does."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{SETTING}: {path}: is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{SETTING}: {path}: is nested too deeply; a mapping has three levels") from None
    mistakes: list[Mistake] = []
    by_topic: dict[str, tuple[Place, Rules]] = {}
    for place, rules in _rules(content, mistakes):
        for topic in rules.topics:
            if topic in by_topic:
                line = _line_of(text, by_topic[topic][0])
                what = f"{topic} has a mapping already, in line {line}; take it out of one of them"
                mistakes.append(((*place, "topics", topic), what))
            by_topic.setdefault(topic, ((*place, "topics", topic), rules))
    if mistakes:
        lines = sorted(
            (_line_of(text, place), f"{(*place[2:3], 'mapping')[0]}: {what}")
            for place, what in mistakes[:_MOST_MISTAKES]
        )
        raise SettingsError("\n".join(f"{SETTING}: {path}:{line}: {told}" for line, told in lines))
    return {topic: rules for topic, (_, rules) in by_topic.items()}


def _most_specific(topic: str) -> list[str]:
    """The patterns that match a topic: its name, one segment below, any depth below with the longest first, all."""
    return sorted(candidates(topic), key=lambda each: (each != topic, each == EVERY, each.endswith(".**"), -len(each)))


def _rules(content: Mapping[str, Any], mistakes: list[Mistake]) -> Iterator[tuple[Place, Rules]]:
    """The correct mappings, each with its place. Appends to `mistakes` for the others."""
    mistakes += [
        ((key,), f"there is no key {key}; each mapping begins with [[mapping]]") for key in content if key != "mapping"
    ]
    tables = content.get("mapping", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        mistakes.append((("mapping",), "is no list of tables; begin each mapping with [[mapping]]"))
        return
    if not tables and not mistakes:
        mistakes.append(((), "the file has no mapping; begin one with [[mapping]], or do not set it"))
    if len(tables) > MOST_MAPPINGS:
        mistakes.append((("mapping", MOST_MAPPINGS), f"there are more than {MOST_MAPPINGS} mappings; use patterns"))
        return
    for number, table in enumerate(tables):
        place: Place = ("mapping", number)
        found = _Table(table, place).rules()
        if isinstance(found, Rules):
            yield place, found
        else:
            mistakes += found


class _Table:
    """One mapping of the file, and the mistakes in it."""

    def __init__(self, table: Mapping[str, Any], place: Place) -> None:
        self._table = table
        self._place = place
        self._mistakes: list[Mistake] = []

    def rules(self) -> Rules | list[Mistake]:
        """The mapping, or its mistakes."""
        table = self._table
        for key in table:
            if key not in _KEYS:
                self._wrong(f"there is no key {key}; there are {', '.join(_KEYS)}", key)
        if "type" not in table:
            self._wrong('has no type; write, for example, type = "{header.event-type}"')
        fields: dict[str, Any] = {
            name: self._templates(table[name], parse_template, name) for name in _TEMPLATES if name in table
        }
        if "body" in table:
            fields["body"] = self._templates(table["body"], parse_body, "body")
        fields |= {name: self._switch(name) for name in _SWITCHES if name in table}
        tombstone = table.get("tombstone", "ignore")
        if tombstone not in _ON_TOMBSTONE:
            self._wrong(f"is none of {', '.join(_ON_TOMBSTONE)}", "tombstone")
            tombstone = "ignore"
        found = Rules(
            self._topics(),
            **{"type": (), **fields},
            attributes=self._attributes(),
            words=self._words(),
            tombstone=tombstone,
        )
        self._check_together(found)
        return self._mistakes or found

    def _wrong(self, what: str, *keys: str | int) -> None:
        self._mistakes.append(((*self._place, *keys), what))

    def _topics(self) -> tuple[str, ...]:
        topics = self._table.get("topics")
        if topics is None:
            self._wrong('has no topics; write, for example, topics = ["shop.public.*"]')
        elif not isinstance(topics, list) or not topics or not all(isinstance(topic, str) for topic in topics):
            self._wrong('is no list of names; write, for example, ["orders", "shop.public.*"]', "topics")
        elif len(topics) > MOST_TOPICS:
            self._wrong(f"has {len(topics)} topics; at most {MOST_TOPICS} are taken: use patterns", "topics")
        else:
            for topic in topics:
                if not _TOPIC.fullmatch(topic):
                    what = "write a topic's name, shop.* (one segment below shop), shop.** (any depth below shop) or *"
                    self._wrong(f"{topic!r:.80} is no topic; {what}", "topics", topic)
            return tuple(topics)
        return ()

    def _templates(self, value: Any, parse_one: Callable[[str], Template], *keys: str) -> Templates:
        texts: list[Any] = value if isinstance(value, list) else [value]
        if not texts or not all(isinstance(text, str) for text in texts):
            self._wrong('is neither a text nor a list of texts; write, for example, "{header.id}"', *keys)
            return ()
        if len(texts) > MOST_TEMPLATES:
            self._wrong(f"has {len(texts)} templates; at most {MOST_TEMPLATES} are taken", *keys)
            return ()
        found = []
        for text in texts:
            try:
                found.append(parse_one(text))
            except ValueError as error:
                self._wrong(str(error), *keys, text)
        return tuple(found)

    def _switch(self, key: str) -> bool:
        value = self._table[key]
        if not isinstance(value, bool):
            self._wrong("is neither true nor false", key)
        return value is True

    def _attributes(self) -> dict[str, Templates]:
        table = self._table.get("attributes", {})
        if not isinstance(table, dict) or len(table) > MOST_ATTRIBUTES:
            self._wrong(
                f'is no table of at most {MOST_ATTRIBUTES} attributes, such as {{ subject = "{{key}}" }}', "attributes"
            )
            return {}
        for name in table:
            if not _ATTRIBUTE.fullmatch(name):
                self._wrong("is no attribute of CloudEvents; its name is 1 to 20 of a-z and 0-9", "attributes", name)
            elif name in _NOT_THESE:
                self._wrong(f"cannot be set here: {_NOT_THESE[name]}", "attributes", name)
        return {name: self._templates(value, parse_template, "attributes", name) for name, value in table.items()}

    def _words(self) -> dict[str, dict[str, str]]:
        tables = self._table.get("words", {})
        if not isinstance(tables, dict):
            self._wrong('is no table; write, for example, [mapping.words] "value.op" = { c = "created" }', "words")
            return {}
        for name, words in tables.items():
            try:
                parse_reference(name)
            except ValueError as error:
                self._wrong(str(error), "words", name)
            if not isinstance(words, dict) or not all(isinstance(word, str) and word for word in words.values()):
                self._wrong('is no table of words; write, for example, { c = "created", d = "deleted" }', "words", name)
            elif len(words) > MOST_WORDS:
                self._wrong(f"has {len(words)} words; at most {MOST_WORDS} are taken", "words", name)
        return tables

    def _check_together(self, rules: Rules) -> None:
        """Find keys that are valid alone, but not in combination."""
        if (rules.tombstone == "event") != bool(self._table.get("tombstone_type")):
            has, what = ("tombstone_type", 'needs tombstone = "event"') if "tombstone_type" in self._table else (
                "tombstone", 'needs tombstone_type = "{topic}.deleted", or another type for records without a value'
            )  # fmt: skip
            self._wrong(what, has)
        if any(each.kind == "value" for template in rules.tombstone_type for each in template.references):
            self._wrong("a tombstone has no value; use {key}, {topic} or {header.NAME}", "tombstone_type")
        if any(all(each.kind == "topic" for each in template.references) for template in rules.id):
            self._wrong(
                "is the same for each event, and receivers drop repeated ids; use {header.NAME} or {value.PATH}", "id"
            )
        used = set(map(str, references_of(rules)))
        for name in rules.words:
            if name not in used and not self._mistakes:
                self._wrong(f"no template refers to {{{name}}}; correct the name, or take the words out", "words", name)


def _line_of(text: str, place: Place) -> int:
    """The line of a place: the head of its mapping, or the last of its keys and texts that is found below the head."""
    lines = ["" if line.lstrip().startswith("#") else line for line in text.splitlines()]
    heads = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    match place:
        case ("mapping", int(number), *rest) if number < len(heads):
            at, end = heads[number], heads[number + 1] if number + 1 < len(heads) else len(lines)
        case _:
            rest, at, end = list(place), 0, len(lines)
    for each in map(str, rest):
        key = re.compile(rf"""(?:^\s*\[mapping\.|^|[\s,{{])["']?{re.escape(each)}["']?\s*[].=]""")
        at = next(
            (number for number in range(at, end) if key.search(lines[number]) or f'"{each}"' in lines[number]), at
        )
    return at + 1
