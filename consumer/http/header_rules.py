"""Which request headers may be sent, by the sender at all, and by a subscription. Pure."""

import re

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
# Frame the message or belong to the connection (RFC 9110, 7.6.1; RFC 9112, 6): the sender's to set.
_FRAMING = frozenset(("host", "transfer-encoding", "content-length", "connection"))
_OURS = _FRAMING | {
    *("accept-encoding", "content-encoding", "content-type", "expect", "keep-alive", "te", "trailer", "upgrade"),
    *("proxy-authenticate", "proxy-authorization", "proxy-connection", "traceparent"),
    *("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-event"),
}


def is_name(name: str) -> bool:
    """Whether it can be a header's name."""
    return bool(_TOKEN.fullmatch(name))


def is_value(value: str) -> bool:
    """Whether it can be a header's value: visible ASCII and spaces. No CR, no LF: they would end the line."""
    return value.isascii() and value.isprintable()


def check(name: str, value: str) -> None:
    """ValueError for a header that a subscription may not set; its text does not hold the value."""
    check_name(name)
    if not is_value(value) or value != value.strip():
        raise ValueError(f"the value of {name} may hold visible ASCII only, and spaces inside")


def check_name(name: str) -> None:
    """ValueError for a name that a subscription may not set."""
    if not is_name(name):
        raise ValueError(f"{name!r} is no header name")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is not a subscription's to set")
