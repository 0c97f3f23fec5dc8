"""A proxy for requests: plain http uses the absolute form (RFC 9112, 3.2.2), https a tunnel (RFC 9110, 9.3.6). Pure."""

import re
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from consumer import __version__

_URL = re.compile(r"(?:(?P<user>[!-~]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/?")
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65_535
_MOST = 16_384  # bytes of a proxy's answer, interim answers included
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?(?:\r\n|\Z)")
_INTERIM = frozenset((100, *range(102, 200)))  # without 101: the bytes after it are not HTTP
_OPEN = range(200, 300)


class Proxy(NamedTuple):
    """The address of a proxy. `authorization` is a header line, or empty."""

    host: str
    port: int
    tls: bool
    authorization: bytes

    def connect(self, host: str, port: int) -> bytes:
        """The request for a tunnel (RFC 9110, 9.3.6)."""
        place = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode("ascii")
        agent = f"user-agent: kafka-webhooks/{__version__}\r\n".encode("ascii")
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (place, place, self.authorization, agent)


def parse_proxy(url: str) -> Proxy:
    """Parse a proxy's URL. Raises ValueError, whose text does not quote the URL: it may hold a password."""
    scheme, _, rest = url.partition("://")
    if scheme not in _PORTS:
        raise ValueError("starts with neither http:// nor https://")
    found = _URL.fullmatch(rest)
    port = int(found["port"] or _PORTS[scheme]) if found is not None else 0
    if found is None or not 0 < port <= _LAST_PORT or "%00" in rest:
        raise ValueError("is malformed: after the scheme, write [user:password@]host[:port]")
    user = found["user"]
    return Proxy(found["host"].strip("[]"), port, scheme == "https", b"" if user is None else _authorization(user))


def _authorization(user: str) -> bytes:
    """The header line for Basic authentication (RFC 7617), in UTF-8."""
    name, _, password = user.partition(":")
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return b"Proxy-Authorization: Basic " + b64encode(pair) + b"\r\n"


class NoTunnel(Exception):
    """The proxy opened no tunnel; the text says why."""


class TunnelReader:
    """Parses a proxy's answers until the tunnel is open."""

    def __init__(self) -> None:
        self._head = b""
        self._seen = 0

    def feed(self, data: bytes) -> bool:
        """Parse `data`, which is empty at the end of the connection. True once the tunnel is open. Raises NoTunnel."""
        self._seen += len(data)
        self._head += data
        while True:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end and data and self._seen < _MOST:
                return False
            line = _STATUS_LINE.match(head) if end else None
            if line is None:
                what = "gave no HTTP answer to CONNECT" if self._head else "closed the connection"
                raise NoTunnel(f"the proxy {what}")
            status = int(line[1])
            if status not in _INTERIM:
                break
            self._head = rest
        if status not in _OPEN:
            raise NoTunnel(f"the proxy answered CONNECT with status {status}")
        if rest:
            raise NoTunnel("the proxy sent more than an answer to CONNECT")
        return True
