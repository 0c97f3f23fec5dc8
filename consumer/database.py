"""The engine, what its errors mean, and the thread that statements run on."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from consumer.errors import DatabaseUnavailable, SettingsError
from consumer.settings import DatabaseSettings

CALL_TIMEOUT = 30.0  # seconds for one round trip to Oracle: the largest batch takes one, a lost network never ends
LOCK_TIMEOUT = 30.0  # seconds that SQLite waits for another process's transaction
CONNECT_TIMEOUT = 5.0
IN_LIST = 512  # the largest power of two below Oracle's limit of 1,000 elements (ORA-01795)

# The connection is of no more use. SQLAlchemy knows ORA-00028, 01033, 02396, 03113, 03114, 03135, DPY-1001 and 4011.
_DISCONNECTS = {
    "ORA-01012",  # not logged on
    "ORA-01034",  # the instance is not running
    "ORA-01089",  # immediate shutdown in progress
    "ORA-01092",  # the instance terminated
    "ORA-12570",  # the packet reader failed
    "ORA-25408",  # lost in a call that cannot be replayed
    "DPY-4024",  # call time-out: the answer may still come, to nobody
}
# The statement may succeed later, unchanged. All OperationalErrors of Oracle are of this kind, and these beside them.
_TRANSIENT = {
    "ORA-00018",  # maximum number of sessions
    "ORA-00020",  # maximum number of processes
    "ORA-00054",  # resource busy
    "ORA-00060",  # deadlock
    "ORA-00257",  # archiver error: connect as administrator only
    "ORA-01013",  # cancelled
    "ORA-01017",  # invalid credential: a password is being rotated
    "ORA-01035",  # restricted session
    "ORA-01045",  # no CREATE SESSION yet
    "ORA-01109",  # database not open
    "ORA-01536",  # space quota exceeded
    "ORA-01555",  # snapshot too old
    "ORA-01652",  # no temporary space
    "ORA-01653",  # a table cannot grow
    "ORA-01654",  # an index cannot grow
    "ORA-01691",  # a LOB cannot grow
    "ORA-04068",  # package state discarded
    "ORA-08177",  # cannot serialise access
    "ORA-16000",  # open for reading only: a switch-over
    "ORA-16456",  # switch-over in progress
    "ORA-28000",  # account locked
    "ORA-28001",  # password expired
    "ORA-30036",  # no undo space
}
_NOT_MIGRATED = {"ORA-00942", "ORA-00904"}  # no such table, no such column
_SQLITE_TRANSIENT = (
    "BUSY",
    "CANTOPEN",
    "CORRUPT",
    "FULL",
    "IOERR",
    "LOCKED",
    "NOMEM",
    "NOTADB",
    "PROTOCOL",
    "READONLY",
)
_CONNECTION_ID = re.compile(r" \(CONNECTION_ID=[^)]*\)")
MIGRATE = "the tables are missing or old: run kafka-webhooks migrate"

T = TypeVar("T")


def create_engine(settings: DatabaseSettings) -> Engine:
    """An engine that has not connected yet. SettingsError for an SQLite database that cannot work."""
    url = sa.make_url(settings.url.get_secret_value())
    if url.get_backend_name() == "oracle":
        return _oracle(url, settings.db_schema)
    if settings.db_schema:
        raise SettingsError("DATABASE_SCHEMA: SQLite has no schemas; unset it")
    if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
        raise SettingsError(
            "DATABASE_URL: a database in memory would forget stored deliveries. "
            "Name a file, for example: DATABASE_URL=sqlite:///webhooks.db"
        )
    return _sqlite(url)


def ping(engine: Engine) -> None:
    """Ask for one row. DatabaseUnavailable, with one line that says where and why, if none comes."""
    try:
        with reading(engine) as connection:
            connection.execute(sa.select(sa.literal(1)))
    except (DBAPIError, PoolTimeoutError) as error:
        raise unavailable(error) or DatabaseUnavailable(_line(error)) from None


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction only reads: on SQLite it does not wait for writers."""
    with engine.connect() as connection:
        yield connection.execution_options(sqlite_begin="BEGIN DEFERRED")


def unavailable(error: Exception) -> DatabaseUnavailable | None:
    """`error` as one that passes (lost, busy, full, not migrated yet), or None if it is a mistake of ours."""
    if isinstance(error, DatabaseUnavailable):
        return error
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailable("all connections of the pool are in use")
    if not isinstance(error, DBAPIError):
        return None
    code = _code(error.orig)
    if code in _NOT_MIGRATED or (
        code == "SQLITE_ERROR" and _line(error).startswith(("no such table", "no such column"))
    ):
        return DatabaseUnavailable(f"{_line(error)} ({MIGRATE})")
    sqlite = isinstance(error.orig, sqlite3.Error)
    passes = (
        error.connection_invalidated
        or code in _DISCONNECTS
        or code in _TRANSIENT
        or (isinstance(error, OperationalError) and not sqlite)
        or (sqlite and code.removeprefix("SQLITE_").startswith(_SQLITE_TRANSIENT))
    )
    return DatabaseUnavailable(_line(error)) if passes else None


def any_of(column: ColumnElement[Any], values: Sequence[object]) -> ColumnElement[bool]:
    """`column IN (values)`, for one or more values.

    Padded with the last one to a power of two, so that there are few different statements for Oracle to parse and keep,
    and cut into lists that Oracle takes.
    """
    size = padded(len(values))
    elements = [*values, *[values[-1]] * (size - len(values))]
    return sa.or_(*(column.in_(elements[start : start + IN_LIST]) for start in range(0, size, IN_LIST)))


def padded(number: int) -> int:
    """The next power of two: for what is written into a statement, each different number of it being another one."""
    return 1 << (number - 1).bit_length()


class DatabaseThread:
    """Runs jobs one after another on a thread of its own and hands each outcome back to the loop."""

    def __init__(self, name: str, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` takes a callback from any thread and runs it on the loop."""
        self._post = post
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        # A daemon: a statement that hangs in the driver must not keep a stopped process alive.
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Run `job` on the thread, then `done` on the loop, with the job's result or the exception it raised.

        An error that passes by itself arrives as DatabaseUnavailable; trying again is the caller's business.
        """
        if self._closed:
            raise RuntimeError("the database thread is closed")
        self._jobs.put(partial(self._run, job, done))

    def close(self, timeout: float | None = None) -> bool:
        """Run what was submitted, then end. False if that took more than `timeout` seconds."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (run := self._jobs.get()) is not None:
            run()

    def _run(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        outcome: T | Exception
        try:
            outcome = job()
        except Exception as error:  # noqa: BLE001 (every failure is handed to the loop, which owns the decision)
            outcome = unavailable(error) or error
        self._post(partial(done, outcome))


def _oracle(url: sa.URL, schema: str | None) -> Engine:
    engine = sa.create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=1800,  # firewalls forget idle connections after an hour at most
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,
        arraysize=500,
        connect_args={"tcp_connect_timeout": CONNECT_TIMEOUT, "stmtcachesize": 64},
        execution_options={"db_schema": schema},
    )

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: object, arguments: Any, parameters: Any) -> Any:
        try:
            return dialect.connect(*arguments, **parameters)
        except OSError as error:  # a host that does not resolve: the driver lets the resolver's own error through
            raise DatabaseUnavailable(f"cannot connect to {url.host}: {error.strerror or error}") from None

    # First of the listeners: SQLAlchemy asks a new connection for its schema.
    @event.listens_for(engine, "connect", insert=True)
    def prepare(connection: Any, _: object) -> None:
        connection.call_timeout = int(CALL_TIMEOUT * 1000)
        with connection.cursor() as cursor:
            # An offset, not the name UTC: timestamps stored with a zone's name cannot be fetched (DPY-3022).
            cursor.execute("ALTER SESSION SET TIME_ZONE = '+00:00'")
            if schema:
                cursor.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {schema}")

    @event.listens_for(engine, "handle_error")
    def recognise_disconnect(context: sa.engine.ExceptionContext) -> None:
        if _code(context.original_exception) in _DISCONNECTS:
            context.is_disconnect = True

    return engine


def _sqlite(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": LOCK_TIMEOUT})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads and then writes would fail, not wait, if another wrote in between.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


def _code(error: BaseException | None) -> str:
    """`ORA-03113`, `DPY-4011`, `SQLITE_BUSY`; empty if the error has none."""
    if isinstance(error, sqlite3.Error):
        return str(getattr(error, "sqlite_errorname", ""))
    return str(getattr(error.args[0], "full_code", "")) if error and error.args else ""


def _line(error: Exception) -> str:
    """The driver's own text, without what differs each time and its link: what SQLAlchemy adds holds the statement."""
    text = _CONNECTION_ID.sub("", str(getattr(error, "orig", None) or error))
    return " ".join(line for line in text.splitlines() if not line.startswith("Help: ")) or type(error).__name__
