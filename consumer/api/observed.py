"""/v1/attempts, /v1/statistics and /v1/event-types: past attempts, and deliveries owed."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import AliasPath, BeforeValidator, Field

from consumer.api.backing import of_all_tenants, reading_back, seeing, told
from consumer.api.context import At, Backed, OfSubscription, Reader, Shown, Stamp, answer, unix
from consumer.api.problems import Code, RequestRefused
from consumer.ops.attempts import READ_BACK
from consumer.subscriptions.health import named_types

router = APIRouter()

MOST = 1_000  # attempts or types in one answer
_Ids = list[Annotated[int, BeforeValidator(lambda each: each.subscription_id)]] | None
_FAR = 4102444800.0  # unix seconds: the year 2100


class ShownAttempt(Shown):
    """One attempt at a delivery. `response` is the start of the answer to a failed one; it is untrusted."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00.120Z"])]
    subscription_id: int
    webhook_id: Annotated[str, Field(examples=["msg_143dab3b0a3b75b910a8f2797991ac8e"])]
    event_type: Annotated[str, Field(examples=["order.paid"])]
    tenant: Annotated[str | None, Field(examples=["acme"])]
    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    offset: int
    attempt: Annotated[int, Field(description="Counts from 1.")]
    outcome: Annotated[str, Field(description="delivered, retried, parked or exhausted.", examples=["parked"])]
    status: int | None
    error: Annotated[str | None, Field(examples=["status 503"])]
    seconds: Annotated[float, Field(examples=[0.042])]
    response: Annotated[str | None, Field(examples=["try later"])]


class Attempts(Shown):
    """Attempts, newest first. `missing`: the reason why some may be missing."""

    items: list[ShownAttempt]
    missing: str | None


def _of_subscription(name: str, example: str | int) -> Any:
    return Field(validation_alias=AliasPath("subscription", name), examples=[example])


class ShownFailing(Shown):
    """A subscription without a successful attempt since then."""

    subscription_id: Annotated[int, _of_subscription("subscription_id", 7)]
    url: Annotated[str, _of_subscription("url", "https://example.com/hooks")]
    failing_since: Annotated[datetime, _of_subscription("since", "2026-07-28T14:00:00Z")]
    last_error: Annotated[
        str | None,
        BeforeValidator(lambda last: None if last is None else last.error),
        Field(validation_alias="last", examples=["status 503"]),
    ]
    waiting: Annotated[int, Field(description="Deliveries to send.")]


class PartitionLag(Shown):
    """The group's lag in a partition, in records."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    records: int


class Statistics(Shown):
    """Deliveries owed, failing subscriptions and the group's lag. A part that is null is named in `missing`."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    counted_up_to: Annotated[int, Field(validation_alias="most_counted", description="A larger count: more than that.")]
    states: Annotated[dict[str, int] | None, Field(description="Stored deliveries by state.")]
    failing: list[ShownFailing] | None
    disabled: Annotated[_Ids, Field(description="Ids, the newest first; 20 at most.", examples=[[9]])]
    paused: Annotated[_Ids, Field(description="Ids, the longest paused first; 20 at most.", examples=[[7]])]
    lag: list[PartitionLag] | None
    dead_letters: Annotated[int | None, Field(description="Written in the last hour.")]
    missing: Annotated[dict[str, str], BeforeValidator(dict), Field(examples=[{"lag": "no broker reachable"}])]


class EventType(Shown):
    """An event type or pattern that subscriptions name."""

    event_type: Annotated[str, Field(examples=["order.paid"])]
    subscriptions: int


class EventTypes(Shown):
    """Event types in the order of their bytes."""

    items: list[EventType]
    next: Annotated[str | None, Field(description="`after` of the next page. Null: the end.")]


@router.get("/attempts", tags=["attempts"], response_model=Attempts)
def list_attempts(
    caller: Reader,
    backing: Backed,
    subscription_id: OfSubscription = None,
    since: At = None,
    until: At = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 100,
) -> Response:
    """List attempts of the last hour; or of a time, read from the topic for up to ten seconds.

    404 without KAFKA_ATTEMPTS_TOPIC. A token of a tenant has to name one of its subscriptions.
    """
    if backing.history is None:
        raise RequestRefused(Code.NOT_FOUND, "there is no attempt history: set KAFKA_ATTEMPTS_TOPIC")
    if subscription_id is None:
        of_all_tenants(caller)
    elif caller.tenant is not None:
        backing.deployment.subscription(subscription_id, caller.tenant)
    begin, end = unix(since), unix(until)
    if begin is None and end is None:
        found, missing = backing.history.recent(subscription_id, limit, seeing(caller)), backing.history.fault
    else:
        with reading_back(caller):
            until_time = _FAR if end is None else end
            found = backing.history.read_back(subscription_id, begin or 0.0, until_time, limit, seeing(caller))
        missing = None if len(found) == limit else f"attempts that were not read within {READ_BACK:.0f} s, if any"
    items = [told(caller, ShownAttempt.model_validate(each).model_dump(), "error") for each in found]
    return answer({"items": items, "missing": missing})


@router.get("/statistics", tags=["statistics"], response_model=Statistics)
def show_statistics(caller: Reader, backing: Backed) -> Response:
    """Show the deliveries owed, the failing subscriptions and the lag, at most two seconds old."""
    of_all_tenants(caller)
    if backing.look is None:
        raise RequestRefused(Code.NOT_FOUND, "this process has no statistics")
    return answer(Statistics.model_validate(backing.look()))


@router.get("/event-types", tags=["event types"], response_model=EventTypes)
def list_event_types(
    caller: Reader,
    backing: Backed,
    after: Annotated[str | None, Query(max_length=255, examples=["order.created"])] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 100,
) -> Response:
    """List the event types and patterns that subscriptions name."""
    of_all_tenants(caller)
    found = named_types(backing.deployment.engine, limit, after)
    following = found[-1].event_type if len(found) == limit else None
    return answer(EventTypes.model_validate({"items": found, "next": following}))
