"""The validation request of CloudEvents' web hooks, and the permission in its answer. Pure.

"HTTP 1.1 Web Hooks for Event Delivery", version 1.0.2, section 4: "a legitimate delivery target needs to indicate that
it agrees with notifications being delivered to it". Of its parts `WebHook-Request-Callback` (4.1.3, "OPTIONAL"), by
which a receiver may agree later, is left out: the sender would need an address that receivers can reach.
"""

import math
import re
from http import HTTPStatus
from typing import NamedTuple

from requests import Response

from consumer.sending.exchange import SignedRequest, call_plugin
from consumer.sending.signing import REQUEST_ORIGIN, prepare
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import LEAST_NUMBER, MOST_NUMBER

REQUEST_RATE = "webhook-request-rate"
ALLOWED_ORIGIN, ALLOWED_RATE = "webhook-allowed-origin", "webhook-allowed-rate"
MOST_RATE = 10**9  # requests a minute; more than any subscription's rate_limit
_ANY = "*"
_OURS = "webhook-request-"
_RATE = re.compile(r"[0-9]{1,18}")
_UNKNOWN = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)


class Granted(NamedTuple):
    """The receiver agrees. `rate`: the requests a minute that it permits; None: as many as there are."""

    rate: int | None


class Declined(NamedTuple):
    """The receiver has not agreed, and why. `advice`: a remedy."""

    why: str
    advice: str | None = None


Permission = Granted | Declined


def validation_request(endpoint: Endpoint, origin: str, rate: int | None) -> SignedRequest:
    """The request that asks a receiver's permission in the name of `origin`, for `rate` requests a minute (None: any).

    "The validation request uses the HTTP OPTIONS method. The request is directed to the exact resource target URI that
    is being registered" (4.1). It has the subscription's own headers and credentials, as deliveries have, so that it
    passes where these pass. Raises requests.exceptions.InvalidURL and InvalidHeader as `prepare` does, and
    NotAuthorized if a plug-in fails.
    """
    template = prepare(endpoint)
    request = SignedRequest(template, b"", b"")
    request.method = "OPTIONS"
    for name in [name for name in request.headers if name.lower().startswith(_OURS)]:
        del request.headers[name]
    request.headers[REQUEST_ORIGIN] = origin
    if rate is not None:
        request.headers[REQUEST_RATE] = str(rate)
    if template.plugin is not None:
        call_plugin(template.plugin, request)
    return request


def permission(response: Response, origin: str, rate: int | None) -> Permission:
    """The permission that the answer to the request for `origin` and `rate` gives.

    "The existing response ought not to be interpreted as consent, and therefore the handshake cannot rely on status
    codes" (4.2): a 2xx without the headers permits nothing, and neither do the headers with another status.
    """
    status = response.status_code
    if status in _UNKNOWN:
        return Declined(
            f"the receiver answered {status}: it does not implement the validation request (OPTIONS)",
            "docs/receiving.md shows how a receiver answers it",
        )
    if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Declined(f"the receiver answered {status}", _of_status(status))
    allowed = response.headers.get(ALLOWED_ORIGIN)
    if allowed is None:
        why = f"the receiver answered {status} without WebHook-Allowed-Origin, which alone is consent"
        return Declined(why, "a receiver that grants permission by callback only cannot be verified")
    if allowed != _ANY and allowed.lower() != origin.lower():
        why = f"the receiver permits another origin (WebHook-Allowed-Origin) than {origin}"
        return Declined(why, "tell the receiver the value of WEBHOOK_ORIGIN")
    return _rated(response.headers.get(ALLOWED_RATE), rate)


def asked_rate(rate_limit: float | None) -> int | None:
    """The requests a minute to ask for: not fewer than `rate_limit` (requests a second). None: as many as there are."""
    return None if rate_limit is None else max(1, math.ceil(round(60 * rate_limit, 3)))


def lowered(rate_limit: float | None, rate: int | None) -> float | None:
    """The rate limit (requests a second) under which a permitted `rate` (requests a minute) is kept.

    It is never higher than `rate_limit` or the permitted rate; it fits its column, which has three decimals.
    """
    if rate is None:
        return rate_limit
    permitted = max(LEAST_NUMBER, rate * 1000 // 60 / 1000)
    if rate_limit is None:
        return permitted if permitted <= MOST_NUMBER else None
    return min(rate_limit, permitted)


def _rated(text: str | None, asked: int | None) -> Permission:
    """The permission that WebHook-Allowed-Rate completes.

    It "MUST be returned if the request contained the WebHook-Request-Rate, otherwise it SHOULD be returned" (4.2.2).
    """
    if text is None and asked is not None:
        return Declined(
            "the receiver answered without WebHook-Allowed-Rate, although a rate was asked for", _RATE_ADVICE
        )
    if text is None or text == _ANY:
        return Granted(None)
    if not _RATE.fullmatch(text) or not int(text):
        return Declined("WebHook-Allowed-Rate is neither a positive whole number nor *", _RATE_ADVICE)
    return Granted(int(text))


def _of_status(status: int) -> str | None:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return "redirects are never followed; the url should be the place that answers"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return "check the credentials that the receiver expects, and the value of WEBHOOK_ORIGIN"
    return "the receiver's log says why"


_RATE_ADVICE = "it is the requests a minute that the receiver permits, or *"
