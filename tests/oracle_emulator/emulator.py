"""The emulated server: its listener, its users, and what a test can do to it."""

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
from tests.oracle_emulator.instance import Call, Client, Drop, Failure, Fault, Instance, Matches, pattern
from tests.oracle_emulator.packets import Channel
from tests.oracle_emulator.profiles import PROFILE_19C, Profile
from tests.oracle_emulator.session import Session

_FIRST_SESSION = 101


class Tables(NamedTuple):
    """A user's tables and rows, as the statements that make them."""

    owner: str
    statements: tuple[str, ...]


class OracleEmulator:
    """A server on loopback, as long as the `with` block lasts. OracleEmulatorUnavailable if it cannot run here."""

    def __init__(
        self,
        profile: Profile = PROFILE_19C,
        *,
        users: Mapping[str, str] | None = None,
        service: str = "FREEPDB1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`users`: passwords by user, `{"webhooks": "secret"}` if none are given. With `tls` the listener is TCPS."""
        self.profile = profile
        self.host = "127.0.0.1"
        self._tls = tls
        self._database = Database(f"oracle_{secrets.token_hex(6)}", profile.release)
        self._instance = Instance(self._database, profile, service)
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
        for thread in threads:  # one that is left in Java when the process ends would stop it from ending
            thread.join()
        self._database.close()

    @property
    def dsn(self) -> str:
        """Where it listens, as the driver takes it."""
        return f"{'tcps://' if self._tls else ''}{self.host}:{self.port}/{self._instance.service}"

    @property
    def url(self) -> str:
        """The first user's url, as SQLAlchemy takes it."""
        return self.url_of(next(iter(self._instance.passwords)))

    def url_of(self, user: str) -> str:
        """A user's url, as SQLAlchemy takes it."""
        password = self._instance.passwords[user.upper()]
        place = f"{self.host}:{self.port}/?service_name={self._instance.service}"
        return f"oracle+oracledb://{user.lower()}:{password}@{place}"

    def add_user(self, user: str, password: str) -> None:
        """A user with an empty schema."""
        self._database.add_schema(user.upper())
        self._instance.passwords[user.upper()] = password

    def tables_of(self, user: str) -> Tables:
        """A user's tables as they are now, with their rows: what `new_user` begins with."""
        return Tables(user.upper(), tuple(self._database.script(user.upper())))

    def new_user(self, tables: Tables) -> str:
        """A user of its own for one test, with these tables: a few milliseconds. Its name; `url_of` has its url."""
        user = f"U{secrets.token_hex(6).upper()}"
        self.add_user(user, secrets.token_hex(8))
        self._database.run(each.replace(f'"{tables.owner}".', f'"{user}".') for each in tables.statements)
        return user

    def drop_user(self, user: str) -> None:
        """End a user's sessions, drop its schema, forget it."""
        self.kill_sessions(user)
        self._instance.passwords.pop(user.upper(), None)
        self._database.drop_schema(user.upper())

    @property
    def calls(self) -> list[Call]:
        """What has been run since `forget`."""
        return self._instance.calls

    @property
    def clients(self) -> list[Client]:
        """Who is logged in."""
        with self._lock:
            sessions = [session for session in self._sessions if session.logged_in]
        return [Client(session.number, session.user, session.program, session.module) for session in sessions]

    @property
    def failures(self) -> list[Failure]:
        """What the emulator could not do since `forget`: a test that leaves some here proves nothing."""
        return self._instance.failures

    def forget(self) -> None:
        """Before the next test: no faults to come, no calls, no failures."""
        self._instance.forget()

    def inject(
        self, calls: str | Matches, error: OracleError | None = None, *, drop: Drop = "", times: float = 1
    ) -> Fault:
        """Have so many calls fail: with an error, or by losing the connection before or after they are executed.

        `calls` is a regular expression for their SQL (or COMMIT, ROLLBACK, PING, CONNECT), or a function that takes a
        Call and tells. The function may do more: wait, count, or raise an OracleError of its own. What is returned ends
        when its `times` are set to 0.
        """
        fault = Fault(pattern(calls) if isinstance(calls, str) else calls, error, drop, times)
        self._instance.inject(fault)
        return fault

    def kill_sessions(self, user: str | None = None) -> None:
        """As if the server's processes died, all of them or one user's: clients see their connections closed."""
        with self._lock:
            chosen = [session for session in self._sessions if user is None or session.user == user.upper()]
        for session in chosen:
            session.channel.kill()

    def close_listener(self) -> None:
        """Nobody can connect any more; sessions go on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def open_listener(self) -> None:
        """Listen again, on the same port."""
        self._listener = socket.create_server((self.host, self.port))
        self._start_listening()

    def set_password(self, user: str, password: str) -> None:
        """As a DBA does: sessions go on, and new ones need it."""
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
