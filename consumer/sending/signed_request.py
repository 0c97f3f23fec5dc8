"""A `requests.PreparedRequest` that builds its headers only when they are read, as by a plug-in of `requests.auth`."""

from typing import Any

from requests import PreparedRequest
from requests.exceptions import InvalidHeader
from requests.structures import CaseInsensitiveDict

from consumer.crypto.credentials import PluginAuth
from consumer.errors import NotAuthorized
from consumer.http.header_rules import header_lines
from consumer.sending.template import Template

GZIP_LINE = b"content-encoding: gzip\r\n"


class SignedRequest(PreparedRequest):
    """A request with its header lines ready to send, in `lines`. Other attributes are built on first access.

    `payload` is covered by the signatures: the body before compression. `authorization`: the header line of an access
    token, which `authorize` sets just before the request is sent.
    """

    authorization = b""

    def __init__(self, template: Template, lines: bytes, body: bytes) -> None:  # does not call the parent's
        self.template = template
        self.method = "POST"
        self.url = template.request.url
        self.body = self.payload = body
        self.lines: bytes | None = lines

    @property
    def is_compressed(self) -> bool:
        """The body is not the payload itself."""
        return self.body is not self.payload

    def send_as(self, packed: bytes | None) -> None:
        """Send the payload in its compressed form, if there is one."""
        if packed is not None:
            self.body = packed
            self.lines = (self.lines or b"") + GZIP_LINE

    def authorize(self, token: str) -> None:
        """Go out with this access token, which is visible ASCII."""
        if self.lines is None:
            self.headers["Authorization"] = f"Bearer {token}"
        else:
            self.authorization = b"authorization: Bearer %b\r\n" % token.encode("ascii")

    def __getattr__(self, name: str) -> Any:
        if name == "headers":
            value: Any = self._headers()
            self.lines = None  # the caller may change the headers from now on
        elif name in ("hooks", "_cookies", "_body_position"):
            value = getattr(self.template.request, name)
        else:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        setattr(self, name, value)
        return value

    def _headers(self) -> CaseInsensitiveDict[str]:
        headers = CaseInsensitiveDict(self.template.request.headers)
        headers["content-length"] = str(len(self.body or b""))
        for line in ((self.lines or b"") + self.authorization).decode("ascii").split("\r\n"):
            name, _, value = line.partition(": ")
            if value:
                headers[name] = value
        return headers


def call_plugin(plugin: PluginAuth, request: SignedRequest) -> None:
    """Let the plug-in add its headers to the request. It runs on the loop, so it must not wait for anything.

    Raises NotAuthorized if it fails, changes the body or the URL, which are signed or judged already, sets a header
    that is not text or that cannot be sent, or registers a hook for the answer: a delivery is one exchange, and a hook
    is never called. The text quotes neither the plug-in's own error nor a header's value.
    """
    body, url = request.body, request.url
    try:
        result = plugin.auth(request)
        why = _fault(result, body, url)
        if why is None and result is not request:
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
