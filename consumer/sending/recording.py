"""An adapter that records the steps of an exchange: the peer, the TLS version and cipher, the duration of each step."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cryptography import x509
from requests import PreparedRequest, RequestException
from requests.exceptions import SSLError

from consumer.http.urls import place_of
from consumer.sending.adapter import LoopAdapter, Result, Transfer
from consumer.sending.answer import Answer
from consumer.sending.connector import Connector
from consumer.sending.dns import Unresolved
from consumer.sending.signed_request import SignedRequest
from consumer.sending.tls import ByteStream, Tls, TlsStream


class Certificate(NamedTuple):
    """The receiver's certificate, also if verification refused it; names as RFC 4514 writes them."""

    subject: str
    issuer: str
    expires: str


@dataclass(slots=True)
class ExchangeTrace:
    """The record of an exchange. `seconds` holds the steps that were reached, and the total as its last entry.

    `started`: there was an address to connect to, or a proxy to ask.
    `addresses`: the host's resolved addresses, or the host itself if it is an address. `connected`: address and port of
    the peer, which is the proxy if there is one. `tls`: version and cipher, and HTTP/2 if the receiver has chosen it.
    """

    started: bool = False
    addresses: tuple[str, ...] = ()
    connected: str | None = None
    tls: str | None = None
    certificate: Certificate | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class RecordingAdapter(LoopAdapter):
    """Sends and records one exchange at a time."""

    def exchange(self, request: PreparedRequest, timeout: float | None) -> tuple[Result, ExchangeTrace]:
        """Send and wait, as `send` does, but return an exception of requests as the result."""
        self.watcher = self
        self._seen = seen = ExchangeTrace()
        self._began = self._reached = self._clock()
        try:
            result: Result = self.send(request, timeout=timeout)
        except RequestException as error:
            result = error
        seen.seconds["total"] = self._clock() - self._began
        if isinstance(result, SSLError) and seen.connected is not None:
            self._look(request)
        return result, seen

    def connected(self, peer: str, port: int) -> None:
        """Record the TCP connection."""
        self._seen.connected = place_of(peer, port)
        self._step("connect")

    def secured(self, stream: TlsStream) -> None:
        """Record TLS and the certificate."""
        self._seen.tls = _tls_of(stream)
        self._seen.certificate = _certificate_of(stream)
        self._step("tls")

    def answered(self, connection: Any, transfer: Transfer, answer: Answer) -> None:
        """Record the time of the answer."""
        self._step("answer")
        super().answered(connection, transfer, answer)

    def _on_resolved(self, transfer: Any, route: Any, look_up: Any, answer: Any) -> None:
        if not isinstance(answer, Unresolved):
            self._seen.started = True
            self._seen.addresses = answer
            if answer != (route.first[0],):
                self._step("name")
        super()._on_resolved(transfer, route, look_up, answer)

    def _step(self, name: str) -> None:
        now = self._clock()
        self._seen.seconds[name] = now - self._reached
        self._reached = now

    def _look(self, request: PreparedRequest) -> None:
        """Read the refused certificate, over a separate connection that sends no request."""
        look = _Look(self._seen)
        identity = request.template.tls if isinstance(request, SignedRequest) else None
        tls, route = Tls(identity, verified=False), self._places.of(request, identity).route
        connector = Connector(self._poller, egress=self._egress, tls=self._tls, clock=self._clock)
        dial = connector.dial(route, self._seen.addresses, look.end, look, tls)
        until = self._clock() + self._connect_timeout
        while not look.ended and self._clock() < until:
            self._poller.turn(0.1)
        dial.cancel()
        connector.close()


class _Look:
    """Records TLS and the certificate of a connection, and closes it."""

    def __init__(self, seen: ExchangeTrace) -> None:
        self.ended = False
        self._seen = seen

    def connected(self, _peer: str, _port: int) -> None:
        """Do nothing: the exchange has recorded its TCP connection."""

    def secured(self, stream: TlsStream) -> None:
        """Record TLS and the certificate."""
        self._seen.tls = _tls_of(stream)
        self._seen.certificate = _certificate_of(stream)

    def end(self, result: ByteStream | RequestException) -> None:
        """Close the connection, if there is one."""
        self.ended = True
        if not isinstance(result, RequestException):
            result.close()


def _tls_of(stream: TlsStream) -> str:
    cipher = stream.cipher()
    protocol = " / HTTP/2" if stream.selected_alpn_protocol() == "h2" else ""
    return f"{stream.version()} / {cipher[0] if cipher else '?'}{protocol}"


def _certificate_of(stream: TlsStream) -> Certificate | None:
    shown = stream.getpeercert(True)
    if not shown:
        return None
    certificate = x509.load_der_x509_certificate(shown)
    expires = certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
    return Certificate(certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string(), expires)
