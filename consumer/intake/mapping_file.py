"""Reads the mappings of topics from a file (KAFKA_MAPPINGS_FILE) and checks them. Each mistake is reported by line.

The file is TOML, because Python's standard library reads it and reports the position of a mistake. docs/mappings.md
describes it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.events.event import Event
from consumer.intake.mapping import Alternatives, Fields, OnTombstone, Rule, TopicMapping
from consumer.intake.record import Record
from consumer.subscriptions.patterns import EVERY, candidates

SETTING = "KAFKA_MAPPINGS_FILE"
MOST_BYTES = 256 * 1024  # of the file
MOST_MAPPINGS = 1000
MOST_TOPICS = 1000  # of a mapping
MOST_EXPRESSIONS = 20  # of a field
MOST_CHARACTERS = 4000  # of an expression
MOST_ATTRIBUTES = 20
_MOST_MISTAKES = 20  # that are reported at once

_FIELDS = ("type", "id", "source", "tenant", "content_type", "body", "tombstone_type")
_KEYS = ("topics", *_FIELDS, "attributes", "tombstone", "unwrap")
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

    def __init__(self, fields: Mapping[str, Fields]) -> None:
        """`fields` by topic or pattern."""
        made = {id(each): TopicMapping(each) for each in fields.values()}
        self._by_pattern = {pattern: made[id(each)] for pattern, each in fields.items()}
        self._by_topic: dict[str, TopicMapping | None] = {}

    def __call__(self, record: Record) -> Event | None:
        """The event. Raises as `TopicMapping.decode` does."""
        mapping = self.of(record.partition.topic)
        return None if mapping is None else mapping.decode(record)

    def of(self, topic: str) -> TopicMapping | None:
        """The most specific mapping of a topic: of its name, else of the longest pattern that matches."""
        try:
            return self._by_topic[topic]
        except KeyError:
            # Its name, one segment below, any depth below with the longest pattern first, all topics.
            best = sorted(candidates(topic), key=lambda it: (it != topic, it == EVERY, it.endswith(".**"), -len(it)))
            found = next((self._by_pattern[each] for each in best if each in self._by_pattern), None)
            self._by_topic[topic] = found
            return found

    @property
    def patterns(self) -> tuple[str, ...]:
        """The topics and patterns with a mapping."""
        return tuple(self._by_pattern)


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


def parse(text: str, path: str) -> dict[str, Fields]:
    """The mappings in a file's text, by topic or pattern. Raises SettingsError as `mappings_of` does."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{SETTING}: {path}: is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{SETTING}: {path}: is nested too deeply; a mapping has three levels") from None
    mistakes: list[Mistake] = []
    by_topic: dict[str, tuple[Place, Fields]] = {}
    for place, fields in _mappings(content, mistakes):
        for topic in fields.topics:
            if topic in by_topic:
                line = _line_of(text, by_topic[topic][0])
                what = f"{topic} has a mapping already, in line {line}; take it out of one of them"
                mistakes.append(((*place, "topics", topic), what))
            by_topic.setdefault(topic, ((*place, "topics", topic), fields))
    if mistakes:
        lines = sorted(
            (_line_of(text, place), f"{(*place[2:3], 'mapping')[0]}: {what}")
            for place, what in mistakes[:_MOST_MISTAKES]
        )
        raise SettingsError("\n".join(f"{SETTING}: {path}:{line}: {told}" for line, told in lines))
    return {topic: fields for topic, (_, fields) in by_topic.items()}


def _mappings(content: Mapping[str, Any], mistakes: list[Mistake]) -> Iterator[tuple[Place, Fields]]:
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
        read = _Table(table, place)
        fields = read.fields()
        mistakes += read.mistakes
        if not read.mistakes:
            yield place, fields


class _Table:
    """One mapping of the file, and the `mistakes` in it."""

    def __init__(self, table: Mapping[str, Any], place: Place) -> None:
        self._table = table
        self._place = place
        self.mistakes: list[Mistake] = []

    def fields(self) -> Fields:
        """The mapping; without the parts that are mistakes."""
        table = self._table
        for key in table:
            if key not in _KEYS:
                self._wrong(f"there is no key {key}; there are {', '.join(_KEYS)}", key)
        if "type" not in table:
            self._wrong("has no type; write, for example, type = \"headers['event-type']\"")
        rules = {name: self._rules(table[name], name) for name in _FIELDS if name in table}
        if not all(rule.is_body for rule in rules.get("body", ())):
            self._wrong("takes value, the whole value, or a field in it, such as value.order", "body")
        if any(rule.is_constant for rule in rules.get("id", ())):
            self._wrong("is the same for each event, and receivers drop repeated ids; use headers or value", "id")
        tombstone, unwrap = table.get("tombstone", "ignore"), table.get("unwrap", False)
        if tombstone not in _ON_TOMBSTONE:
            self._wrong(f"is none of {', '.join(_ON_TOMBSTONE)}", "tombstone")
        elif tombstone == "event" and "tombstone_type" not in table:
            what = "needs tombstone_type = \"topic + '.deleted'\", or another type for records without a value"
            self._wrong(what, "tombstone")
        elif tombstone != "event" and "tombstone_type" in table:
            self._wrong('needs tombstone = "event"', "tombstone_type")
        if not isinstance(unwrap, bool):
            self._wrong("is neither true nor false", "unwrap")
        return Fields(
            topics=self._topics(),
            **{"type": (), **rules},
            attributes=self._attributes(),
            tombstone=tombstone,
            unwrap=unwrap,
        )

    def _wrong(self, what: str, *keys: str | int) -> None:
        self.mistakes.append(((*self._place, *keys), what))

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

    def _rules(self, value: Any, *keys: str) -> Alternatives:
        sources: list[Any] = value if isinstance(value, list) else [value]
        if not sources or not all(isinstance(source, str) for source in sources):
            self._wrong('is neither an expression nor a list of them; write, for example, "headers.id"', *keys)
            return ()
        if len(sources) > MOST_EXPRESSIONS:
            self._wrong(f"has {len(sources)} expressions; at most {MOST_EXPRESSIONS} are taken", *keys)
            return ()
        found = []
        for source in sources:
            if len(source) > MOST_CHARACTERS:
                self._wrong(f"has {len(source)} characters; at most {MOST_CHARACTERS} are taken", *keys, source)
                continue
            try:
                found.append(Rule(source, of_tombstone=keys == ("tombstone_type",)))
            except ValueError as error:
                self._wrong(f"{source!r:.80} is not an expression: {error}{_advice(source)}", *keys, source)
        return tuple(found)

    def _attributes(self) -> dict[str, Alternatives]:
        table = self._table.get("attributes", {})
        if not isinstance(table, dict) or len(table) > MOST_ATTRIBUTES:
            what = f'is no table of at most {MOST_ATTRIBUTES} attributes, such as {{ subject = "key" }}'
            self._wrong(what, "attributes")
            return {}
        for name in table:
            if not _ATTRIBUTE.fullmatch(name):
                self._wrong("is no attribute of CloudEvents; its name is 1 to 20 of a-z and 0-9", "attributes", name)
            elif name in _NOT_THESE:
                self._wrong(f"cannot be set here: {_NOT_THESE[name]}", "attributes", name)
        return {name: self._rules(value, "attributes", name) for name, value in table.items()}


def _advice(source: str) -> str:
    """What to write instead of a text that was meant as it is."""
    return f"; a text has quotes of its own: \"'{source}'\"" if re.fullmatch(r"[\w.-]{1,80}", source) else ""


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
        quoted = f'"{each}"', f"'{each}'"
        there = (n for n in range(at, end) if key.search(lines[n]) or any(text in lines[n] for text in quoted))
        at = next(there, at)
    return at + 1
