"""Runs migrations: on DATABASE_URL, on an engine given by `consumer.database.migrations`, or as SQL on stdout."""

import logging
import re
from logging.config import fileConfig
from time import monotonic
from typing import Any

from alembic import context
from alembic.ddl.base import AddColumn, ColumnComment, ColumnNullable, ColumnType, DropColumn
from alembic.ddl.oracle import OracleImpl
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Constraint,
    Engine,
    Index,
    Inspector,
    Table,
    UniqueConstraint,
    insert,
    inspect,
    literal_column,
)
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import (
    AddConstraint,
    CreateIndex,
    CreateTable,
    DropConstraint,
    DropIndex,
    DropTable,
    DropTableComment,
    SetColumnComment,
    SetTableComment,
)

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings
from consumer.database.engine import create_engine, create_file
from consumer.database.errors import line
from consumer.database.migrations import VERSIONS
from consumer.errors import WebhooksError
from models import Base
from models.subscription import UNIQUE

ORIGIN = "0001"  # the tutorial's table
# A command of SQL*Plus, which otherwise goes on after an error: in the wrong schema, or to record a revision whose
# statements have failed.
STOP_AT_ERROR = "WHENEVER SQLERROR EXIT FAILURE ROLLBACK"
COMMENTS = (SetColumnComment, SetTableComment, DropTableComment, ColumnComment)
BEGIN = monotonic()  # Alembic loads this module for each run
MOST_SHOWN = 100  # characters of a statement
# The index or the partition key of a column, which may not grow or change with it.
HELD = re.compile(r"ORA-(01404|30556|14060|14265)")
# Seconds that DDL waits for each table in use (else ORA-00054, at once).
WAIT = "ALTER SESSION SET DDL_LOCK_TIMEOUT = 30"


def report(statement: str) -> None:
    """Show a statement that is about to run, with the seconds since the migration began."""
    say = context.config.attributes.get("report") or logging.getLogger("alembic.webhooks").info
    say(f"{monotonic() - BEGIN:8.1f} s: {' '.join(statement.split())[:MOST_SHOWN]}")


@compiles(AddConstraint, "oracle")
def _unvalidated(construct: AddConstraint, compiler: Any, **_: Any) -> str:
    """Add a check without reading the rows, while the table is locked: `add_constraint` has them read afterwards."""
    rest = " ENABLE NOVALIDATE" if isinstance(construct.element, CheckConstraint) else ""
    return f"{compiler.visit_add_constraint(construct)}{rest}"


class RepeatableOracle(OracleImpl):
    """Alembic's Oracle dialect, for migrations that are run again after they stopped.

    DDL commits by itself, so a stopped revision leaves a part of its changes. Online, changes that are already made are
    skipped. Printed SQL assumes that none is made, and has no RETURNING, which would have no variables to return into.
    """

    __dialect__ = "oracle"
    _there: Inspector | None = None  # caches its answers

    def version_table_impl(self, **kw: Any) -> Table:
        """Alembic's own table."""
        table = super().version_table_impl(**kw)
        table.implicit_returning = False
        return table

    def add_constraint(self, const: Any, **kw: Any) -> None:
        """Add a constraint; the rows are checked while others write."""
        super().add_constraint(const, **kw)
        if isinstance(const, CheckConstraint):
            self._exec(f"ALTER TABLE {const.table} MODIFY CONSTRAINT {const.name} VALIDATE")

    def _exec(self, construct: Any, *arguments: Any, **more: Any) -> Any:
        """Execute a statement, and report it, unless it is done; Alembic passes all statements here."""
        if not self.as_sql:
            if self._is_done(construct):
                return None
            if not isinstance(construct, COMMENTS):
                report(construct if isinstance(construct, str) else str(construct.compile(dialect=self.dialect)))
        self._there = None
        try:
            return super()._exec(construct, *arguments, **more)
        except DBAPIError as error:
            if self.as_sql or error.connection_invalidated:
                raise
            if isinstance(construct, ColumnType) and HELD.match(str(error.orig)):
                raise WebhooksError(f"{line(error)}. {self._holders(construct)}") from None
            if not self._is_done(construct):
                raise
            return None  # another process has executed it meanwhile

    def _is_done(self, construct: Any) -> bool:
        """Whether an earlier attempt has made the change. WebhooksError if the name of a new object is taken."""
        done = False
        match construct:
            case CreateTable(element=Table() as made):
                done = bool(self._columns(made.name)) and self._is_ours(made.name, *made.columns)
            case DropTable(element=Table() as made):
                done = not self._columns(made.name)
            case AddColumn(table_name=table, column=column):
                done = column.name in self._columns(table) and self._is_ours(table, column)
            case DropColumn(table_name=table, column=column):
                done = column.name not in self._columns(table)
            case ColumnNullable(table_name=table, column_name=name, nullable=nullable):  # else ORA-01442, ORA-01451
                done = self._columns(table)[name]["nullable"] == nullable
            case CreateIndex(element=part) | AddConstraint(element=part):
                done = self._is_same(part)
            case DropIndex(element=part) | DropConstraint(element=part):
                done = self._definition(part) is None
        return done

    def _is_ours(self, table: str, *columns: Column[Any]) -> bool:
        there = self._columns(table)
        for column in columns:
            found = there.get(column.name)
            if (
                found is None
                or found["nullable"] != column.nullable
                or self.compare_type(Column(column.name, found["type"]), column)
            ):
                raise WebhooksError(
                    f"{table} exists, and its column {column.name} differs from the migration's; "
                    "rename the existing one, then migrate again"
                )
        return True

    def _columns(self, table: str) -> dict[str, ReflectedColumn]:
        """The columns of a table, by name; none if the table does not exist."""
        there = self._inspector()
        return {column["name"]: column for column in there.get_columns(table)} if there.has_table(table) else {}

    def _is_same(self, part: Index | Constraint) -> bool:
        """Whether an index, a check or a unique constraint exists. WebhooksError if another one has its name."""
        found = self._definition(part)
        if found is None:
            return False
        match part:
            case Index():  # of an expression the dictionary's text is Oracle's own
                names = [getattr(each, "name", None) for each in part.expressions]
                there = [name if ours else None for name, ours in zip(found["column_names"], names, strict=False)]
                same = (there, len(found["column_names"]), found["unique"]) == (names, len(names), bool(part.unique))
            case UniqueConstraint():
                same = found["column_names"] == part.columns.keys()
            case _:
                same = _words(found["sqltext"]) == _words(str(getattr(part, "sqltext", "")))
        if not same:
            raise WebhooksError(
                f"{part.table} has {part.name} already, and it differs from the migration's; "
                "rename the existing one, then migrate again"
            )
        return True

    def _definition(self, part: Index | Constraint) -> Any:
        """What the dictionary says of this name, an index's, a check's or a unique constraint's; None if it is free.

        No revision adds or drops other constraints.
        """
        there, table = self._inspector(), str(part.table)
        if not there.has_table(table):
            return None
        kinds = {Index: there.get_indexes, UniqueConstraint: there.get_unique_constraints}
        found: Any = next((get for kind, get in kinds.items() if isinstance(part, kind)), there.get_check_constraints)
        return next((each for each in found(table) if each["name"] == part.name), None)

    def _holders(self, change: ColumnType) -> str:
        """The objects that keep a column's length as it is, and the remedy."""
        table, name = change.table_name, change.column_name
        indexes = [
            str(each["name"])
            for each in self._inspector().get_indexes(table)
            if name in each["column_names"] or name.upper() in " ".join(each.get("expressions", ())).upper()
        ]
        if not indexes:
            return f"{table} is partitioned by {name}: have a table that is not, then migrate again"
        return f"Drop {', '.join(indexes)}, migrate again, and create what still fits"

    def _inspector(self) -> Inspector:
        if self._there is None:
            assert self.connection is not None  # noqa: S101 (online)
            self._there = inspect(self.connection)
        return self._there


def _words(rule: str) -> str:
    """A rule of a check without spaces, quotes, parentheses and case, in which Oracle may keep it otherwise."""
    return re.sub(r'[\s()"]', "", rule).casefold()


def version_table() -> Table:
    """Alembic's own table."""
    return context.get_context()._version  # noqa: SLF001 (Alembic names it nowhere else)


def print_note() -> None:
    """Print the SQL that records the first revision: where a tutorial's table exists, none of Alembic's does."""
    context.execute(CreateTable(version_table()))
    context.execute(insert(version_table()).values(version_num=literal_column(f"'{ORIGIN}'")))


def offline(engine: Engine) -> None:
    """Print the SQL; nothing connects."""
    context.configure(
        dialect_name=engine.dialect.name,
        target_metadata=Base.metadata,
        version_table=VERSIONS,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    sqlite = engine.dialect.name == "sqlite"
    with context.begin_transaction():
        if engine.dialect.name == "oracle":
            context.get_context().impl.static_output(STOP_AT_ERROR)
        if sqlite:  # rebuilding a table drops it, which would delete the rows that refer to it
            context.execute("PRAGMA foreign_keys = OFF")
        if schema := engine.get_execution_options().get("db_schema"):
            context.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {schema}")
        if engine.dialect.name == "oracle":
            context.execute(WAIT)
        if str(context.get_starting_revision_argument()) == ORIGIN:
            print_note()
        context.run_migrations()
        if sqlite:
            context.execute("PRAGMA foreign_keys = ON")
        if engine.dialect.name == "oracle":
            context.execute("COMMIT")  # DDL has committed itself, but not the last revision's record


def is_of_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether `alembic check` and `--autogenerate` compare it: other programs' tables may be in the schema."""
    return name in Base.metadata.tables if kind == "table" else name not in UNIQUE


def have_patience(connection: Connection) -> None:
    """Wait for tables in use, and set no limit on a statement: a copy of a large table takes minutes."""
    session: Any = connection.connection.driver_connection
    session.call_timeout = 0
    connection.detach()  # it is closed after the migration, and does not return to the pool
    with connection.begin():
        connection.exec_driver_sql(WAIT)


def online(engine: Engine) -> None:
    """Migrate. On SQLite the whole migration is one transaction, and a second process waits for the first."""
    create_file(engine)
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if sqlite:  # rebuilding a table drops it, which would delete the rows that refer to it
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        else:
            have_patience(connection)
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            version_table=VERSIONS,
            include_name=is_of_ours,
            transactional_ddl=sqlite,
            compare_type=True,
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            if sqlite:
                connection.connection.cursor().execute("PRAGMA foreign_keys = ON")


given: Engine | None = context.config.attributes.get("engine")
if given is None and context.config.config_file_name:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
target = given or create_engine(load(DatabaseSettings))
offline(target) if context.is_offline_mode() else online(target)
