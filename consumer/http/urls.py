"""Where a URL points. Pure."""

import socket
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """Where a URL points. `address` is the host where the host is an address in any of its spellings."""

    scheme: str
    host: str
    port: int
    address: str | None


@lru_cache(1024)  # a row of a list is judged, read and shown, some hundreds of others in between
def parse_target(url: str) -> Target:
    """Split a URL. ValueError if it is no http(s) URL with a host and a right port.

    The text is for people, goes to logs and to Kafka, and holds nothing of the URL: it may be a password.
    """
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ValueError("the URL must be visible ASCII without spaces or backslashes")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise ValueError("the URL is malformed: what stands in brackets must be an IPv6 address") from None
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
    """ValueError for what can be no subscription's URL: what `parse_target` refuses, and one with a password.

    Its text holds nothing of the URL either.
    """
    parse_target(url)
    if "@" in url and "@" in urlsplit(url).netloc:
        raise ValueError("the URL must not hold a user name or password; store them as a secret of kind basic")


def redact_url(url: str) -> str:
    """The URL as it may be published: of one that `check_target` refuses, what stands behind the last @, or `%40`."""
    try:
        check_target(url)
    except ValueError:
        password, *rest = url.replace("%40", "@").rsplit("@", 1)
        return f"…@{rest[0]}" if rest else password
    return url


def place_of(host: str, port: int) -> str:
    """Host and port as a URL has them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _literal(host: str) -> str | None:
    """The address that `host` spells, read as the C library does: decimal, hex and short forms too."""
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        try:
            return socket.inet_ntoa(socket.inet_aton(host.removesuffix(".")))
        except OSError:
            return None
