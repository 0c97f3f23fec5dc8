"""The state of one session: its user, cursors, large objects and transaction."""

from dataclasses import dataclass, field

from tests.oracle_emulator import meaning
from tests.oracle_emulator.columns import Column
from tests.oracle_emulator.database import Connection
from tests.oracle_emulator.dictionary import VIEWS
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import Bind, Call, Fault, Instance
from tests.oracle_emulator.java import Java
from tests.oracle_emulator.packets import Channel, Disconnect
from tests.oracle_emulator.statement import Statement
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Writer
from tests.oracle_emulator.worker import Worker

# Changed rows after which a statement is prepared again. H2 analyses a table after as many, and an older plan may scan
# a wrong index.
PLAN_LASTS = 200


@dataclass
class Cursor:
    """A statement that the session keeps open."""

    number: int
    statement: Statement
    prepared: Java | None = None
    planned_at: int = 0  # rows changed in the database by then
    result: Java | None = None
    columns: list[Column] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)
    defines: list[int] | None = None  # the column types that the client has defined
    returned: frozenset[int] = frozenset()  # OUT binds of PL/SQL
    ahead: list[Value] | None = None  # a row already read and not sent yet
    sent: int = 0  # rows

    def close(self) -> None:
        """Closes H2's statement."""
        if self.prepared is not None:
            self.prepared.close()
        self.prepared = self.result = self.defines = None


class Session:
    """One client's session."""

    def __init__(self, instance: Instance, channel: Channel, number: int) -> None:
        self.instance = instance
        self.channel = channel
        self.number = number
        self.profile = instance.profile
        self.field_version = instance.profile.field_version
        self.user = ""
        self.program = self.module = self.action = ""
        self.sql = ""  # the last statement requested
        self.in_transaction = False
        self.ddl_wait = 0.0  # seconds that a definition waits for transactions
        self.calls = 0
        self.cursor = 0  # the cursor of the present call
        self.cursors: dict[int, Cursor] = {}
        self.worker = Worker(channel)
        self._connection: Connection | None = None
        self._cursors_opened = 0

    @property
    def connection(self) -> Connection:
        """The connection to H2, which exists from the log-in on."""
        if self._connection is None:
            raise Disconnect("a call before the log-in")
        return self._connection

    @property
    def logged_in(self) -> bool:
        """Whether there is a connection to H2."""
        return self._connection is not None

    def log_in(self, user: str) -> None:
        """Connects to H2."""
        self.user = user
        self._connection = self.instance.database.connect(user)

    def open_cursor(self, statement: Statement) -> Cursor:
        """A new cursor."""
        self._cursors_opened += 1
        cursor = Cursor(self._cursors_opened, statement)
        self.cursors[cursor.number] = cursor
        return cursor

    def cursor_of(self, number: int) -> Cursor:
        """An open cursor. Raises ORA-01001 if none has this number."""
        if number not in self.cursors:
            raise OracleError(1001, "invalid cursor")
        return self.cursors[number]

    def prepare(self, cursor: Cursor) -> Java:
        """The cursor's statement, prepared in H2."""
        changed = self.connection.database.changed
        if cursor.prepared is not None and changed >= cursor.planned_at + PLAN_LASTS:
            cursor.prepared.close()
            cursor.prepared = None
        if cursor.prepared is None:
            cursor.planned_at = changed
            cursor.prepared = self.connection.prepare(cursor.statement.h2[0])
        return cursor.prepared

    def check(self, cursor: Cursor) -> None:
        """Raises OracleError if Oracle would refuse the names or types of the cursor's statement with its binds."""
        sql = cursor.statement.sql
        names = sorted(meaning.tables_of(sql))
        if any(name in VIEWS or name.startswith("USER_") for _, name in names):
            return  # a question about the dictionary, from SQLAlchemy or a test
        tables = tuple((table, self.connection.columns(*table)) for table in names)
        meaning.check(sql, tuple(cursor.binds), tables, self.profile.release)

    def fault(self, call: Call) -> Fault | None:
        """The fault injected for this call.

        Raises its error, or Disconnect if the connection is lost before executing.
        """
        fault = self.instance.fault_of(call)
        if fault and fault.error:
            raise fault.error
        if fault and fault.drop == "before":
            raise Disconnect
        return fault

    def call(self, text: str) -> Call:
        """A call without a statement, for faults."""
        return Call(self.number, self.user, text)

    def answer(self, message: Writer) -> None:
        """Sends an answer and records it."""
        self.channel.answer(message)
        self.instance.answers.append(bytes(message))

    def close(self) -> None:
        """Ends the session."""
        if self._connection is not None:
            self._connection.close()
        self.worker.close()
        self.channel.close()
