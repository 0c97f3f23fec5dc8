"""The emulated server: its listener, its users, and the controls for tests."""

import contextlib
import secrets
import socket
import ssl
from collections.abc import Mapping
from itertools import count
from threading import Lock, Thread
from types import TracebackType
from typing import NamedTuple, Self

from tests.oracle_emulator.conversation import Conversation
from tests.oracle_emulator.database import Database
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.instance import (
    PROFILE_19C,
    Call,
    Client,
    Drop,
    Failure,
    Fault,
    Instance,
    Matches,
    Profile,
    pattern,
)
from tests.oracle_emulator.packets import Channel
from tests.oracle_emulator.session import Session

_FIRST_SESSION = 101


class Tables(NamedTuple):
    """A user's tables and rows, as the statements that create them."""

    owner: str
    statements: tuple[str, ...]


class OracleEmulator:
    """A server on loopback for the `with` block. Raises NotProvided if it cannot run here."""

    def __init__(
        self,
        profile: Profile = PROFILE_19C,
        *,
        users: Mapping[str, str] | None = None,
        service: str = "FREEPDB1",
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        character_set: str = "AL32UTF8",
    ) -> None:
        """`users`: passwords by user, by default `{"webhooks": "secret"}`. With `tls` the listener is TCPS.

        `character_set`: the database's, one of `binds.CODECS`.
        """
        self.profile = profile
        self.host = host
        self._tls = tls
        self._database = Database(f"oracle_{secrets.token_hex(6)}", profile.release, character_set)
        self._instance = Instance(self._database, profile, service, character_set)
        self._sessions: dict[Session, Thread] = {}
        self._lock = Lock()
        self._numbers = count(_FIRST_SESSION)
        self._listener = socket.create_server((self.host, port))
        self.port: int = self._listener.getsockname()[1]
        for user, password in (users or {"webhooks": "secret"}).items():
            self.add_user(user, password)

    def __enter__(self) -> Self:
        self._start_listening()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_listener()
        self.kill_sessions()
        with self._lock:
            threads = list(self._sessions.values())
        for thread in threads:  # a thread still in Java would keep the process from ending
            thread.join()
        self._database.close()

    @property
    def dsn(self) -> str:
        """The server's address, as the driver expects it."""
        return f"{'tcps://' if self._tls else ''}{self.host}:{self.port}/{self._instance.service}"

    @property
    def url(self) -> str:
        """The first user's URL, as SQLAlchemy expects it."""
        return self.url_of(next(iter(self._instance.passwords)))

    def url_of(self, user: str) -> str:
        """A user's URL, as SQLAlchemy expects it."""
        password = self._instance.passwords[user.upper()]
        place = f"{self.host}:{self.port}/?service_name={self._instance.service}"
        return f"oracle+oracledb://{user.lower()}:{password}@{place}"

    def add_user(self, user: str, password: str) -> None:
        """Adds a user with an empty schema."""
        self._database.add_schema(user.upper())
        self._instance.passwords[user.upper()] = password

    def tables_of(self, user: str) -> Tables:
        """A user's present tables and rows, for `new_user`."""
        return Tables(user.upper(), tuple(self._database.script(user.upper())))

    def new_user(self, tables: Tables) -> str:
        """Adds a user with these tables, for one test, in some milliseconds. Returns its name; `url_of` has its URL."""
        user = f"U{secrets.token_hex(6).upper()}"
        self.add_user(user, secrets.token_hex(8))
        self._database.run(each.replace(f'"{tables.owner}".', f'"{user}".') for each in tables.statements)
        return user

    def drop_user(self, user: str) -> None:
        """Ends a user's sessions and drops it with its schema."""
        self.kill_sessions(user)
        self._instance.passwords.pop(user.upper(), None)
        self._database.drop_schema(user.upper())

    @property
    def calls(self) -> list[Call]:
        """The calls since `forget`."""
        return self._instance.calls

    @property
    def clients(self) -> list[Client]:
        """The clients that are logged in."""
        with self._lock:
            sessions = [session for session in self._sessions if session.logged_in]
        return [Client(each.number, each.user, each.program, each.module, each.action) for each in sessions]

    @property
    def failures(self) -> list[Failure]:
        """Requests since `forget` that the emulator could not serve; a test that causes any proves nothing."""
        return self._instance.failures

    def forget(self) -> None:
        """Clears faults, calls and failures, before the next test."""
        self._instance.forget()

    def inject(
        self, calls: str | Matches, error: OracleError | None = None, *, drop: Drop = "", times: float = 1
    ) -> Fault:
        """Make the next `times` matching calls fail.

        They fail with an error, or lose the connection before or after they execute. `calls` is a regular expression
        for their SQL (or COMMIT, ROLLBACK, PING, CONNECT), or a function that receives a Call and says whether it
        fails. The function may also wait, count, or raise an OracleError of its own. To end the returned fault, set its
        `times` to 0.
        """
        fault = Fault(pattern(calls) if isinstance(calls, str) else calls, error, drop, times)
        self._instance.inject(fault)
        return fault

    def kill_sessions(self, user: str | None = None) -> None:
        """Closes the sessions' connections, all or one user's, as if the server processes had died."""
        with self._lock:
            chosen = [session for session in self._sessions if user is None or session.user == user.upper()]
        for session in chosen:
            session.channel.kill()

    def close_listener(self) -> None:
        """Refuses new connections; sessions go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def open_listener(self) -> None:
        """Listens again, on the same port."""
        self._listener = socket.create_server((self.host, self.port))
        self._start_listening()

    def set_password(self, user: str, password: str) -> None:
        """Changes a password as a DBA does: sessions go on, and new ones need it."""
        self._instance.passwords[user.upper()] = password

    def _start_listening(self) -> None:
        Thread(target=self._listen, args=(self._listener,), daemon=True, name="oracle-emulator-listener").start()

    def _listen(self, listener: socket.socket) -> None:
        for number in self._numbers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(self._instance, Channel(connection), number)
            thread = Thread(target=self._serve, args=(session,), daemon=True, name=f"oracle-emulator-{number}")
            with self._lock:
                self._sessions[session] = thread
            thread.start()

    def _serve(self, session: Session) -> None:
        try:
            Conversation(session).run(self._tls)
        finally:
            with self._lock:
                self._sessions.pop(session, None)
