"""What the tables share: names for constraints, and column types that mean the same on Oracle and SQLite."""

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

# Check constraints and indexes bring their whole names: with the table's they would pass Oracle 12.1's 30 characters.
NAMING = {
    "pk": "pk_%(table_name)s",
    "ck": "%(constraint_name)s",
}

Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only in a column that says INTEGER
BEFORE_IDS = -(2**63)  # where a walk by id begins: plain SQL may have given ids of zero and below
# 0 or 1; Oracle has no BOOLEAN before 23ai.
Flag = Integer().with_variant(oracle.NUMBER(1), "oracle")  # type: ignore[no-untyped-call]  # SQLAlchemy's


class Base(DeclarativeBase):
    """Holds the metadata that migrations are compared with."""

    metadata = MetaData(naming_convention=NAMING)


def is_json(column: str, name: str) -> tuple[CheckConstraint, CheckConstraint]:
    """The check that a text is JSON, in Oracle's words (12.2 and newer) and in SQLite's; a database gets its own."""
    return _by_dialect(f"{column} IS JSON", f"json_valid({column})", name)


def is_json_or_null(column: str, name: str) -> tuple[CheckConstraint, CheckConstraint]:
    """The same for a text that may be missing: SQLite before 3.45 says 0 of it, and a check then fails."""
    return _by_dialect(f"{column} IS JSON", f"{column} IS NULL OR json_valid({column})", name)


def _by_dialect(oracle_rule: str, sqlite_rule: str, name: str) -> tuple[CheckConstraint, CheckConstraint]:
    return (
        CheckConstraint(oracle_rule, name=name).ddl_if(dialect="oracle"),
        CheckConstraint(sqlite_rule, name=name).ddl_if(dialect="sqlite"),
    )


UNREADABLE = datetime.min.replace(tzinfo=UTC)  # in place of a text that SQLite has kept and that is no time


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
    """A datetime without a zone. On SQLite, what plain SQL wrote and is no time: UNREADABLE."""

    impl = TIMESTAMP
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """One row that cannot be read must not keep the others of its statement from being read."""
        return _lenient(super().result_processor(dialect, coltype), dialect)


class UtcTimestamp(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC with microseconds. On SQLite, what plain SQL wrote and is no time: UNREADABLE.

    python-oracledb drops the zone both ways: it is converted before a bind and put back after a fetch. Oracle converts
    what it sends, because rows made by plain SQL carry their session's zone (`CURRENT_TIMESTAMP`), which the driver
    would drop or, where the zone has a name, refuse (DPY-3022). Our own sessions must be in zone +00:00.
    """

    impl = TIMESTAMP
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """ValueError for a naive datetime: nobody can tell which instant it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no instant; give it a zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Put the zone back; SQLite also keeps one that plain SQL wrote."""
        return None if value is None else value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """One row that cannot be read must not keep the others of its statement from being read."""
        return _lenient(super().result_processor(dialect, coltype), dialect)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        """Select the instant, not the zone that it was written in."""
        return in_utc(column)


class in_utc(FunctionElement[datetime]):  # noqa: N801 (reads as the SQL function it is)
    """The instant of a column, for sorting and comparing.

    Oracle indexes a TIMESTAMP WITH TIME ZONE by SYS_EXTRACT_UTC of it; saying so lets the index give the order too.
    """

    type = UtcTimestamp()
    inherit_cache = True
    name = "in_utc"


@compiles(in_utc)
def _plain(element: in_utc, compiler: SQLCompiler, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(in_utc, "oracle")
def _oracle(element: in_utc, compiler: SQLCompiler, **kw: Any) -> str:
    return f"SYS_EXTRACT_UTC({compiler.process(element.clauses, **kw)})"
