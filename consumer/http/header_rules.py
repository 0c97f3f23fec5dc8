"""The rules for request headers: which are valid, and which a subscription may set. Pure."""

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
# These frame the message or belong to the connection (RFC 9110, 7.6.1; RFC 9112, 6), so only the sender sets them.
_FRAMING = frozenset(("host", "transfer-encoding", "content-length", "connection"))
_OURS = _FRAMING | {
    *("accept-encoding", "content-encoding", "content-type", "expect", "keep-alive", "te", "trailer", "upgrade"),
    *("proxy-authenticate", "proxy-authorization", "proxy-connection", "traceparent"),
    *("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-event"),
    "webhook-request-origin",  # it says that the receiver has permitted this origin
}


def is_name(name: str) -> bool:
    """Whether `name` is a valid header name."""
    return bool(_TOKEN.fullmatch(name))


def is_value(value: str) -> bool:
    """Whether `value` is a valid header value: visible ASCII and spaces. A CR or LF would end the line."""
    return value.isascii() and value.isprintable()


def check(name: str, value: str) -> None:
    """Raise ValueError for a header that a subscription may not set; its text does not quote the value."""
    check_name(name)
    if not is_value(value) or value != value.strip():
        raise ValueError(f"the value of {name} may hold visible ASCII only, and spaces inside")


def check_name(name: str) -> None:
    """Raise ValueError for a header name that a subscription may not set."""
    if not is_name(name):
        raise ValueError(f"{name!r} is not a valid header name")
    if name.lower() in _OURS:
        raise ValueError(f"a subscription may not set {name}")
