"""The tables' version: bring it up to date, or say what it is."""

import re
from pathlib import Path
from typing import NamedTuple, TextIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumer.database import create_file, reading, unavailable
from consumer.errors import DatabaseUnavailable, WebhooksError


class State(NamedTuple):
    """Revisions: what the database has (None: no tables of ours) and what this program needs."""

    current: str | None
    head: str
    behind: bool  # a migration of ours is missing; a database that a later version has migrated is not behind


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
        _refuse_others(ScriptDirectory.from_config(config), _current(engine))
    try:
        command.upgrade(config, revision, sql=sql)
    except DBAPIError as error:
        passes = unavailable(error)
        raise (DatabaseUnavailable(f"{passes}; {AGAIN}") if passes else error) from None


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
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "alembic"


def _current(engine: Engine) -> str | None:
    try:
        with reading(engine) as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise unavailable(error) or error from None


def _known(directory: ScriptDirectory) -> set[str]:
    return {revision.revision for revision in directory.walk_revisions()}


def _refuse_others(directory: ScriptDirectory, current: str | None) -> None:
    if current is None or current in _known(directory):
        return
    if _OURS.fullmatch(current):
        raise WebhooksError(f"the tables are at revision {current}, which a later version of this program has made")
    raise WebhooksError(
        f"alembic_version holds {current}, a revision of another program; give these tables a schema of their own"
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
