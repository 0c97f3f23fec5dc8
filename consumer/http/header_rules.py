"""Request headers: which are valid, which a subscription may set, and their lines. Pure.

No name or value may end a line or change the message framing.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import translate
from typing import Any

from requests.exceptions import InvalidHeader

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_SIGNS = str.maketrans(dict.fromkeys("!#$%&'*+.^_`|~", "-"))
# These frame the message or belong to the connection (RFC 9110, 7.6.1; RFC 9112, 6), so only the sender sets them.
_FRAMING = frozenset(("host", "transfer-encoding", "content-length", "connection"))
_OURS = _FRAMING | {
    *("accept-encoding", "content-encoding", "content-type", "expect", "keep-alive", "te", "trailer", "upgrade"),
    *("proxy-authenticate", "proxy-authorization", "proxy-connection", "traceparent"),
    *("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-event"),
    "webhook-request-origin",  # it says that the receiver has permitted this origin
}
CREDENTIALS = frozenset(("authorization", "cookie"))
# A record would steer a receiver, or a proxy or library before it, with one of these: to another method, path or host,
# by what only a proxy says of a client, or to skip the request. `dashed` says what - is here.
STEERING = "|".join(
    (
        *("x-http-method.*", "x-method-override", "x-original-.*", "x-rewrite-.*", "x-host", "proxy"),
        *("forwarded", "x-forwarded.*", "via", "x-real-ip", ".*client-ip", ".*connecting-ip", ".*remote-user"),
        *("x-ssl-.*", "x-client-cert.*", "x-envoy-.*", "x-accel-.*", "x-sendfile-.*"),
        *("range", "if-.*", "early-data", "max-forwards"),
    )
).replace("-", "[^a-z0-9]")
LONGEST_NAME = 256  # characters of a name that is matched with those that go on
MOST_MATCHED = 10_000_000  # characters of names times those of the pattern: each takes 0.4 ns at most
_REFUSED = frozenset(("host", "transfer-encoding"))
# The adapter sets the length itself. It does not decode answers, so it must not accept an encoding.
_DROPPED = frozenset(("connection", "content-length", "accept-encoding"))


def is_name(name: str) -> bool:
    """Whether `name` is a valid header name."""
    return bool(_TOKEN.fullmatch(name))


def is_value(value: str) -> bool:
    """Whether `value` is a valid header value: visible ASCII and spaces. A CR or LF would end the line."""
    return value.isascii() and value.isprintable()


def dashed(name: str) -> str:
    """The name in lower case, with - for _ and other signs: servers that make variables of headers join such names.

    All write - as _ (RFC 3875, 4.1.18), and some every sign.
    """
    return name.lower().translate(_SIGNS)


def is_free(name: str) -> bool:
    """Whether a record header may have this name, which is `dashed`, in a request.

    Not if the sender sets it (`ce-` is CloudEvents' prefix, HTTP protocol binding, 3.1.3.1), or for a credential.
    """
    return is_name(name) and name not in _OURS and name not in CREDENTIALS and not name.startswith("ce-")


def check(name: str, value: str) -> None:
    """Raise ValueError for a header that a subscription may not set; its text does not quote the value."""
    check_name(name)
    if not is_value(value) or value != value.strip():
        raise ValueError(f"the value of {name} may hold visible ASCII only, and spaces inside")


def check_name(name: str) -> None:
    """Raise ValueError for a header name that a subscription may not set."""
    if not is_name(name):
        raise ValueError(f"{name!r} is not a valid header name")
    if dashed(name) in _OURS:
        raise ValueError(f"a subscription may not set {name}")


def parse_names(text: str, check: Callable[[str], None] = check_name, spared: str = "") -> re.Pattern[str]:
    """Names of headers, comma-separated; `*` stands for any characters. The pattern matches names in lower case.

    `check` raises ValueError for a whole name that may not be used. A name with `*` matches none that `spared`, a
    regular expression, does. Raises ValueError.
    """
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if not is_name(name):
            raise ValueError(f"has {name!r}, which matches no header")
        if "*" not in name:
            check(name)
    whole = [translate(name) for name in names if "*" not in name]
    wild = "|".join(translate(name) for name in names if "*" in name)
    return re.compile("|".join([*whole, rf"(?={wild})(?!(?:{spared})\Z)"] if wild else whole))


def takes_long(names: re.Pattern[str], given: Iterable[str]) -> bool:
    """Whether to match these takes more than milliseconds: others choose the names, and a tenant the pattern."""
    return len(names.pattern) * sum(map(len, given)) > MOST_MATCHED


def header_lines(headers: Mapping[Any, object]) -> bytes:
    """The header lines as bytes, each with its line end.

    Raises InvalidHeader for a name that is not a token, a value that is not text or has a byte outside 0x20 to 0x7E,
    and for headers that frame the message: Host, Transfer-Encoding and any Connection other than the default
    keep-alive.
    """
    lines: list[str] = []
    for name, value in headers.items():
        if not isinstance(name, str) or not is_name(name):
            raise InvalidHeader(f"{name!r} is not a valid header name")
        if not isinstance(value, str | bytes):  # a plug-in can set anything
            raise InvalidHeader(f"the value of {name} is not text")
        text = value if isinstance(value, str) else value.decode("latin-1")
        lower = name.lower()
        if lower in _REFUSED or (lower == "connection" and text != "keep-alive"):
            raise InvalidHeader(f"{name} is set by the sender")
        if lower not in _DROPPED:
            lines.append(f"{name}: {text}" if text.strip() else f"{name}:")
    return encoded(lines)


def check_value(text: str) -> None:
    """Raise InvalidHeader for text that no header can hold."""
    if not is_value(text):
        raise InvalidHeader("a header's value may hold visible ASCII and spaces only")


def encoded(lines: list[str]) -> bytes:
    """The lines as bytes, each with its line end. Raises InvalidHeader."""
    check_value("".join(lines))
    lines.append("")
    return "\r\n".join(lines).encode("ascii")
