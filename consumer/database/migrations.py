"""Migrates the tables, and reads their revision."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from consumer.database.engine import create_file, reading, unavailable
from consumer.database.errors import is_not_migrated, line
from consumer.errors import DatabaseUnavailable, WebhooksError


class Revisions(NamedTuple):
    """The database's revision (None: it has no tables of this program) and the revision that this program needs."""

    current: str | None
    head: str
    behind: bool  # a migration of this version is missing; False if a later version has migrated the database


VERSIONS = "webhook_alembic_version"  # not Alembic's default, which other programs in the schema may use
AGAIN = "run it again, and it continues where it stopped"
_OURS = re.compile(r"\d{4}")  # a revision of this program, of this or a later version


def upgrade(
    engine: Engine,
    *,
    revision: str = "head",
    sql: bool = False,
    output: TextIO | None = None,
    applied: Callable[[str], None] | None = None,
) -> None:
    """Migrate up to a revision. An SQLite file is created if it does not exist.

    Raises DatabaseUnavailable if the database does not answer, and WebhooksError if the migration is impossible:
    because of existing objects, or because another program has migrated the tables. Tables of a later version are left
    as they are: this one works with them. After an interruption, another run continues where the migration stopped.
    `applied` takes each revision as soon as it is done.
    With `sql` nothing connects: the statements are printed, to `output` or stdout, and a revision may be FROM:TO.
    """
    config = _config(engine, output)
    config.attributes["applied"] = applied
    directory = ScriptDirectory.from_config(config)
    if not sql:
        create_file(engine)
    while True:
        before = None if sql else _refuse_others(engine, directory)
        if before is not None and before not in _known(directory):
            return
        try:
            command.upgrade(config, revision, sql=sql)
        except (CommandError, DBAPIError, NoSuchTableError) as error:
            lacks = isinstance(error, NoSuchTableError) or (isinstance(error, DBAPIError) and is_not_migrated(error))
            if not lacks and (passes := unavailable(error)):
                raise DatabaseUnavailable(f"{passes}; {AGAIN}") from None
            if not sql and _current(engine) != before:
                continue  # another process migrates at the same time; or a part is done, and the next try fails again
            if lacks:
                raise WebhooksError(_lacking(error, before)) from None
            raise (WebhooksError(str(error)) if isinstance(error, CommandError) else error) from None
        return


def _lacking(error: Exception, revision: str | None) -> str:
    """A migration's error if a table or column does not exist: the same migration would fail again."""
    if isinstance(error, NoSuchTableError):
        reason = f"there is no table {error}"
    else:  # before 23ai, Oracle does not name it
        reason = f"{line(error)}, in: {' '.join(str(getattr(error, 'statement', '')).split())[:200]}"
    return (
        f"the tables are at revision {revision}, but a table or column of it is missing, or this account may not see "
        f"it; restore it, then migrate again: {reason}"
    )


def state(engine: Engine) -> Revisions:
    """The state of the database. Raises DatabaseUnavailable if it does not answer."""
    directory = ScriptDirectory.from_config(_config(engine))
    head = directory.get_current_head()
    assert head is not None  # noqa: S101 (the versions are beside this file)
    current = _current(engine)
    later = current is not None and current not in _known(directory) and _OURS.fullmatch(current)
    return Revisions(current, head, behind=current != head and not later)


def revisions() -> list[str]:
    """All revisions of this program, oldest first."""
    return sorted(_known(ScriptDirectory.from_config(_scripts_config())))


def scripts() -> Path:
    """The directory of the migrations: beside the package in a checkout, inside it if installed from a wheel."""
    installed = Path(__file__).parent / "alembic"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "alembic"


def _current(engine: Engine) -> str | None:
    """The revision in VERSIONS. Several are joined by commas, if someone has added rows by hand; None: no revision."""
    try:
        with reading(engine) as connection:
            heads = MigrationContext.configure(connection, opts={"version_table": VERSIONS}).get_current_heads()
    except DBAPIError as error:
        raise unavailable(error) or error from None
    return ", ".join(sorted(heads)) or None


def _known(directory: ScriptDirectory) -> set[str]:
    return {revision.revision for revision in directory.walk_revisions()}


def _refuse_others(engine: Engine, directory: ScriptDirectory) -> str | None:
    """The current revision of the tables, perhaps of a later version. WebhooksError for another program's."""
    current = _current(engine)
    if current is None or current in _known(directory) or _OURS.fullmatch(current):
        return current
    raise WebhooksError(
        f"{VERSIONS} holds {current}: one revision of this program belongs there, and nothing else. "
        "Keep only that one; docs/alembic.md says where migrations of your own belong"
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
