"""Settings from the environment or a `.env` file. Only `__main__` and `cli` read them; other modules get values."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar, get_type_hints

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from consumer.config import slips
from consumer.config.group import Group, secret_names, variables
from consumer.config.settings import (
    FILE,
    KafkaSettings,
    WorkerSettings,
    known_names,
)
from consumer.config.types import AGE, duration, in_words
from consumer.errors import SettingsError

_T = TypeVar("_T", bound=Group)


def environment(file: str = ".env") -> dict[str, str]:
    """The variables of `file` and of the process's environment, which wins. An empty value counts as not set."""
    try:
        values = {**dotenv_values(file), **os.environ}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    return {name: value for name, value in values.items() if value}


def load(group: type[_T], values: Mapping[str, str] | None = None) -> _T:
    """Read one group, and the files of its secrets.

    SettingsError has a line for each wrong setting: why, and an example.
    """
    values = environment() if values is None else values
    named: dict[str, object] = {name: values[name] for name, _ in variables(group) if name in values}
    if group is KafkaSettings:
        named["KAFKA_*"] = _properties(values)
    wrong = {}
    for name in secret_names(group):
        if name + FILE in values:
            try:
                named[name] = _content(name, values)
            except ValueError as error:
                wrong[name] = f"{name}{FILE}: {error}"
    try:
        loaded = group.model_validate(named)
    except ValidationError as error:
        for item in error.errors():
            line = _line(group, item, values)
            wrong.setdefault(str(item["loc"][0]) if item["loc"] else line, line)
    if wrong:
        raise SettingsError("\n".join(wrong.values()))
    return loaded


def _properties(values: Mapping[str, str]) -> dict[str, str]:
    """The properties of librdkafka that other KAFKA_ variables set: `KAFKA_A_B` is `a.b`."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in values.items()
        if name.startswith("KAFKA_") and name not in known_names() and not name.startswith("KAFKA_TEST_")
    }


def _content(name: str, values: Mapping[str, str]) -> str:
    """A setting's value from its file, without a final newline or a byte order mark. ValueError: it cannot be used."""
    if name in values:
        raise ValueError(f"{name} is set too. Unset one of them")
    path = values[name + FILE]
    try:
        content = Path(path).read_text(encoding="utf-8-sig").removesuffix("\n")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{path} cannot be read: {why}") from None
    if not content.strip():
        raise ValueError(f"{path} is empty")
    return content


def check(groups: Iterable[type[Group]], values: Mapping[str, str]) -> None:
    """Raise SettingsError with a line for each missing or wrong setting of `groups`, and for each misspelt one."""
    lines: list[str] = []
    for group in groups:
        try:
            load(group, values)
        except SettingsError as error:
            lines.append(str(error))
    if lines:
        raise SettingsError("\n".join([*lines, *map(str, slips.of_settings(values))]))


def load_worker(values: Mapping[str, str] | None = None) -> WorkerSettings:
    """Read all groups of a worker. SettingsError names every wrong setting in them."""
    values = environment() if values is None else values
    groups = get_type_hints(WorkerSettings)
    check(groups.values(), values)
    return WorkerSettings(**{name: load(group, values) for name, group in groups.items()})


def _line(group: type[Group], error: ErrorDetails, values: Mapping[str, str]) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    field = dict(variables(group)).get(name)
    if field is None or name == "KAFKA_*":  # the message names the variable itself
        return in_words(error, None)
    example = (field.examples or [""])[0]
    if error["type"] == "missing":
        return f"{name} is not set. {field.description} For example: {name}={example}"
    told = in_words(error, values.get(name), duration if AGE.fullmatch(example) else "{:g}".format)
    return f"{name}: {told}. For example: {name}={example}"
