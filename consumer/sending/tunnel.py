"""Parses a proxy's answer to CONNECT (RFC 9110, 9.3.6), after which the tunnel begins. No I/O."""

import re

_MOST = 16_384  # bytes of a proxy's answer, interim answers included
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?(?:\r\n|\Z)")
_INTERIM = frozenset((100, *range(102, 200)))  # without 101: the bytes after it are not HTTP
_OPEN = range(200, 300)


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
