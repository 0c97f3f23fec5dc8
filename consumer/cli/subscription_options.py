"""A flag for each option of a subscription, shared by `subscriptions add` and `subscriptions edit`."""

import inspect
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

from consumer.cli.console import duration, header
from consumer.errors import InvalidSubscription
from consumer.subscriptions.options import OPTIONS
from models import Subscription

_MATCHING, _PAYLOAD, _REQUEST, _LIMITS = "Which events", "What is sent", "How it is sent", "Order, limits, retries"
_NAMES = "For people and programs"


def _milliseconds(text: str) -> int:
    return round(1000 * duration(text))


# By column, in the order of the help: the flag, its panel and its value's name.
_FLAGS = {
    "tenant": ("--tenant", _MATCHING, "NAME"),
    "topics": ("--topics", _MATCHING, "NAMES"),
    "event_filter": ("--filter", _MATCHING, "CEL"),
    "payload_format": ("--format", _PAYLOAD, "FORMAT"),
    "projection": ("--projection", _PAYLOAD, "CEL"),
    "batch_size": ("--batch-size", _PAYLOAD, "EVENTS"),
    "batch_wait_ms": ("--batch-wait", _PAYLOAD, "DURATION"),
    "method": ("--method", _REQUEST, "METHOD"),
    "custom_headers": ("--header", _REQUEST, "'NAME: VALUE'"),
    "header_expressions": ("--header-expression", _REQUEST, "'NAME: CEL'"),
    "pass_headers": ("--pass-header", _REQUEST, "NAME"),
    "signature_header": ("--signature-header", _REQUEST, "NAME"),
    "signature_prefix": ("--signature-prefix", _REQUEST, "TEXT"),
    "signature_template": ("--signature-template", _REQUEST, "NAME"),
    "report_answer": ("--report-answer", _REQUEST, "BOOLEAN"),
    "answer_headers": ("--answer-header", _REQUEST, "NAME"),
    "gzip_above": ("--gzip-above", _REQUEST, "BYTES"),
    "http_version": ("--http-version", _REQUEST, "VERSION"),
    "timeout_seconds": ("--timeout", _REQUEST, "DURATION"),
    "ordering": ("--ordering", _LIMITS, "ORDER"),
    "max_in_flight": ("--max-in-flight", _LIMITS, "REQUESTS"),
    "rate_limit": ("--rate-limit", _LIMITS, "REQUESTS"),
    "retry_schedule": ("--retry-schedule", _LIMITS, "WAITS"),
    "final_statuses": ("--final-statuses", _LIMITS, "STATUSES"),
    "name": ("--name", _NAMES, "TEXT"),
    "external_id": ("--external-id", _NAMES, "ID"),
    "metadata": ("--metadata", _NAMES, "NAME=VALUE"),
}
# Of columns whose flag has another notation: its type, its parser, its help and an example.
_NOTATION: dict[str, tuple[Any, Any, str, str]] = {
    "batch_wait_ms": (int, _milliseconds, "How long a batch waits to be full.", "500ms"),
    "custom_headers": (list[str], None, "Another header, not confidential. May be repeated.", "'X-Origin: shop'"),
    "header_expressions": (
        list[str],
        None,
        "A header whose value is a CEL expression. May be repeated.",
        "'X-Order: data.id'",
    ),
    "pass_headers": (list[str], None, "Record headers that go on, * for any characters. May be repeated.", "'x-*'"),
    "answer_headers": (list[str], None, "Headers of reported answers, * for any characters. May be repeated.", "'x-*'"),
    "timeout_seconds": (float, duration, "Limit of a whole exchange.", "5s"),
    "metadata": (list[str], None, "A label. May be repeated, up to 32 times.", "team=shop"),
}


def flag_of(column: str) -> str:
    """The flag that sets a column of a subscription, `--filter` for `event_filter`."""
    return _FLAGS[column][0]


def _example(column: str) -> str:
    return _NOTATION[column][3] if column in _NOTATION else shlex.quote(OPTIONS[column].example)


def _annotation(column: str) -> Any:
    """The type and the option of a flag; the help is the column's comment, with an example."""
    stored = Subscription.__table__.columns[column]
    plain = (stored.type.python_type, None, str(stored.comment).partition(" Null:")[0])
    kind, parser, about = _NOTATION[column][:3] if column in _NOTATION else plain
    flag, panel, metavar = _FLAGS[column]
    text = f"{about} Example: {_example(column)}."
    return Annotated[kind | None, typer.Option(flag, help=text, rich_help_panel=panel, metavar=metavar, parser=parser)]


FLAGS: Mapping[str, Any] = {column: _annotation(column) for column in _FLAGS}


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with all FLAGS. Its argument `given` gets the flags used: column names and values to store."""
    own = inspect.signature(command)
    parameters = list(own.parameters.values())
    place = list(own.parameters).index("given")
    parameters[place : place + 1] = [
        inspect.Parameter(column, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for column, kind in FLAGS.items()
    ]

    @wraps(command)
    def run(**values: Any) -> None:
        given = {column: values.pop(column) for column in FLAGS}
        given = {column: value for column, value in given.items() if value is not None and value != []}
        for column in ("pass_headers", "answer_headers"):
            if column in given:
                given[column] = ",".join(given[column])
        for column in ("custom_headers", "header_expressions", "metadata"):
            if column in given:
                given[column] = _object(given[column], flag_of(column))
        try:
            command(**values, given=given)
        except InvalidSubscription as error:
            raise _in_flags(error, own) from None

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # as `inspect` reads it
    return run


def unset_columns(names: Sequence[str], given: Mapping[str, Any]) -> dict[str, None]:
    """Map each column whose flag `names` lists, without dashes, to None.

    A usage error for an unknown flag, or for one that is also `given`.
    """
    columns = {flag_of(column).removeprefix("--"): column for column in FLAGS}
    for name in names:
        if name not in columns:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(columns)}", param_hint="--unset")
        if columns[name] in given:
            raise typer.BadParameter(f"{name} is both set and unset", param_hint="--unset")
    return {columns[name]: None for name in names}


def _in_flags(error: InvalidSubscription, command: inspect.Signature) -> InvalidSubscription:
    """The same error, with flags and arguments named instead of columns."""
    column = "event_type" if error.option == "event_types" else error.option or ""
    if column in FLAGS:
        name = flag_of(column)
    elif column in command.parameters:
        argument = command.parameters[column].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        name = column.upper() if argument else f"--{column.replace('_', '-')}"
    else:
        return error
    why = re.sub("|".join(each for each in FLAGS if "_" in each), lambda found: flag_of(found[0]), error.why)
    if error.example is None:
        return InvalidSubscription(why, name)
    example = _example(column)
    return InvalidSubscription(why, name, example if name == column.upper() else f"{name} {example}")


def _object(lines: Sequence[str], flag: str) -> str:
    texts: dict[str, str] = {}
    for line in lines:
        name, value = header(line, flag)
        if name in texts:
            raise typer.BadParameter(f"{name} is given twice", param_hint=flag)
        texts[name] = value
    return json.dumps(texts, ensure_ascii=False)
