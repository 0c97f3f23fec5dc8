"""What all sessions of an emulated server share: its users and database, its faults, and what it has seen."""

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
    """How the client says that it sends a bind: its type, its form (2: NCHAR) and its largest size in bytes."""

    kind: int
    form: int
    size: int


class Call(NamedTuple):
    """A statement that a session ran: Oracle's text, and its binds as they were received, a row for each execution.

    What goes without a statement has a text too: COMMIT, ROLLBACK, PING, CONNECT. `parsed`: the client sent the text;
    if not, it named a cursor that was open. `binds`: how the values of a row are sent.
    """

    session: int
    user: str
    sql: str
    rows: Sequence[Sequence[Value]] = ()
    parsed: bool = True
    binds: Sequence[Bind] = ()


class Client(NamedTuple):
    """What a session's client says of itself: what V$SESSION shows a DBA."""

    session: int
    user: str
    program: str
    module: str


Matches: TypeAlias = Callable[[Call], bool]


class Failure(NamedTuple):
    """Something that the emulator could not do: the session's user, what it had been asked last, what went wrong."""

    user: str
    sql: str
    error: Exception


@dataclass
class Fault:
    """A fault to come: the calls it is for, and what happens to so many of them."""

    matches: Matches
    error: OracleError | None
    drop: Drop
    times: float


class Instance:
    """A server, but for its listener and its sessions."""

    def __init__(self, database: Database, profile: Profile, service: str) -> None:
        self.database = database
        self.profile = profile
        self.service = service
        self.passwords: dict[str, str] = {}  # by user
        self.salt = secrets.token_bytes(16)
        self.calls: list[Call] = []
        self.failures: list[Failure] = []
        self.answers: deque[bytes] = deque(maxlen=1000)  # TTC as it went out
        self._faults: list[Fault] = []
        self._lock = Lock()

    def inject(self, fault: Fault) -> None:
        """Have a fault happen."""
        with self._lock:
            self._faults.append(fault)

    def fault_of(self, call: Call) -> Fault | None:
        """The fault that this call meets; it is used up by one."""
        with self._lock:
            faults = list(self._faults)
        for fault in faults:
            if fault.times > 0 and fault.matches(call):  # not under the lock: a test's own function may wait
                fault.times -= 1
                return fault
        return None

    def forget(self) -> None:
        """Drop the faults to come, and what was noted."""
        with self._lock:
            self._faults.clear()
        self.calls.clear()
        self.failures.clear()
        self.answers.clear()


def pattern(text: str) -> Matches:
    """Calls in whose SQL a regular expression is found."""
    expression = re.compile(text, re.IGNORECASE | re.DOTALL)
    return lambda call: expression.search(call.sql) is not None
