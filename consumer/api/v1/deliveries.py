"""/v1/deliveries: stored deliveries, which wait, are held, or were given up."""

import time
from base64 import b64encode
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from consumer.api.problems import Mistake, Refused, invalid
from consumer.api.tokens import Caller
from consumer.api.v1.context import (
    At,
    Backed,
    Backing,
    Reader,
    Writer,
    answer,
    described,
    iso,
    moment,
    search_sealed,
    told,
)
from consumer.api.v1.models import Nothing
from consumer.errors import InvalidPosition
from consumer.http.urls import redact_url
from consumer.ledger.admin import StoredDelivery, StoredDetail
from consumer.ledger.rows import AttemptFailure
from consumer.ledger.search import MOST
from consumer.ledger.search import Query as SearchQuery
from consumer.ops import stored_deliveries
from models import Status

router = APIRouter(prefix="/deliveries", tags=["deliveries"])

MOST_REDELIVERED = 1_000  # ids in one request
DeliveryId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a stored delivery.", examples=[42])]


class FailedAttempt(BaseModel):
    """A failed attempt. `response` is the start of the answer, escaped to ASCII; it is untrusted."""

    at: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    error: Annotated[str, Field(examples=["status 503"])]
    status: Annotated[int | None, Field(examples=[503])]
    response: Annotated[str | None, Field(examples=["try later"])]


class Delivery(BaseModel):
    """A stored delivery."""

    id: Annotated[int, Field(examples=[42])]
    status: Annotated[Status, Field(examples=["parked"])]
    subscription_id: Annotated[int, Field(examples=[7])]
    url: Annotated[str, Field(description="Without a password.", examples=["https://example.com/hooks"])]
    event_type: Annotated[str, Field(examples=["order.paid"])]
    webhook_id: Annotated[str, Field(examples=["msg_143dab3b0a3b75b910a8f2797991ac8e"])]
    topic: Annotated[str, Field(examples=["orders"])]
    partition: Annotated[int, Field(examples=[3])]
    offset: Annotated[int, Field(examples=[1234])]
    attempts: Annotated[int, Field(examples=[2])]
    next_attempt_at: Annotated[str | None, Field(examples=["2026-07-28T14:05:00Z"])]
    replay: Annotated[int | None, Field(description="The replay that stored it.", examples=[None])]
    created_at: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    updated_at: Annotated[str, Field(examples=["2026-07-28T14:00:05Z"])]
    first_failure: FailedAttempt | None
    last_failure: FailedAttempt | None


class StoredEvent(BaseModel):
    """The event that a delivery carries: its body as text if it is UTF-8, else as base64."""

    content_type: Annotated[str, Field(examples=["application/json"])]
    key: Annotated[str | None, Field(description="Base64.", examples=["NDI="])]
    tenant: Annotated[str | None, Field(examples=["acme"])]
    body: Annotated[str | None, Field(examples=['{"amount": 5}'])]
    body_base64: Annotated[str | None, Field(examples=[None])]


class DeliveryDetail(Delivery):
    """A stored delivery with its event."""

    event: StoredEvent


class DeliveryPage(BaseModel):
    """Deliveries, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[Delivery]
    next: Annotated[str | None, Field(description="`cursor` of the next page. Null: the end.", examples=[None])]


class Redelivery(BaseModel):
    """Deliveries to send again."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ids: Annotated[
        list[Annotated[int, Field(ge=1, lt=2**63)]],
        Field(min_length=1, max_length=MOST_REDELIVERED, examples=[[42, 43]]),
    ]


class Marked(BaseModel):
    """The deliveries that are marked: the workers send them, on a new retry schedule."""

    ids: Annotated[list[int], Field(examples=[[42, 43]])]


@router.get("", response_model=DeliveryPage, responses=described())
def list_deliveries(
    caller: Reader,
    backing: Backed,
    status: Annotated[list[Status] | None, Query(description="May be repeated.")] = None,
    subscription: Annotated[int | None, Query(ge=-(2**63), lt=2**63, examples=[7])] = None,
    event_type: Annotated[str | None, Query(max_length=255, examples=["order.paid"])] = None,
    topic: Annotated[str | None, Query(max_length=249, examples=["orders"])] = None,
    tenant: Annotated[str | None, Query(max_length=255, examples=["acme"])] = None,
    since: At = None,
    until: At = None,
    cursor: Annotated[str | None, Query(description="`next` of the page before.", max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 50,
) -> Response:
    """Search stored deliveries, newest first. `since` and `until` refer to the time when they were stored."""
    if caller.tenant is not None and tenant not in {None, caller.tenant}:
        return answer({"items": [], "next": None})
    query = SearchQuery(
        status or (),
        subscription,
        caller.tenant or tenant,
        event_type,
        topic,
        moment(since, "since"),
        moment(until, "until"),
    )
    try:
        found = search_sealed(backing.tokens, backing.registry.engine, query, limit, cursor)
    except InvalidPosition:
        raise invalid(
            Mistake(parameter="cursor", detail="is not a cursor of this search; leave it out to begin")
        ) from None
    return answer({"items": [_shown(caller, item) for item in found.deliveries], "next": found.position})


@router.get("/{delivery_id}", response_model=DeliveryDetail, responses=described(404))
def show_delivery(caller: Reader, backing: Backed, delivery_id: DeliveryId) -> Response:
    """Show a stored delivery with its event."""
    item, event = _of(caller, backing, delivery_id)
    try:
        body, encoded = event.body.decode(), None
    except UnicodeDecodeError:
        body, encoded = None, b64encode(event.body).decode()
    key = None if event.key is None else b64encode(event.key).decode()
    carried = {"content_type": event.content_type, "key": key, "tenant": event.tenant}
    return answer({**_shown(caller, item), "event": {**carried, "body": body, "body_base64": encoded}})


@router.post("/{delivery_id}/redeliver", response_model=Marked, responses=described(404, 409))
def redeliver_delivery(caller: Writer, backing: Backed, delivery_id: DeliveryId, _: Nothing) -> Response:
    """Redeliver: the delivery becomes due now, on a new retry schedule. 409: it is delivered or keeps its turn."""
    _of(caller, backing, delivery_id)
    marked = _redelivered(caller, backing, [delivery_id])
    if not marked:
        why = "it is delivered, waits for its turn in an order, or has no subscription any more"
        raise Refused(HTTPStatus.CONFLICT, "conflict", why)
    return answer({"ids": marked})


@router.post("/redeliver", response_model=Marked, responses=described())
def redeliver_deliveries(caller: Writer, backing: Backed, these: Redelivery) -> Response:
    """Redeliver several deliveries. The answer leaves out the ones that cannot be redelivered."""
    return answer({"ids": _redelivered(caller, backing, these.ids)})


def _redelivered(caller: Caller, backing: Backing, ids: Sequence[int]) -> list[int]:
    return stored_deliveries.redeliver_these(backing.registry, caller.actor, ids, caller.tenant, time.time())


def _of(caller: Caller, backing: Backing, delivery_id: int) -> StoredDetail:
    found = stored_deliveries.find(backing.registry.engine, delivery_id, caller.tenant)
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "there is no such stored delivery: it may have been delivered")
    return found


def _shown(caller: Caller, item: StoredDelivery) -> dict[str, Any]:
    waits = item.status == Status.PARKED
    return {
        "id": item.id,
        "status": item.status,
        "subscription_id": item.subscription_id,
        "url": redact_url(item.url),
        "event_type": item.event_type,
        "webhook_id": item.webhook_id,
        "topic": item.record.topic,
        "partition": item.record.partition,
        "offset": item.record.offset,
        "attempts": item.attempt,
        "next_attempt_at": iso(item.next_attempt_at) if waits else None,
        "replay": item.replay or None,
        "created_at": iso(item.created_at),
        "updated_at": iso(item.updated_at),
        "first_failure": _failure(caller, item.first),
        "last_failure": _failure(caller, item.last),
    }


def _failure(caller: Caller, failure: AttemptFailure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    said = {"error": failure.error, "status": failure.status, "response": failure.response}
    return {"at": iso(failure.at), **told(caller, said, "error")}
