"""The tables' version: bring it up to date, or say what it is."""

from pathlib import Path
from typing import NamedTuple, TextIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumer.database import reading, unavailable


class State(NamedTuple):
    """Revisions: what the database has (None: no tables of ours) and what this program needs."""

    current: str | None
    head: str
    behind: bool  # a migration of ours is missing; a database that a later version has migrated is not behind


def upgrade(engine: Engine, *, revision: str = "head", sql: bool = False, output: TextIO | None = None) -> None:
    """Migrate up to a revision. DatabaseUnavailable if the database does not answer.

    With `sql` nothing connects: the statements are printed, to `output` or stdout, and a revision may be FROM:TO.
    """
    try:
        command.upgrade(_config(engine, output), revision, sql=sql)
    except DBAPIError as error:
        raise unavailable(error) or error from None


def state(engine: Engine) -> State:
    """Where the database stands. DatabaseUnavailable if it does not answer."""
    directory = ScriptDirectory.from_config(_config(engine))
    head = directory.get_current_head()
    assert head is not None  # noqa: S101 (the versions are beside this file)
    try:
        with reading(engine) as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise unavailable(error) or error from None
    ours = {revision.revision for revision in directory.walk_revisions()}
    return State(current, head, behind=current is None or (current != head and current in ours))


def scripts() -> Path:
    """The migrations: beside the package in a checkout, in it when installed from a wheel."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "alembic"


def _config(engine: Engine, output: TextIO | None = None) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["engine"] = engine
    return config
