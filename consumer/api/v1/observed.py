"""/v1/attempts, /v1/statistics and /v1/event-types: past attempts, and deliveries owed."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from consumer.api.problems import Refused
from consumer.api.v1.context import (
    At,
    Backed,
    Reader,
    absent,
    answer,
    described,
    iso,
    may_see,
    moment,
    of_all_tenants,
    reading_back,
    seeing,
    told,
)
from consumer.events.attempt import Attempt as Attempted
from consumer.ops.attempts import READ_BACK
from consumer.ops.overview import MOST_COUNTED, Overview
from consumer.subscriptions import repository
from consumer.subscriptions.health import named_types

router = APIRouter()

MOST = 1_000  # attempts or types in one answer


class Attempt(BaseModel):
    """One attempt at a delivery. `response` is the start of the answer to a failed one; it is untrusted."""

    at: Annotated[str, Field(examples=["2026-07-28T14:00:00.120Z"])]
    subscription_id: Annotated[int, Field(examples=[7])]
    webhook_id: Annotated[str, Field(examples=["msg_143dab3b0a3b75b910a8f2797991ac8e"])]
    event_type: Annotated[str, Field(examples=["order.paid"])]
    tenant: Annotated[str | None, Field(examples=["acme"])]
    topic: Annotated[str, Field(examples=["orders"])]
    partition: Annotated[int, Field(examples=[3])]
    offset: Annotated[int, Field(examples=[1234])]
    attempt: Annotated[int, Field(description="Counts from 1.", examples=[1])]
    outcome: Annotated[str, Field(description="delivered, retried, parked or exhausted.", examples=["parked"])]
    status: Annotated[int | None, Field(examples=[503])]
    error: Annotated[str | None, Field(examples=["status 503"])]
    seconds: Annotated[float, Field(examples=[0.042])]
    response: Annotated[str | None, Field(examples=["try later"])]


class Attempts(BaseModel):
    """Attempts, newest first. `missing`: the reason why some may be missing."""

    items: list[Attempt]
    missing: Annotated[str | None, Field(examples=[None])]


class Count(BaseModel):
    """A number of deliveries. `more`: there are more than that."""

    number: Annotated[int, Field(examples=[1204])]
    more: Annotated[bool, Field(examples=[False])]


class FailingSubscription(BaseModel):
    """A subscription without a successful attempt since then."""

    id: Annotated[int, Field(examples=[7])]
    url: Annotated[str, Field(examples=["https://example.com/hooks"])]
    since: Annotated[datetime, Field(examples=["2026-07-28T14:00:00Z"])]
    last_error: Annotated[str | None, Field(examples=["status 503"])]
    waiting: Count


class PartitionLag(BaseModel):
    """The group's lag in a partition, in records."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: Annotated[int, Field(examples=[3])]
    records: Annotated[int, Field(examples=[12])]


class Statistics(BaseModel):
    """Deliveries owed, failing subscriptions and the group's lag. A part that is null is named in `missing`."""

    at: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    states: Annotated[dict[str, Count] | None, Field(description="Stored deliveries by state.")]
    failing: list[FailingSubscription] | None
    disabled: Annotated[list[int] | None, Field(description="Ids, the newest first; 20 at most.", examples=[[9]])]
    lag: list[PartitionLag] | None
    dead_letters: Annotated[int | None, Field(description="Written in the last hour.", examples=[0])]
    missing: Annotated[dict[str, str], Field(examples=[{"lag": "no broker reachable"}])]


class EventType(BaseModel):
    """An event type or pattern that subscriptions name."""

    event_type: Annotated[str, Field(examples=["order.paid"])]
    subscriptions: Annotated[int, Field(examples=[12])]
    more: Annotated[bool, Field(description="Always false: the number is exact.", examples=[False])]


class EventTypes(BaseModel):
    """Event types in the order of their bytes."""

    items: list[EventType]
    next: Annotated[str | None, Field(description="`after` of the next page. Null: the end.", examples=[None])]


@router.get("/attempts", tags=["attempts"], response_model=Attempts, responses=described(404))
def list_attempts(
    caller: Reader,
    backing: Backed,
    subscription: Annotated[int | None, Query(ge=-(2**63), lt=2**63, examples=[7])] = None,
    since: At = None,
    until: At = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 100,
) -> Response:
    """List attempts of the last hour; or of a time, read from the topic for up to ten seconds.

    404 without KAFKA_ATTEMPTS_TOPIC. A token of a tenant has to name one of its subscriptions.
    """
    if backing.history is None:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "there is no attempt history: set KAFKA_ATTEMPTS_TOPIC")
    if subscription is None:
        of_all_tenants(caller)
    else:
        item = repository.get(backing.registry.engine, subscription)
        if caller.tenant is not None and (item is None or not may_see(caller, item)):
            raise absent()
    begin, end = moment(since, "since"), moment(until, "until")
    if begin is None and end is None:
        found, missing = backing.history.recent(subscription, limit, seeing(caller)), backing.history.fault
    else:
        with reading_back(caller):
            until_time = _FAR if end is None else end
            found = backing.history.read_back(subscription, begin or 0.0, until_time, limit, seeing(caller))
        missing = None if len(found) == limit else f"attempts that were not read within {READ_BACK:.0f} s, if any"
    return answer({"items": [told(caller, _attempt(each), "error") for each in found], "missing": missing})


@router.get("/statistics", tags=["statistics"], response_model=Statistics, responses=described(404))
def show_statistics(caller: Reader, backing: Backed) -> Response:
    """Show the deliveries owed, the failing subscriptions and the lag, at most two seconds old."""
    of_all_tenants(caller)
    if backing.look is None:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "this process has no statistics")
    return answer(_statistics(backing.look()))


@router.get("/event-types", tags=["event types"], response_model=EventTypes, responses=described())
def list_event_types(
    caller: Reader,
    backing: Backed,
    after: Annotated[str | None, Query(max_length=255, examples=["order.created"])] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 100,
) -> Response:
    """List the event types and patterns that subscriptions name."""
    of_all_tenants(caller)
    found = named_types(backing.registry.engine, limit, after)
    items = [{**each._asdict(), "more": False} for each in found]
    return answer({"items": items, "next": found[-1].event_type if len(found) == limit else None})


_FAR = 4102444800.0  # unix seconds: the year 2100


def _attempt(item: Attempted) -> dict[str, Any]:
    return {**item._asdict(), "at": iso(item.at)}


def _statistics(seen: Overview) -> dict[str, Any]:
    return {
        "at": iso(seen.at),
        "states": None if seen.states is None else {name: _count(number) for name, number in seen.states.items()},
        "failing": None
        if seen.failing is None
        else [
            {
                "id": each.subscription.subscription_id,
                "url": each.subscription.url,
                "since": iso(each.subscription.since.timestamp()),
                "last_error": each.last.error if each.last else None,
                "waiting": _count(each.waiting),
            }
            for each in seen.failing
        ],
        "disabled": None if seen.disabled is None else [each.subscription_id for each in seen.disabled],
        "lag": None
        if seen.lag is None
        else [{"topic": each.topic, "partition": each.partition, "records": each.records} for each in seen.lag],
        "dead_letters": seen.dead_letters,
        "missing": {each.part: each.reason for each in seen.missing},
    }


def _count(number: int) -> dict[str, Any]:
    return {"number": min(number, MOST_COUNTED), "more": number > MOST_COUNTED}
