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

    @property
    def foreign(self) -> str | None:
        """What to do if another program has migrated the tables; None: it has not."""
        if self.current is None or _OURS.fullmatch(self.current):
            return None
        return (
            f"{VERSIONS} holds {self.current}: one revision of this program belongs there, and nothing else. "
            "Keep only that one; docs/alembic.md says where migrations of your own belong"
        )

    @property
    def fault(self) -> str | None:
        """Why this program cannot use the tables, and what to do; None: it can."""
        old = f"the tables are at {self.current or 'no revision'}, not {self.head}: run kafka-webhooks migrate"
        return self.foreign or (old if self.behind else None)


VERSIONS = "webhook_alembic_version"  # not Alembic's default, which other programs in the schema may use
AGAIN = "run it again, and it continues where it stopped"
_OURS = re.compile(r"\d{4}")  # a revision of this program, of this or a later version


def upgrade(
    engine: Engine,
    *,
    revision: str = "head",
    sql: bool = False,
    output: TextIO | None = None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Migrate up to a revision. An SQLite file is created if it does not exist.

    Raises DatabaseUnavailable if the database does not answer, and WebhooksError if the migration is impossible:
    because of existing objects, or because another program has migrated the tables. Tables of a later version are left
    as they are: this one works with them. After an interruption, another run continues where the migration stopped.
    On Oracle, where a statement may take hours, `report` gets a line for each before it runs; else they are logged.
    With `sql` nothing connects: the statements are printed, to `output` or stdout, and a revision may be FROM:TO.
    """
    config = _config(engine, output)
    config.attributes["report"] = report
    if sql:
        command.upgrade(config, revision, sql=True)
        return
    create_file(engine)
    known = revisions()
    while True:
        before = _current(engine)
        if before is not None and before not in known:
            if _OURS.fullmatch(before):
                return
            raise WebhooksError(state(engine).foreign)
        try:
            command.upgrade(config, revision)
        except NoSuchTableError as error:
            raise WebhooksError(
                f"the tables are at revision {before}, but the table {error} of it is missing, or this account may not "
                "see it; restore it, then migrate again"
            ) from None
        except (CommandError, DBAPIError) as error:
            lacks = isinstance(error, DBAPIError) and is_not_migrated(error)
            if not lacks and (passes := unavailable(error)):
                raise DatabaseUnavailable(f"{passes}; {AGAIN}") from None
            if _current(engine) != before:
                continue  # another process migrates at the same time; or a part is done, and the next try fails again
            raise WebhooksError(line(error)) from None
        return


def state(engine: Engine) -> Revisions:
    """The state of the database. Raises DatabaseUnavailable if it does not answer."""
    known, current = revisions(), _current(engine)
    later = current is not None and current not in known and _OURS.fullmatch(current)
    return Revisions(current, known[-1], behind=current != known[-1] and not later)


def revisions() -> list[str]:
    """All revisions of this program, oldest first."""
    return sorted(each.revision for each in ScriptDirectory.from_config(_config()).walk_revisions())


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


def _config(engine: Engine | None = None, output: TextIO | None = None) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["engine"] = engine
    return config
