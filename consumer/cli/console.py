"""How commands print results, and read times, ids and headers."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from textwrap import indent
from typing import Annotated, TypeVar

import typer

from consumer.config import types
from consumer.events.event import utc

T = TypeVar("T")

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

MOST_COUNTED = 10_000  # deliveries; a question about more says "more than"
PAGE = 1000  # rows of a list that are aligned and printed together
_HEADER = re.compile(r"(\s*[^\s:=][^:=]*)([:=])(.*)", re.DOTALL)
_ROW_ID = re.compile(r"-?[0-9]{1,18}")  # below 2^63, the limit of every database


def print_json(value: object) -> None:
    """Print one JSON document on stdout."""
    typer.echo(_json(value))


def print_json_rows(values: Iterable[object]) -> int:
    """Print a JSON array on stdout, each member as soon as it is available. Returns their number."""
    shown = 0
    for shown, value in enumerate(values, 1):
        typer.echo(f"{',' if shown > 1 else '['}\n{indent(_json(value), '  ')}", nl=False)
    typer.echo("\n]" if shown else "[]")
    return shown


def print_rows(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> int:
    """Print rows under their columns' names, aligned and with unprintable characters escaped. Returns their number.

    Rows are printed a thousand at a time; a wider cell widens its column from there on.
    """
    widths = [0] * len(columns)
    shown, lines = 0, [list(columns)]
    source = iter(rows)
    while page := [[_cell(row[column]) for column in columns] for row in islice(source, PAGE)]:
        lines += page
        widths = [max(width, *map(len, cells)) for width, *cells in zip(widths, *lines, strict=True)]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        typer.echo("\n".join(line.rstrip() for line in padded))
        shown, lines = shown + len(page), []
    return shown


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values as `print_lines` does, with spaces for the underscores in names."""
    print_lines({name.replace("_", " "): value for name, value in fields.items()})


def print_lines(named: Mapping[str, object]) -> None:
    """Print names and values, a line each, aligned. Escapes unprintable characters and leaves out None values."""
    width = max(map(len, named))
    for name, value in named.items():
        if value is not None:
            typer.echo(f"{name:{width}}  {printable(str(value))}")


def printable(text: str) -> str:
    """`text` with unprintable characters escaped: text from outside must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shortened(text: str, length: int) -> str:
    """`text`, cut to at most `length` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def number(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2] not in "aeiou" else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def bounded(count: int, noun: str) -> str:
    """`number` for a count that stops above MOST_COUNTED: `more than 10,000 deliveries`."""
    return number(count, noun) if count <= MOST_COUNTED else f"more than {number(MOST_COUNTED, noun)}"


def time_text(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the second."""
    return None if seconds is None else utc(int(seconds)).isoformat().replace("+00:00", "Z")


def moment(text: str, now: float, option: str) -> float:
    """Unix seconds of a time in ISO 8601 (UTC without a zone) or of an age such as `2h`; else a usage error."""
    try:
        return types.moment(text, now)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}", param_hint=option) from None


def duration(text: str, option: str | None = None) -> float:
    """Seconds of `10s`, `5m` or `250ms`; else a usage error."""
    try:
        return types.seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def row_id(text: str) -> int:
    """Parse a row's id from an argument; a usage error if no row can have it."""
    if not _ROW_ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not an id; an id is a whole number such as 7")
    return int(text)


def header(text: str, option: str) -> tuple[str, str]:
    """Name and value of `NAME: VALUE` (the value is stripped) or `NAME=VALUE` (the value is kept as it is).

    A usage error for anything else; its message does not repeat `text`, which may be a secret.
    """
    parts = _HEADER.fullmatch(text)
    if parts is None:
        raise typer.BadParameter("write 'NAME: VALUE'", param_hint=option)
    name, sign, value = parts.groups()
    return name.strip(), value if sign == "=" else value.strip()


class Unanswerable(typer.BadParameter):
    """A question without a terminal to answer on, and without `--yes`."""

    def format_message(self) -> str:
        """The question, and the advice to give `--yes`."""
        return f"{self.message} There is no terminal to answer on, and nothing was changed: give --yes"


def confirm(question: str, *, yes: bool) -> None:
    """Return if `yes` or a person confirms; exit with status 1 at a no. Raises Unanswerable without a terminal.

    For each command that deletes or gives up for good, or sends many deliveries.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Unanswerable(question)
    if not typer.confirm(question, err=True):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _cell(value: object) -> str:
    return "-" if value is None else printable(str(value))
