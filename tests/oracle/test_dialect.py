"""SQLAlchemy's dialect and Alembic against the emulator."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine
from sqlalchemy.dialects import oracle as dialect
from sqlalchemy.exc import DatabaseError, DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from models.base import UtcTimestamp
from tests.oracle_emulator import OracleEmulator, OracleError


class Base(DeclarativeBase):
    """This test's own tables, with more kinds of columns than the project has."""


class Endpoint(Base):
    __tablename__ = "endpoint"
    __table_args__ = (
        sa.UniqueConstraint("name", name="uq_endpoint_name"),
        sa.Index("ix_endpoint_lower", sa.func.lower(sa.text("name")), unique=True),
    )
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    active: Mapped[int] = mapped_column(dialect.NUMBER(1), server_default=sa.text("1"))  # type: ignore[no-untyped-call]  # SQLAlchemy's
    payload: Mapped[str | None] = mapped_column(sa.Text)
    secret: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    rate: Mapped[float | None] = mapped_column(sa.Numeric(10, 2, asdecimal=False))
    seen_at: Mapped[datetime | None] = mapped_column(UtcTimestamp)
    topics: Mapped[list["Topic"]] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Topic(Base):
    __tablename__ = "topic"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(always=True), primary_key=True)
    endpoint_id: Mapped[int] = mapped_column(
        sa.ForeignKey("endpoint.id", name="fk_topic_endpoint", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(sa.String(100))


@pytest.fixture
def engine(oracle: OracleEmulator) -> Iterator[Engine]:
    """An engine whose database has these tables."""
    engine = sa.create_engine(oracle.url, pool_pre_ping=True)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def number_of(engine: Engine, table: type[Base]) -> int:
    with Session(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def test_the_first_connection(oracle: OracleEmulator, engine: Engine) -> None:
    """The dialect's queries at its first connection are answered."""
    with engine.connect() as connection:
        assert engine.dialect.server_version_info == oracle.profile.version
        assert engine.dialect.default_schema_name == "webhooks"
        assert engine.dialect.max_identifier_length == 128
        assert connection.get_isolation_level() == "READ COMMITTED"
    assert sa.inspect(engine).has_table("endpoint")
    assert not sa.inspect(engine).has_table("nope")


def test_a_unit_of_work(engine: Engine) -> None:
    """It covers all kinds of columns, generated keys, children, bulk statements, and RETURNING of many rows."""
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5)))
    with Session(engine) as session:
        topics = [Topic(name="one"), Topic(name="two")]
        text, data = "x" * 100_000 + "é", b"\0\xff" * 5000
        session.add(Endpoint(name="a", payload=text, secret=data, rate=1.25, seen_at=when, topics=topics))
        session.commit()
        found = session.scalars(sa.select(Endpoint)).one()
        assert (found.id, [topic.id for topic in found.topics]) == (1, [1, 2])
        assert (found.payload, found.secret, found.rate, found.active) == (text, data, 1.25, 1)
        assert found.seen_at == when
        session.add_all(Endpoint(name=f"bulk{number}") for number in range(5))
        session.commit()
        off = session.execute(sa.update(Endpoint).where(Endpoint.name.like("bulk%")).values(active=0))
        assert off.rowcount == 5  # type: ignore[attr-defined]  # of a CursorResult
        page = sa.select(Endpoint.id).order_by(Endpoint.id).offset(1).limit(2)
        assert session.scalars(page).all() == [2, 3]
        several = sa.insert(Endpoint).returning(Endpoint.name, sort_by_parameter_order=True)
        assert session.scalars(several, [{"name": f"r{number}"} for number in range(3)]).all() == ["r0", "r1", "r2"]
        session.delete(found)
        session.commit()
    assert number_of(engine, Topic) == 0, "ON DELETE CASCADE"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Endpoint(name="A"), 1),  # by the index on the lower case
        (lambda: Topic(endpoint_id=999, name="x"), 2291),
        (lambda: Endpoint(name=None), 1400),
    ],
)
def test_constraints_are_integrity_errors(engine: Engine, make: Callable[[], Base], code: int) -> None:
    """They contain Oracle's error number."""
    with Session(engine) as session:
        session.add(Endpoint(name="a"))
        session.commit()
        session.add(make())
        with pytest.raises(IntegrityError) as raised:
            session.flush()
    assert raised.value.orig is not None
    assert raised.value.orig.args[0].code == code


def test_sessions_that_skip_locked_rows_get_different_ones(engine: Engine) -> None:
    """FOR UPDATE with a row limit is ORA-02014."""
    with Session(engine) as session, Session(engine) as other:
        session.add_all(Endpoint(name=f"e{number}") for number in range(4))
        session.commit()
        limited = sa.select(Endpoint.id).order_by(Endpoint.id).limit(1)
        with pytest.raises(DatabaseError, match="ORA-02014"):
            session.execute(limited.with_for_update(skip_locked=True))
        session.rollback()
        low = sa.select(Endpoint.id).where(Endpoint.id <= 2).with_for_update(skip_locked=True)
        assert session.scalars(low).all() == [1, 2]
        assert other.scalars(sa.select(Endpoint.id).with_for_update(skip_locked=True)).all() == [3, 4]


def test_savepoints(engine: Engine) -> None:
    """A rollback to a savepoint undoes later changes and keeps earlier ones."""
    with Session(engine) as session:
        session.add(Endpoint(name="keep"))
        session.flush()
        savepoint = session.begin_nested()
        session.add(Endpoint(name="keep"))
        with pytest.raises(IntegrityError):
            session.flush()
        savepoint.rollback()
        session.commit()
    assert number_of(engine, Endpoint) == 1


def test_a_connection_lost_in_a_transaction_is_invalidated(oracle: OracleEmulator, engine: Engine) -> None:
    """The pool hands out another one."""
    oracle.inject("UPDATE endpoint", drop="before")
    with engine.connect() as connection, pytest.raises(DBAPIError) as raised:
        connection.execute(sa.update(Endpoint).values(active=0))
    assert raised.value.connection_invalidated
    assert number_of(engine, Endpoint) == 0


def test_a_deadlock_does_not_invalidate(oracle: OracleEmulator, engine: Engine) -> None:
    """The connection can be used again."""
    oracle.inject("UPDATE endpoint", OracleError(60, "deadlock detected while waiting for resource"))
    with engine.connect() as connection, pytest.raises(DatabaseError, match="ORA-00060") as raised:
        connection.execute(sa.update(Endpoint).values(active=0))
    assert not raised.value.connection_invalidated


def test_threads_insert_at_once(engine: Engine) -> None:
    """Each thread has its own session."""
    failures: list[Exception] = []

    def work(thread: int) -> None:
        try:
            for number in range(10):
                with Session(engine) as session:
                    session.add(Endpoint(name=f"{thread}-{number}"))
                    session.commit()
        except Exception as error:  # noqa: BLE001 (shown by the assertion below)
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert number_of(engine, Endpoint) == 50


def test_reflected_tables_are_as_they_were_declared(engine: Engine) -> None:
    """Alembic finds no difference in columns, keys and indexes. H2 spells expressions of an index its own way."""
    inspector = sa.inspect(engine)
    assert {each["name"] for each in inspector.get_columns("endpoint")} == set(Endpoint.__table__.c.keys())
    assert [each["name"] for each in inspector.get_foreign_keys("topic")] == ["fk_topic_endpoint"]
    assert "ix_endpoint_lower" in {each["name"] for each in inspector.get_indexes("endpoint")}
    options = {"include_object": lambda _, name, *__: name != "ix_endpoint_lower"}
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
