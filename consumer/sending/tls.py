"""TLS to receivers and proxies: what is verified and offered, sessions that are resumed, TLS inside of TLS."""

import os
import ssl
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import certifi

from consumer.errors import SettingsError

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 all have forward secrecy
_SESSIONS = 2_000  # receivers whose session is kept, of 3 to 8 KB each
PIECE = 16_384  # bytes of a read: those of one TLS record, so that nothing of it is left inside
_MEANINGS = {  # of what OpenSSL tells
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher with forward secrecy (ECDHE), or wants a client certificate",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS 1.2 or newer",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.2 or newer",
    "WRONG_VERSION_NUMBER": "it does not speak TLS at this port",
}


def ca_file(environment: Mapping[str, str] = os.environ) -> str:
    """The certificate authorities to trust: SSL_CERT_FILE or REQUESTS_CA_BUNDLE if set, else certifi's."""
    return environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE") or certifi.where()


class Stream(Protocol):
    """A connected, non-blocking socket, or what stands on one. Where it cannot go on now it raises BlockingIOError,
    ssl.SSLWantReadError or ssl.SSLWantWriteError; all are OSError, as what ends it is.
    """  # noqa: D205 (one sentence)

    def fileno(self) -> int:
        """The socket's descriptor."""

    def send(self, data: Any, /) -> int:
        """How many bytes of `data` went out."""

    def recv(self, size: int, /) -> bytes:
        """What has come, at most so much; empty at the end."""

    def close(self) -> None:
        """Close the socket."""


class TlsStream(Stream, Protocol):
    """A stream whose handshake is to be made."""

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later connection can resume."""

    def do_handshake(self) -> None:
        """Go on with it. ssl.SSLError, OSError."""

    def getpeercert(self, binary_form: Literal[True]) -> bytes | None:
        """The other end's certificate, in DER."""

    def version(self) -> str | None:
        """The protocol's version."""

    def cipher(self) -> tuple[str, str, int] | None:
        """Name, protocol and bits."""


class _Socket(ssl.SSLSocket):
    """A socket that was connected: what became of it since shows in the handshake."""

    def getpeername(self) -> Any:
        """Nobody's. Only `wrap_socket` asks, which would leave the socket open where the other end has reset it."""


class Tls:
    """Starts TLS as a client: TLS 1.2 or newer, ECDHE, the certificate and the host's name verified."""

    def __init__(self, authorities: str | None = None, *, verified: bool = True) -> None:
        """`authorities` is a file of certificates, by default `ca_file()`. SettingsError: it cannot be read.

        Not `verified` is for looking at a certificate that was refused.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_RENEGOTIATION  # the receiver could have us handshake again and again
        context.sslsocket_class = _Socket
        if verified:
            authorities = authorities or ca_file()
            try:
                context.load_verify_locations(authorities)
            except OSError as error:
                raise SettingsError(f"the certificate authorities in {authorities}: {reason_of(error)}") from None
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._context = context
        self._sessions: dict[tuple[str, int], ssl.SSLSession] = {}  # the one used last is the last

    def start(self, stream: Any, host: str, port: int) -> TlsStream:
        """TLS over a socket, or over a TLS stream to a proxy. ValueError: the name can be no certificate's."""
        session = self._sessions.get((host, port))
        name = host.removesuffix(".")
        try:
            name.encode("idna")  # as wrap_socket does when it has taken the socket, which it then leaves open
        except UnicodeError:
            raise ValueError("a label of the host's name is empty or longer than 63 characters") from None
        if isinstance(stream, ssl.SSLSocket):
            return TlsInTls(stream, self._context, name, session)
        return self._context.wrap_socket(stream, server_hostname=name, session=session, do_handshake_on_connect=False)

    def remember(self, stream: Any, host: str, port: int) -> None:
        """Keep its session for the next connection; TLS 1.3 has one once something was read."""
        if (session := stream.session) is None or not session.has_ticket:
            return
        self._sessions.pop((host, port), None)
        if len(self._sessions) >= _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[host, port] = session

    def forget(self, host: str, port: int) -> None:
        """Resume no session there: a handshake failed."""
        self._sessions.pop((host, port), None)


class TlsInTls:
    """TLS to a receiver, over TLS to a proxy.

    Where `send` cannot go on, it has taken the start of the data, and must be called with the same again: as OpenSSL's.
    """

    def __init__(self, outer: Any, context: ssl.SSLContext, name: str, session: ssl.SSLSession | None) -> None:
        self._outer: Stream = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name, session=session)
        self._unsent = b""
        self._taken = 0  # bytes of the data of `send`, which are encrypted and not all sent
        self.fileno, self.close = outer.fileno, outer.close
        self.getpeercert, self.version, self.cipher = self._inner.getpeercert, self._inner.version, self._inner.cipher

    @property
    def session(self) -> ssl.SSLSession | None:
        """The receiver's."""
        return self._inner.session

    def do_handshake(self) -> None:
        """As that of a socket."""
        while True:
            try:
                self._inner.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def send(self, data: Any) -> int:
        """As that of a socket."""
        if not self._taken:
            self._taken = self._inner.write(data[:PIECE])
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def recv(self, size: int) -> bytes:
        """As that of a socket."""
        while True:
            try:
                return self._inner.read(size)
            except ssl.SSLWantReadError:
                self._fill()

    def held(self) -> int:
        """Bytes that have been read from the socket, and not from here."""
        return self._inner.pending() or self._incoming.pending

    def _fill(self) -> None:
        if data := self._outer.recv(PIECE):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            self._unsent = self._unsent or self._outgoing.read()
            self._unsent = self._unsent[self._outer.send(self._unsent) :]


def reason_of(error: Exception) -> str:
    """Of OpenSSL's errors the reason without its file and line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the other end closed the connection"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        words = reason.lower().replace("_", " ")
        return f"{_MEANINGS[reason]} ({words})" if reason in _MEANINGS else words
    return getattr(error, "strerror", None) or str(error)
