"""A `requests.Response` that costs little until somebody reads it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import requests
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

BODY_LIMIT = 65_536  # bytes kept of a response's body; the rest is not read


class CurlResponse(requests.Response):
    """Status and body at once; headers, reason, cookies and elapsed when they are first asked for.

    `requests.Response.__init__` makes a cookie jar and a dictionary (6 µs), which a 2xx answer never needs, so it is
    not called. `seconds` is what `elapsed` says: the whole exchange, body included.
    """

    _content_consumed = True
    _next = None
    raw = None

    def __init__(  # deliberately without the parent's
        self, request: requests.PreparedRequest, status: int, lines: list[bytes], body: bytes, seconds: float
    ) -> None:
        self.request = request
        self.url = request.url or ""
        self.status_code = status
        self._content = body
        self._lines = lines
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        lazy = _LAZY.get(name)
        if lazy is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self.__dict__[name] = lazy(self)
        return value


def _final_head(lines: list[bytes]) -> list[str]:
    """The status line and header lines of the last answer: a proxy's and 1xx answers come before it."""
    start = max((place for place, line in enumerate(lines) if line.startswith(b"HTTP/")), default=0)
    return [line.decode("latin-1").rstrip("\r\n") for line in lines[start:]]


def _headers(response: CurlResponse) -> CaseInsensitiveDict[str]:
    """Repeated fields are joined with a comma (RFC 9110, 5.3), as urllib3 does."""
    result: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for line in _final_head(response._lines)[1:]:  # noqa: SLF001 (this module's own class)
        name, colon, value = line.partition(":")
        if colon:
            value = value.strip()
            result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def _reason(response: CurlResponse) -> str:
    """The reason phrase; empty if there is none."""
    head = _final_head(response._lines)  # noqa: SLF001 (this module's own class)
    return head[0].split(" ", 2)[2] if head and head[0].count(" ") > 1 else ""


_LAZY: dict[str, Callable[[CurlResponse], Any]] = {
    "headers": _headers,
    "reason": _reason,
    "elapsed": lambda response: timedelta(seconds=response._seconds),  # noqa: SLF001 (this module's own class)
    "encoding": lambda response: get_encoding_from_headers(response.headers),
    "cookies": lambda _: RequestsCookieJar(),
    "history": lambda _: [],
}
