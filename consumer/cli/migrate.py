"""`kafka-webhooks migrate`."""

from typing import Annotated

import typer


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
    from consumer.cli.console import open_database
    from consumer.database.engine import create_file
    from consumer.database.migrations import revisions, state, upgrade

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
    before, head, behind = state(engine)
    if before is not None and before > revision:
        raise typer.BadParameter(f"the tables are at {before}, and are not taken back", param_hint="--revision")
    upgrade(engine, revision=revision)
    after = state(engine).current
    if not behind and before != head:
        typer.echo(f"the tables are at {after}, of a later release, with which this one works; nothing was changed")
        return
    typer.echo(f"up to date at {after}" if before == after else f"migrated from {before or 'nothing'} to {after}")
