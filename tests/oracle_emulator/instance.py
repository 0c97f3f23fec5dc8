"""The state that all sessions of an emulated server share: users, database, faults, recorded calls."""

import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple, TypeAlias

from tests.oracle_emulator.database import Database
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.profiles import Profile
from tests.oracle_emulator.values import Value

Drop: TypeAlias = Literal["", "before", "after"]


class Bind(NamedTuple):
    """A client's declaration of a bind: type, form (2: NCHAR), and maximum size in bytes."""

    kind: int
    form: int
    size: int


class Call(NamedTuple):
    """A statement that a session ran: Oracle's text, and the binds received, one row for each execution.

    Calls without a statement have a text too: COMMIT, ROLLBACK, PING, CONNECT. `parsed`: the client sent the text, and
    not the number of an open cursor. `binds`: the declarations of a row's binds.
    """

    session: int
    user: str
    sql: str
    rows: Sequence[Sequence[Value]] = ()
    parsed: bool = True
    binds: Sequence[Bind] = ()


class Client(NamedTuple):
    """A session's client, as V$SESSION shows it to a DBA."""

    session: int
    user: str
    program: str
    module: str


Matches: TypeAlias = Callable[[Call], bool]


class Failure(NamedTuple):
    """A request that the emulator could not serve: the session's user, its last statement, and the error."""

    user: str
    sql: str
    error: Exception


@dataclass
class Fault:
    """An injected fault: the calls that it matches, its effect, and how many times it still happens."""

    matches: Matches
    error: OracleError | None
    drop: Drop
    times: float


class Instance:
    """A server without its listener and sessions."""

    def __init__(self, database: Database, profile: Profile, service: str, character_set: str) -> None:
        self.database = database
        self.profile = profile
        self.service = service
        self.character_set = character_set
        self.passwords: dict[str, str] = {}  # by user
        self.salt = secrets.token_bytes(16)
        self.calls: list[Call] = []
        self.failures: list[Failure] = []
        self.answers: deque[bytes] = deque(maxlen=1000)  # TTC messages as sent
        self._faults: list[Fault] = []
        self._lock = Lock()

    def inject(self, fault: Fault) -> None:
        """Adds a fault."""
        with self._lock:
            self._faults.append(fault)

    def fault_of(self, call: Call) -> Fault | None:
        """The fault for this call, whose `times` is decreased by one."""
        with self._lock:
            faults = list(self._faults)
        for fault in faults:
            if fault.times > 0 and fault.matches(call):  # without the lock: a test's function may wait
                fault.times -= 1
                return fault
        return None

    def forget(self) -> None:
        """Clears faults and all records."""
        with self._lock:
            self._faults.clear()
        self.calls.clear()
        self.failures.clear()
        self.answers.clear()


def pattern(text: str) -> Matches:
    """Matches calls whose SQL contains a regular expression."""
    expression = re.compile(text, re.IGNORECASE | re.DOTALL)
    return lambda call: expression.search(call.sql) is not None
