"""The command `kafka-webhooks`: registers its commands, and turns errors into messages and exit statuses.

Each command imports its dependencies when it runs, so that `--help` responds at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from consumer import __version__
from consumer.cli.api import api, api_token
from consumer.cli.check import check
from consumer.cli.console import discard_output, open_streams, printable, unwritten
from consumer.cli.dead_letters import dead_letters
from consumer.cli.deliveries import deliveries
from consumer.cli.explain import explain
from consumer.cli.listen import listen
from consumer.cli.migrate import migrate
from consumer.cli.ping import ping
from consumer.cli.publish import publish
from consumer.cli.purge import purge
from consumer.cli.replay import replay
from consumer.cli.secrets import encrypt_secrets, rotate_secret, set_credential, set_tls
from consumer.cli.subscriptions import subscriptions
from consumer.cli.top import top
from consumer.cli.verification import verify
from consumer.cli.waiting import quietly

PROGRAM = "kafka-webhooks"
COMPLETE = "_KAFKA_WEBHOOKS_COMPLETE"  # set by a shell's script; Typer derives its name from the program's
ROOT = Path(__file__).parents[2]  # the folder that holds this program's packages
USAGE = 2  # exit status: wrong usage or settings

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 (Typer passes the option's value like this)
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

    Settings come from the environment or a .env file; `kafka-webhooks check` reports missing ones.
    """


@app.command()
def run() -> None:
    """Consume, deliver, retry and commit until SIGTERM.

    Example: KAFKA_TOPICS=orders,users kafka-webhooks run
    """
    from consumer.config import slips
    from consumer.config.environment import environment, load_worker
    from consumer.telemetry.logs import configure_logging
    from consumer.worker.service import Service

    values = environment()
    settings = load_worker(values)
    configure_logging(settings.log.log_level)
    slips.warn(slips.of_settings(values))
    # OpenTelemetry reads the environment itself, and no .env file.
    os.environ.update({name: value for name, value in values.items() if name.startswith("OTEL_")})
    Service().run(settings)


@app.command()
def demo() -> None:
    """Show the whole path at work, from Kafka to receivers.

    It uses a Kafka inside this process, SQLite, and receivers, some of which fail.

    Example: kafka-webhooks demo
    """
    from consumer.demo.story import main as run_demo

    run_demo()


@app.command()
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.")]) -> None:
    """Print a script that lets a shell complete commands.

    The script calls the installed program, so that it need not be renewed after an upgrade. For zsh put it after
    compinit.

    \b
    Examples:
      kafka-webhooks completion bash >> ~/.bashrc
      kafka-webhooks completion zsh >> ~/.zshrc
      kafka-webhooks completion fish > ~/.config/fish/completions/kafka-webhooks.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # Typer exports neither

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell))


for command in (check, top, migrate, publish, listen, explain, replay, api, api_token):
    app.command()(command)
for group in (subscriptions, deliveries, dead_letters):
    app.add_typer(group)
deliveries.command()(purge)
subscriptions.command()(ping)
subscriptions.command()(verify)
for secrets_command in (rotate_secret, set_credential, set_tls, encrypt_secrets):
    subscriptions.command()(secrets_command)


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status. Errors go to stderr; LOG_LEVEL=DEBUG adds a bug's traceback."""
    try:
        open_streams()
        _check_text(arguments)
        _answer_shell()
        with quietly(quiet="--json" in arguments):
            status = app(list(arguments) or ["--help"], prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:  # noqa: BLE001 (every error is reported in one line)
        with suppress(OSError):  # stderr cannot be written either
            return _report(error)
        return 1
    if not arguments:
        return USAGE
    return status if isinstance(status, int) else 0


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
    text, status = _told(error)
    for line in text.splitlines():
        typer.echo(f"{PROGRAM}: {line}", err=True)
    return status


def _told(error: Exception) -> tuple[str, int]:
    """An error's message, which may have several lines, and the exit status."""
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
    known = _of_import(error) if isinstance(error, ImportError) else _of_database(error)
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

    if isinstance(error.__cause__, ValidationError):
        from consumer.config.types import in_words

        details = error.__cause__.errors()[0]
        error.message = printable(in_words(details, details["input"]))


def _of_import(error: ImportError) -> str | None:
    """The message for an import that failed because another file shadows our package `models`; None for any other."""
    file = getattr(sys.modules.get("models"), "__file__", None)
    if not (error.name or "").startswith("models") or file is None or Path(file).parents[1] == ROOT:
        return None
    return f"{file} shadows this program's package `models`: rename it, or remove it from PYTHONPATH"


def _of_database(error: Exception) -> str | None:
    """The message for a database error; None for any other. Imports nothing for a command without a database."""
    if "sqlalchemy" not in sys.modules:
        return None
    from consumer.database.engine import unavailable

    return str(found) if (found := unavailable(error)) else None
