"""TLS to receivers and proxies: verification, ciphers, session resumption, and TLS inside of TLS."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from consumer.crypto.certificates import TlsIdentity, ca_file, excess, install
from consumer.errors import SettingsError

_HTTP1, _HTTP2 = ["http/1.1"], ["h2", "http/1.1"]  # the protocols that are offered (RFC 7301)
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; all ciphers of TLS 1.3 have forward secrecy
_SESSIONS = 2_000  # receivers whose session is kept, 3 to 8 KB each
_IDENTITIES = 200  # contexts that are kept: up to 0.8 MB each with certifi's authorities, and 20 ms to make
_CHANGE, _ALERT, _HANDSHAKE = 20, 21, 22  # types of a record (RFC 8446, B.1)
_SERVER_HELLO, _CERTIFICATE = 2, 11  # types of a message (B.3)
_RETRY = sha256(b"HelloRetryRequest").digest()  # the random of such a ServerHello (4.1.3)
_KEY_SHARE = 51
# X25519, P-256, P-384, and X25519MLKEM768. OpenSSL offers ffdhe8192 too, for 0.1 s of ours and none of the receiver's,
# and Python (before 3.15) has no list of groups: so a receiver that asks for one of the others is refused in time.
_GROUPS = frozenset((29, 23, 24, 0x11EC))
_NO_COMPRESSED_CERTIFICATES = 1 << 33  # SSL_OP_NO_RX_CERTIFICATE_COMPRESSION, since OpenSSL 3.2
_END_WITHOUT_NOTIFY = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # OpenSSL 1.1.1 has no such option
_SESSION_AGE = 86_400.0  # seconds after a full handshake, which alone verifies the certificate
_HEADER = 5  # bytes of a record before its content
PIECE = 16_384  # bytes of a read: the data of a whole TLS record
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)  # the operation would block
_WRITE = 65_536  # bytes encrypted at once, for one call of the socket
_EMPTY = 65_536  # bytes received without data, a handshake among them; the largest chains of certificates have 20 KiB
_WORTH = 4  # bytes that a byte of data pays for: a record adds 22, and small frames of HTTP/2 come in one each
_MEANINGS = {  # explanations of OpenSSL's error reasons
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher with forward secrecy (ECDHE), or wants a client certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not support TLS 1.2 or newer",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refuses the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refuses the client certificate as expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it refuses the client certificate as revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refuses the client certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not support the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it accepts the client certificate, but not its owner",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the authority of the client certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate: subscriptions set-tls",
    "UNSUPPORTED_PROTOCOL": "it does not support TLS 1.2 or newer",
    "WRONG_VERSION_NUMBER": "it does not speak TLS at this port",
}
_UNKNOWN_ISSUER = frozenset((18, 19, 20, 21))  # verify(1), "DIAGNOSTICS": self-signed, or without a known issuer
_WRONG_NAME = 62  # the same
_OWN_AUTHORITY = "; if its authority is a private one: subscriptions set-tls --ca"


class ByteStream(Protocol):
    """A connected, non-blocking socket, or a TLS layer over one.

    An operation that would block raises BlockingIOError, ssl.SSLWantReadError or ssl.SSLWantWriteError. These are
    OSErrors, as are the errors that end the stream.
    """

    def fileno(self) -> int:
        """The socket's descriptor."""

    def send(self, data: Any, /) -> int:
        """Send `data`; returns the number of bytes sent."""

    def recv(self, size: int, /) -> bytes:
        """Received bytes, at most `size`; empty at the end of the stream."""

    def close(self) -> None:
        """Close the socket."""


class TlsStream:
    """TLS over a socket, or over a TLS stream to a proxy. The handshake is still to be done.

    OpenSSL does not read the socket itself: it would go on for as long as the peer sends tickets and key updates. It
    gets PIECE bytes in a call of this class at most, and the stream ends if too many of them carry no data.

    As with OpenSSL, a `send` that would block has already taken the start of the data and must be called again with the
    same data.
    """

    def __init__(
        self,
        lower: Any,
        context: ssl.SSLContext,
        name: str,
        owner: "Tls | None" = None,
        place: "Hop" = ("", 0),
    ) -> None:
        """`owner` keeps the sessions with the other end, which is at `place`."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._context, self._owner, self._place = context, owner, place
        self._kept = None if owner is None else owner.session(place)
        session = None if self._kept is None else self._kept.session
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._lower_recv, self._lower_send = lower.recv, lower.send
        self._lower_held: Callable[[], int] | None = lower.held if isinstance(lower, TlsStream) else None
        self._unsent = b""
        self._taken = 0  # bytes passed to `send` that are encrypted but not yet all sent
        self._empty = 0  # bytes received that carried too little data
        self._begun = False
        self._first: bytes | None = b""  # of the receiver, until its first message is complete
        self.fileno, self.close = lower.fileno, lower.close
        self.getpeercert, self.version, self.cipher = self._tls.getpeercert, self._tls.version, self._tls.cipher
        self.selected_alpn_protocol = self._tls.selected_alpn_protocol

    def keep_session(self) -> None:
        """Let the next connection resume the session. With TLS 1.3 there is none before the first read."""
        if self._owner is not None:
            self._owner.remember(self._place, self._tls, self._kept)

    def do_handshake(self) -> None:
        """Continue the handshake. Raises ssl.SSLWantReadError, ssl.SSLWantWriteError, or another OSError at its end."""
        if not self._push():
            raise ssl.SSLWantWriteError
        try:
            if self._begun:
                self._fill()
            self._begun = True
            self._tls.do_handshake()
        except NOT_NOW:
            raise (ssl.SSLWantReadError if self._push() else ssl.SSLWantWriteError) from None
        except OSError:
            if self._owner is not None:
                self._owner.forget(self._place)
            with contextlib.suppress(OSError):  # the error of the handshake is raised
                self._push()  # the alert that tells the peer why
            raise
        self._empty = 0
        self._push()

    def send(self, data: Any) -> int:
        """As `ByteStream` defines it."""
        if not self._taken:
            self._taken = self._tls.write(data[:_WRITE])
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def recv(self, size: int) -> bytes:
        """As `ByteStream` defines it: the data of one TLS record. No poller reports those that are `held` behind it."""
        if not self._incoming.pending:
            self._fill()
        try:
            data = self._tls.read(size)
        except ssl.SSLEOFError:
            return b""  # an end without a close_notify, to OpenSSL 1.1.1
        self._empty -= _WORTH * len(data)
        return data

    def held(self) -> int:
        """The number of bytes buffered: read from the socket, but not yet from this stream."""
        return self._incoming.pending

    def _fill(self) -> None:
        """Read the socket once."""
        data = self._lower_recv(PIECE)
        while data:
            self._empty = max(self._empty, 0) + len(data)
            if self._empty > _EMPTY or self._outgoing.pending > _EMPTY:
                raise OSError(None, f"it sent more than {_EMPTY // 1024} KiB of TLS messages without data")
            self._incoming.write(data if self._first is None else self._checked(data))
            if self._lower_held is None or not self._lower_held():
                return
            try:
                data = self._lower_recv(PIECE)
            except NOT_NOW:
                return
        self._incoming.write(self._first or b"")
        self._incoming.write_eof()

    def _checked(self, data: bytes) -> bytes:
        """What OpenSSL may read: the receiver's first message once it is complete, if it asks for no costly group."""
        self._first, passed = (self._first or b"") + data, b""
        while len(first := self._first) >= _HEADER:
            if first[0] not in (_CHANGE, _ALERT, _HANDSHAKE) or first[1] != 3:  # noqa: PLR2004 (3: TLS)
                break
            record, rest = first[: (end := _HEADER + int.from_bytes(first[3:_HEADER]))], first[end:]
            if len(record) < end:
                return passed
            if first[0] == _HANDSHAKE:
                _check_hello(record[_HEADER:])
                break
            self._first, passed = rest, passed + record
        else:
            return passed
        passed, self._first = passed + first, None
        return passed

    def _push(self) -> bool:
        """Send what OpenSSL has to send. False if some of it has to wait."""
        try:
            self._flush()
        except NOT_NOW:
            return False
        return True

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or self._outgoing.read()
            self._unsent = self._unsent[self._lower_send(self._unsent) :]


def _check_hello(hello: bytes) -> None:
    """Raise OSError for a first message that asks for a group beyond _GROUPS, or that hides what it asks for."""
    if hello[:1] != bytes((_SERVER_HELLO,)) or len(hello) < 4 + int.from_bytes(hello[1:4]):
        raise OSError(None, "its first message of TLS is no ServerHello in one piece")
    if hello[6:38] != _RETRY:
        return
    at = 44 + int.from_bytes(hello[38:39])  # the extensions (RFC 8446, 4.1.3)
    while at < len(hello):
        kind, size = int.from_bytes(hello[at : at + 2]), int.from_bytes(hello[at + 2 : at + 4])
        if kind == _KEY_SHARE and (group := int.from_bytes(hello[at + 4 : at + 6])) not in _GROUPS:
            raise OSError(None, f"it wants group {group:#06x} to exchange keys: only X25519, P-256 and P-384 are used")
        at += 4 + size


class _Costly(ssl.SSLError):
    """The receiver shows certificates that take too long to verify. OpenSSL's error has it as its context."""


Hop = tuple[str, int]  # host and port of the other end of TLS


class KeptSession(NamedTuple):
    """A session for a later connection, which may resume it until this time (unix seconds)."""

    session: ssl.SSLSession
    until: float


class Tls:
    """Starts TLS as a client: TLS 1.2 or newer, ECDHE, with the certificate and the host name verified."""

    def __init__(self, identity: TlsIdentity | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """`identity` shows its certificate and trusts its own authorities, if it has any; others trust `ca_file()`.

        SettingsError if `ca_file()` cannot be read, ValueError if OpenSSL refuses the identity.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.hostname_checks_common_name = False  # RFC 9525, section 2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(_HTTP1)
        context.options |= _NO_COMPRESSED_CERTIFICATES  # these cannot be looked at
        context.options |= _END_WITHOUT_NOTIFY  # most servers end so; as an error, it would end the session as well
        context.options |= ssl.OP_NO_RENEGOTIATION  # a receiver could request handshake after handshake
        if identity is None or identity.authorities is None:
            _trust_file(context, ca_file())
        else:  # the subscription's owner may be the authority, and verifying a costly chain takes 0.7 s of the loop
            _limit_chains(context)
        if identity is not None:
            try:
                install(context, identity)
            except OSError as error:
                raise ValueError(f"the subscription's certificates cannot be used: {reason_of(error)}") from None
        self._context = context
        self._offered = _HTTP1
        self._clock = clock
        self._sessions: dict[Hop, KeptSession] = {}  # least recently used first

    def start(
        self,
        stream: Any,
        host: str,
        port: int,
        *,
        http2: bool = False,
        shown: Callable[[bytes, ssl.SSLObject], None] | None = None,
    ) -> TlsStream:
        """TLS over a socket, or over a TLS stream to a proxy. ValueError if no certificate can hold the host's name.

        `http2`: HTTP/2 is offered too. `shown` gets the receiver's certificate (DER), before it is verified.
        """
        offered = _HTTP2 if http2 else _HTTP1
        if offered is not self._offered:  # a connection keeps the protocols that its context offered when it was made
            self._offered = offered
            self._context.set_alpn_protocols(offered)
        if shown is not None:
            _watch_chains(self._context, lambda chain, tls: shown(next(chain, b""), tls))
        name = host.removesuffix(".")
        try:
            name.encode("idna")  # OpenSSL's own error would not say which name
        except UnicodeError:
            raise ValueError("a label of the host's name is empty or longer than 63 characters") from None
        return TlsStream(stream, self._context, name, self, (host, port))

    def session(self, place: Hop) -> KeptSession | None:
        """The session that may be resumed at `place`."""
        kept = self._sessions.get(place)
        return kept if kept is not None and kept.until > self._clock() else None

    def remember(self, place: Hop, tls: ssl.SSLObject, resumed: KeptSession | None) -> None:
        """Keep the session of a connection to `place`, which had a session to resume if `resumed` is given.

        Resuming does not verify the certificate again, so sessions end with it, or a day after the last full handshake.
        """
        if (session := tls.session) is None or not session.has_ticket:
            return
        if tls.session_reused and resumed is not None:
            until = resumed.until
        else:
            try:
                ends = (tls.getpeercert() or {}).get("notAfter")
            except ValueError:  # after an error, OpenSSL shows no certificate
                return
            if not isinstance(ends, str):
                return
            until = min(self._clock() + _SESSION_AGE, ssl.cert_time_to_seconds(ends))
        self.forget(place)
        if len(self._sessions) >= _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[place] = KeptSession(session, until)

    def forget(self, place: Hop) -> None:
        """Drop the session with a receiver whose handshake failed."""
        self._sessions.pop(place, None)


class TlsContexts:
    """A Tls for each identity, made in a thread: it takes up to 20 ms. The least recently used ones are dropped."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        """`post` takes a callback from any thread and runs it on the loop."""
        self._post = post
        self._own: dict[TlsIdentity, Future[Tls]] = {}  # least recently used first
        self._thread = ThreadPoolExecutor(1, "certificates")

    def of(self, identity: TlsIdentity, done: Callable[[Future[Tls]], None]) -> None:
        """`done` gets the Tls, at once if it is kept. `result` raises ValueError if OpenSSL refuses the identity."""
        made = self._own.pop(identity, None)
        if made is None or (made.done() and made.exception() is not None):
            made = self._thread.submit(Tls, identity)
        if len(self._own) >= _IDENTITIES:
            del self._own[next(iter(self._own))]
        self._own[identity] = made
        if made.done():
            done(made)
        else:
            made.add_done_callback(lambda made: None if made.cancelled() else self._post(partial(done, made)))

    def close(self) -> None:
        """Make no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _limit_chains(context: ssl.SSLContext) -> None:
    """Refuse costly certificates before they are verified."""
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no authority, so that it verifies no signature

    def look(chain: Iterator[bytes], stream: Any) -> None:
        if (why := excess(chain)) is not None:
            stream.context = nobody
            raise _Costly(why)

    _watch_chains(context, look)


def _watch_chains(context: ssl.SSLContext, look: Callable[[Iterator[bytes], Any], None]) -> None:
    """Pass the certificates that a receiver shows to `look`, after those that looked before. It may raise."""
    before = context._msg_callback  # type: ignore[attr-defined]  # noqa: SLF001 (private, but there since Python 3.8)

    def on_message(stream: Any, direction: str, version: int, content: int, kind: int, data: bytes) -> None:
        if before is not None:
            before(stream, direction, version, content, kind, data)
        if (direction, content, kind) == ("read", _HANDSHAKE, _CERTIFICATE):
            look(_shown(data, is_1_3=version == ssl.TLSVersion.TLSv1_3), stream)

    context._msg_callback = on_message  # type: ignore[attr-defined]  # noqa: SLF001 (the same)


def _shown(message: bytes, *, is_1_3: bool) -> Iterator[bytes]:
    """The certificates in a message of the handshake (RFC 5246, 7.4.2; RFC 8446, 4.4.2)."""
    at = 7 + (1 + message[4] if is_1_3 else 0)
    while at < len(message):
        start = at + 3
        at = start + int.from_bytes(message[at:start])
        yield message[start:at]
        if is_1_3:
            at += 2 + int.from_bytes(message[at : at + 2])


def _trust_file(context: ssl.SSLContext, file: str) -> None:
    try:
        context.load_verify_locations(file)
    except OSError as error:
        raise SettingsError(f"the certificate authorities in {file}: {reason_of(error)}") from None


def reason_of(error: Exception) -> str:
    """The reason of an error as text; for OpenSSL's errors, without file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if isinstance(error.__context__, _Costly):
            return f"the certificate is refused: {error.__context__.args[0]}"
        hint = _OWN_AUTHORITY if error.verify_code in _UNKNOWN_ISSUER else ""
        hint = " Names count in its subjectAltName only" if error.verify_code == _WRONG_NAME else hint
        return f"the certificate is refused: {error.verify_message}{hint}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the other end closed the connection"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        words = reason.lower().replace("_", " ")
        return f"{_MEANINGS[reason]} ({words})" if reason in _MEANINGS else words
    return getattr(error, "strerror", None) or str(error)
