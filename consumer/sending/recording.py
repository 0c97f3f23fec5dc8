"""The record of an exchange: the peer, the TLS version and cipher, the certificate, the duration of each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ssl import SSLObject
from typing import NamedTuple

from cryptography import x509

from consumer.http.urls import place_of


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


class Recorder:
    """Writes the `trace` of an exchange, which is complete once that has `ended`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.trace = ExchangeTrace()
        self._clock = clock
        self._began = self._reached = clock()

    def step(self, name: str) -> None:
        """A step has been reached."""
        now = self._clock()
        self.trace.seconds[name] = now - self._reached
        self._reached = now

    def ended(self) -> None:
        """The exchange is over."""
        self.trace.seconds["total"] = self._clock() - self._began

    def resolved(self, name: str, addresses: Sequence[str]) -> None:
        """There is an address to connect to."""
        self.trace.started = True
        self.trace.addresses = tuple(addresses)
        if self.trace.addresses != (name,):
            self.step("name")

    def connected(self, peer: str, port: int) -> None:
        """TCP is connected."""
        self.trace.connected = place_of(peer, port)
        self.step("connect")

    def shown(self, certificate: bytes, tls: SSLObject) -> None:
        """The receiver shows its certificate, which may yet be refused."""
        cipher, version, _ = tls.cipher() or ("?", "?", 0)
        self.trace.tls = f"{version} / {cipher}{' / HTTP/2' if tls.selected_alpn_protocol() == 'h2' else ''}"
        try:
            found = x509.load_der_x509_certificate(certificate)
        except ValueError:
            return
        expires = found.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        self.trace.certificate = Certificate(found.subject.rfc4514_string(), found.issuer.rfc4514_string(), expires)

    def secured(self) -> None:
        """The TLS handshake is complete."""
        self.step("tls")
