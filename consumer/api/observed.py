"""/v1/attempts, /v1/statistics and /v1/event-types: past attempts, and deliveries owed."""

from operator import attrgetter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import AliasPath, BeforeValidator, Field, WrapValidator
from typing_extensions import TypeAliasType

from consumer.api.backing import of_all_tenants, told
from consumer.api.context import (
    Answer,
    At,
    Backed,
    Cursor,
    Limit,
    OfSubscription,
    Page,
    Reader,
    Stamp,
    SubscriptionId,
    Time,
    answer,
    paged,
    unix,
)
from consumer.subscriptions.health import named_types

router = APIRouter()

_Ids = list[Annotated[int, BeforeValidator(lambda each: each.subscription_id)]] | None
# A worker of another release may have written another one.
Outcome = TypeAliasType("Outcome", Literal["delivered", "retried", "parked", "exhausted"])


class Attempt(Answer):
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
    outcome: Annotated[Outcome, WrapValidator(lambda found, _: found), Field(examples=["parked"])]
    status: int | None
    error: Annotated[str | None, Field(examples=["status 503"])]
    seconds: Annotated[float, Field(examples=[0.042])]
    response: Annotated[str | None, Field(examples=["try later"])]


class AttemptPage(Page):
    """Attempts, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[Attempt]
    missing: Annotated[str | None, Field(description="Why the newest ones may be missing.")]


class AttemptCounts(Answer):
    """Attempts in some hours, of which the topic has records since then.

    `sample` attempts were read: all there are if `exact`, else the numbers are estimates. The share that was delivered
    is from `low` to `high` with 95 % probability. `median` and `p95` are seconds of an attempt, correct to 5 %.
    """

    hours: Annotated[int, Field(examples=[24])]
    since: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    delivered: int
    failed: int
    sample: int
    exact: bool
    share: Annotated[float | None, Field(examples=[0.9987])]
    low: float | None
    high: float | None
    median: Annotated[float | None, Field(examples=[0.042])]
    p95: Annotated[float | None, Field(examples=[0.4])]


class SubscriptionStatistics(Answer):
    """The attempts of the last hour, 24 hours and 7 days, and those of the last day by hour, oldest first."""

    windows: list[AttemptCounts]
    by_hour: list[AttemptCounts]
    unread: Annotated[int, Field(description="Not 0: longer windows and earlier hours are missing; ask again.")]


def _of_subscription(name: str, example: str | int) -> Any:
    return Field(validation_alias=AliasPath("subscription", name), examples=[example])


class FailingSubscription(Answer):
    """A subscription without a successful attempt since then."""

    subscription_id: Annotated[int, _of_subscription("subscription_id", 7)]
    url: Annotated[str, _of_subscription("url", "https://example.com/hooks")]
    name: Annotated[str | None, _of_subscription("name", "Orders to the warehouse")]
    tenant: Annotated[str, _of_subscription("tenant", "acme")]
    failing_since: Annotated[Time, _of_subscription("since", "2026-07-28T14:00:00Z")]
    last_error: Annotated[
        str | None,
        BeforeValidator(lambda last: None if last is None else last.error),
        Field(validation_alias="last", examples=["status 503"]),
    ]
    waiting: Annotated[int, Field(description="Deliveries to send.")]


class PartitionLag(Answer):
    """The group's lag in a partition, in records."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    records: int


class Statistics(Answer):
    """Deliveries owed, failing subscriptions and the group's lag. A part that is null is named in `missing`."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    counted_up_to: Annotated[int, Field(validation_alias="most_counted", description="A larger count: more than that.")]
    states: Annotated[dict[str, int] | None, Field(description="Stored deliveries by state.")]
    failing: list[FailingSubscription] | None
    disabled: Annotated[_Ids, Field(description="Ids, the newest first; 20 at most.", examples=[[9]])]
    paused: Annotated[_Ids, Field(description="Ids, the longest paused first; 20 at most.", examples=[[7]])]
    lag: list[PartitionLag] | None
    dead_letters: Annotated[int | None, Field(description="Written in the last hour.")]
    missing: Annotated[dict[str, str], BeforeValidator(dict), Field(examples=[{"lag": "no broker reachable"}])]


class EventType(Answer):
    """An event type or pattern that subscriptions name."""

    event_type: Annotated[str, Field(examples=["order.paid"])]
    subscriptions: int


class EventTypePage(Page):
    """Event types in the order of their bytes."""

    items: list[EventType]


@router.get("/attempts", tags=["attempts"], response_model=AttemptPage)
def list_attempts(
    caller: Reader,
    backing: Backed,
    subscription_id: OfSubscription = None,
    webhook_id: Annotated[str | None, Query(description="Only at this event.", max_length=255)] = None,
    outcome: Annotated[Outcome | None, Query(description="Only with this outcome.", examples=["parked"])] = None,
    since: At = None,
    until: At = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List attempts, newest first. The first page comes from memory if no time is given, others from the topic.

    404 without KAFKA_ATTEMPTS_TOPIC. A token of a tenant gets those of its own events and subscriptions.
    """
    found, following, missing = backing.attempts(
        caller, subscription_id, (unix(backing, since), unix(backing, until)), cursor, limit, webhook_id, outcome
    )
    items = [told(caller, Attempt.model_validate(each).model_dump(warnings=False), "error") for each in found]
    return answer({"items": items, "next": following, "missing": missing})


@router.get(
    "/subscriptions/{subscription_id}/statistics", tags=["subscriptions"], response_model=SubscriptionStatistics
)
def show_subscription_statistics(caller: Reader, backing: Backed, subscription_id: SubscriptionId) -> Response:
    """Show how many attempts of a subscription succeed, and their times; from the topic of attempts, in up to 5 s.

    404 without KAFKA_ATTEMPTS_TOPIC.
    """
    return answer(SubscriptionStatistics.model_validate(backing.statistics(caller, subscription_id)))


@router.get("/statistics", tags=["statistics"], response_model=Statistics)
def show_statistics(caller: Reader, backing: Backed) -> Response:
    """Show the deliveries owed, the failing subscriptions and the lag, at most two seconds old.

    A token of a tenant gets what is about its own subscriptions, and no lag and dead letters.
    """
    return answer(Statistics.model_validate(backing.overview(caller)))


@router.get("/event-types", tags=["event types"], response_model=EventTypePage)
def list_event_types(
    caller: Reader,
    backing: Backed,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List the event types and patterns that subscriptions name."""
    of_all_tenants(caller)
    found = named_types(backing.deployment.engine, limit + 1, backing.position("event-types", cursor, str))
    return answer(EventTypePage.model_validate(paged(backing, "event-types", found, limit, attrgetter("event_type"))))
