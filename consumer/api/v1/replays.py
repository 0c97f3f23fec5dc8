"""/v1/replays: events that are sent again from the log.

Replays are about the topics of all tenants: a token of one tenant may neither see nor begin them.
"""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from consumer.api.problems import Refused
from consumer.api.tokens import Caller
from consumer.api.v1.context import (
    Backed,
    Backing,
    Reader,
    Writer,
    absent,
    answer,
    described,
    iso,
    of_all_tenants,
)
from consumer.api.v1.idempotency import CREATED_HEADERS, IdempotencyKey, gone, once
from consumer.api.v1.models import Nothing
from consumer.errors import InvalidReplay, SettingsError, Unavailable, WebhooksError
from consumer.ledger import replays
from consumer.ledger.replays import Span
from consumer.ledger.request_keys import Creation, RequestDigests, note
from consumer.ops.replay_request import NO_KAFKA, Log, Plan, Wanted, cancel, create, parts, plan, records, spans_soon
from consumer.subscriptions import repository
from models.subscription import EVENT_TYPE_LENGTH

router = APIRouter(prefix="/replays", tags=["replays"])

ReplayId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a replay.", examples=[3])]


Time = Annotated[str, Field(max_length=40)]
Topic = Annotated[str, Field(max_length=249)]  # as Kafka allows


class NewReplay(BaseModel):
    """A replay to begin, of the events in a time window that match the subscription now."""

    model_config = ConfigDict(strict=True, extra="forbid")

    subscription_id: Annotated[int, Field(ge=-(2**63), lt=2**63, examples=[7])]
    since: Annotated[
        Time, Field(description="RFC 3339 with an offset, or an age: 2h, 3d.", examples=["2026-07-28T12:00:00Z"])
    ]
    until: Annotated[Time | None, Field(description="The same. Null: now.", examples=["1h"])] = None
    event_type: Annotated[
        str | None,
        Field(max_length=EVENT_TYPE_LENGTH, description="Only events of this type or pattern.", examples=[None]),
    ] = None
    topics: Annotated[
        list[Topic] | None, Field(max_length=100, description="Only these topics of KAFKA_TOPICS.", examples=[None])
    ] = None
    rate: Annotated[
        float | None,
        Field(
            description="Deliveries per second, at most the subscription's limit. Null: a tenth of that, or 100.",
            examples=[20.0],
        ),
    ] = None
    dry_run: Annotated[bool, Field(description="Answer with the records that would be read; store nothing.")] = False


class Part(BaseModel):
    """The part of a partition that a replay would read."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: Annotated[int, Field(examples=[0])]
    first_offset: Annotated[int, Field(examples=[1200])]
    last_offset: Annotated[int, Field(examples=[2399])]
    records: Annotated[int, Field(description="Markers and removed offsets included.", examples=[1200])]


class Preview(BaseModel):
    """The records that a replay would read, of all event types."""

    since: Annotated[str, Field(examples=["2026-07-28T12:00:00Z"])]
    until: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    rate: Annotated[float, Field(description="Deliveries per second.", examples=[20.0])]
    records: Annotated[int, Field(examples=[1200])]
    partitions: list[Part]


class Replay(BaseModel):
    """A replay as it stands."""

    id: Annotated[int, Field(examples=[3])]
    subscription_id: Annotated[int, Field(examples=[7])]
    state: Annotated[
        str, Field(description="waiting, running, finished, cancelled; unfinished: a command's.", examples=["running"])
    ]
    since: Annotated[str, Field(description="Records at or after this time.", examples=["2026-07-28T12:00:00Z"])]
    until: Annotated[str, Field(description="Records before.", examples=["2026-07-28T14:00:00Z"])]
    event_type: Annotated[str | None, Field(description="Null: the subscription's.", examples=[None])]
    rate: Annotated[float, Field(description="Deliveries per second.", examples=[20.0])]
    stored: Annotated[int, Field(description="Deliveries stored for the workers.", examples=[1204])]
    records: Annotated[int | None, Field(description="Records to read in all.", examples=[20000])]
    records_left: Annotated[int, Field(examples=[5000])]
    created_at: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    finished_at: Annotated[str | None, Field(examples=[None])]
    cancelled_at: Annotated[str | None, Field(examples=[None])]
    created_by: Annotated[str | None, Field(description="Null: not noted.", examples=["api:grafana"])]
    last_error: Annotated[str | None, Field(description="Why it stands still, or was cancelled.", examples=[None])]


class Replays(BaseModel):
    """Replays, the newest first."""

    items: list[Replay]
    next: Annotated[int | None, Field(description="`before` of the next page. Null: the end.", examples=[None])]


@router.get("", response_model=Replays, responses=described())
def list_replays(
    caller: Reader,
    backing: Backed,
    subscription: Annotated[int | None, Query(ge=-(2**63), lt=2**63, examples=[7])] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Only ids below.", examples=[100])] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
) -> Response:
    """List replays, the newest first."""
    of_all_tenants(caller)
    registry = backing.registry
    found = replays.find(registry.engine, limit=limit, group=registry.group, subscription=subscription, before=before)
    return answer({"items": [_shown(each) for each in found], "next": found[-1].id if len(found) == limit else None})


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=Replay,
    responses={
        HTTPStatus.OK: {"model": Preview, "description": "The records that would be read (dry_run)."},
        HTTPStatus.CREATED: {"headers": CREATED_HEADERS},
        **described(404, 409),
    },
)
def create_replay(caller: Writer, backing: Backed, new: NewReplay, key: IdempotencyKey = None) -> Response:
    """Begin a replay, which the API's processes run. 409: the subscription is disabled, or Kafka is not configured."""
    of_all_tenants(caller)
    if new.dry_run:
        return answer(_previewed(*_planned(backing, new)))
    return once(
        backing.registry.engine,
        key,
        lambda: _create(caller, backing, new, key),
        lambda creation: _created_before(caller, backing, creation),
    )


def _create(caller: Caller, backing: Backing, new: NewReplay, key: RequestDigests | None) -> Response:
    registry = backing.registry
    planned, found = _planned(backing, new)
    with registry.engine.begin() as connection:
        number = create(connection, registry.group, caller.actor, planned, found, background=True)
        begun = replays.load(connection, number)
        if key is not None:
            note(connection, key, number)
    assert begun is not None, "it was stored just now"  # noqa: S101 (for mypy)
    return _created(caller, begun)


def _created_before(caller: Caller, backing: Backing, creation: Creation) -> Response:
    found = replays.load(backing.registry.engine, creation.resource_id)
    if found is None:
        raise gone("replay")
    return _created(caller, found)


def _created(caller: Caller, item: replays.Replay) -> Response:
    return JSONResponse(_shown_to(caller, item), HTTPStatus.CREATED, {"location": f"/v1/replays/{item.id}"})


@router.get("/{replay_id}", response_model=Replay, responses=described(404))
def show_replay(caller: Reader, backing: Backed, replay_id: ReplayId) -> Response:
    """Show a replay and its progress."""
    of_all_tenants(caller)
    return answer(_shown(_of(backing, replay_id)))


@router.post("/{replay_id}/cancel", response_model=Replay, responses=described(404, 409))
def cancel_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: Nothing) -> Response:
    """Cancel a replay: it reads no more, and its stored deliveries are sent. 409: it has ended."""
    of_all_tenants(caller)
    _of(backing, replay_id)
    if not cancel(backing.registry.engine, caller.actor, replay_id, time.time()):
        raise Refused(HTTPStatus.CONFLICT, "conflict", "the replay has ended")
    return answer(_shown_to(caller, _of(backing, replay_id)))


def _planned(backing: Backing, new: NewReplay) -> tuple[Plan, Sequence[Span]]:
    registry = backing.registry
    receiver = repository.get(registry.engine, new.subscription_id, registry.vault, registry.rules)
    if receiver is None:
        raise absent()
    if not receiver.enabled:
        raise Refused(HTTPStatus.CONFLICT, "conflict", "the subscription is disabled; enable it first")
    wanted = Wanted(new.since, new.until, new.event_type, new.topics or (), new.rate)
    try:
        planned = plan(receiver, wanted, time.time(), None)
        return planned, spans_soon(_log(backing), planned)
    except (InvalidReplay, SettingsError, Unavailable):
        raise
    except WebhooksError as error:
        raise Refused(HTTPStatus.CONFLICT, "conflict", str(error)) from None


def _log(backing: Backing) -> Log:
    if backing.log is None:
        raise Refused(HTTPStatus.CONFLICT, "conflict", NO_KAFKA)
    return backing.log


def _previewed(planned: Plan, found: Sequence[Span]) -> dict[str, Any]:
    return {
        "since": iso(planned.since),
        "until": iso(planned.end),
        "rate": planned.rate,
        "records": records(found),
        "partitions": parts(found),
    }


def _of(backing: Backing, replay_id: int) -> replays.Replay:
    found = replays.load(backing.registry.engine, replay_id)
    if found is None or found.group != backing.registry.group:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "there is no such replay")
    return found


def _shown_to(caller: Caller, item: replays.Replay) -> dict[str, Any]:
    """The replay that the caller has begun or cancelled: only its id without the scope `read`."""
    return _shown(item) if "read" in caller.scopes else {"id": item.id}


def _shown(item: replays.Replay) -> dict[str, Any]:
    return {
        "id": item.id,
        "subscription_id": item.subscription_id,
        "state": item.state(time.time()),
        "since": iso(item.since),
        "until": iso(item.until),
        "event_type": item.event_type,
        "rate": item.rate,
        "stored": item.matched,
        "records": item.record_count,
        "records_left": item.left,
        "created_at": iso(item.created_at),
        "finished_at": iso(item.finished_at),
        "cancelled_at": iso(item.cancelled_at),
        "created_by": item.created_by,
        "last_error": item.last_error,
    }
