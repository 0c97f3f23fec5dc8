"""`kafka-webhooks migrate` and `kafka-webhooks completion`: what an installation needs once."""

from functools import partial
from typing import Annotated, Literal

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # Typer exports neither

from consumer.cli.app import COMPLETE, PROGRAM
from consumer.cli.deployment import open_database
from consumer.database.engine import create_file
from consumer.database.migrations import revisions, state, upgrade


def migrate(
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements; connect to nothing.")] = False,
    revision: Annotated[
        str,
        typer.Option(
            metavar="REVISION", help="Migrate up to this revision; FROM:TO with --sql, for a database that is at FROM."
        ),
    ] = "head",
) -> None:
    """Create the tables, or bring them up to date.

    Tables of a later release stay as they are, and this release works with them.

    \b
    Examples:
      DATABASE_URL=sqlite:///webhooks.db kafka-webhooks migrate
      kafka-webhooks migrate --sql > for-the-dba.sql
      kafka-webhooks migrate --sql --revision 0001:head
    """
    if ":" in revision and not sql:
        raise typer.BadParameter("a range of revisions needs --sql", param_hint="--revision")
    known = (*revisions(), "head")
    if unknown := set(revision.split(":")) - {*known, *(["base"] if sql else ())}:
        raise typer.BadParameter(
            f"there is no revision {unknown.pop()!r}; there are {', '.join(known)}", param_hint="--revision"
        )
    engine = open_database()
    if sql:
        upgrade(engine, revision=revision, sql=True)
        return
    create_file(engine)
    before, head, behind = found = state(engine)
    if before is not None and before > revision and not found.foreign:
        raise typer.BadParameter(f"the tables are at {before}, and are not taken back", param_hint="--revision")
    upgrade(engine, revision=revision, report=partial(typer.echo, err=True))
    after = state(engine).current
    if not behind and before != head:
        typer.echo(f"the tables are at {after}, of a later release, with which this one works; nothing was changed")
        return
    typer.echo(f"up to date at {after}" if before == after else f"migrated from {before or 'nothing'} to {after}")


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
    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell))
