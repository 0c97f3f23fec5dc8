"""The tables' version: bring it up to date, or say what it is."""

import re
from pathlib import Path
from typing import NamedTuple, TextIO

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from consumer.database.engine import create_file, reading, unavailable
from consumer.errors import DatabaseUnavailable, WebhooksError


class State(NamedTuple):
    """Revisions: what the database has (None: no tables of ours) and what this program needs."""

    current: str | None
    head: str
    behind: bool  # a migration of ours is missing; a database that a later version has migrated is not behind


VERSIONS = "webhook_alembic_version"
# Alembic's default, where releases up to 0007 noted these, beside what any other program in the schema notes there.
FORMER = sa.table("alembic_version", sa.column("version_num", sa.String(32)))
FORMER_REVISIONS = {f"{number:04}" for number in range(1, 8)}
AGAIN = "run it again, and it goes on where it stopped"
_OURS = re.compile(r"\d{4}")  # a revision of this program, be it of a later version


def upgrade(engine: Engine, *, revision: str = "head", sql: bool = False, output: TextIO | None = None) -> None:
    """Migrate up to a revision. An SQLite file is made where there is none.

    DatabaseUnavailable if the database does not answer.
    WebhooksError if it cannot be: by what is there already, or because a later version or another program has been.
    What stopped in the middle goes on there when it is run again.
    With `sql` nothing connects: the statements are printed, to `output` or stdout, and a revision may be FROM:TO.
    """
    config = _config(engine, output)
    if not sql:
        create_file(engine)
    while True:
        before = None if sql else _refuse_others(engine, ScriptDirectory.from_config(config))
        try:
            command.upgrade(config, revision, sql=sql)
        except (CommandError, DBAPIError) as error:
            if passes := unavailable(error):
                raise DatabaseUnavailable(f"{passes}; {AGAIN}") from None
            if not sql and _current(engine) != before:
                continue  # another process migrates at the same time; or some of it is done, and the rest fails again
            raise (WebhooksError(str(error)) if isinstance(error, CommandError) else error) from None
        return


def state(engine: Engine) -> State:
    """Where the database stands. DatabaseUnavailable if it does not answer."""
    directory = ScriptDirectory.from_config(_config(engine))
    head = directory.get_current_head()
    assert head is not None  # noqa: S101 (the versions are beside this file)
    current = _current(engine)
    later = current is not None and current not in _known(directory) and _OURS.fullmatch(current)
    return State(current, head, behind=current != head and not later)


def revisions() -> list[str]:
    """All that there are, the first one first."""
    return sorted(_known(ScriptDirectory.from_config(_scripts_config())))


def scripts() -> Path:
    """The migrations: beside the package in a checkout, in it when installed from a wheel."""
    installed = Path(__file__).parent / "alembic"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "alembic"


def noted(connection: Connection) -> str | None:
    """What stands in our table: a revision; several, where somebody has put others beside it; None without any."""
    heads = MigrationContext.configure(connection, opts={"version_table": VERSIONS}).get_current_heads()
    return ", ".join(sorted(heads)) or None


def noted_before(connection: Connection) -> str | None:
    """What a release up to 0007 has noted in Alembic's default table, whatever else stands there.

    None without the tables that come with our revisions: then a number like ours is another program's.
    """
    ours = FORMER_REVISIONS.intersection(_in_former(connection))
    return ours.pop() if len(ours) == 1 else None


def _in_former(connection: Connection) -> set[str]:
    there = sa.inspect(connection)
    if not there.has_table(FORMER.name) or not there.has_table("webhook_deliveries"):
        return set()
    return set(connection.scalars(sa.select(FORMER.c.version_num)))


def _current(engine: Engine) -> str | None:
    try:
        with reading(engine) as connection:
            return noted(connection) or noted_before(connection)
    except DBAPIError as error:
        raise unavailable(error) or error from None


def _known(directory: ScriptDirectory) -> set[str]:
    return {revision.revision for revision in directory.walk_revisions()}


def _refuse_others(engine: Engine, directory: ScriptDirectory) -> str | None:
    """The revision that the tables are at. WebhooksError if it is none that we can go on from."""
    current = _current(engine)
    if current in _known(directory):
        return current
    if current is None:
        with reading(engine) as connection:
            others = ", ".join(sorted(_in_former(connection)))
        if others:
            raise WebhooksError(
                f"the tables are there, and nothing says at which revision: {FORMER.name} holds {others}, of another "
                f"program. If that was put behind one of ours, such as 0007, insert that one into {FORMER.name} too, "
                "and migrate again; docs/alembic.md says where migrations of your own belong"
            )
        return None
    if _OURS.fullmatch(current):
        raise WebhooksError(f"the tables are at revision {current}, which a later version of this program has made")
    raise WebhooksError(
        f"{VERSIONS} holds {current}: one revision of this program belongs there, and nothing else. Leave that one; "
        "docs/alembic.md says where migrations of your own belong"
    )


def _config(engine: Engine, output: TextIO | None = None) -> Config:
    config = _scripts_config(output)
    config.attributes["engine"] = engine
    return config


def _scripts_config(output: TextIO | None = None) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
