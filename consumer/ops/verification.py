"""Asks a receiver whether it wants a subscription's events, and notes its permission.

The request is made between two transactions. A process that ends between them leaves the subscription as it was: it may
be verified again at any time.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from requests import PreparedRequest, RequestException, Response

from consumer.config.settings import DeliverySettings
from consumer.delivery.outcome import Delivered, judge
from consumer.errors import Conflict, NotAuthorized
from consumer.ops.changes import Changes
from consumer.ops.ping import Send, advice_on, sending_by
from consumer.sending.trace import ExchangeTrace, masked, secrets_in
from consumer.sending.validation_request import (
    Declined,
    Granted,
    Permission,
    asked_rate,
    permission,
    validation_request,
)
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.subscribed import Subscribed

Ask = Callable[[Endpoint, int | None], Permission]  # the rate is in requests a minute; None: the subscription's limit


class Verification(NamedTuple):
    """The receiver's answer, and the subscription after it."""

    permission: Permission
    subscription: Subscribed


def asking(settings: DeliverySettings) -> Ask | None:
    """`ask` with the egress rule and the other settings of workers. None: there is no WEBHOOK_ORIGIN."""
    if settings.origin is None:
        return None
    return partial(ask, origin=settings.origin, send=sending_by(settings))


def describe(answer: Permission) -> dict[str, object]:
    """The answer for programs."""
    if isinstance(answer, Granted):
        return {"granted": True, "allowed_rate": answer.rate, "reason": None, "advice": None}
    return {"granted": False, "allowed_rate": None, "reason": answer.why, "advice": answer.advice}


def ask(endpoint: Endpoint, rate: int | None = None, *, origin: str, send: Send) -> Permission:
    """Make the validation request, `send` it, and judge the answer. Sends nothing if there is a fault."""
    if endpoint.fault is not None:
        return Declined("not asked: the subscription is broken", endpoint.fault)
    rate = asked_rate(endpoint.rate_limit) if rate is None else rate
    try:
        request = validation_request(endpoint, origin, rate)
    except (ValueError, NotAuthorized) as error:
        return Declined(f"not asked: {error}")
    result, seen = send(request, endpoint.timeout)
    if isinstance(result, Response):
        return permission(result, origin, rate)
    return _unanswered(endpoint, request, result, seen)


def verify(changes: Changes, subscription_id: int, ask: Ask, rate: int | None = None) -> Verification:
    """Ask the receiver of a subscription; if it agrees, note that, and keep to the rate that it permits.

    Enables a subscription that awaits this; one that is disabled for another reason stays disabled. A refusal changes
    nothing. The condition of `changes` may prevent the request, and then the note. Raises NotFound.
    """
    where = changes.deployment
    rules = where.rules._replace(verification=False)  # a missing verification must not prevent it
    item, endpoint = where.endpoint(subscription_id, changes.tenant, rules)
    changes.condition(item)
    answer = ask(endpoint, rate)
    if isinstance(answer, Granted):
        try:
            return Verification(answer, changes.set_verified(subscription_id, endpoint.url, answer.rate))
        except Conflict as error:
            answer = Declined(str(error), "verify it again")
    return Verification(answer, where.subscription(subscription_id, changes.tenant))


def _unanswered(endpoint: Endpoint, request: PreparedRequest, error: RequestException, seen: ExchangeTrace) -> Declined:
    """The error as deliveries report it, which names the setting if the egress rule is the cause."""
    outcome = judge(error, 0.0)
    why = str(error) if isinstance(outcome, Delivered) else outcome.error
    return Declined(masked(f"no answer: {why}", secrets_in(endpoint, request)), advice_on(error, seen))
