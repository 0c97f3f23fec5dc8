"""/v1/deliveries: stored deliveries, which wait, are held, or were given up."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import AfterValidator, AliasPath, BeforeValidator, Field
from typing_extensions import TypeAliasType

from consumer.api.backing import told
from consumer.api.context import (
    Answer,
    At,
    Backed,
    Base64,
    Body,
    Cursor,
    EmptyBody,
    Limit,
    OfSubscription,
    Page,
    Reader,
    Stamp,
    Text,
    Writer,
    answer,
    unix,
)
from consumer.api.tokens import Caller
from consumer.errors import Conflict
from consumer.http.urls import redact_url
from consumer.ledger.admin import DeliveryQuery, StoredDelivery
from consumer.ops.waiting import Reason, waits_for
from consumer.subscriptions.health import ListedSubscription
from models import Status

router = APIRouter(prefix="/deliveries", tags=["deliveries"])

MOST_REDELIVERED = 1_000  # ids in one request
DeliveryState = TypeAliasType("DeliveryState", Status)
DeliveryId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a stored delivery.", examples=[42])]


class FailedAttempt(Answer):
    """A failed attempt. `response` is the start of the answer, escaped to ASCII; it is untrusted."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    error: Annotated[str, Field(examples=["status 503"])]
    status: int | None
    response: Annotated[str | None, Field(examples=["try later"])]


class Delivery(Answer):
    """A stored delivery."""

    id: int
    state: Annotated[DeliveryState, Field(validation_alias="status", examples=["parked"])]
    subscription_id: int
    url: Annotated[
        str,
        AfterValidator(redact_url),
        Field(description="Without a password and a query.", examples=["https://example.com/hooks"]),
    ]
    subscription_name: Annotated[str | None, Field(examples=["Orders to the warehouse"])] = None
    subscription_tenant: Annotated[str | None, Field(description="Null: it was removed.", examples=["acme"])] = None
    event_type: Annotated[str, Field(examples=["order.paid"])]
    webhook_id: Annotated[str, Field(examples=["msg_143dab3b0a3b75b910a8f2797991ac8e"])]
    topic: Annotated[str, Field(validation_alias=AliasPath("record", "topic"), examples=["orders"])]
    partition: Annotated[int, Field(validation_alias=AliasPath("record", "partition"))]
    offset: Annotated[int, Field(validation_alias=AliasPath("record", "offset"))]
    attempts: Annotated[int, Field(validation_alias="attempt")]
    next_attempt_at: Annotated[Stamp | None, Field(examples=["2026-07-28T14:05:00Z"])]
    replay_id: Annotated[
        int | None,
        BeforeValidator(lambda number: number or None),
        Field(validation_alias="replay", description="The replay that stored it."),
    ]
    created_at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    updated_at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:05Z"])]
    first_failure: Annotated[FailedAttempt | None, Field(validation_alias="first")]
    last_failure: Annotated[FailedAttempt | None, Field(validation_alias="last")]


class StoredEvent(Answer):
    """The event that a delivery carries: its key and body as text if they are UTF-8, else as base64."""

    content_type: Annotated[str, Field(examples=["application/json"])]
    key: Annotated[Text, Field(examples=["42"])]
    key_base64: Annotated[Base64, Field(validation_alias="key")]
    tenant: Annotated[str | None, Field(examples=["acme"])]
    body: Annotated[Text, Field(examples=['{"amount": 5}'])]
    body_base64: Annotated[Base64, Field(validation_alias="body")]


class Wait(Answer):
    """What a delivery waits for."""

    reason: Annotated[Reason, Field(examples=["schedule"])]
    text: Annotated[str, Field(description="It, in words.", examples=["Attempt 2 follows by its retry schedule."])]
    until: Annotated[
        Stamp | None, Field(description="It is sent at this time at the earliest.", examples=["2026-07-28T14:05:00Z"])
    ]
    behind: Annotated[int | None, Field(description="The stored delivery that goes first.", examples=[None])]


class DeliveryDetail(Delivery):
    """A stored delivery with its event."""

    event: StoredEvent
    waits_for: Annotated[Wait | None, Field(description="Null: it is delivered or was given up.")]


class DeliveryPage(Page):
    """Deliveries, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[Delivery]


class RedeliveryRequest(Body):
    """Deliveries to send again."""

    delivery_ids: Annotated[
        list[Annotated[int, Field(ge=1, lt=2**63)]],
        Field(min_length=1, max_length=MOST_REDELIVERED, examples=[[42, 43]]),
    ]


class Redelivery(Answer):
    """The deliveries that are marked: the workers send them, on a new retry schedule."""

    delivery_ids: Annotated[list[int], Field(examples=[[42, 43]])]


@router.get("", response_model=DeliveryPage)
def list_deliveries(
    caller: Reader,
    backing: Backed,
    state: Annotated[list[DeliveryState] | None, Query(description="May be repeated.")] = None,
    subscription_id: OfSubscription = None,
    event_type: Annotated[str | None, Query(max_length=255, examples=["order.paid"])] = None,
    topic: Annotated[str | None, Query(max_length=249, examples=["orders"])] = None,
    webhook_id: Annotated[str | None, Query(description="Only of this event.", max_length=255)] = None,
    tenant: Annotated[str | None, Query(max_length=255, examples=["acme"])] = None,
    since: At = None,
    until: At = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """Search stored deliveries, newest first. `since` and `until` refer to the time when they were stored."""
    if caller.tenant is not None and tenant not in {None, caller.tenant}:
        return answer({"items": [], "next": None})
    times = unix(backing, since), unix(backing, until)
    query = DeliveryQuery(state or (), subscription_id, tenant, event_type, topic, *times, webhook_id=webhook_id)
    found = backing.search(caller, query, limit, cursor)
    known = backing.receivers(caller, {each.subscription_id for each in found.deliveries})
    items = [_shown(caller, each, known.get(each.subscription_id)) for each in found.deliveries]
    return answer({"items": items, "next": found.position})


@router.get("/{delivery_id}", response_model=DeliveryDetail)
def show_delivery(caller: Reader, backing: Backed, delivery_id: DeliveryId) -> Response:
    """Show a stored delivery with its event, and what it waits for."""
    item, event = backing.deployment.delivery(delivery_id, caller.tenant)
    wait = waits_for(backing.deployment, item)
    waiting = None if wait is None else told(caller, Wait.model_validate(wait).model_dump(), "text")
    known = backing.receivers(caller, [item.subscription_id]).get(item.subscription_id)
    carried = StoredEvent.model_validate(event).model_dump()
    return answer({**_shown(caller, item, known), "event": carried, "waits_for": waiting})


@router.post("/{delivery_id}/redeliver", response_model=Redelivery)
def redeliver_delivery(caller: Writer, backing: Backed, delivery_id: DeliveryId, _: EmptyBody) -> Response:
    """Redeliver: the delivery becomes due now, on a new retry schedule. 409: it is delivered or keeps its turn.

    If its subscription is disabled or paused, it is held until that ends.
    """
    backing.deployment.delivery(delivery_id, caller.tenant)
    marked = backing.changes(caller).redeliver_these([delivery_id])
    if not marked:
        raise Conflict("it is delivered, waits for its turn in an order, or has no subscription any more")
    return answer({"delivery_ids": marked})


@router.post("/redeliver", response_model=Redelivery)
def redeliver_deliveries(caller: Writer, backing: Backed, these: RedeliveryRequest) -> Response:
    """Redeliver several deliveries. The answer leaves out the ones that cannot be redelivered."""
    return answer({"delivery_ids": backing.changes(caller).redeliver_these(these.delivery_ids)})


def _shown(caller: Caller, item: StoredDelivery, known: ListedSubscription | None) -> dict[str, Any]:
    found = Delivery.model_validate(item).model_dump()
    if item.status != Status.PARKED:
        found["next_attempt_at"] = None
    failures = {name: found[name] and told(caller, found[name], "error") for name in ("first_failure", "last_failure")}
    named = {} if known is None else {"subscription_name": known.name, "subscription_tenant": known.tenant}
    return found | failures | named
