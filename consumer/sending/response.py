"""A `requests.Response` that parses its headers only when they are read."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import requests
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers


class LazyResponse(requests.Response):
    """Sets status and body at once, and headers, reason, cookies and elapsed on first access.

    `requests.Response.__init__` makes a cookie jar and a dictionary (6 µs), which a 2xx answer never needs, so it is
    not called. `seconds` is the value of `elapsed`: the whole exchange, body included.
    """

    _content_consumed = True
    _next = None
    raw = None

    def __init__(  # deliberately does not call the parent's
        self, request: requests.PreparedRequest, status: int, head: bytes, body: bytes, seconds: float
    ) -> None:
        self.request = request
        self.url = request.url or ""
        self.status_code = status
        self._content = body
        self._head = head
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        lazy = _LAZY.get(name)
        if lazy is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = self.__dict__[name] = lazy(self)
        return value


def _lines(response: LazyResponse) -> list[str]:
    """The status line and the header lines."""
    return response._head.decode("latin-1").split("\r\n")  # noqa: SLF001 (this module's own class)


def _headers(response: LazyResponse) -> CaseInsensitiveDict[str]:
    """The headers; repeated fields are joined with a comma (RFC 9110, 5.3), as urllib3 does."""
    result: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for line in _lines(response)[1:]:
        name, colon, value = line.partition(":")
        if colon:
            value = value.strip()
            result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def _reason(response: LazyResponse) -> str:
    """The reason phrase; empty if there is none."""
    return _lines(response)[0].partition(" ")[2].partition(" ")[2]


_LAZY: dict[str, Callable[[LazyResponse], Any]] = {
    "headers": _headers,
    "reason": _reason,
    "elapsed": lambda response: timedelta(seconds=response._seconds),  # noqa: SLF001 (this module's own class)
    "encoding": lambda response: get_encoding_from_headers(response.headers),
    "cookies": lambda _: RequestsCookieJar(),
    "history": lambda _: [],
}
