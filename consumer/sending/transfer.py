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
        self.milliseconds = 0
        self.pinned: str | None = None  # "host:port" that this transfer loads into libcurl's DNS cache
        self.large = self.sweeps = False  # this transfer's body; libcurl's DNS cache, when it ends
        self.lines: list[bytes] = []
        self.body: list[bytes] = []
        self.room = BODY_LIMIT
        self.refusal: str | None = None
        self.opened = False  # some address passed
        self._policy = policy  # None: a proxy is connected to, which enforces the rule itself
        self._report = report  # called for each socket opened, with None or the bug that kept it from being opened

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


def error_of_name(answer: Unresolved, request: PreparedRequest) -> RequestException:
    """The error of a name that has no address."""
    kind = errors.ConnectTimeout if answer.timed_out else errors.ConnectionError
    return kind(answer.text, request=request)
