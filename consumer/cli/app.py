"""The command `kafka-webhooks`: the table of its commands, which turns their errors into messages and exit statuses.

A command's module is imported when it is called, so that `--help` and the completion of names respond at once.
"""

import errno
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from consumer import __version__
from consumer.cli.progress import running
from consumer.telemetry.build import BUILD

PROGRAM = "kafka-webhooks"
COMPLETE = "_KAFKA_WEBHOOKS_COMPLETE"  # set by a shell's script; Typer derives its name from the program's
_UNWRITTEN = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}
USAGE = 2  # exit status: wrong usage or settings

# By name: the module of this package and its function, and the first sentence of the help.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("worker:run", "Consume, deliver, retry and commit until SIGTERM."),
    "demo": ("worker:demo", "Show the whole path at work, from Kafka to receivers."),
    "completion": ("installation:completion", "Print a script that lets a shell complete commands."),
    "check": ("overview:check", "Check everything that a worker needs."),
    "top": ("overview:top", "Show stored deliveries, failures, lag and dead letters."),
    "migrate": ("installation:migrate", "Create the tables, or bring them up to date."),
    "publish": ("records:publish", "Publish events and wait until Kafka has stored them."),
    "listen": ("receivers:listen", "Receive webhooks, verify and print them."),
    "find": ("events:find", "Find what a text names: subscriptions, deliveries, replays, and events of the log."),
    "explain": ("events:explain", "Show how a record is read, who got its event, and who did not."),
    "resend": ("events:resend", "Send a subscription one event of the log again, also if it was delivered."),
    "replay": ("replay:replay", "Send a subscription the log's events of a time window."),
    "api": ("api:api", "Serve the HTTP API and the web console until SIGTERM."),
    "api-token": ("api:api_token", "Make a token for the HTTP API."),
}
GROUPS: Mapping[str, tuple[str, Mapping[str, tuple[str, str]]]] = {
    "subscriptions": (
        "Subscriptions: which URL gets which events.",
        {
            "add": ("subscriptions:add", "Subscribe a URL to events."),
            "edit": ("subscriptions:edit", "Change the named options of a subscription."),
            "list": ("subscriptions:list_all", "List the subscriptions and their states."),
            "show": ("subscriptions:show", "Show a subscription."),
            "attempts": (
                "attempts:attempts",
                "Show how many of a subscription's attempts succeed, their times, and its latest attempts.",
            ),
            "enable": ("subscriptions:enable", "Enable a subscription."),
            "disable": ("subscriptions:disable", "Disable a subscription."),
            "pause": ("subscriptions:pause", "Pause a subscription: its events wait in Kafka."),
            "resume": ("subscriptions:resume", "Resume a paused subscription."),
            "remove": ("subscriptions:remove", "Remove a subscription."),
            "backtest": (
                "backtest:backtest",
                "Show how many events of the log a subscription would get, and the first ones as they would be sent.",
            ),
            "ping": ("receivers:ping", "Send a subscription a test event and show the exchange."),
            "verify": ("receivers:verify", "Ask a subscription's receiver for its permission."),
            "rotate-secret": ("secrets:rotate_secret", "Give a subscription a new signing secret."),
            "set-credential": ("secrets:set_credential", "Set a credential that a subscription sends."),
            "set-tls": ("secrets:set_tls", "Set a subscription's client certificate and authorities."),
            "encrypt-secrets": ("secrets:encrypt_secrets", "Encrypt all stored secrets with the newest key."),
        },
    ),
    "deliveries": (
        "Stored deliveries: waiting to be sent, held, or given up.",
        {
            "list": ("deliveries:list_some", "List stored deliveries, by id."),
            "show": ("deliveries:show", "Show one delivery in full."),
            "redeliver": ("deliveries:redeliver", "Send deliveries again, now and on a new retry schedule."),
            "adopt": ("deliveries:adopt", "Take over another group's deliveries."),
            "purge": ("deliveries:purge", "Delete old deliveries that were given up."),
        },
    ),
    "audit": (
        "Proofs for an auditor.",
        {
            "deliveries": (
                "audit:deliveries",
                "Prove that each event of the log was delivered, is still owed, or was given up; name what is missing.",
            )
        },
    ),
    "dead-letters": (
        "Dead letters: records that could not become events.",
        {"publish": ("records:publish_dead_letters", "Publish dead letters again, each to its own topic, unchanged.")},
    ),
}


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


class LateCommand(TyperCommand):
    """A command that is known by its summary until `load` imports it."""

    def __init__(self, name: str, place: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._place = place

    def load(self) -> TyperCommand:
        """The command itself."""
        module, function = self._place.split(":")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name, cls=PanelledCommand)(getattr(import_module(f"consumer.cli.{module}"), function))
        found: Any = typer.main.get_command(app)
        return found  # type: ignore[no-any-return]  # an app of one command is this command


class Commands(TyperGroup):
    """Commands that are imported when they are called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, and the arguments left for it."""
        name, command, left = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LateCommand) else command, left


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (Typer passes the option's value like this)
    if wanted:
        typer.echo(f"{PROGRAM} {__version__} ({BUILD})")
        raise typer.Exit


def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Deliver Kafka events to webhook subscribers: signed, retried, committed only after success.

    Settings come from the environment or a .env file; `kafka-webhooks check` reports missing ones.
    """


def program() -> TyperGroup:
    """The command `kafka-webhooks`, with all its commands."""
    app = typer.Typer(
        name=PROGRAM,
        cls=Commands,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    found: Any = typer.main.get_command(app)
    groups = {
        name: Commands(name=name, help=summary, commands=_late(table), no_args_is_help=True, rich_markup_mode=None)
        for name, (summary, table) in GROUPS.items()
    }
    found.commands = _late(COMMANDS) | groups
    return found  # type: ignore[no-any-return]  # an app with a callback is a group


def _late(commands: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {name: LateCommand(name, *more) for name, more in commands.items()}


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. Errors go to stderr; LOG_LEVEL=DEBUG adds a bug's traceback."""
    try:
        open_streams()
        _check_text(arguments)
        _answer_shell()
        with running(quiet="--json" in arguments):
            status = program().main(list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 (every error is reported in one line)
        with suppress(OSError):  # stderr cannot be written either
            return _report(error)
        return 1
    if not arguments:
        return USAGE
    return status if isinstance(status, int) else 0


def open_streams() -> None:
    """Open the null device in place of a closed stdin or stderr: else a database's file would get their descriptor.

    WebhooksError if stdout is closed.
    """
    from consumer.errors import WebhooksError

    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 (the same)
    if sys.stdout is None:
        raise WebhooksError("the standard output is closed; redirect it to a file, or to /dev/null")


def unwritten(error: OSError) -> bool:
    """Whether the error means that stdout cannot be written: it is the only written file without a name."""
    return error.filename is None and error.errno in _UNWRITTEN


def discard_output() -> None:
    """Redirect stdout to the null device after a failed write: else Python reports another error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _answer_shell() -> None:
    """Let Typer answer a shell's call. Without this call it would need two options of its own in each help."""
    if COMPLETE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # the same

        completion_init()


def _check_text(arguments: Sequence[str]) -> None:
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter("not valid text in the terminal's encoding", param_hint=repr(word)) from None


def _report(error: Exception) -> int:
    """Print an error's message on stderr, and return the exit status."""
    text, status = told(error)
    for line in text.splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)
    return status


def told(error: Exception) -> tuple[str, int]:
    """An error's message, which may have several lines, and the exit status. It may print a bug's traceback."""
    from consumer.errors import InvalidSubscription, NotFound, SettingsError, WebhooksError

    match error:
        case WebhooksError():
            absent = isinstance(error, NotFound) and error.what == "subscription"
            hint = "; `subscriptions list` shows them" if absent else ""
            return f"{error}{hint}", USAGE if isinstance(error, SettingsError | InvalidSubscription) else 1
        case typer.Abort():  # stdin has ended at a question
            return "no answer: nothing was changed", 1
        case typer.TyperException():
            return _of_typer(error)
        case OSError() if unwritten(error):
            discard_output()
            if isinstance(error, BrokenPipeError):  # the reader has closed the pipe
                return "", 1
            return f"the output cannot be written: {error.strerror}; redirect it to a place with free space", 1
    known = _of_database(error)
    if known is None and os.environ.get("LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(error)
    return known or f"{type(error).__name__}: {error} (this is a bug; LOG_LEVEL=DEBUG shows where)", 1


def _of_typer(error: typer.TyperException) -> tuple[str, int]:
    """The message and exit status of a usage error. A group called without a command prints its help instead."""
    context = getattr(error, "ctx", None)
    if context is not None and error.message == context.get_help():
        typer.echo(error.message, err=True)
        return "", USAGE
    _put_in_words(error)
    command = context.command_path if context else PROGRAM
    return f"{error.format_message()} (`{command} --help` shows how)", error.exit_code


def _put_in_words(error: typer.TyperException) -> None:
    """Reword Pydantic's message for an invalid value, which Typer has adopted."""
    from pydantic import ValidationError

    from consumer.cli.console import printable

    if isinstance(error.__cause__, ValidationError):
        from consumer.config.types import in_words

        details = error.__cause__.errors()[0]
        error.message = printable(in_words(details, details["input"]))


def _of_database(error: Exception) -> str | None:
    """The message for a database error; None for any other. Imports nothing for a command without a database."""
    if "sqlalchemy" not in sys.modules:
        return None
    from consumer.database.engine import unavailable

    return str(found) if (found := unavailable(error)) else None
