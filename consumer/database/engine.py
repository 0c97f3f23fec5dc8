"""The engine, and the thread that runs statements."""

import errno
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import methodcaller
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from consumer.config.settings import DatabaseSettings
from consumer.database.charset import guard
from consumer.database.errors import is_alone, is_disconnect, is_not_migrated, kind, line, translated
from consumer.database.errors import unavailable as unavailable  # noqa: PLC0414 (re-exported to callers)
from consumer.errors import DatabaseUnavailable, SettingsError
from consumer.telemetry.metrics import Histogram

CALL_TIMEOUT = 30.0  # seconds for one round trip to Oracle: the largest batch takes one; a lost network would hang it
LOCK_TIMEOUT = 30.0  # seconds that SQLite waits for another process's transaction

T = TypeVar("T")


def create_engine(settings: DatabaseSettings) -> Engine:
    """An engine that has not connected yet. SettingsError for a database that can never work."""
    url = sa.make_url(settings.url.get_secret_value())
    if url.get_backend_name() == "oracle":
        return _oracle(settings, url)
    for name, value, lacks in (
        ("DATABASE_SCHEMA", settings.db_schema, "schemas"),
        ("DATABASE_PASSWORD_FILE", settings.password_file, "passwords"),
        ("DATABASE_WALLET_PASSWORD", settings.wallet_password, "wallets"),
        ("DATABASE_TOKEN_CALLBACK", settings.token_callback, "tokens"),
        ("ORACLE_CLIENT_LIB", settings.client_lib, "client"),
    ):
        if value:
            raise SettingsError(f"{name}: SQLite has no {lacks}; unset it")
    if url.database in (None, "", ":memory:") or url.query.get("mode") == "memory":
        raise SettingsError(
            "DATABASE_URL: a database in memory would forget stored deliveries. "
            "Name a file, for example: DATABASE_URL=sqlite:///webhooks.db"
        )
    return _sqlite(url)


def ping(engine: Engine) -> None:
    """Query one row. Raises DatabaseUnavailable, with the place and the reason on one line, if that fails."""
    try:
        with reading(engine) as connection:
            connection.execute(sa.select(sa.literal(1)))
    except (DBAPIError, PoolTimeoutError) as error:
        raise unavailable(error) or DatabaseUnavailable(line(error)) from None


def lossy_commits(engine: Engine) -> str | None:
    """The fault of a server that confirms commits before they are on disk; None if it does not, or may not be asked.

    The rule: Oracle Database Reference, COMMIT_WAIT and COMMIT_WRITE.
    """
    if engine.dialect.name != "oracle":
        return None
    names, setting = ("commit_wait", "commit_write"), sa.table("v$parameter", sa.column("name"), sa.column("value"))
    query = sa.select(setting.c.name).where(setting.c.name.in_(names), sa.func.upper(setting.c.value).like("%NOWAIT%"))
    try:
        with reading(engine) as connection:
            found = connection.scalars(query).all()
    except DBAPIError as error:
        if is_not_migrated(error):  # what Oracle says of a view that an account may not read
            return None
        raise
    if not found:
        return None
    return (
        f"{' and '.join(found)} is NOWAIT: the server confirms commits before they are on disk, so that a crash of it "
        "loses deliveries whose offsets are committed; unset it, for example: ALTER SYSTEM RESET commit_wait"
    )


def place_of(engine: Engine) -> str:
    """The database's URL for messages: nothing that stands before the host, where a mistyped URL has its password."""
    return engine.url._replace(username=None, password=None).render_as_string()


@contextmanager
def reading(bind: Engine | Connection) -> Iterator[Connection]:
    """A connection for a read-only transaction; on SQLite it does not wait for writers. Or the caller's transaction."""
    if isinstance(bind, Connection):
        yield bind
        return
    with bind.connect() as connection:
        yield connection.execution_options(sqlite_begin="BEGIN DEFERRED")


@contextmanager
def writing(bind: Engine | Connection) -> Iterator[Connection]:
    """A transaction of its own, committed at the end; on a connection, the caller's transaction."""
    if isinstance(bind, Connection):
        yield bind
        return
    with bind.begin() as connection:
        yield connection


class DatabaseThread:
    """Runs jobs one after another on a thread of its own and hands each outcome back to the loop.

    `name` is the thread's, `seconds` the time of its jobs, and `errors` counts the failed ones by kind. Another thread
    may read them.
    """

    def __init__(self, name: str, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` takes a callback from any thread and runs it on the loop."""
        self.name = name
        self.seconds = Histogram()
        self.errors: Counter[str] = Counter()
        self._post = post
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        # A daemon: a statement that hangs in the driver must not keep a stopped process alive.
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Run `job` on the thread, then `done` on the loop, with the job's result or the exception it raised.

        `done` gets a transient error as DatabaseUnavailable and any other database error as DatabaseRefused, both with
        the driver's text and without the statement. Retries are up to the caller.
        """
        if self._closed:
            raise RuntimeError("the database thread is closed")
        self._jobs.put(partial(self._run, job, done))

    def close(self, timeout: float | None = None) -> bool:
        """Run the submitted jobs, then end the thread. False if that took more than `timeout` seconds."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (run := self._jobs.get()) is not None:
            run()

    def _run(self, job: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        outcome: T | Exception
        began = time.monotonic()
        try:
            outcome = job()
        except Exception as error:  # noqa: BLE001 (every failure is handed to the loop, which owns the decision)
            outcome = translated(error)
            self.errors[kind(outcome)] += 1
        self.seconds.observe(time.monotonic() - began)
        self._post(partial(done, outcome))


def _oracle(settings: DatabaseSettings, url: sa.URL) -> Engine:
    # The module loads the driver: without the import, SQLite deployments start faster.
    from consumer.database.oracle import allow_parsing, connector, declare, name_sessions  # noqa: PLC0415

    schema = settings.db_schema
    engine = sa.create_engine(
        url,
        creator=connector(settings, url),
        pool_pre_ping=True,
        pool_recycle=1800,  # sessions return to a node that was down, and keep a DBA's limit on their age
        pool_size=4,
        max_overflow=4,
        pool_timeout=10,
        hide_parameters=True,
        arraysize=500,
        # ROWNUM stops a range scan after so many rows. FETCH FIRST is a window function to Oracle, which may sort all.
        enable_offset_fetch=False,
        execution_options={"db_schema": schema},
    )
    declare(engine)
    allow_parsing(engine)
    name_sessions(engine)
    guard(engine)
    # SQLAlchemy would read V$TRANSACTION, which each start of an account without that right leaves in the audit trail.
    engine.dialect.get_default_isolation_level = lambda _: "READ COMMITTED"  # type: ignore[method-assign, assignment]

    # Must be the first listener, because SQLAlchemy's own one asks a new connection for its schema.
    @event.listens_for(engine, "connect", insert=True)
    def prepare(connection: Any, _: object) -> None:
        connection.call_timeout = int(CALL_TIMEOUT * 1000)
        with connection.cursor() as cursor:
            # An offset, not the name UTC: timestamps stored with a zone's name cannot be fetched (DPY-3022). A server
            # that sorts by its language would order rows differently from Python, and could not use an index for it.
            cursor.execute("ALTER SESSION SET TIME_ZONE = '+00:00' NLS_SORT = BINARY NLS_COMP = BINARY")
            if schema:
                cursor.execute(f"ALTER SESSION SET CURRENT_SCHEMA = {schema}")

    @event.listens_for(engine, "handle_error")
    def recognise_disconnect(context: sa.engine.ExceptionContext) -> None:
        error = context.original_exception
        if is_disconnect(error):
            context.is_disconnect = True
        if is_alone(error):
            context.invalidate_pool_on_disconnect = False
            if context.is_pre_ping and "DPY-4024" not in str(error):  # a check that hangs says that the server does
                raise sa.exc.DisconnectionError(str(error))  # the pool renews this session alone

    @event.listens_for(engine, "invalidate")
    def roll_back(connection: Any, _: object, __: object) -> None:
        # The driver closes a connection with a rollback first. If that fails, it says nothing and leaves the socket
        # open, and the session keeps its locks until this process ends. It fails once if a call's answer came just
        # when its time was up: the server answers the driver's break too, with ORA-01013 to the next call.
        with suppress(Exception):
            connection.rollback()

    return engine


def create_file(engine: Engine) -> None:
    """Create the file of an SQLite database, empty, if it does not exist: connecting does not create it.

    Raises DatabaseUnavailable if it cannot be created. Does nothing on Oracle.
    """
    path = _path_of(engine.url)
    if path is None:
        return
    try:
        path.touch()
    except OSError as error:
        raise DatabaseUnavailable(f"{path} cannot be created: {_trouble(path, error)}") from None


def _sqlite(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": LOCK_TIMEOUT})

    @event.listens_for(engine, "do_connect")
    def connect(_: object, __: object, arguments: Sequence[Any], options: dict[str, Any]) -> sqlite3.Connection:
        path = _path_of(url)
        if path is not None:
            # A misspelt name must not create a new, empty file.
            arguments, options = [f"{path.as_uri()}?mode=rw"], {**options, "uri": True}
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(*arguments, **options)
            connection.isolation_level = None  # the driver must not begin transactions by itself
            # Latin-1 from a terminal in one row must not prevent reading the statement's other rows.
            connection.text_factory = methodcaller("decode", "utf-8", "replace")
            _log_ahead(connection)
            for pragma in ("synchronous = FULL", "foreign_keys = ON"):
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            raise _explained(error, path or arguments[0]) from None
        return connection

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: otherwise a transaction that reads and then writes fails, instead of waiting, if another one writes
        # in between.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))

    return engine


# SQLite does not wait for a lock here, as it does elsewhere: where three processes opened a new file at once, one
# connection in six failed.
@retry(
    retry=retry_if_exception(lambda error: getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY"),
    stop=stop_after_delay(LOCK_TIMEOUT),
    wait=wait_fixed(0.01),
    reraise=True,
)
def _log_ahead(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL").close()


def _path_of(url: sa.URL) -> Path | None:
    """The absolute path in a URL. None for Oracle, and for a URI of SQLite's own (`file:…?uri=true`)."""
    if url.get_backend_name() != "sqlite" or not url.database or "uri" in url.query:
        return None
    return Path(os.path.abspath(url.database))  # noqa: PTH100 (`resolve` would follow links, as SQLite does later)


def _trouble(path: Path, error: OSError) -> str:
    """The reason why a file cannot be opened or made, and what to do."""
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"there is no directory {path.parent}: make it, or correct DATABASE_URL"
    return f"{error.strerror}: correct DATABASE_URL, or the owner or mode of the file and its directory"


def _look_at(path: Path) -> None:
    """Raise the OSError of a file that cannot be used. Opens nothing: a close drops the locks of all connections."""
    path.stat()
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _explained(error: sqlite3.Error, path: Path | str) -> sqlite3.Error:
    """An error of opening a file, with the path and advice added to its text."""
    reason: object = error
    if error.sqlite_errorname == "SQLITE_NOTADB":
        reason = "it is not an SQLite database: correct DATABASE_URL"
    elif isinstance(path, Path):
        try:
            _look_at(path)
        except OSError as cause:
            reason = _trouble(path, cause)
            if isinstance(cause, FileNotFoundError) and path.parent.is_dir():
                reason = "there is no such file: correct DATABASE_URL, or make it with kafka-webhooks migrate"
    told = type(error)(f"{path} cannot be opened: {reason}")
    told.sqlite_errorname, told.sqlite_errorcode = error.sqlite_errorname, error.sqlite_errorcode
    return told
