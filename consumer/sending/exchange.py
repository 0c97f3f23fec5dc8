"""The request and the response of one attempt, as types of `requests` whose parts are built only when they are read.

Not compiled (docs/performance.md), since they derive from classes of a library.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import requests
from requests import PreparedRequest
from requests.exceptions import InvalidHeader
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

from consumer.crypto.credentials import PluginAuth
from consumer.errors import NotAuthorized
from consumer.http.header_rules import dashed, header_lines
from consumer.sending.answer import Answer
from consumer.sending.signing import Template

_GZIP_LINE = b"content-encoding: gzip\r\n"


class SignedRequest(PreparedRequest):
    """A request with its header lines ready to send, in `lines`. Other attributes are built on first access.

    `payload` is covered by the signatures: the body before compression. `authorization`: the header line of an access
    token, which `authorize` sets just before the request is sent. `added`: the headers that a plug-in has added
    or changed. `target`: path and query, if they follow the event.
    """

    _cookies = None
    _body_position = None
    authorization = b""
    added: Mapping[str, str | bytes] = {}
    target = b""

    def __init__(self, template: Template, lines: bytes, body: bytes) -> None:  # does not call the parent's
        self.template = template
        self.method = template.method
        self.url = template.request.url
        self.body = self.payload = body
        self.lines: bytes | None = lines

    def aim(self, origin: str, target: str) -> None:
        """Go to this path and query, which are visible ASCII, of the template's own `origin`."""
        self.url, self.target = origin + target, target.encode("ascii")

    @property
    def is_compressed(self) -> bool:
        """The body is not the payload itself."""
        return self.body is not self.payload

    def send_as(self, packed: bytes) -> None:
        """Send the payload in this compressed form, if that is smaller."""
        if len(packed) + len(_GZIP_LINE) < len(self.payload):
            self.body = packed
            self.lines = (self.lines or b"") + _GZIP_LINE

    def authorize(self, token: str) -> None:
        """Go out with this access token, which is visible ASCII."""
        if self.lines is None:
            self.headers["Authorization"] = f"Bearer {token}"
        else:
            self.authorization = b"authorization: Bearer %b\r\n" % token.encode("ascii")

    @cached_property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        """All headers. The caller may change them: from now on they are sent, and `lines` is None."""
        headers = CaseInsensitiveDict(self.template.request.headers)
        headers["content-length"] = str(len(self.body or b""))
        for line in ((self.lines or b"") + self.authorization).decode("ascii").split("\r\n"):
            name, _, value = line.partition(": ")
            if value:
                headers[name] = value
        self.lines = None
        return headers

    @cached_property
    def hooks(self) -> Any:
        """Those of the template."""
        return self.template.request.hooks


def call_plugin(plugin: PluginAuth, request: SignedRequest) -> None:
    """Let the plug-in add its headers to the request. It runs on the loop, so it must not wait for anything.

    Raises NotAuthorized if it fails, changes the body or the URL, which are signed or judged already, sets a header
    that is not text or that cannot be sent, or registers a hook for the answer: a delivery is one exchange, and a hook
    is never called. The text quotes neither the plug-in's own error nor a header's value.
    """
    body, url = request.body, request.url
    try:
        before = request.headers.copy()
        result = plugin.auth(request)
        why = _fault(result, body, url)
        if why is None:
            request.added = {name: value for name, value in result.headers.items() if value != before.get(name)}
            own = frozenset(map(dashed, request.added))
            for name in [name for name in result.headers if name not in request.added and dashed(name) in own]:
                del result.headers[name]  # a record's, which some servers would join with the plug-in's
            request.headers = result.headers
            request.lines = None
    except Exception as error:  # noqa: BLE001 (a plug-in's own)
        raise NotAuthorized(f"the plug-in {plugin.name} failed ({type(error).__name__})") from None
    if why is not None:
        raise NotAuthorized(f"the plug-in {plugin.name} {why}")


def _fault(result: object, body: object, url: str | None) -> str | None:
    """Why the request that a plug-in returned cannot be sent, or None."""
    if not isinstance(result, PreparedRequest):
        return "returned no request"
    if result.body is not body or result.url != url:
        return "changed the body or the URL; it may only add headers"
    if any(result.hooks.values()):
        return "waits for a challenge in the answer, which is not supported"
    # Its arguments are JSON of the subscription, so a value may be a number or null.
    if not all(isinstance(name, str) and isinstance(value, str | bytes) for name, value in result.headers.items()):
        return "set a header that is not text"
    for name, value in result.headers.items():
        try:
            header_lines({name: value})
        except InvalidHeader as error:
            return f"set the header {name!r}, which cannot be sent: {error}"
    return None


class LazyResponse(requests.Response):
    """Sets status and body at once, and headers on first access. It has no reason phrase, cookies or elapsed time.

    `requests.Response.__init__` makes a cookie jar and a dictionary (6 µs), which a 2xx answer never needs, so it is
    not called.
    """

    _content_consumed = True
    _next = None
    raw = None
    reason = ""

    def __init__(self, request: PreparedRequest, answer: Answer) -> None:
        self.request = request
        self.url = request.url or ""
        self.status_code = answer.status
        self._content = answer.body
        self._head = answer.head

    @cached_property
    def headers(self) -> CaseInsensitiveDict[str]:  # type: ignore[override]
        """The headers; repeated fields are joined with a comma (RFC 9110, 5.3), as urllib3 does."""
        result: CaseInsensitiveDict[str] = CaseInsensitiveDict()
        for line in self._head.decode("latin-1").split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if colon:
                value = value.strip()
                result[name] = f"{result[name]}, {value}" if name in result else value
        return result

    @cached_property
    def encoding(self) -> str | None:  # type: ignore[override]
        """That of the content type."""
        return get_encoding_from_headers(self.headers)

    @cached_property
    def history(self) -> list[requests.Response]:  # type: ignore[override]
        """Empty: redirects are not followed."""
        return []
