"""What commands share: settings into logging, and lists on the screen."""

import json
import os
import sys
from collections.abc import Mapping, Sequence

import typer


def configure() -> None:
    """Set the log up as LOG_LEVEL says; to stderr, so that stdout is a command's result alone."""
    from consumer.settings import LogSettings, load
    from consumer.telemetry import configure_logging

    configure_logging(load(LogSettings).log_level)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Rows under their columns' names, aligned; unprintable characters are escaped."""
    cells = [list(columns), *([printable(str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """`text` with control characters escaped: what others sent must not drive the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def discard_output() -> None:
    """Let stdout lead nowhere, once who read it has gone: else Python complains of it at the very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
