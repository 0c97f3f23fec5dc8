"""Calls a plug-in of `requests.auth` with a signed request. It runs on the loop, so it must not wait for anything."""

from requests import PreparedRequest
from requests.exceptions import InvalidHeader

from consumer.crypto.credentials import PluginAuth
from consumer.errors import NotAuthorized
from consumer.sending.header_lines import header_lines
from consumer.sending.signed_request import SignedRequest


def call(plugin: PluginAuth, request: SignedRequest) -> None:
    """Let the plug-in add its headers to the request.

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
