"""Parses and redacts URLs: those of receivers, and that of a proxy. Pure."""

import re
import socket
from base64 import b64encode
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from requests import PreparedRequest, RequestException

from consumer import __version__

_NUMBERS = re.compile(r"(?<!\w)[0-9A-Fa-f:.]{2,}(?:%\w+)?(?!\w)")  # what may be an address
DEFAULT_PORTS = {"http": 80, "https": 443}
_PROXY = re.compile(r"(?:(?P<user>[!-~]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?/?")
_LAST_PORT = 65_535


class Target(NamedTuple):
    """The target of a URL. `address`: the host's address if it is a literal one, in any spelling; else None."""

    scheme: str
    host: str
    port: int
    address: str | None


@lru_cache(1024)  # a listing checks, parses and shows each row, with some hundreds of other rows in between
def parse_target(url: str) -> Target:
    """Split a URL. Raises ValueError unless it is an http(s) URL with a host and a valid port.

    The error's text is shown to people, logged and written to Kafka. It quotes no part of the URL, which may hold a
    password.
    """
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ValueError("the URL must be visible ASCII without spaces or backslashes")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("the URL is malformed: brackets must contain an IPv6 address") from None
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the URL is malformed: its port must be 1 to 65535") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("the URL must start with https:// or http://")
    if not host or host == ".":
        raise ValueError("the URL has no host")
    if port == 0:
        raise ValueError("the URL's port must be 1 to 65535")
    return Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], _literal(host))


def check_target(url: str) -> None:
    """Raise ValueError for a URL that no subscription may have.

    `parse_target` or requests refuses it, or it holds a password. The error's text quotes no part of the URL.
    """
    parse_target(url)
    if "@" in url and "@" in urlsplit(url).netloc:
        raise ValueError("the URL must not hold a user name or password; store them as a secret of kind basic")
    if not _can_be_sent(url):
        raise ValueError("the URL is malformed: its host is not valid")


def redact_url(url: str) -> str:
    """The URL in a form that anyone may see: as `without_password`, and its query, which may hold a token, as `…`."""
    shown, query, _ = without_password(url).partition("?")
    return f"{shown}?…" if query else shown


def without_password(url: str) -> str:
    """The URL for those who may change it: if `check_target` refuses it, only the part after the last @ or `%40`."""
    try:
        check_target(url)
    except ValueError:
        password, *rest = url.replace("%40", "@").rsplit("@", 1)
        return f"…@{rest[0]}" if rest else password
    return url


def place_of(host: str, port: int) -> str:
    """Host and port as written in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def without_addresses(text: str) -> str:
    """The text with `…` for each IP address, perhaps with a port: for those who may not know what a name leads to."""
    return _NUMBERS.sub(lambda found: _hidden(found[0]), text)


def _hidden(text: str) -> str:
    """`…` if the text begins with an address and has nothing more than a port or punctuation."""
    for host in (text, text[:-1], text.partition(":")[0]):
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            continue
        return f"…{text[len(host) :]}"
    return text


@lru_cache(1024)
def _can_be_sent(url: str) -> bool:
    """Whether requests makes a request to the URL: it refuses some hosts that urllib accepts, such as `*.a.example`."""
    try:
        PreparedRequest().prepare_url(url, None)
    except RequestException:
        return False
    return True


def _literal(host: str) -> str | None:
    """The address that `host` spells, parsed as the C library does, with decimal, hex and short forms; else None."""
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        try:
            return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))
        except OSError:
            return None


class Proxy(NamedTuple):
    """A proxy: plain http uses the absolute form (RFC 9112, 3.2.2), https a tunnel.

    `authorization` is a header line, or empty.
    """

    host: str
    port: int
    tls: bool
    authorization: bytes

    def connect(self, host: str, port: int) -> bytes:
        """The request for a tunnel (RFC 9110, 9.3.6)."""
        place = place_of(host, port).encode("ascii")
        agent = f"user-agent: kafka-webhooks/{__version__}\r\n".encode("ascii")
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (place, place, self.authorization, agent)


def parse_proxy(url: str) -> Proxy:
    """Parse a proxy's URL. Raises ValueError, whose text does not quote the URL: it may hold a password."""
    scheme, _, rest = url.partition("://")
    if scheme not in DEFAULT_PORTS:
        raise ValueError("starts with neither http:// nor https://")
    found = _PROXY.fullmatch(rest)
    port = int(found["port"] or DEFAULT_PORTS[scheme]) if found is not None else 0
    if found is None or not 0 < port <= _LAST_PORT or "%00" in rest:
        raise ValueError("is malformed: after the scheme, write [user:password@]host[:port]")
    user = found["user"]
    return Proxy(found["host"].strip("[]"), port, scheme == "https", b"" if user is None else _authorization(user))


def _authorization(user: str) -> bytes:
    """The header line for Basic authentication (RFC 7617), in UTF-8."""
    name, _, password = user.partition(":")
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return b"Proxy-Authorization: Basic " + b64encode(pair) + b"\r\n"
