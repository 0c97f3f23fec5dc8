"""Where a request goes, and how it is reached: parsed from its URL."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from consumer.crypto.certificates import TlsIdentity
from consumer.http.urls import DEFAULT_PORTS, Proxy, parse_target, place_of


class Route(NamedTuple):
    """How to reach a host: by https if `tls`, with an `identity` if given, through a `proxy` if there is one.

    `http2`: by HTTP/2 if the host offers it.
    """

    host: str
    port: int
    tls: bool
    proxy: Proxy | None = None
    identity: TlsIdentity | None = None
    http2: bool = False

    @property
    def first(self) -> tuple[str, int]:
        """Host and port of the TCP connection: the proxy's, or the host's own."""
        return (self.host, self.port) if self.proxy is None else (self.proxy.host, self.proxy.port)


class Place(NamedTuple):
    """The target of a URL. `line`: the request line after the method, and the Host header line.

    `address`: the host's, if it is a literal one and no proxy resolves it. `before` and `after`: the parts of `line`
    around path and query.
    """

    route: Route
    address: str | None
    line: bytes
    before: bytes
    after: bytes


@lru_cache(10_000)
def placed(url: str, identity: TlsIdentity | None, proxy: Proxy | None, http2: bool = False) -> Place:  # noqa: FBT001, FBT002 (a key of the cache)
    """Parse a URL. `identity` and `http2` count for https alone. Raises ValueError as `parse_target` does."""
    scheme, host, port, address = parse_target(url)
    parts = urlsplit(url)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    host = host.partition("%")[0]  # an IPv6 zone means something on this machine only
    name = place_of(host, port)
    if port == DEFAULT_PORTS[scheme]:
        name = name.removesuffix(f":{port}")
    tls = scheme == "https"
    before, after = b"", f" HTTP/1.1\r\nHost: {name}\r\n".encode()
    if proxy is None or tls:
        route = Route(address or host, port, tls, proxy, identity if tls else None, http2 and tls)
        address = address if proxy is None else None
    else:  # all plain http targets share one route: any connection to the proxy may carry their requests
        before, after = f"{scheme}://{name}".encode(), after + proxy.authorization
        route, address = Route(proxy.host, proxy.port, tls, proxy), None
    return Place(route, address, before + path.encode() + after, before, after)
