"""Shared parts of the tables: names for constraints, and column types that mean the same on Oracle and SQLite."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import TIMESTAMP, BigInteger, CheckConstraint, ColumnElement, Dialect, Integer, MetaData
from sqlalchemy.dialects import oracle
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator

# Check constraints and indexes have full names: a table's name in front could pass the 30 characters of Oracle 12.1.
NAMING = {
    "pk": "pk_%(table_name)s",
    "ck": "%(constraint_name)s",
}

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in a column declared INTEGER
AHEAD = 1000  # ids that Oracle takes from a sequence at once: sessions that insert many do not wait for each other
BEFORE_IDS = -(2**63)  # where a walk by id begins: ids set by plain SQL may be zero or negative
# 0 or 1; Oracle has no BOOLEAN before 23ai.
Flag = Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's


class Base(DeclarativeBase):
    """Holds the metadata that migrations are compared against."""

    metadata = MetaData(naming_convention=NAMING)


def is_json(column: str, name: str) -> tuple[CheckConstraint, CheckConstraint]:
    """Check constraints that a text is JSON, for Oracle (12.2 and newer) and SQLite; each database gets its own.

    json_valid of SQLite before 3.45 returns 0 for null, failing the check.
    """
    return (
        CheckConstraint(f"{column} IS JSON", name=name).ddl_if(dialect="oracle"),
        CheckConstraint(f"{column} IS NULL OR json_valid({column})", name=name).ddl_if(dialect="sqlite"),
    )


UNREADABLE = datetime.min.replace(tzinfo=UTC)  # replaces a text in SQLite that is not a time


def _lenient(
    process: Callable[[Any], datetime | None] | None, dialect: Dialect
) -> Callable[[Any], datetime | None] | None:
    if process is None or dialect.name != "sqlite":
        return process

    def lenient(value: Any) -> datetime | None:
        try:
            return process(value)
        except (ValueError, TypeError, OverflowError):
            return UNREADABLE

    return lenient


class LocalTimestamp(TypeDecorator[datetime]):
    """A datetime without a zone. On SQLite, a text that plain SQL wrote and that is not a time becomes UNREADABLE.

    An adopted table may have a DATE or a TIMESTAMP WITH TIME ZONE on Oracle: the instant is selected in UTC, because
    the driver refuses a zone that has a name (DPY-3022) and drops an offset.
    """

    impl = TIMESTAMP
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """One row that cannot be read must not keep the others of its statement from being read."""
        return _lenient(super().result_processor(dialect, coltype), dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select a time without a zone, whatever the column's type."""
        return without_zone(column)


class UtcTimestamp(TypeDecorator[datetime]):
    """An aware datetime, in UTC with microseconds. On SQLite, a text of plain SQL that is not a time: UNREADABLE.

    A plain TIMESTAMP that holds UTC, as the driver sends it (DB_TYPE_TIMESTAMP, whatever the column's zone): column and
    bind have one type, which COALESCE requires (ORA-00932), and an index on it is no function-based one.
    """

    impl = TIMESTAMP
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Convert to UTC. Raises ValueError for a naive datetime, because its instant is unknown."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no instant; give it a zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Restore the zone; SQLite also keeps a zone that plain SQL wrote."""
        return None if value is None else value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """One row that cannot be read must not keep the others of its statement from being read."""
        return _lenient(super().result_processor(dialect, coltype), dialect)


class utc_now(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function it is)
    """The database's clock in UTC, as a value or a column's default.

    On Oracle a TIMESTAMP keeps the fields of CURRENT_TIMESTAMP, which are those of the session's zone.
    """

    type = UtcTimestamp()
    inherit_cache = True


class without_zone(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function it is)
    """A time in UTC and without a zone. DATE and TIMESTAMP stay as they are: our sessions are in zone +00:00."""

    type = LocalTimestamp()
    inherit_cache = True


@compiles(utc_now)
def _utc_now(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001 (SQLAlchemy's signature)
    return "SYS_EXTRACT_UTC(SYSTIMESTAMP)" if compiler.dialect.name == "oracle" else "CURRENT_TIMESTAMP"


@compiles(without_zone)
def _without_zone(element: without_zone, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    oracle = compiler.dialect.name == "oracle"
    return f"SYS_EXTRACT_UTC(CAST({column} AS TIMESTAMP WITH TIME ZONE))" if oracle else column
