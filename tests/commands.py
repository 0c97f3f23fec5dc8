"""The commands of `kafka-webhooks`, by their words."""

from typing import Any

from consumer.cli.app import LateCommand, program


def commands() -> dict[str, Any]:
    """Each command: `check`, `subscriptions add`, ..."""
    found: dict[str, Any] = {}
    for name, command in program().commands.items():
        for each, leaf in getattr(command, "commands", {"": command}).items():
            assert isinstance(leaf, LateCommand)
            found[f"{name} {each}".strip()] = leaf.load()
    return found
