"""The command `kafka-webhooks`: its commands, and what becomes of an error.

A command imports what it needs when it runs, so that `--help` is there at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from consumer import __version__
from consumer.cli.api import api
from consumer.cli.check import check
from consumer.cli.console import discard_output, open_streams, printable, unwritten
from consumer.cli.deliveries import deliveries
from consumer.cli.listen import listen
from consumer.cli.migrate import migrate
from consumer.cli.ping import ping
from consumer.cli.publish import publish
from consumer.cli.purge import purge
from consumer.cli.replay import replay
from consumer.cli.secrets import encrypt_secrets, rotate_secret, set_credential
from consumer.cli.settle import settle
from consumer.cli.subscriptions import subscriptions
from consumer.cli.waiting import quietly

PROGRAM = "kafka-webhooks"
ROOT = Path(__file__).parents[2]  # of our packages
USAGE = 2  # exit status: wrong usage or settings

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (Typer passes the option's value so)
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Deliver Kafka events to webhook subscribers: signed, retried, committed only after success.

    Settings come from the environment or a .env file; `kafka-webhooks check` says what is missing.
    """


@app.command()
def run() -> None:
    """Consume, deliver, retry, commit, until SIGTERM.

    Example: KAFKA_TOPICS=orders,users kafka-webhooks run
    """
    from consumer.cli.run import run as run_worker

    run_worker()


@app.command()
def demo() -> None:
    """Show the whole path at work.

    On embedded parts: a Kafka in this process, SQLite, and receivers of which some fail.

    Example: kafka-webhooks demo
    """
    from consumer.demo import main as run_demo

    run_demo()


for command in (check, migrate, publish, listen, replay, api):
    app.command()(command)
for group in (subscriptions, deliveries):
    app.add_typer(group)
deliveries.command()(purge)
deliveries.command()(settle)
subscriptions.command()(ping)
for secrets_command in (rotate_secret, set_credential, encrypt_secrets):
    subscriptions.command()(secrets_command)


def main(arguments: Sequence[str]) -> int:
    """Run one command and give its exit status. An error is a line on stderr, never a traceback."""
    try:
        open_streams()
        _check_text(arguments)
        with quietly(quiet="--json" in arguments):
            status = app(list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 (all of them: told in one line)
        with suppress(OSError):  # of stderr: there is nobody to tell
            return _report(error)
        return 1
    if not arguments:
        return USAGE
    return status if isinstance(status, int) else 0


def _check_text(arguments: Sequence[str]) -> None:
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter("it is no text in the terminal's encoding", param_hint=repr(word)) from None


def _report(error: Exception) -> int:
    """Tell what went wrong, and give the exit status."""
    text, status = _told(error)
    for line in text.splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)
    return status


def _told(error: Exception) -> tuple[str, int]:
    """The lines that tell of an error, and the exit status."""
    from consumer.errors import InvalidSubscription, SettingsError, WebhooksError

    match error:
        case WebhooksError():
            return str(error), USAGE if isinstance(error, SettingsError | InvalidSubscription) else 1
        case typer.Abort():  # the end of input, where a question was asked
            return "no answer: nothing was changed", 1
        case typer.TyperException():
            return _of_typer(error)
        case OSError() if unwritten(error):
            discard_output()
            if isinstance(error, BrokenPipeError):  # who read our output has seen enough
                return "", 1
            return f"the output cannot be written: {error.strerror}; let it lead to where there is room", 1
    known = _of_import(error) if isinstance(error, ImportError) else _of_database(error)
    if known is None and os.environ.get("LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(error)
    return known or f"{type(error).__name__}: {error} (this is a bug; LOG_LEVEL=DEBUG shows where)", 1


def _of_typer(error: typer.TyperException) -> tuple[str, int]:
    """Wrong usage. A group of commands without a command shows its help."""
    context = getattr(error, "ctx", None)
    if context is not None and error.message == context.get_help():
        typer.echo(error.message, err=True)
        return "", USAGE
    _put_in_words(error)
    command = context.command_path if context else PROGRAM
    return f"{error.format_message()} (`{command} --help` shows how)", error.exit_code


def _put_in_words(error: typer.TyperException) -> None:
    """Replace Pydantic's words, in which Typer tells of a value that is none."""
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        from consumer.config.types import in_words

        details = error.__cause__.errors()[0]
        error.message = printable(in_words(details, details["input"]))


def _of_import(error: ImportError) -> str | None:
    """Which file is taken for our package `models`, if that is why something cannot be imported."""
    file = getattr(sys.modules.get("models"), "__file__", None)
    if not (error.name or "").startswith("models") or file is None or Path(file).parents[1] == ROOT:
        return None
    return f"{file} stands in the place of this program's package `models`: rename it, or take it out of PYTHONPATH"


def _of_database(error: Exception) -> str | None:
    """What a database's error means, if it is one; no command that uses no database waits for these imports."""
    if "sqlalchemy" not in sys.modules:
        return None
    from consumer.database.engine import unavailable

    return str(found) if (found := unavailable(error)) else None
