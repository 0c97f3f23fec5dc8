"""Renders and checks a request's header lines: no name or value may end a line or change the message framing."""

from collections.abc import Iterable, Mapping
from typing import Any

from requests.exceptions import InvalidHeader

from consumer.http.header_rules import is_name, is_value

_MAX_NAMES = 10_000
_REFUSED = frozenset(("host", "transfer-encoding"))
# The adapter sets the length itself. It does not decode answers, so it must not accept an encoding.
_DROPPED = frozenset(("content-length", "accept-encoding"))

_prefixes: dict[str, str] = {}  # header name as given → "name: ", or "" if the header is dropped


def header_lines(headers: Mapping[str, str | bytes]) -> bytes:
    """The header lines as bytes, each with its line end.

    Raises InvalidHeader for a name that is not a token, a value that is not text or has a byte outside 0x20 to 0x7E,
    and for headers that frame the message: Host, Transfer-Encoding and any Connection other than the default
    keep-alive.
    """
    # The private store is ten times faster than items(), which looks up each value by its lower-cased name.
    stored: Any = getattr(headers, "_store", None)
    items: Iterable[tuple[str, Any]] = headers.items() if stored is None else stored.values()
    lines: list[str] = []
    for name, value in items:
        prefix = _prefixes.get(name)
        if prefix is None:
            prefix = _prefix(name, value)
        if prefix:
            text = value if isinstance(value, str) else _decoded(name, value)
            lines.append(prefix + text if text.strip() else f"{name}:")
    return encoded(lines)


def encoded(lines: list[str]) -> bytes:
    """The lines as bytes, each with its line end. Raises InvalidHeader."""
    if not is_value("".join(lines)):
        raise InvalidHeader("a header's value may hold visible ASCII and spaces only")
    lines.append("")
    return "\r\n".join(lines).encode("ascii")


def _decoded(name: str, value: object) -> str:
    if not isinstance(value, bytes):
        raise InvalidHeader(f"the value of {name} is not text")
    return value.decode("latin-1")


def _prefix(name: str | bytes, value: str | bytes) -> str:
    if not isinstance(name, str) or not is_name(name):
        raise InvalidHeader(f"{name!r} is not a valid header name")
    lower = name.lower()
    if lower == "connection":  # not cached: the result depends on the value
        if value in ("keep-alive", b"keep-alive"):
            return ""
        raise InvalidHeader("Connection is set by the sender")
    if lower in _REFUSED:
        raise InvalidHeader(f"{name} is set by the sender")
    if len(_prefixes) >= _MAX_NAMES:
        _prefixes.clear()
    prefix = _prefixes[name] = "" if lower in _DROPPED else f"{name}: "
    return prefix
