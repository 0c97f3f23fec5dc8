"""Fixtures: a migrated database for each test that asks for one. `conftest.py` imports them."""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlglot
from pydantic import SecretStr
from sqlalchemy import ClauseElement, Connection, Engine, event, make_url

from consumer import schema
from consumer.database import create_engine
from consumer.settings import DatabaseSettings

ORACLE = make_url("oracle+oracledb://").get_dialect()()  # as it compiles without a connection
_parsed: set[str] = set()


def connect_to(url: str, schema: str | None = None) -> Engine:
    """An engine, made as the program makes it."""
    return create_engine(DatabaseSettings(url=SecretStr(url), db_schema=schema, encryption_key=None))


def database(path: Path) -> Engine:
    """An engine on an SQLite file."""
    return connect_to(f"sqlite:///{path}")


@pytest.fixture(scope="session")
def new_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Engine]]:
    """Makes engines, each on a migrated database of its own; Oracle's reader must take what is run on them."""
    directory = tmp_path_factory.mktemp("databases")
    template = database(directory / "template.db")
    schema.upgrade(template)
    template.dispose()  # the last connection writes the log back into the file
    engines: list[Engine] = []
    names = count()

    def make() -> Engine:
        path = directory / f"{next(names)}.db"
        shutil.copy(directory / "template.db", path)
        engine = database(path)
        event.listen(engine, "before_execute", _parse_as_oracle)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """A migrated, empty database."""
    result = new_engine()
    yield result
    result.dispose()


def _parse_as_oracle(_: Connection, statement: object, *__: object) -> None:
    if isinstance(statement, ClauseElement):
        sql = str(statement.compile(dialect=ORACLE, compile_kwargs={"render_postcompile": True}))
        if sql not in _parsed:
            sqlglot.parse_one(sql, dialect="oracle")
            _parsed.add(sql)
