"""Parses the target of a prepared request, and renders the request as the bytes of an HTTP/1.1 message."""

from typing import NamedTuple
from urllib.parse import urlsplit

from requests import PreparedRequest, RequestException
from requests.exceptions import InvalidURL

from consumer.crypto.certificates import TlsIdentity
from consumer.http.header_rules import header_lines
from consumer.http.proxy import Proxy
from consumer.http.urls import DEFAULT_PORTS, parse_target, place_of
from consumer.sending.connector import Route
from consumer.sending.signed_request import SignedRequest

_MAX_URLS = 10_000
# These belong to an HTTP/1.1 connection (RFC 9113, 8.2.2).
_HTTP1_ONLY = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"upgrade", b"te"))
_METHODS = {name: name.encode() for name in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")}


class Place(NamedTuple):
    """The parsed target of a URL. `line`: the request line after the method, and the Host header line.

    `address`: the host's, if it is a literal one and no proxy resolves it.
    """

    route: Route
    address: str | None
    line: bytes


def placed(url: str, identity: TlsIdentity | None, proxy: Proxy | None, *, http2: bool = False) -> Place:
    """Parse a URL. `identity` and `http2` count for https alone. Raises ValueError as `parse_target` does."""
    scheme, host, port, address = parse_target(url)
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    host = host.partition("%")[0]  # an IPv6 zone means something on this machine only
    name = place_of(host, port)
    if port == DEFAULT_PORTS[scheme]:
        name = name.removesuffix(f":{port}")
    tls = scheme == "https"
    host_line = f" HTTP/1.1\r\nHost: {name}\r\n"
    if proxy is None or tls:
        route = Route(address or host, port, tls, proxy, identity if tls else None, http2 and tls)
        return Place(route, address if proxy is None else None, f"{path}{host_line}".encode())
    # All plain http targets share one route: any connection to the proxy may carry their requests.
    line = f"{scheme}://{name}{path}{host_line}".encode() + proxy.authorization
    return Place(Route(proxy.host, proxy.port, tls, proxy), None, line)


class Places:
    """Keeps the parsed targets of requests, which reach receivers through `proxy` unless it is None."""

    def __init__(self, proxy: Proxy | None) -> None:
        self._proxy = proxy
        self._known: dict[tuple[str, bool, TlsIdentity | None], Place] = {}

    def of(self, request: PreparedRequest, identity: TlsIdentity | None) -> Place:
        """The target of `request`. Raises InvalidURL."""
        http2 = isinstance(request, SignedRequest) and request.template.http2
        key = request.url or "", http2, identity
        place = self._known.get(key)
        if place is None:
            try:
                place = placed(request.url or "", identity, self._proxy, http2=http2)
            except ValueError as error:
                raise InvalidURL(str(error)) from None
            if len(self._known) >= _MAX_URLS:
                self._known.clear()
            self._known[key] = place
        return place


def message(request: PreparedRequest, place: Place) -> tuple[bytes, bytes]:
    """The head and the body to write. Raises RequestException for a request that cannot be sent."""
    method, body = request.method, request.body
    if method not in _METHODS:
        raise RequestException(f"method {method!r} is not supported")
    if isinstance(body, str):
        body = body.encode()
    elif body is not None and not isinstance(body, bytes):
        raise RequestException("only a body of bytes or text can be sent")
    body = body or b""
    if isinstance(request, SignedRequest) and request.lines is not None:
        own, lines = request.template.lines, request.lines
        if request.authorization:
            lines += request.authorization
    else:
        own, lines = b"", header_lines(request.headers)
    return b"%b %b%b%bContent-Length: %d\r\n\r\n" % (_METHODS[method], place.line, own, lines, len(body)), body


def http2_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a request by HTTP/2, whose head `message` has rendered."""
    first, host, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, path, _ = first.split(b" ")
    fields = [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", host.partition(b": ")[2])]
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" ")))
    return [field for field in fields if field[0] not in _HTTP1_ONLY]
