"""What one session knows: who it is, its cursors, its large objects, its transaction."""

from dataclasses import dataclass, field

from tests.oracle_emulator.columns import Column
from tests.oracle_emulator.database import Connection
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import Bind, Call, Fault, Instance
from tests.oracle_emulator.java import Java
from tests.oracle_emulator.lobs import LargeObjects
from tests.oracle_emulator.packets import Channel, Disconnect
from tests.oracle_emulator.statement import Statement
from tests.oracle_emulator.values import Value
from tests.oracle_emulator.wire import Writer
from tests.oracle_emulator.worker import Worker

# Rows to be changed until a statement is prepared again. H2 analyses a table after as many, and an older plan may read
# the wrong index from end to end.
PLAN_LASTS = 200


@dataclass
class Cursor:
    """A statement that the session keeps open."""

    number: int
    statement: Statement
    prepared: Java | None = None
    planned_at: int = 0  # rows that had been changed
    result: Java | None = None
    columns: list[Column] = field(default_factory=list)
    binds: list[Bind] = field(default_factory=list)
    defines: list[int] | None = None  # the types in which the client wants the columns
    returned: frozenset[int] = frozenset()  # binds of PL/SQL that only come back
    ahead: list[Value] | None = None  # a row that is read and not sent
    sent: int = 0  # rows

    def close(self) -> None:
        """Let H2's statement go."""
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
        self.program = self.module = ""
        self.sql = ""  # that it was asked for last
        self.in_transaction = False
        self.calls = 0
        self.cursor = 0  # that the present call is about
        self.cursors: dict[int, Cursor] = {}
        self.lobs = LargeObjects()
        self.worker = Worker(channel)
        self._connection: Connection | None = None
        self._cursors_opened = 0

    @property
    def connection(self) -> Connection:
        """The connection to H2; there is one from the log-in on."""
        if self._connection is None:
            raise Disconnect("a call before the log-in")
        return self._connection

    @property
    def logged_in(self) -> bool:
        """Whether there is a connection to H2."""
        return self._connection is not None

    def log_in(self, user: str) -> None:
        """Connect to H2."""
        self.user = user
        self._connection = self.instance.database.connect(user)

    def open_cursor(self, statement: Statement) -> Cursor:
        """A new cursor."""
        self._cursors_opened += 1
        cursor = Cursor(self._cursors_opened, statement)
        self.cursors[cursor.number] = cursor
        return cursor

    def cursor_of(self, number: int) -> Cursor:
        """An open cursor. ORA-01001 if there is none of that number."""
        if number not in self.cursors:
            raise OracleError(1001, "invalid cursor")
        return self.cursors[number]

    def prepare(self, cursor: Cursor) -> Java:
        """The cursor's statement, as H2 has it."""
        changed = self.connection.database.changed
        if cursor.prepared is not None and changed >= cursor.planned_at + PLAN_LASTS:
            cursor.prepared.close()
            cursor.prepared = None
        if cursor.prepared is None:
            cursor.planned_at = changed
            if cursor.statement.dated and self.connection.has_instant(cursor.statement.dated):
                raise OracleError(1843, "not a valid month")
            cursor.prepared = self.connection.prepare(cursor.statement.h2[0])
        return cursor.prepared

    def fault(self, call: Call) -> Fault | None:
        """What a test has in store for this call: its error, a lost connection, or one to be lost afterwards."""
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
        """Send an answer, and keep it."""
        self.channel.answer(message)
        self.instance.answers.append(bytes(message))

    def close(self) -> None:
        """The end."""
        if self._connection is not None:
            self._connection.close()
        self.worker.close()
        self.channel.close()
