"""Compresses bodies with gzip (RFC 1952): the same bytes for the same body, once for all subscriptions that get it."""

import zlib

from consumer.events.event import Event
from consumer.sending.payloads import MOST_FORMS

HEADER = b"content-encoding: gzip\r\n"
_LEVEL = 1  # compresses 1 MiB of JSON to 27 % in 5.5 ms; level 6: to 23 % in 14 ms
_GZIP = 31  # as zlib calls this format; it writes no time into the header


class _Packed:
    """The bodies of one event as compressed so far, by the identity of the body."""

    def __init__(self) -> None:
        self.event: Event | None = None
        self.bodies: dict[int, tuple[bytes, bytes | None]] = {}


_last = _Packed()  # a fan-out sends the same bodies again and again


def compressed(body: bytes) -> bytes | None:
    """The body compressed; None if that makes it no smaller."""
    packed = zlib.compress(body, _LEVEL, _GZIP)
    return packed if len(packed) + len(HEADER) < len(body) else None


def compressed_for(event: Event, body: bytes) -> bytes | None:
    """The same for a body of this event. The result is kept until another event's body is compressed."""
    last = _last
    if last.event is not event:
        last.event = event
        last.bodies.clear()
    known = last.bodies.get(id(body))
    if known is not None and known[0] is body:
        return known[1]
    if len(last.bodies) >= MOST_FORMS:
        del last.bodies[next(iter(last.bodies))]
    packed = compressed(body)
    last.bodies[id(body)] = body, packed
    return packed
