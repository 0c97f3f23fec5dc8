"""/v1/subscriptions/{id}/verify: asks a subscription's receiver for its permission."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from consumer.api.problems import Refused
from consumer.api.tokens import Caller
from consumer.api.v1.context import (
    Backed,
    Backing,
    IfMatch,
    SubscriptionId,
    Writer,
    absent,
    answer,
    condition,
    described,
    exchanging,
    told,
)
from consumer.api.v1.models import Shown, Verification, shown_to
from consumer.ops import verification
from consumer.ops.verification import Ask, describe
from consumer.sending.validation_request import MOST_RATE

router = APIRouter(prefix="/subscriptions", tags=["subscriptions"])


class WantedRate(BaseModel):
    """The rate to ask for."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rate: Annotated[
        Annotated[int, Field(ge=1, le=MOST_RATE)] | None,
        Field(description="Requests a minute. Null: its rate_limit, or any.", examples=[600]),
    ] = None


class Verified(BaseModel):
    """The receiver's answer, and the subscription after it."""

    verification: Verification
    subscription: Shown


@router.post("/{subscription_id}/verify", response_model=Verified, responses=described(404, 409, 412))
def verify_subscription(
    caller: Writer, backing: Backed, subscription_id: SubscriptionId, wanted: WantedRate, if_match: IfMatch = None
) -> Response:
    """Ask a subscription's receiver for its permission, with one OPTIONS request. A refusal changes nothing."""
    ask = asking(backing)
    with exchanging(caller):
        told = asked(caller, backing, subscription_id, ask, wanted.rate, if_match)
    return answer(told)


def asking(backing: Backing) -> Ask:
    """The function that asks receivers. Raises Refused if this process lacks a setting for it."""
    if backing.ask is None:
        why = "the API needs WEBHOOK_ORIGIN and WEBHOOK_SECRET, as workers have them"
        raise Refused(HTTPStatus.CONFLICT, "conflict", why)
    return backing.ask


def asked(
    caller: Caller,
    backing: Backing,
    subscription_id: int,
    ask: Ask,
    rate: int | None = None,
    if_match: str | None = None,
) -> dict[str, Any]:
    """Ask the receiver; returns the members of `Verified`."""
    allowed = condition(caller, if_match)
    done = verification.verify(backing.registry, caller.actor, subscription_id, ask, rate, allowed)
    if done is None:
        raise absent()
    return {
        "verification": told(caller, describe(done.permission), "reason", "advice"),
        "subscription": shown_to(caller, done.subscription),
    }
