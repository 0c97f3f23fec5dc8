"""The start of a session: agreement on protocol and data types, and the proof of the password (O5LOGON, 12c)."""

import hashlib
import re
import secrets
import struct
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.oracle_emulator import answers
from tests.oracle_emulator.errors import OracleError
from tests.oracle_emulator.packets import Disconnect
from tests.oracle_emulator.session import Session
from tests.oracle_emulator.wire import Reader, Writer

PROTOCOL, DATA_TYPES, FUNCTION, FAST_AUTHENTICATION = 1, 2, 3, 34
AUTHENTICATE_ONE, AUTHENTICATE_TWO = 118, 115
_AL16UTF16 = 2000
_LONG_STRINGS = 0x04
_VERIFIER_12C = 0x4815
_ITERATIONS, _KEY_ITERATIONS = 4096, 3
_TIME_ZONE = re.compile(r"TIME_ZONE\s*=\s*'([^']+)'", re.IGNORECASE)
_ISOLATION = re.compile(r"ISOLATION_LEVEL\s*=\s*(SERIALIZABLE|READ COMMITTED)", re.IGNORECASE)
_DDL_WAIT = re.compile(r"DDL_LOCK_TIMEOUT\s*=\s*(\d+)", re.IGNORECASE)
_SCHEMA = re.compile(r"CURRENT_SCHEMA\s*=\s*\"?(\w+)", re.IGNORECASE)


@dataclass(frozen=True)
class Challenge:
    """The server's challenge of a log-in."""

    session_salt: bytes
    session_key: bytes
    key: bytes  # derived from the password


class Login:
    """The log-in of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._user = ""
        self._challenge: Challenge | None = None

    def protocol(self, reader: Reader) -> None:
        """Agrees on the protocol."""
        _read_protocol(reader)
        self._session.answer(self._write_protocol(Writer()))

    def data_types(self, reader: Reader) -> None:
        """Agrees on the data types."""
        self._session.answer(_write_data_types(Writer(), self._read_data_types(reader)))

    def fast(self, reader: Reader) -> None:
        """Handles protocol, data types and the first half of the log-in in one message."""
        reader.skip("bbb")
        _expect(reader, PROTOCOL)
        _read_protocol(reader)
        reader.skip("bbbbbb")  # the last byte is the field version of this message
        _expect(reader, DATA_TYPES)
        types = self._read_data_types(reader)
        self._session.field_version = self._session.profile.field_version
        writer = _write_data_types(self._write_protocol(Writer()), types)
        _expect(reader, FUNCTION)
        _expect(reader, AUTHENTICATE_ONE)
        reader.byte()
        self._session.channel.marks_end = True
        self.challenge(reader, writer)
        self._session.answer(writer)

    def challenge(self, reader: Reader, writer: Writer) -> None:
        """The first half, with the user's name. An unknown user gets a challenge too."""
        name, given = _read_pairs(reader)
        self._session.program = given.get("AUTH_PROGRAM_NM", "")
        self._user = name.strip('"') if name.startswith('"') else name.upper()
        instance = self._session.instance
        key = _verifier(instance.passwords.get(self._user, secrets.token_hex(8)), instance.salt)
        session_salt, session_key = secrets.token_bytes(16), secrets.token_bytes(32)
        self._challenge = Challenge(session_salt, session_key, key)
        answers.pairs(
            writer,
            [
                ("AUTH_SESSKEY", _hexadecimal(_encrypt(key, session_key)), 0),
                ("AUTH_VFR_DATA", _hexadecimal(instance.salt), _VERIFIER_12C),
                ("AUTH_PBKDF2_CSK_SALT", _hexadecimal(session_salt), 0),
                ("AUTH_PBKDF2_VGEN_COUNT", str(_ITERATIONS), 0),
                ("AUTH_PBKDF2_SDER_COUNT", str(_KEY_ITERATIONS), 0),
            ],
        )
        answers.end(self._session, writer)

    def prove(self, reader: Reader, writer: Writer) -> None:
        """The second half, with the password. Raises ORA-01017 if it is wrong."""
        _, given = _read_pairs(reader)
        challenge, session, instance = self._challenge, self._session, self._session.instance
        if challenge is None:
            raise Disconnect("a password before a user")
        theirs = _decrypt(challenge.key, bytes.fromhex(given.get("AUTH_SESSKEY", "00" * 32)))
        both = _hexadecimal(theirs[:32] + challenge.session_key).encode()
        key = hashlib.pbkdf2_hmac("sha512", both, challenge.session_salt, _KEY_ITERATIONS, 32)
        plain = _decrypt(key, bytes.fromhex(given.get("AUTH_PASSWORD", "00" * 16)))
        password = plain[16 : -plain[-1]] if 0 < plain[-1] <= 16 else b""
        if self._user not in instance.passwords or password != instance.passwords[self._user].encode():
            raise OracleError(1017, "invalid username/password; logon denied")
        session.log_in(self._user)
        alter_session(session, given.get("AUTH_ALTER_SESSION", "").rstrip("\0"))
        first, second, third, fourth, fifth = session.profile.version
        version = first << 24 | second << 16 | third << 12 | fourth << 4 | fifth
        proof = _encrypt(key, secrets.token_bytes(16) + b"SERVER_TO_CLIENT" + b"\x10" * 16)
        answers.pairs(
            writer,
            [
                ("AUTH_VERSION_NO", str(version), 0),
                ("AUTH_SESSION_ID", str(session.number), 0),
                ("AUTH_SERIAL_NUM", "1", 0),
                ("AUTH_SC_SERVICE_NAME", instance.service, 0),
                ("AUTH_SC_DBUNIQUE_NAME", "EMU", 0),
                ("AUTH_INSTANCENAME", "EMU", 0),
                ("AUTH_MAX_OPEN_CURSORS", "300", 0),
                ("AUTH_MAX_IDEN_LENGTH", "128", 0),
                ("AUTH_SVR_RESPONSE", _hexadecimal(proof), 0),
            ],
        )
        answers.end(session, writer)

    def _write_protocol(self, writer: Writer) -> Writer:
        profile = self._session.profile
        writer.byte(PROTOCOL, 6, 0).raw(b"x86_64/Linux 2.4.xx\0")
        writer.raw(struct.pack("<HBH", answers.AL32UTF8, 1, 0))  # flags, no conversions
        sets = bytearray(11)
        sets[9:11] = struct.pack(">H", _AL16UTF16)
        writer.two_bytes(len(sets)).raw(bytes(sets))
        compiled = bytearray(55)
        compiled[7] = profile.field_version
        running = bytearray(11)
        running[6] = _LONG_STRINGS if profile.max_string > 4000 else 0
        return writer.value(bytes(compiled)).value(bytes(running))

    def _read_data_types(self, reader: Reader) -> list[tuple[int, int, int]]:
        reader.skip("bbbbb")
        capabilities = reader.value() or bytes(8)
        reader.value()
        self._session.field_version = min(self._session.profile.field_version, capabilities[7])
        types = []
        while (kind := reader.two_bytes()) != 0:
            types.append((kind, reader.two_bytes(), reader.two_bytes()))
            reader.two_bytes()
        return types


def alter_session(session: Session, sql: str) -> None:
    """Applies the parts of ALTER SESSION that matter here: time zone, isolation level, wait for locks, schema."""
    if found := _TIME_ZONE.search(sql):
        session.connection.command(f"SET TIME ZONE '{found[1]}'")
    if found := _ISOLATION.search(sql):
        session.connection.command(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {found[1]}")
    if found := _DDL_WAIT.search(sql):
        session.ddl_wait = float(found[1])
    if found := _SCHEMA.search(sql):
        if found[1].upper() not in session.instance.passwords:
            raise OracleError(1435, "user does not exist")
        session.connection.set_schema(found[1].upper())


@lru_cache
def _verifier(password: str, salt: bytes) -> bytes:
    """The password verifier that a server stores; it takes some milliseconds to compute."""
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt + b"AUTH_PBKDF2_SPEEDY_KEY", _ITERATIONS, 64)
    return hashlib.sha512(derived + salt).digest()[:32]


def _read_protocol(reader: Reader) -> None:
    while reader.byte() != 0:
        pass
    reader.until_nul()


def _write_data_types(writer: Writer, types: list[tuple[int, int, int]]) -> Writer:
    writer.byte(DATA_TYPES)
    for kind, conversion, representation in types:
        writer.two_bytes(kind).two_bytes(conversion)
        if conversion:
            writer.two_bytes(representation).two_bytes(0)
    return writer.two_bytes(0)


def _read_pairs(reader: Reader) -> tuple[str, dict[str, str]]:
    has_user = reader.byte()
    reader.skip("nnb")
    count = reader.number()
    reader.skip("bb")
    user = (reader.value() or b"").decode() if has_user else ""
    given = {}
    for _ in range(count):
        key = reader.text()
        given[key] = reader.text()
        reader.number()
    return user, given


def _expect(reader: Reader, message: int) -> None:
    if (found := reader.byte()) != message:
        raise Disconnect(f"message {found} where {message} was to come")


def _hexadecimal(data: bytes) -> str:
    return data.hex().upper()


def _cipher(key: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CBC(bytes(16)))


def _encrypt(key: bytes, data: bytes) -> bytes:
    encryptor = _cipher(key).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _decrypt(key: bytes, data: bytes) -> bytes:
    decryptor = _cipher(key).decryptor()
    return decryptor.update(data) + decryptor.finalize()
