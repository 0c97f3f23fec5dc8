"""Calls a plug-in of `requests.auth` with a signed request. It runs on the loop, so it must not wait for anything."""

from requests import PreparedRequest

from consumer.crypto.credentials import PluginAuth
from consumer.errors import NotAuthorized


def call(plugin: PluginAuth, request: PreparedRequest) -> None:
    """Let the plug-in add its headers to the request.

    Raises NotAuthorized if it fails, changes the body or the URL, which are signed or judged already, or registers a
    hook for the answer: a delivery is one exchange, and a hook is never called. The text does not quote the plug-in's
    own error.
    """
    body, url = request.body, request.url
    try:
        result = plugin.auth(request)
    except Exception as error:  # noqa: BLE001 (a plug-in's own)
        raise NotAuthorized(f"the plug-in {plugin.name} failed ({type(error).__name__})") from None
    if not isinstance(result, PreparedRequest):
        raise NotAuthorized(f"the plug-in {plugin.name} returned no request")
    if result is not request:
        request.headers = result.headers
    if result.body is not body or result.url != url:
        raise NotAuthorized(f"the plug-in {plugin.name} changed the body or the URL; it may only add headers")
    if any(result.hooks.values()):
        raise NotAuthorized(f"the plug-in {plugin.name} waits for a challenge in the answer, which is not supported")
