"""The version of an emulated server, and the state that its sessions share: users, database, faults, recorded calls."""

import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple, TypeAlias

from tests.oracle_emulator.database import Database
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.values import Value

Drop: TypeAlias = Literal["", "before", "after"]


@dataclass(frozen=True)
class Profile:
    """A server generation."""

    name: str
    version: tuple[int, int, int, int, int]
    tns_version: int
    field_version: int  # version of TTC's message fields
    modern: bool  # fast authentication, and an end-of-response flag in each answer
    max_string: int = 4000  # bytes of a VARCHAR2: MAX_STRING_SIZE=STANDARD

    @property
    def release(self) -> int:
        """The major version: 19, 23."""
        return self.version[0]


# Too old for the service; not among the profiles of its tests.
PROFILE_18C = Profile("18c", (18, 3, 0, 0, 0), tns_version=318, field_version=11, modern=False)
PROFILE_19C = Profile("19c", (19, 24, 0, 0, 0), tns_version=318, field_version=12, modern=False)
PROFILE_23AI = Profile("23ai", (23, 9, 0, 25, 7), tns_version=319, field_version=24, modern=True)
PROFILES = {profile.name: profile for profile in (PROFILE_19C, PROFILE_23AI)}


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
    action: str


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
