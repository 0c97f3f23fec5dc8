"""A group of settings, and the fields that variables set."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

FILE = "_FILE"  # suffix of a secret's name: the file that holds its value


def setting(name: str, default: Any, about: str, example: str | None = None, **limits: Any) -> Any:
    """A field that the variable `name` sets. `example`, a valid value that errors show, is by default the default.

    A default of ... is required; else it is written as users would write it.
    """
    shown = str(default) if example is None else example
    return Field(default, validation_alias=name, description=about, examples=[shown], **limits)


def installed(*packages: str) -> bool:
    """Whether all of these packages, which an extra brings, can be imported."""
    try:
        return all(find_spec(package) is not None for package in packages)
    except (ModuleNotFoundError, ValueError):  # not even the package around it; or it is switched off
        return False


class Group(BaseModel):
    """Settings that are read together."""

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, hide_input_in_errors=True, extra="forbid", validate_default=True
    )


def variables(group: type[Group]) -> Iterator[tuple[str, FieldInfo]]:
    """A group's environment variables, each with its field."""
    for field in group.model_fields.values():
        yield str(field.validation_alias), field


def secret_names(group: type[Group]) -> Iterator[str]:
    """The variables of a group that may instead be in the file that NAME_FILE names."""
    return (name for name, field in variables(group) if "SecretStr" in repr(field.annotation))
