"""The parts that all requests of a subscription share: its headers as bytes, and its signing keys."""

from requests import PreparedRequest, Request
from requests.auth import AuthBase
from requests.exceptions import InvalidHeader, InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer import __version__
from consumer.crypto.credentials import OAuth2, PluginAuth
from consumer.http.header_rules import header_lines
from consumer.http.urls import check_target
from consumer.sending.signing import hmac_key
from consumer.subscriptions.endpoint import Endpoint

REQUEST_ORIGIN = "webhook-request-origin"  # CloudEvents' web hooks, section 4.1.2: for each delivery, once permitted
# Always set by `request.build`; an endpoint's own headers of these names are ignored.
_OURS = ("content-length", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature")


class Template:
    """The shared headers and signing keys of an endpoint's requests; made once (40 µs).

    `lines`: the endpoint's headers and those that its `auth` adds, as sent. `request`: a request with these alone.
    Each request needs a token of `oauth2`, or is passed to `plugin`, if they are set; it goes out with `tls`.
    """

    __slots__ = (
        "gzip_above",
        "hex_key",
        "hex_start",
        "http2",
        "keys",
        "lines",
        "oauth2",
        "plugin",
        "private_keys",
        "request",
        "tls",
    )

    def __init__(self, request: PreparedRequest, endpoint: Endpoint) -> None:
        self.request = request
        self.http2 = endpoint.http2
        # A header of the subscription's own says that its bodies are encoded already.
        self.gzip_above = None if "content-encoding" in request.headers else endpoint.gzip_above
        self.keys = tuple(map(hmac_key, endpoint.secrets))
        self.private_keys = endpoint.private_keys
        self.oauth2 = endpoint.auth if isinstance(endpoint.auth, OAuth2) else None
        self.plugin = endpoint.auth if isinstance(endpoint.auth, PluginAuth) else None
        self.tls = endpoint.tls
        # The hex header holds one signature. The oldest valid key makes it, so that receivers which check this header
        # keep their old secret during a rotation's overlap too.
        self.hex_key = self.keys[-1] if self.keys and endpoint.hex_header is not None else None
        self.hex_start = b""
        ours = set(_OURS)
        if endpoint.hex_header is not None and self.hex_key is not None:
            self.hex_start = header_lines({endpoint.hex_header: f"{endpoint.hex_prefix}_"})[
                :-3
            ]  # without "_" and the line end
            ours.add(endpoint.hex_header.lower())
        self.lines = header_lines({name: value for name, value in request.headers.items() if name.lower() not in ours})


def prepare(endpoint: Endpoint) -> Template:
    """Make the endpoint's template.

    Raises requests.exceptions.InvalidURL and InvalidHeader; their texts do not quote the URL or the header, which may
    hold a password.
    """
    try:
        check_target(endpoint.url)
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    given = CaseInsensitiveDict({"user-agent": f"kafka-webhooks/{__version__}"})
    given.update(endpoint.headers)
    if isinstance(endpoint.auth, OAuth2):  # as with basic and bearer; two such lines would make the request invalid
        given.pop("authorization", None)
    if endpoint.origin is not None:
        given[REQUEST_ORIGIN] = endpoint.origin
    try:
        always = endpoint.auth if isinstance(endpoint.auth, AuthBase) else None
        prepared = Request("POST", endpoint.url, headers=given, auth=always).prepare()
        return Template(prepared, endpoint)
    except InvalidHeader:  # the original text quotes the value; that of InvalidURL quotes the whole URL
        raise InvalidHeader("a header of the subscription cannot be sent") from None
    except InvalidURL:
        raise InvalidURL("the URL is malformed: its host is not valid") from None
