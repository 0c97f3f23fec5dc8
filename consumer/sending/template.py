"""What all requests of a subscription share: its headers as bytes, and its signing keys."""

from requests import PreparedRequest, Request
from requests.exceptions import InvalidHeader, InvalidURL
from requests.structures import CaseInsensitiveDict

from consumer import __version__
from consumer.http.urls import check_target
from consumer.sending.header_lines import header_lines
from consumer.sending.signing import hmac_key
from consumer.subscriptions.endpoint import Endpoint

# Set by `request.build`, whatever the endpoint says.
_OURS = ("content-length", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature")


class Template:
    """What all requests to an endpoint share, and their signing keys; made once (40 µs).

    `lines` are its own headers, and what its `auth` adds, as they are sent; `request` is a request of these alone.
    """

    __slots__ = ("hex_key", "hex_start", "keys", "lines", "private_keys", "request")

    def __init__(self, request: PreparedRequest, endpoint: Endpoint) -> None:
        self.request = request
        self.keys = tuple(map(hmac_key, endpoint.secrets))
        self.private_keys = endpoint.private_keys
        # It has room for one secret. By the oldest that still signs, a rotation's overlap covers its receivers too.
        self.hex_key = self.keys[-1] if self.keys and endpoint.hex_header is not None else None
        self.hex_start = b""
        ours = set(_OURS)
        if endpoint.hex_header is not None and self.hex_key is not None:
            self.hex_start = header_lines({endpoint.hex_header: f"{endpoint.hex_prefix}_"})[
                :-3
            ]  # without _ and its end
            ours.add(endpoint.hex_header.lower())
        self.lines = header_lines({name: value for name, value in request.headers.items() if name.lower() not in ours})


def prepare(endpoint: Endpoint) -> Template:
    """What all requests to an endpoint share. An `auth` that needs the body or an answer has no place here.

    Raises requests.exceptions.InvalidURL for a url that is none, and InvalidHeader; their texts hold nothing of either:
    it may be a password.
    """
    try:
        check_target(endpoint.url)
    except ValueError as error:
        raise InvalidURL(str(error)) from None
    given = CaseInsensitiveDict({"user-agent": f"kafka-webhooks/{__version__}"})
    given.update(endpoint.headers)
    try:
        prepared = Request("POST", endpoint.url, headers=given, auth=endpoint.auth).prepare()
        return Template(prepared, endpoint)
    except InvalidHeader:  # its text repeats the value, that of InvalidURL the whole url
        raise InvalidHeader("a header of the subscription cannot be sent") from None
    except InvalidURL:
        raise InvalidURL("the URL is malformed: its host can be none") from None
