"""Runs migrations: on DATABASE_URL, on an engine given by `consumer.database.migrations`, or as SQL on stdout."""

import logging
import re
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.ddl.base import AddColumn, DropColumn
from alembic.ddl.oracle import OracleImpl
from sqlalchemy import (
    Column,
    Connection,
    Constraint,
    Engine,
    Index,
    Inspector,
    Table,
    insert,
    inspect,
    literal_column,
    text,
)
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import AddConstraint, CreateIndex, CreateTable, DropConstraint, DropIndex, DropTable

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings
from consumer.database.engine import create_engine, create_file
from consumer.database.errors import line
from consumer.database.migrations import VERSIONS
from consumer.errors import WebhooksError
from models import Base

ORIGIN = "0001"  # the tutorial's table
# A command of SQL*Plus, which otherwise goes on after an error: in the wrong schema, or to record a revision whose
# statements have failed.
STOP_AT_ERROR = "WHENEVER SQLERROR EXIT FAILURE ROLLBACK"
# Rebuilding a table on SQLite restarts its AUTOINCREMENT at the highest copied id: ids of deleted rows would be used
# again, and rows stored for a removed subscription would become those of a new one.
KEEP_IDS = "CREATE TEMP TABLE webhook_sequences AS SELECT name, seq FROM main.sqlite_sequence"
RESTORE_IDS = (
    """
    UPDATE main.sqlite_sequence SET seq = max(seq, (
        SELECT kept.seq FROM temp.webhook_sequences AS kept WHERE kept.name = sqlite_sequence.name
    )) WHERE name IN (SELECT name FROM temp.webhook_sequences)
    """,
    """
    INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM temp.webhook_sequences
    WHERE name NOT IN (SELECT name FROM main.sqlite_sequence)
    AND name IN (SELECT name FROM main.sqlite_master WHERE type = 'table')
    """,
    "DROP TABLE temp.webhook_sequences",
)
# Seconds that DDL waits for each table in use (else ORA-00054, at once).
WAIT = "ALTER SESSION SET DDL_LOCK_TIMEOUT = 30"
# Oracle refuses ONLINE in Standard Edition, and for keys that do not fit the journal of an online build, which has half
# the room of an index: 1,575 bytes in blocks of 4 KiB.
NOT_ONLINE = re.compile("ORA-00439|ORA-01450")
NO_ONLINE = (
    "-- Where Oracle refuses ONLINE (ORA-00439: Standard Edition), remove this word: writes then wait meanwhile."
)
# An index that is being built online has a journal, also if the session that built it has died.
BROKEN = text("""
    SELECT COUNT(*) FROM all_indexes i
    WHERE i.owner = SYS_CONTEXT('userenv', 'current_schema') AND i.index_name = UPPER(:name) AND (
        i.status = 'UNUSABLE' OR EXISTS (
            SELECT 1 FROM all_objects o JOIN all_tables t
            ON t.owner = o.owner AND t.table_name = 'SYS_JOURNAL_' || TO_CHAR(o.object_id)
            WHERE o.owner = i.owner AND o.object_name = i.index_name AND o.object_type = 'INDEX'
        )
    )
""")


class RepeatableOracle(OracleImpl):
    """Alembic's Oracle dialect, for migrations while workers write, which are run again after they stopped.

    A change takes the form that does not block writes (SQL Language Reference, appendix B, "List of Nonblocking DDLs"):
    ONLINE, a constraint that is validated after it was added.
    DDL commits by itself, so a stopped revision leaves a part of its changes. Online, changes that are already made are
    skipped. Printed SQL assumes that none is made, and has no RETURNING, which would have no variables to return into.
    """

    __dialect__ = "oracle"
    _there: Inspector | None = None  # caches its answers
    _online = " ONLINE"

    def version_table_impl(self, **kw: Any) -> Table:
        """Alembic's own table."""
        table = super().version_table_impl(**kw)
        table.implicit_returning = False
        return table

    def _exec(self, construct: Any, *arguments: Any, **more: Any) -> Any:
        """Execute a statement, unless it is done; Alembic passes all statements here."""
        result = None
        if self.as_sql or not self._is_done(construct):
            if isinstance(construct, CreateIndex) and not self.as_sql and self._has(construct.element):
                self._change(DropIndex(construct.element))
            self._there = None
            try:
                result = self._change(construct, *arguments, **more)
            except DBAPIError as error:
                if self.as_sql or error.connection_invalidated or not self._is_done(construct):
                    raise  # else another process has executed it meanwhile
        if isinstance(construct, AddConstraint):  # also if an earlier run has added it, and stopped before this
            part = construct.element
            super()._exec(f"ALTER TABLE {part.table} MODIFY CONSTRAINT {part.name} VALIDATE")
        return result

    def _change(self, construct: Any, *arguments: Any, **more: Any) -> Any:
        """Execute a statement in the form that does not block writes, or as Oracle can."""
        if isinstance(construct, DropColumn):
            return super()._exec(f"ALTER TABLE {construct.table_name} SET UNUSED ({construct.column.name})")
        if not isinstance(construct, CreateIndex | DropIndex | AddConstraint | DropConstraint):
            return super()._exec(construct, *arguments, **more)
        sql = str(construct.compile(dialect=self.dialect)).replace(":", r"\:")  # no bind
        if isinstance(construct, AddConstraint):
            return super()._exec(f"{sql} ENABLE NOVALIDATE")
        try:
            return super()._exec(sql + self._online)
        except DBAPIError as error:
            if not self._online or not NOT_ONLINE.search(str(error.orig)):
                raise
            self._online = ""
            logging.getLogger("alembic.ddl").warning(
                "writes to a table wait while its indexes are built, because Oracle refuses ONLINE here: %s",
                line(error),
            )
            return super()._exec(sql)

    def _is_done(self, construct: Any) -> bool:
        """Whether an earlier attempt has created or dropped the object. WebhooksError if its name is taken."""
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
            case CreateIndex(element=part):
                done = self._has(part) and not self._is_broken(part)
            case AddConstraint(element=part):
                done = self._has(part)
            case DropIndex(element=part) | DropConstraint(element=part):
                done = not self._has(part)
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

    def _has(self, part: Index | Constraint) -> bool:
        """Whether an index or a check constraint of this name exists. No revision adds or drops other constraints."""
        there, table = self._inspector(), str(part.table)
        if isinstance(part, Index):
            return there.has_index(table, str(part.name))
        return there.has_table(table) and part.name in {each["name"] for each in there.get_check_constraints(table)}

    def _is_broken(self, index: Index) -> bool:
        """Whether an existing index is unusable, because its build was interrupted or is still under way."""
        assert self.connection is not None  # noqa: S101 (online)
        return bool(self.connection.scalar(BROKEN, {"name": index.name}))

    def _inspector(self) -> Inspector:
        if self._there is None:
            assert self.connection is not None  # noqa: S101 (online)
            self._there = inspect(self.connection)
        return self._there


def version_table() -> Table:
    """Alembic's own table."""
    return context.get_context()._version  # noqa: SLF001 (Alembic names it nowhere else)


def print_note() -> None:
    """Print the SQL that records the first revision: where a tutorial's table exists, none of Alembic's does."""
    context.execute(CreateTable(version_table()))
    context.execute(insert(version_table()).values(version_num=literal_column(f"'{ORIGIN}'")))


def run_migrations(*, keep_ids: bool) -> None:
    """Run the migrations. `keep_ids`: the database has tables with AUTOINCREMENT, which go on after their last ids."""
    if keep_ids:
        context.execute(KEEP_IDS)
    context.run_migrations()
    for statement in RESTORE_IDS if keep_ids else ():
        context.execute(statement)


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
            context.get_context().impl.static_output(f"{STOP_AT_ERROR}\n\n{NO_ONLINE}")
        if sqlite:  # rebuilding a table drops it, which would delete the rows that refer to it
            context.execute("PRAGMA foreign_keys = OFF")
        if schema := engine.get_execution_options().get("db_schema"):
            context.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {schema}")
        if engine.dialect.name == "oracle":
            context.execute(WAIT)
        if (start := str(context.get_starting_revision_argument())) == ORIGIN:
            print_note()
        run_migrations(keep_ids=sqlite and start not in {"None", "base", ORIGIN})  # which have no AUTOINCREMENT
        if sqlite:
            context.execute("PRAGMA foreign_keys = ON")
        if engine.dialect.name == "oracle":
            context.execute("COMMIT")  # DDL has committed itself, but not the last revision's record


def is_of_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Whether `alembic check` and `--autogenerate` compare it: other programs' tables may be in the schema."""
    return kind != "table" or name in Base.metadata.tables


def have_patience(connection: Connection) -> None:
    """Wait for tables in use, and set no limit on a statement: an index of a large table takes minutes."""
    session: Any = connection.connection.driver_connection
    session.call_timeout = 0
    connection.detach()  # it is closed after the migration, and does not return to the pool
    with connection.begin():
        connection.exec_driver_sql(WAIT)


def tell(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:  # noqa: ARG001 (as Alembic calls it)
    """Report that a revision is done."""
    if (applied := context.config.attributes.get("applied")) is not None:
        applied(step.up_revision_id)


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
            on_version_apply=tell,
        )
        try:
            mutates = not context.get_context().opts.get("dont_mutate")  # `alembic current` changes nothing
            with context.begin_transaction():
                keep_ids = sqlite and mutates and inspect(connection).has_table("sqlite_sequence")
                run_migrations(keep_ids=keep_ids)
        finally:
            if sqlite:
                connection.connection.cursor().execute("PRAGMA foreign_keys = ON")


given: Engine | None = context.config.attributes.get("engine")
if given is None and context.config.config_file_name:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
target = given or create_engine(load(DatabaseSettings))
offline(target) if context.is_offline_mode() else online(target)
