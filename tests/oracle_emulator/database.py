"""One H2 database in memory with a schema for each user, and the sessions' connections to it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from decimal import Decimal
from threading import Condition, RLock
from typing import NamedTuple, TypeVar

import jpype

from tests.oracle_emulator import definitions, dictionary, java
from tests.oracle_emulator.definitions import Table
from tests.oracle_emulator.errors import BUSY, H2_LOCK_TIMEOUT, OracleError, from_h2, refused
from tests.oracle_emulator.java import Java
from tests.oracle_emulator.values import Value

# H2 cannot cancel a wait for a lock, so it waits for this many milliseconds at a time.
LOCK_WAIT = 100
OPTIONS = {
    "MODE": "Oracle",
    "DEFAULT_NULL_ORDERING": "HIGH",
    "NON_KEYWORDS": "DAY,VALUE,YEAR,MONTH,HOUR,MINUTE,SECOND,KEY",  # ordinary names in Oracle
    "DB_CLOSE_DELAY": "-1",
    "LOCK_TIMEOUT": LOCK_WAIT,
    "ANALYZE_AUTO": 200,
    "DATABASE_TO_UPPER": "TRUE",
}
_VARCHAR = 12  # java.sql.Types
_LONG = 2**63

T = TypeVar("T")


class Done(NamedTuple):
    """A statement's result: rows, or the number of rows changed."""

    result: Java | None
    changed: int


class Gate:
    """Lets statements in together, or one definition alone: H2 takes a table away meanwhile, and loses rows."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Beside other statements."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Beside no other statement."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


class Database:
    """A database in memory, until it is closed."""

    def __init__(self, name: str, release: int, character_set: str) -> None:
        self._url = f"jdbc:h2:mem:{name};" + ";".join(f"{option}={value}" for option, value in OPTIONS.items())
        self.release = release
        self.changed = 0  # rows, so far
        self._domains: set[str] = set()
        self.defining = RLock()  # held while a definition changes
        self.gate = Gate()
        # The columns by schema and table, as read from H2 until a definition changes.
        self.columns: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
        self._own = java.of_java("java.sql.DriverManager").getConnection(self._url, "sa", "")
        self.run(dictionary.definitions(f"{release}.0.0", character_set))

    def connect(self, schema: str) -> "Connection":
        """A connection that resolves names in a schema."""
        return Connection(self, java.of_java("java.sql.DriverManager").getConnection(self._url, "sa", ""), schema)

    def add_schema(self, schema: str) -> None:
        """Creates a schema if it does not exist."""
        self.run([f'CREATE SCHEMA IF NOT EXISTS "{schema}"'])

    def drop_schema(self, schema: str) -> None:
        """Drops a schema with all its objects."""
        self.run([f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'])

    def script(self, schema: str) -> list[str]:
        """The statements that create the schema's tables and rows."""
        statement = self._own.createStatement()
        try:
            result = statement.executeQuery(f'SCRIPT NOPASSWORDS NOSETTINGS SCHEMA "{schema}"')
            found: list[str] = []
            while result.next():
                found.append(result.getString(1))
            return [sql for sql in found if not sql.startswith(("--", "CREATE USER", "CREATE SCHEMA"))]
        finally:
            statement.close()

    def run(self, statements: Iterable[str]) -> None:
        """Runs statements in H2's SQL."""
        self.columns.clear()
        statement = self._own.createStatement()
        try:
            for sql in statements:
                statement.execute(sql)
        finally:
            statement.close()

    def add_domains(self, statements: Iterable[str]) -> None:
        """Creates the domains of text columns, which all schemas share, if they do not exist."""
        new = [sql for sql in statements if sql not in self._domains]
        self.run(new)
        self._domains.update(new)

    def close(self) -> None:
        """Closes the database, whose content is lost."""
        self.run(["SHUTDOWN IMMEDIATELY"])


class Connection:
    """A session's connection. H2's errors are raised as OracleError."""

    def __init__(self, database: Database, connection: Java, schema: str) -> None:
        self.database = database
        self._connection = connection
        self._user = self._schema = schema
        self._running: Java | None = None
        self._cancelled = False
        connection.setAutoCommit(False)
        self.set_schema(schema)

    def set_schema(self, schema: str) -> None:
        """Sets the schema that resolves names."""
        self.command(f'SET SCHEMA "{schema}"')
        self.command(f'SET SCHEMA_SEARCH_PATH "{schema}", SYS, PUBLIC')
        self._schema = schema

    def command(self, sql: str) -> None:
        """Runs a statement without binds and results."""
        statement = self._connection.createStatement()
        try:
            self._translating(lambda: statement.execute(sql))
        finally:
            statement.close()

    def commit(self) -> None:
        """Commits."""
        self._translating(self._connection.commit)

    def rollback(self) -> None:
        """Rolls back."""
        self._translating(self._connection.rollback)

    def close(self) -> None:
        """Rolls back and closes."""
        with suppress(jpype.JException):
            self._connection.rollback()
            self._connection.close()

    def ready(self) -> None:
        """Before a call: clears an earlier cancellation."""
        self._cancelled = False

    def cancel(self) -> None:
        """Cancels the call under way, from another thread."""
        self._cancelled = True
        if (statement := self._running) is not None:
            statement.cancel()

    def columns(self, schema: str, table: str) -> tuple[tuple[str, str], ...]:
        """A table's or view's visible columns: names, and types as Oracle names them. Empty if there is none."""
        known, key = self.database.columns, (schema or self._schema, table)
        if key not in known:
            found = self._find(*key)
            known[key] = tuple((each.name, each.kind) for each in definitions.columns_of(found)) if found else ()
        return known[key]

    def table(self, schema: str, name: str) -> Table | None:
        """A table of a schema (empty: the current one); None if there is none of that name."""
        found = self._find(schema or self._schema, name)
        return definitions.table_of(found) if found else None

    def tables(self) -> list[Table]:
        """The tables of the current schema."""
        session = self._connection.getSession()
        found = session.getDatabase().findSchema(self._schema).getAllTablesAndViews(session)
        return [definitions.table_of(each) for each in found]

    def validate(self, schema: str, table: str, constraint: str) -> None:
        """Raises OracleError if a row contradicts a check."""
        session = self._connection.getSession()
        found = self._find(schema or self._schema, table)
        for each in (found and found.getConstraints()) or ():
            if str(each.getName()) == constraint:
                self._translating(lambda: each.checkExistingData(session))  # noqa: B023 (called at once)
                return
        raise refused(2430, constraint)

    def _find(self, schema: str, name: str) -> Java | None:
        session = self._connection.getSession()
        found = session.getDatabase().findSchema(schema)
        return found and found.findTableOrView(session, name)

    def has_values(self, schema: str, table: str, column: str) -> bool:
        """Whether a column is not NULL in some row."""
        place = f'"{schema or self._schema}"."{table}"'
        statement = self._connection.createStatement()
        try:
            return bool(statement.executeQuery(f'SELECT 1 FROM {place} WHERE "{column}" IS NOT NULL').next())  # noqa: S608 (H2's own names)
        finally:
            statement.close()

    def prepare(self, sql: str) -> Java:
        """Prepares a statement for `execute`."""
        with self.database.gate.shared():
            return self._translating(lambda: self._connection.prepareStatement(dictionary.qualified(sql, self._user)))

    def define(self, sql: str, lock_wait: float) -> None:
        """Runs a definition. Waits `lock_wait` seconds for transactions that changed rows of the table (ORA-00054)."""
        deadline = time.monotonic() + lock_wait
        while True:
            try:
                with self.database.gate.alone():
                    self.command(sql)
            except OracleError as error:
                if error.code != BUSY or time.monotonic() >= deadline:
                    raise
            else:
                return

    def execute(self, prepared: Java, binds: Sequence[Value], lock_wait: float) -> Done:
        """Runs a statement. Waits `lock_wait` seconds for a lock, or until the call is cancelled (ORA-01013)."""
        deadline = time.monotonic() + lock_wait
        self._running = prepared
        try:
            for position, value in enumerate(binds, 1):
                _bind(prepared, position, value)
            while not self._cancelled:
                try:
                    with self.database.gate.shared():
                        has_rows = prepared.execute()
                    if has_rows:
                        return Done(prepared.getResultSet(), 0)
                    changed = int(prepared.getUpdateCount())
                    self.database.changed += changed
                    return Done(None, changed)
                except jpype.JException as error:  # H2 has undone the statement, so it can be repeated
                    if _code(error) != H2_LOCK_TIMEOUT or time.monotonic() >= deadline:
                        raise self._translated(error) from None
            raise OracleError(1013, "user requested cancel of current operation")
        finally:
            self._running = None

    def _translating(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except jpype.JException as error:
            raise self._translated(error) from None

    def _translated(self, error: Java) -> Exception:
        """H2's error as Oracle's. One that is not about SQL is a failure of the emulator."""
        code, message = _code(error), str(error)
        if code is None:
            return RuntimeError(message)
        return from_h2(code, str(error.getMessage()), self._schema, self.database.release)


def _code(error: Java) -> int | None:
    """H2's number of an SQL error; None for other errors."""
    number = getattr(error, "getErrorCode", None)
    return int(number()) if number else None


def _bind(prepared: Java, position: int, value: Value) -> None:
    if value is None:
        prepared.setNull(position, _VARCHAR)
    elif isinstance(value, str):
        prepared.setString(position, value)
    elif isinstance(value, bool):
        prepared.setBoolean(position, value)
    elif isinstance(value, int) and -_LONG <= value < _LONG:
        prepared.setLong(position, value)
    elif isinstance(value, int | Decimal):
        prepared.setBigDecimal(position, java.of_java("java.math.BigDecimal")(str(value)))
    elif isinstance(value, float):
        prepared.setDouble(position, value)
    elif isinstance(value, bytes):
        prepared.setBytes(position, jpype.JArray(jpype.JByte)(value))
    else:
        prepared.setObject(position, _moment(value))


def _moment(value: datetime) -> Java:
    fields = (value.year, value.month, value.day, value.hour, value.minute, value.second)
    moment = java.of_java("java.time.LocalDateTime").of(*fields, value.microsecond * 1000)
    offset = value.utcoffset()
    if offset is None:
        return moment
    return moment.atOffset(java.of_java("java.time.ZoneOffset").ofTotalSeconds(int(offset.total_seconds())))
