"""Reads the mappings of topics from a file (KAFKA_MAPPINGS_FILE) in TOML. docs/mappings.md describes it."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.events.event import Event
from consumer.intake.mapping import Fields, TopicMapping
from consumer.intake.record import Record
from consumer.subscriptions.patterns import EVERY, candidates

SETTING = "KAFKA_MAPPINGS_FILE"
MOST_BYTES = 256 * 1024  # of the file
MOST_MAPPINGS = 1000
_MOST_MISTAKES = 20  # that are reported at once


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mapping: list[Fields] = Field(min_length=1, max_length=MOST_MAPPINGS)


class Mappings:
    """The mappings of a deployment. A call decodes a record whose topic has a mapping; it returns None for others."""

    def __init__(self, fields: Iterable[Fields]) -> None:
        """ValueError: two of them have the same topic or pattern."""
        self._by_pattern: dict[str, TopicMapping] = {}
        self._by_topic: dict[str, TopicMapping | None] = {}
        for each in fields:
            made = TopicMapping(each)
            for pattern in each.topics:
                if self._by_pattern.setdefault(pattern, made) is not made:
                    raise ValueError(f"{pattern} has two mappings; take it out of one of them")

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

    Raises SettingsError with a line for each mistake: the file, the mapping, its key, and what to write instead.
    """
    path = kafka.mappings_file
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise SettingsError(f"{SETTING}: {path}: has more than {MOST_BYTES} bytes; split the deployment")
        return parse(content.decode(), path)
    except OSError as error:
        raise SettingsError(f"{SETTING}: {path}: cannot be read: {error.strerror}; correct the name") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{SETTING}: {path}: is not UTF-8; save it as UTF-8") from None
    except ValueError as error:  # a NUL in the name
        raise SettingsError(f"{SETTING}: it cannot be opened: {error}") from None


def parse(text: str, path: str) -> Mappings:
    """The mappings in a file's text. Raises SettingsError as `mappings_of` does."""
    try:
        content = tomllib.loads(text)
        return Mappings(_File.model_validate(content).mapping)
    except ValidationError as error:
        mistakes = list(_mistakes(error, content))[:_MOST_MISTAKES]
    except tomllib.TOMLDecodeError as error:
        mistakes = [f"is not TOML: {error}"]
    except ValueError as error:
        mistakes = [str(error)]
    except RecursionError:
        mistakes = ["is nested too deeply; a mapping has three levels"]
    raise SettingsError("\n".join(f"{SETTING}: {path}: {each}" for each in mistakes))


def _mistakes(error: ValidationError, content: Mapping[str, Any]) -> Iterator[str]:
    for item in error.errors():
        match item["loc"]:
            case ("mapping", int(number), *keys):
                table = content["mapping"][number]
                topics = table.get("topics") if isinstance(table, dict) else None
                first = f" ({topics[0]!s:.80})" if isinstance(topics, list) and topics else ""
                key = f", {keys[0]!s:.80}" if keys else ""
                yield f"mapping {number + 1}{first}{key}: {_told(item)}"
            case keys:
                yield f"{keys[0]!s:.80}: {item['msg']}; each mapping begins with [[mapping]]"


def _told(item: ErrorDetails) -> str:
    match item["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"there is no such key; there are {', '.join(Fields.model_fields)}"
        case "value_error":
            return str(item["ctx"]["error"])
    return item["msg"]
