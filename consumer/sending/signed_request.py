"""A `requests.PreparedRequest` that builds its headers only when they are read."""

from typing import Any

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from consumer.sending.compression import HEADER
from consumer.sending.template import Template


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
            self.lines = (self.lines or b"") + HEADER

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
