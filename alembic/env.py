"""Runs migrations: against DATABASE_URL, against the engine that `consumer.schema` brings, or as SQL on stdout."""

from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.ddl.oracle import OracleImpl
from sqlalchemy import Engine, Table, literal_column
from sqlalchemy.schema import CreateTable

from consumer.database import create_engine
from consumer.settings import DatabaseSettings, load
from models import Base

ORIGIN = "0001"  # the tutorial's table


class PrintableOracle(OracleImpl):
    """Oracle as Alembic knows it, without the RETURNING that would stand in printed SQL with nothing to return to."""

    __dialect__ = "oracle"

    def version_table_impl(self, **kw: Any) -> Table:
        """Alembic's own table."""
        table = super().version_table_impl(**kw)
        table.implicit_returning = False
        return table


def note_adoption() -> None:
    """Nobody but a tutorial stops at the first revision: its table is there, and Alembic's own is not."""
    versions = context.get_context()._version  # noqa: SLF001 (Alembic names it nowhere else)
    context.execute(CreateTable(versions))
    context.execute(versions.insert().values(version_num=literal_column(f"'{ORIGIN}'")))


def offline(engine: Engine) -> None:
    """Print the SQL; nothing connects."""
    context.configure(
        dialect_name=engine.dialect.name,
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        if schema := engine.get_execution_options().get("db_schema"):
            context.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {schema}")
        if context.get_starting_revision_argument() == ORIGIN:
            note_adoption()
        context.run_migrations()
        if engine.dialect.name == "oracle":
            context.execute("COMMIT")  # DDL has committed itself, but not the revision that is noted last


def online(engine: Engine) -> None:
    """Migrate. On SQLite all of it is one transaction, and a second process waits for the first."""
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as connection:
        if sqlite:  # rebuilding a table drops it, which would delete what refers to it
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        context.configure(
            connection=connection, target_metadata=Base.metadata, transactional_ddl=sqlite, compare_type=True
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
