"""/v1/subscriptions/bulk: one action on many subscriptions."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field
from typing_extensions import TypeAliasType

from consumer.api.backing import changing_many
from consumer.api.context import Answer, Backed, Body, Writer, answer
from consumer.api.models import SubscriptionState
from consumer.api.problems import invalid
from consumer.ops import bulk
from models.subscription import REASON_LENGTH

router = APIRouter(prefix="/subscriptions/bulk", tags=["subscriptions"])

MOST = 100  # subscriptions of a request
BulkAction = TypeAliasType("BulkAction", bulk.Action)
BulkResult = TypeAliasType("BulkResult", bulk.Result)


class BulkChange(Body):
    """An action, and its subscriptions. `enable` keeps a pause, and `resume` ends it."""

    subscription_ids: Annotated[
        list[Annotated[int, Field(ge=-(2**63), lt=2**63)]],
        Field(min_length=1, max_length=MOST, examples=[[7, 8]]),
    ]
    action: Annotated[BulkAction, Field(examples=["pause"])]
    reason: Annotated[
        str | None,
        Field(max_length=REASON_LENGTH, description="Why, to pause or disable.", examples=["moves to another host"]),
    ] = None
    if_owed: Annotated[
        Literal["refuse", "exhaust"],
        Field(description="To remove: refuse it if deliveries are owed, or give them up within a minute."),
    ] = "refuse"


class BulkOutcome(Answer):
    """What the action has done to a subscription. `failed` may succeed later, `refused` not."""

    subscription_id: Annotated[int, Field(examples=[7])]
    result: Annotated[BulkResult, Field(examples=["done"])]
    state: Annotated[SubscriptionState | None, Field(description="After the action.", examples=["paused"])]
    why: Annotated[str | None, Field(description="Why it is not done.", examples=[None])]


class BulkOutcomes(Answer):
    """The outcome for each subscription, in the order of the request."""

    items: list[BulkOutcome]


@router.post("", response_model=BulkOutcomes)
def change_subscriptions(caller: Writer, backing: Backed, wanted: BulkChange) -> Response:
    """Enable, disable, pause, resume or remove many subscriptions, each by itself: one that fails stops no other.

    A repetition does no harm. After 20 s the rest is `failed`.
    """
    if wanted.reason is not None and wanted.action not in {"pause", "disable"}:
        raise invalid("is given with the action pause or disable", "reason")
    ids, give_up = wanted.subscription_ids, wanted.if_owed == "exhaust"
    with changing_many(caller):
        found = list(bulk.act_on_all(backing.changes(caller), wanted.action, ids, wanted.reason, give_up=give_up))
    if "read" not in caller.scopes:
        found = [each._replace(state=None) for each in found]
    return answer(BulkOutcomes(items=[BulkOutcome.model_validate(each) for each in found]))
