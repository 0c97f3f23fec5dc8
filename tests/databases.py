"""Fixtures: a migrated database for each test that requests one. `conftest.py` imports them.

`engine` and `new_engine` are SQLite. Folders and files with tests of SQL import `each_new_engine` in place of
`new_engine`: their tests run on SQLite and on an emulated Oracle, as 19c and as 23ai; with ORACLE_URL only on that
database. `sqlite_engine` is for tests there that need a file; each use has its reason beside it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Engine, make_url

from consumer.config.settings import DatabaseSettings
from consumer.database import migrations
from consumer.database.engine import create_engine
from models import Base
from models.subscription import UNIQUE
from tests.oracle.oracle_databases import EmulatedOracles, RealOracle
from tests.oracle_emulator import PROFILES, OracleEmulator

REAL = os.environ.get("ORACLE_URL", "")
ORACLES = [pytest.param(name, marks=pytest.mark.oracle) for name in (["oracle"] if REAL else PROFILES)]
DATABASES = ORACLES if REAL else ["sqlite", *ORACLES]
# For features that SQLite lacks. A test that injects faults requests `emulator`, since a real server has no faults.
on_oracle = pytest.mark.parametrize("new_engine", ORACLES, indirect=True)

_files: list[Engine] = []  # to be closed
# Compiles statements without a connection, as `create_engine` does.
ORACLE = make_url("oracle+oracledb://").get_dialect()(enable_offset_fetch=False)  # type: ignore[call-arg]  # of Oracle's dialect


def connect_to(url: str, schema: str | None = None) -> Engine:
    """An engine, made as by the program."""
    engine = create_engine(DatabaseSettings(url=SecretStr(url), db_schema=schema, encryption_key=None))
    if engine.dialect.name == "sqlite":
        _files.append(engine)
    return engine


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    """Closes the SQLite files that a test leaves open, of which Python warns since 3.13, in some later test."""
    yield
    while _files:
        _files.pop().dispose()


def database(path: Path) -> Engine:
    """An engine on an SQLite file."""
    return connect_to(f"sqlite:///{path}")


def differences(engine: Engine) -> list[object]:
    """The changes that Alembic would make to turn the tables into those of the models."""
    with engine.connect() as connection:
        options = {"version_table": migrations.VERSIONS, "include_name": lambda name, *_: name not in UNIQUE}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


def url_of(engine: Engine) -> str:
    """The URL for another process, with the password."""
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def new_sqlite_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Engine]]:
    """Makes engines, each on a migrated file of its own."""
    directory = tmp_path_factory.mktemp("databases")
    template = database(directory / "template.db")
    migrations.upgrade(template)
    template.dispose()  # the last connection to close writes the log back into the file
    engines: list[Engine] = []
    names = count()

    def make() -> Engine:
        path = directory / f"{next(names)}.db"
        shutil.copy(directory / "template.db", path)
        engine = database(path)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="session")
def emulated_oracles() -> Iterator[EmulatedOracles]:
    """A server of each profile, started for the first test that needs it."""
    with EmulatedOracles(connect_to) as oracles:
        yield oracles


@pytest.fixture(scope="session")
def real_oracle() -> Iterator[RealOracle]:
    """The database of ORACLE_URL, with our tables until the session ends."""
    with RealOracle(connect_to, REAL) as oracle:
        yield oracle


@contextmanager
def making_engines(request: pytest.FixtureRequest, name: str) -> Iterator[Callable[[], Engine]]:
    """Makes engines on one of DATABASES for the test that requests them."""
    if name == "sqlite":
        yield request.getfixturevalue("new_sqlite_engine")
    elif name == "oracle":
        with request.getfixturevalue("real_oracle").making() as make:
            yield make
    else:
        with request.getfixturevalue("emulated_oracles").making(name) as make:
            yield make


@pytest.fixture
def new_engine(request: pytest.FixtureRequest) -> Iterator[Callable[[], Engine]]:
    """Makes engines, each on a migrated, empty database: SQLite, unless a test is marked with `on_oracle`."""
    with making_engines(request, getattr(request, "param", "sqlite")) as make:
        yield make


@pytest.fixture(params=DATABASES)
def each_new_engine(request: pytest.FixtureRequest) -> Iterator[Callable[[], Engine]]:
    """Makes engines on each database in turn. The real one is shared, and emptied each time."""
    with making_engines(request, request.param) as make:
        yield make


@pytest.fixture
def engine(new_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """A migrated, empty database."""
    result = new_engine()
    yield result
    result.dispose()


@pytest.fixture
def sqlite_engine(new_sqlite_engine: Callable[[], Engine]) -> Iterator[Engine]:
    """A migrated, empty file."""
    result = new_sqlite_engine()
    yield result
    result.dispose()


@pytest.fixture
def emulator(request: pytest.FixtureRequest, new_engine: Callable[[], Engine]) -> OracleEmulator | None:
    """The server behind `engine`, to inject faults into; None with SQLite."""
    del new_engine  # requested only for its server
    callspec = getattr(request.node, "callspec", None)
    name = callspec.params.get("new_engine", "sqlite") if callspec else "sqlite"
    if name == "oracle":
        pytest.skip("faults cannot be injected into a real database")
    if name == "sqlite":
        return None
    server: OracleEmulator = request.getfixturevalue("emulated_oracles").server(name)
    return server
