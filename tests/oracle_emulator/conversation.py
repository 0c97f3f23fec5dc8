"""One session from its connection to its end: dispatches each message to its handler."""

import re
import ssl
import struct
from collections.abc import Callable

from tests.oracle_emulator import answers, changes, execution, login
from tests.oracle_emulator.errors import OracleError, Unsupported
from tests.oracle_emulator.instance import Failure
from tests.oracle_emulator.packets import ACCEPT, CONNECT, REFUSE, RESEND, UNIT, Break, Disconnect
from tests.oracle_emulator.session import Session
from tests.oracle_emulator.wire import Reader, Writer
from tests.oracle_emulator.worker import leave_java

PIGGYBACK, ONE_WAY = 17, 26
REEXECUTE, FETCH, LOG_OFF, COMMIT, ROLLBACK, REEXECUTE_AND_FETCH = 4, 5, 9, 14, 15, 78
EXECUTE, CLOSE_CURSORS, END_TO_END, PING, SET_SCHEMA, SESSION_STATE = 94, 105, 135, 147, 152, 176
_FAST_AUTHENTICATION = 0x1A000000  # and end of response: the flags of ACCEPT
_HAS_PIPELINES = 18  # field version

Handler = Callable[[Session, Reader, Writer], None]


class Conversation:
    """Answers one client until it disconnects."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._login = login.Login(session)
        self._handlers: dict[int, Handler] = {
            login.AUTHENTICATE_ONE: lambda _, reader, writer: self._login.challenge(reader, writer),
            login.AUTHENTICATE_TWO: lambda _, reader, writer: self._login.prove(reader, writer),
            EXECUTE: execution.execute,
            REEXECUTE: execution.execute_again,
            REEXECUTE_AND_FETCH: execution.execute_again_and_fetch,
            FETCH: execution.fetch,
            COMMIT: _commit,
            ROLLBACK: _rollback,
            PING: _ping,
        }

    def run(self, tls: ssl.SSLContext | None) -> None:
        """Runs the session. A request that the emulator lacks ends it, and is recorded among the failures."""
        session = self._session
        try:
            if tls:
                session.channel.connection = tls.wrap_socket(session.channel.connection, server_side=True)
            self._accept()
            while True:
                try:
                    self._answer(Reader(session.channel.data(), session.channel.data))
                except Break:
                    session.channel.acknowledge_break()
                    cancelled = OracleError(1013, "user requested cancel of current operation")
                    session.answer(answers.end(session, Writer(), error=cancelled))
        except (Disconnect, OSError) as end:
            if isinstance(end, Disconnect) and end.args:
                self._fail(end)
        except Exception as error:  # noqa: BLE001 (a gap in the emulator: the test is to see it)
            self._fail(error)
        finally:
            session.close()
            leave_java()

    def _fail(self, error: Exception) -> None:
        self._session.instance.failures.append(Failure(self._session.user, self._session.sql, error))

    def _accept(self) -> None:
        """The listener's part: chooses the service and the packet format."""
        session = self._session
        profile = session.profile
        found = re.search(r"SERVICE_NAME=([^)]*)", self._connect_data(), re.IGNORECASE)
        fault = session.instance.fault_of(session.call("CONNECT"))
        if fault and fault.drop:
            raise Disconnect
        code = fault.error.code if fault and fault.error else 0
        if not found or found[1].upper() != session.instance.service.upper():
            code = 12514
        if code:
            text = f"(DESCRIPTION=(TMP=)(VSNNUM=0)(ERR={code})(ERROR_STACK=(ERROR=(CODE={code})(EMFI=4))))"
            session.channel.send(REFUSE, b"\x22\x00" + struct.pack(">H", len(text)) + text.encode())
            raise Disconnect
        header = struct.pack(">HHHHHHHBB8x", profile.tns_version, 1, 0, 0, 0x0100, 0, 61, 0xC5, 0)
        flags = _FAST_AUTHENTICATION if profile.modern else 0
        session.channel.send(ACCEPT, header + struct.pack(">IIBI", UNIT, UNIT, 0, flags))
        session.channel.long_lengths = True

    def _connect_data(self) -> str:
        """The client's connect string. A real listener has it sent again if it comes in a packet of its own."""
        channel = self._session.channel
        for attempt in range(2):
            kind, body = channel.receive()
            if kind != CONNECT:
                raise Disconnect
            length, offset = struct.unpack(">HH", body[16:20])
            data = body[offset - 8 : offset - 8 + length]
            if not data:
                data = channel.receive()[1][2:]
                if attempt == 0:
                    channel.send(RESEND, b"")
                    continue
            break
        return data.decode()

    def _answer(self, reader: Reader) -> None:
        """Handles one message and the piggybacks before it."""
        session = self._session
        while True:
            message = reader.byte()
            if message == login.PROTOCOL:
                return self._login.protocol(reader)
            if message == login.DATA_TYPES:
                return self._login.data_types(reader)
            if message == login.FAST_AUTHENTICATION:
                return self._login.fast(reader)
            if message not in {login.FUNCTION, PIGGYBACK, ONE_WAY}:
                raise Disconnect(f"message {message}")
            function = reader.byte()
            reader.byte()
            if session.field_version >= _HAS_PIPELINES and session.channel.marks_end:
                reader.number()
            if message == PIGGYBACK:
                _piggyback(session, function, reader)
                continue
            session.calls += 1
            if message == ONE_WAY:
                return reader.skip("bbn")
            return self._call(function, reader)

    def _call(self, function: int, reader: Reader) -> None:
        session, writer = self._session, Writer()
        session.cursor = 0
        if function == LOG_OFF:
            session.answer(answers.status(session, writer))
            raise Disconnect
        try:
            handler = self._handlers.get(function)
            if handler is None:
                raise Unsupported(3115, f"unsupported network datatype or representation (function {function})")
            handler(session, reader, writer)
        except OracleError as error:
            if isinstance(error, Unsupported):
                self._fail(error)
            writer = answers.end(session, Writer(), cursor=session.cursor, error=error)
            if session.logged_in:
                session.channel.announce_error()
        session.answer(writer)


def _commit(session: Session, _: Reader, writer: Writer) -> None:
    fault = session.fault(session.call("COMMIT"))
    changes.end_transaction(session, "COMMIT")
    if fault and fault.drop == "after":
        raise Disconnect
    answers.status(session, writer)


def _rollback(session: Session, _: Reader, writer: Writer) -> None:
    session.fault(session.call("ROLLBACK"))
    changes.end_transaction(session, "ROLLBACK")
    answers.status(session, writer)


def _ping(session: Session, _: Reader, writer: Writer) -> None:
    session.fault(session.call("PING"))
    answers.status(session, writer)


def _piggyback(session: Session, function: int, reader: Reader) -> None:
    """Handles a request that a client sends along with its next call."""
    if function == CLOSE_CURSORS:
        reader.byte()
        for number in reader.numbers(reader.number()):
            if cursor := session.cursors.pop(number, None):
                cursor.close()
    elif function == SET_SCHEMA:
        reader.byte()
        login.alter_session(session, "CURRENT_SCHEMA=" + reader.text())
    elif function == SESSION_STATE:
        reader.number()
    elif function == END_TO_END:  # the client's names for itself
        _read_names(session, reader)
    else:
        raise Disconnect(f"a piggyback {function}")


def _read_names(session: Session, reader: Reader) -> None:
    reader.skip("bbn")
    lengths = []
    for unused in ("", "", "bnbn", "bnbn", ""):
        reader.byte()
        lengths.append(reader.number())
        reader.skip(unused)
    names = [(reader.value() or b"").decode() if length else "" for length in lengths]
    session.module = names[1] or session.module
    session.action = names[2] or session.action
