"""A flag for each option of a subscription, shared by `subscriptions add` and `subscriptions edit`."""

import inspect
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer
from typer.core import TyperCommand

from consumer.cli.console import header

if TYPE_CHECKING:
    from consumer.errors import InvalidSubscription

MATCHING, PAYLOAD, REQUEST, LIMITS = "Which events", "What is sent", "How it is sent", "Order, limits, retries"


def _duration(text: str) -> float:
    from consumer.config.types import seconds

    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _milliseconds(text: str) -> int:
    return round(1000 * _duration(text))


def _flag(name: str, panel: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, metavar=metavar, **more)


# By column, in the order of the help.
FLAGS: Mapping[str, Any] = {
    "tenant": Annotated[
        str | None, _flag("--tenant", MATCHING, "NAME", "Only events of this tenant; * means any tenant, or none.")
    ],
    "topics": Annotated[str | None, _flag("--topics", MATCHING, "NAMES", "Only from these topics: orders,users.")],
    "event_filter": Annotated[
        str | None,
        _flag("--filter", MATCHING, "CEL", "Only events for which this is true: 'data.amount > 100'."),
    ],
    "payload_format": Annotated[
        Literal["record", "standard", "cloudevents", "cloudevents-binary"] | None,
        _flag(
            "--format",
            PAYLOAD,
            "FORMAT",
            "record (as received), standard (type, timestamp, data), cloudevents, or cloudevents-binary (in headers).",
        ),
    ],
    "projection": Annotated[
        str | None, _flag("--projection", PAYLOAD, "CEL", """Send its value instead of the data: '{"id": data.id}'.""")
    ],
    "batch_size": Annotated[
        int | None, _flag("--batch-size", PAYLOAD, "EVENTS", "Up to this many events in one request, as an array.")
    ],
    "batch_wait_ms": Annotated[
        int | None,
        _flag("--batch-wait", PAYLOAD, "DURATION", "How long a batch waits to fill up: 500ms.", parser=_milliseconds),
    ],
    "custom_headers": Annotated[
        list[str] | None,
        _flag("--header", REQUEST, "'NAME: VALUE'", "Another header, not confidential. May be repeated."),
    ],
    "signature_header": Annotated[
        str | None,
        _flag("--signature-header", REQUEST, "NAME", "Header of the hex signature; none: do not send it."),
    ],
    "signature_prefix": Annotated[
        str | None, _flag("--signature-prefix", REQUEST, "TEXT", "Prefix of the hex digits: sha256=.")
    ],
    "gzip_above": Annotated[
        int | None, _flag("--gzip-above", REQUEST, "BYTES", "Compress bodies of more bytes with gzip: 1024.")
    ],
    "http_version": Annotated[
        Literal["1.1", "2"] | None,
        _flag("--http-version", REQUEST, "VERSION", "2: HTTP/2 if the receiver offers it over TLS; or 1.1."),
    ],
    "timeout_seconds": Annotated[
        float | None,
        _flag(
            "--timeout", REQUEST, "DURATION", "Limit of an exchange, overrides WEBHOOK_TIMEOUT: 5s.", parser=_duration
        ),
    ],
    "ordering": Annotated[
        Literal["none", "key"] | None,
        _flag("--ordering", LIMITS, "ORDER", "key: events of a key are sent one at a time, in order; or none."),
    ],
    "max_in_flight": Annotated[
        int | None, _flag("--max-in-flight", LIMITS, "REQUESTS", "Requests open at once, of all workers together.")
    ],
    "rate_limit": Annotated[
        float | None, _flag("--rate-limit", LIMITS, "REQUESTS", "Requests per second, of all workers together.")
    ],
    "retry_schedule": Annotated[
        str | None, _flag("--retry-schedule", LIMITS, "WAITS", "Waits, override WEBHOOK_RETRY_SCHEDULE: 5s,5m,1h.")
    ],
    "final_statuses": Annotated[
        str | None,
        _flag("--final-statuses", LIMITS, "STATUSES", "Statuses after which no retry follows: 400,422 or 4xx."),
    ],
}


def flag_of(column: str) -> str:
    """The flag that sets a column of a subscription, `--filter` for `event_filter`."""
    (_, option) = get_args(FLAGS[column])
    return str(option.default)  # Typer keeps the first name here until it builds the command


class PanelledCommand(TyperCommand):
    """A command whose help lists its options in groups, under the names of their panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, grouped by panel."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                panel = getattr(parameter, "rich_help_panel", None) or "Options"
                title = "Arguments" if parameter.param_type_name == "argument" else panel
                groups.setdefault(title, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


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
        from consumer.errors import InvalidSubscription

        given = {column: values.pop(column) for column in FLAGS}
        given = {column: value for column, value in given.items() if value is not None and value != []}
        if "custom_headers" in given:
            given["custom_headers"] = _headers(given["custom_headers"])
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


# Examples in the flag's notation, if the column stores another one.
_EXAMPLES = {"batch_wait_ms": "500ms", "custom_headers": "'X-Origin: shop'", "timeout_seconds": "5s"}


def _in_flags(error: "InvalidSubscription", command: inspect.Signature) -> "InvalidSubscription":
    """The same error, with flags and arguments named instead of columns."""
    from consumer.errors import InvalidSubscription

    column = error.option or ""
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
    example = _EXAMPLES.get(column, shlex.quote(error.example))
    return InvalidSubscription(why, name, example if name == column.upper() else f"{name} {example}")


def _headers(lines: Sequence[str]) -> str:
    headers: dict[str, str] = {}
    for line in lines:
        name, value = header(line, "--header")
        if name in headers:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--header")
        headers[name] = value
    return json.dumps(headers, ensure_ascii=False)
