"""A group of settings, and the suffix of settings that name a file."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

FILE = "_FILE"  # suffix of a setting's name: the file that holds its value


class Group(BaseModel):
    """Settings that are read together."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True, extra="forbid")


def file_of(name: str) -> Any:
    """The field of the setting that names the file of another setting."""
    return Field(
        default=None,
        validation_alias=f"{name}{FILE}",
        description=f"File that holds `{name}`, instead of that variable; read at the start.",
        examples=[f"/run/secrets/{name.lower().replace('_', '-')}"],
    )
