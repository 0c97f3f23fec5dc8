"""One request under way: what was submitted, the Curl handle that carries it, and how its failure is named."""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import certifi
import pycurl
from requests import PreparedRequest, RequestException, Response
from requests import exceptions as errors

from consumer.errors import EgressRefused
from consumer.sending.egress import EgressPolicy
from consumer.sending.resolver import Unresolved
from consumer.sending.response import BODY_LIMIT

Result = Response | RequestException

DNS_KEPT = 60  # seconds in libcurl's DNS cache: twice as long as the resolver's answers are used
_KEEPALIVE = 60  # seconds: an idle connection is probed; below the idle limit of common load balancers (350 s, 240 s)
_MAX_IDLE = 110  # seconds; a connection idle for longer was closed by most servers
_MAX_AGE = 600  # seconds; after that a receiver's new DNS answer is followed
_UNJUDGED = 86_400_000  # milliseconds, in place of none: libcurl takes 0 for its own five minutes

_TLS_ERRORS = frozenset(
    (
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CERTPROBLEM,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_CRL_BADFILE,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    )
)
_ERRORS: dict[int, type[RequestException]] = {
    pycurl.E_COULDNT_RESOLVE_PROXY: errors.ProxyError,
    97: errors.ProxyError,  # CURLE_PROXY, which pycurl does not name
    pycurl.E_URL_MALFORMAT: errors.InvalidURL,
    **dict.fromkeys(_TLS_ERRORS, errors.SSLError),
}


def ca_file(environment: Mapping[str, str] = os.environ) -> str:
    """The certificate authorities to trust: SSL_CERT_FILE or REQUESTS_CA_BUNDLE if set, else certifi's."""
    return environment.get("SSL_CERT_FILE") or environment.get("REQUESTS_CA_BUNDLE") or certifi.where()


def bytes_of(request: PreparedRequest) -> bytes:
    """Its body. RequestException if it is no bytes and no text."""
    body = request.body
    if isinstance(body, bytes):
        return body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    raise RequestException("only a body of bytes or text can be sent")


def method_of(request: PreparedRequest) -> str:
    """RequestException for one that is not sent here."""
    if request.method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise RequestException(f"method {request.method!r} is not supported")
    return request.method


def split_proxy(url: str) -> tuple[str, list[bytes]]:
    """A proxy's URL without user and password, and these: libcurl's errors repeat a URL that it cannot read."""
    scheme, there, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{there}{place}", [unquote_to_bytes(part) for part in user.split(":", 1)] if at else []


class Transfer:
    """One submitted request, good for `cancel`. `connected`, once it has ended: it opened a TLS connection."""

    __slots__ = ("callback", "connected", "request", "slot", "timeout")

    def __init__(self, request: PreparedRequest, callback: Callable[[Result], None], timeout: float | None) -> None:
        self.request = request
        self.callback: Callable[[Result], None] | None = callback  # None: done or cancelled
        self.timeout = timeout  # None: the adapter's
        self.connected = False
        self.slot: Slot | None = None  # None: waits for the resolver, or done


class _HandedOver(socket.socket):
    """Pycurl gives libcurl a duplicate and drops this one, which must close at once: the peer would see no FIN."""

    def __del__(self) -> None:
        self.close()


class Slot:
    """A Curl handle that is used again and again, and what its callbacks collect for the transfer it carries now."""

    def __init__(self, policy: EgressPolicy | None, report: Callable[[Exception | None], None]) -> None:
        self.curl = pycurl.Curl()
        self.transfer: Transfer | None = None
        self.url = self.method = self.scheme = ""
        self.milliseconds = self._connect_milliseconds = 0
        self.pinned: str | None = None  # "host:port" that this transfer loads into libcurl's DNS cache
        self.large = self.sweeps = False  # this transfer's body; libcurl's DNS cache, when it ends
        self.lines: list[bytes] = []
        self.body: list[bytes] = []
        self.room = BODY_LIMIT
        self.refusal: str | None = None
        self.opened = False  # some address passed
        self._policy = policy  # None: a proxy is connected to, which enforces the rule itself
        self._report = report  # called for each socket opened, with None or the bug that kept it from being opened

    def set_up(self, *, connect_timeout: float, proxy: str, proxy_user: list[bytes], ca_file: str) -> None:
        """What is the same for every transfer. Without a `proxy` no name is looked up: the cache needs no sweep."""
        setopt = self.curl.setopt
        setopt(pycurl.POST, 1)
        setopt(pycurl.NOSIGNAL, 1)
        setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        setopt(pycurl.FOLLOWLOCATION, 0)
        setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        self._connect_milliseconds = max(1, int(connect_timeout * 1000))
        setopt(pycurl.CONNECTTIMEOUT_MS, self._connect_milliseconds)
        setopt(pycurl.DNS_CACHE_TIMEOUT, DNS_KEPT if proxy else -1)  # -1: no sweep
        setopt(pycurl.PROXY, proxy)  # '' too: else libcurl obeys http_proxy
        for option, text in zip((pycurl.PROXYUSERNAME, pycurl.PROXYPASSWORD), proxy_user, strict=False):
            setopt(option, text)
        setopt(pycurl.NOPROXY, "")
        setopt(pycurl.TCP_KEEPALIVE, 1)
        setopt(pycurl.TCP_KEEPIDLE, _KEEPALIVE)
        setopt(pycurl.TCP_KEEPINTVL, _KEEPALIVE)
        setopt(pycurl.MAXAGE_CONN, _MAX_IDLE)
        setopt(pycurl.MAXLIFETIME_CONN, _MAX_AGE)
        setopt(pycurl.CAINFO, ca_file)
        setopt(pycurl.PROXY_CAINFO, ca_file)
        setopt(pycurl.OPENSOCKETFUNCTION, self.open_socket)
        setopt(pycurl.HEADERFUNCTION, self.lines.append)
        setopt(pycurl.WRITEFUNCTION, self.write)

    def limit(self, milliseconds: int) -> None:
        """How long the transfer may take; 0: libcurl does not judge that, nor how long it takes to connect."""
        if self.milliseconds == milliseconds:
            return
        if not milliseconds or not self.milliseconds:
            connect = self._connect_milliseconds if milliseconds else _UNJUDGED
            self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, connect)
        self.curl.setopt(pycurl.TIMEOUT_MS, milliseconds)
        self.milliseconds = milliseconds

    def write(self, chunk: bytes) -> int:
        """WRITEFUNCTION: keep what fits; anything but the chunk's length makes libcurl cut the transfer."""
        if len(chunk) <= self.room:
            self.body.append(chunk)
            self.room -= len(chunk)
            return len(chunk)
        self.body.append(chunk[: self.room])
        self.room = 0
        return 0

    def open_socket(self, _purpose: int, address: Any) -> "socket.socket | int":
        """OPENSOCKETFUNCTION: the judge. Sees each resolved address just before it is connected to."""
        try:
            refusal = self._policy.refusal(self.scheme, address.addr[0]) if self._policy is not None else None
            if refusal is not None:
                self.refusal = refusal
                return int(pycurl.SOCKET_BAD)
            self.opened = True
            result = _HandedOver(address.family, address.socktype, address.protocol)
        except OSError:  # no descriptor, or no such address family here: libcurl tries the next address
            return int(pycurl.SOCKET_BAD)
        except Exception as error:  # noqa: BLE001 (the turn raises it)
            self._report(error)
            return int(pycurl.SOCKET_BAD)
        self._report(None)
        return result

    def release(self) -> None:
        """Forget the transfer; what it collected has been handed over."""
        self.transfer = self.refusal = None
        self.opened = False
        if self.lines:
            self.lines.clear()  # libcurl holds this list's append
        if self.body:
            self.body = []
            self.room = BODY_LIMIT


def error_of(slot: Slot, code: int, message: str) -> RequestException:
    """The error of libcurl as requests names it."""
    transfer = slot.transfer
    request = transfer.request if transfer is not None else None
    if slot.refusal is not None and not slot.opened:
        error: RequestException = EgressRefused(slot.refusal)
        error.request = request
        return error
    kind: type[RequestException]
    if code == pycurl.E_OPERATION_TIMEDOUT:
        # libcurl's text is the one thing that tells the state it was in: "Connection", "SSL connection" or "Operation".
        kind = errors.ReadTimeout if message.startswith("Operation") else errors.ConnectTimeout
    else:
        kind = _ERRORS.get(code, errors.ConnectionError)
    return kind(message or f"libcurl error {code}", request=request)


def time_out_of(slot: Slot) -> str:
    """What libcurl would say of a transfer whose time is over, where it does not judge that: by the state it is in."""
    return f"{'Operation' if slot.curl.getinfo(pycurl.PRETRANSFER_TIME) > 0 else 'Connection'} timed out"


def error_of_name(answer: Unresolved, request: PreparedRequest) -> RequestException:
    """The error of a name that has no address."""
    kind = errors.ConnectTimeout if answer.timed_out else errors.ConnectionError
    return kind(answer.text, request=request)
