"""A proxy for requests: plain http uses the absolute form (RFC 9112, 3.2.2), https uses CONNECT. Pure."""

import re
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from consumer import __version__

_URL = re.compile(r"(?:(?P<user>[!-~]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/?")
_PORTS = {"http": 80, "https": 443}
_LAST_PORT = 65_535


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
