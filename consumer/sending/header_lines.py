"""The header lines of a request, checked: nothing in a name or a value may end a line, or frame the message."""

from collections.abc import Iterable, Mapping
from typing import Any

from requests.exceptions import InvalidHeader

from consumer.http.header_rules import is_name, is_value

_MAX_NAMES = 10_000
_REFUSED = frozenset(("host", "transfer-encoding"))
# The body is counted here, and answers are handed over as they come: nobody would decode what was asked for.
_DROPPED = frozenset(("content-length", "accept-encoding"))

_prefixes: dict[str, str] = {}  # header name as given → "name: ", or "" for one that is dropped


def header_lines(headers: Mapping[str, str | bytes]) -> bytes:
    """The lines to send, each with its end. InvalidHeader for a name that is no token, a value with a byte outside 0x20
    to 0x7E, and for Host, Transfer-Encoding and any Connection but the default keep-alive, which frame the message.
    """  # noqa: D205 (one sentence)
    # The private store is ten times faster than items(), which asks for each value by its lower-cased name.
    stored: Any = getattr(headers, "_store", None)
    items: Iterable[tuple[str, str | bytes]] = headers.items() if stored is None else stored.values()
    lines: list[str] = []
    for name, value in items:
        prefix = _prefixes.get(name)
        if prefix is None:
            prefix = _prefix(name, value)
        if prefix:
            text = value if isinstance(value, str) else value.decode("latin-1")
            lines.append(prefix + text if text.strip() else f"{name}:")
    return encoded(lines)


def encoded(lines: list[str]) -> bytes:
    """The same lines as bytes, each with its end. InvalidHeader."""
    if not is_value("".join(lines)):
        raise InvalidHeader("a header's value may hold visible ASCII and spaces only")
    lines.append("")
    return "\r\n".join(lines).encode("ascii")


def _prefix(name: str | bytes, value: str | bytes) -> str:
    if not isinstance(name, str) or not is_name(name):
        raise InvalidHeader(f"{name!r} is no header name")
    lower = name.lower()
    if lower == "connection":  # not remembered: it depends on the value
        if value in ("keep-alive", b"keep-alive"):
            return ""
        raise InvalidHeader("Connection is the sender's to set")
    if lower in _REFUSED:
        raise InvalidHeader(f"{name} is the sender's to set")
    if len(_prefixes) >= _MAX_NAMES:
        _prefixes.clear()
    prefix = _prefixes[name] = "" if lower in _DROPPED else f"{name}: "
    return prefix
