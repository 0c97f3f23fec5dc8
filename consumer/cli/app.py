"""The command `kafka-webhooks`: its commands, and what becomes of an error.

A command imports what it needs when it runs, so that `--help` is there at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from consumer import __version__
from consumer.cli.api import api
from consumer.cli.check import check
from consumer.cli.console import discard_output
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

PROGRAM = "kafka-webhooks"
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
        _check_text(arguments)
        status = app(list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # who read our output has seen enough
        discard_output()
        return 1
    except Exception as error:  # noqa: BLE001 (all of them: told in one line)
        return _report(error)
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
    from consumer.errors import InvalidSubscription, SettingsError, WebhooksError

    status = 1
    match error:
        case SettingsError() | InvalidSubscription():
            text, status = str(error), USAGE
        case WebhooksError():
            text = str(error)
        case typer.Abort():  # the end of input, where a question was asked
            text = "no answer: nothing was changed"
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else PROGRAM
            text, status = f"{error.format_message()} (`{command} --help` shows how)", error.exit_code
        case _ if known := _database_error(error):
            text = known
        case _:
            text = f"{type(error).__name__}: {error} (this is a bug; LOG_LEVEL=DEBUG shows where)"
            if os.environ.get("LOG_LEVEL", "").upper() == "DEBUG":
                traceback.print_exception(error)
    for line in text.splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)
    return status


def _database_error(error: Exception) -> str | None:
    """What a database's error means, if it is one; no command that uses no database waits for these imports."""
    if "sqlalchemy" not in sys.modules:
        return None
    from consumer.database import unavailable

    return str(found) if (found := unavailable(error)) else None
