"""/v1/replays: events that are sent again from the log.

Replays are about the topics of all tenants: a token of one tenant may neither see nor begin them.
"""

from collections.abc import Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field
from typing_extensions import TypeAliasType

from consumer.api.backing import Backing, of_all_tenants
from consumer.api.context import (
    CREATED_HEADERS,
    Answer,
    Backed,
    Body,
    Cursor,
    EmptyBody,
    IdempotencyKey,
    Limit,
    OfSubscription,
    Page,
    Reader,
    Stamp,
    Writer,
    answer,
    gone,
    once,
    paged,
)
from consumer.api.tokens import Caller
from consumer.errors import Conflict, InvalidReplay, SettingsError, Unavailable, WebhooksError
from consumer.ledger import replays
from consumer.ledger.replays import Span
from consumer.ledger.request_keys import Creation, RequestDigests, note
from consumer.ops.changes import Deployment
from consumer.ops.replay_request import Plan, Wanted, cancel, create, parts, plan, records, resume, spans_soon
from models.subscription import EVENT_TYPE_LENGTH

router = APIRouter(prefix="/replays", tags=["replays"])

ReplayState = TypeAliasType("ReplayState", replays.State)
ReplayId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a replay.", examples=[3])]


Time = Annotated[str, Field(max_length=40)]
Topic = Annotated[str, Field(max_length=249)]  # as Kafka allows


class NewReplay(Body):
    """A replay to begin, of the events in a time window that match the subscription now."""

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
    ordered: Annotated[
        bool, Field(description="Keep the order of each record key; for subscriptions with ordering `key`.")
    ] = False
    dry_run: Annotated[bool, Field(description="Answer with the records that would be read; store nothing.")] = False


class ReplayPartition(Answer):
    """The part of a partition that a replay would read."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: Annotated[int, Field(examples=[0])]
    first_offset: Annotated[int, Field(examples=[1200])]
    last_offset: Annotated[int, Field(examples=[2399])]
    records: Annotated[int, Field(description="Markers and removed offsets included.", examples=[1200])]


class ReplayPreview(Answer):
    """The records that a replay would read, of all event types."""

    since: Annotated[Stamp, Field(examples=["2026-07-28T12:00:00Z"])]
    until: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    rate: Annotated[float, Field(description="Deliveries per second.", examples=[20.0])]
    records: Annotated[int, Field(examples=[1200])]
    partitions: list[ReplayPartition]


class Replay(Answer):
    """A replay as it stands."""

    id: Annotated[int, Field(examples=[3])]
    subscription_id: Annotated[int, Field(examples=[7])]
    state: Annotated[ReplayState, Field(examples=["running"])]
    since: Annotated[Stamp, Field(description="Records at or after this time.", examples=["2026-07-28T12:00:00Z"])]
    until: Annotated[Stamp, Field(description="Records before.", examples=["2026-07-28T14:00:00Z"])]
    event_type: Annotated[str | None, Field(description="Null: the subscription's.", examples=[None])]
    rate: Annotated[float, Field(description="Deliveries per second.", examples=[20.0])]
    ordered: Annotated[bool, Field(description="It keeps the order of each record key.", examples=[False])]
    records: Annotated[int, Field(description="Records to read in all.", examples=[20000])]
    records_left: Annotated[int, Field(description="Still to be read, or to be sent.", examples=[5000])]
    created_at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    finished_at: Annotated[Stamp | None, Field(examples=[None])]
    cancelled_at: Annotated[Stamp | None, Field(examples=[None])]
    created_by: Annotated[str | None, Field(description="Null: not noted.", examples=["api:grafana"])]
    last_error: Annotated[str | None, Field(description="Why it makes no progress.", examples=[None])]


class ReplayPage(Page):
    """Replays, the newest first."""

    items: list[Replay]


@router.get("", response_model=ReplayPage)
def list_replays(
    caller: Reader,
    backing: Backed,
    subscription_id: OfSubscription = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List replays, the newest first."""
    of_all_tenants(caller)
    where, before = backing.deployment, backing.position("replays", cursor)
    found = replays.find(where.engine, limit=limit + 1, group=where.group, subscription=subscription_id, before=before)
    return answer(paged(backing, "replays", list(map(_shown, found)), limit, itemgetter("id")))


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=Replay,
    responses={
        HTTPStatus.OK: {"model": ReplayPreview, "description": "The records that would be read (dry_run)."},
        HTTPStatus.CREATED: {"headers": CREATED_HEADERS},
    },
)
def create_replay(caller: Writer, backing: Backed, new: NewReplay, key: IdempotencyKey = None) -> Response:
    """Begin a replay, which the workers run. 409: the subscription is disabled, or Kafka is not configured."""
    of_all_tenants(caller)
    if new.dry_run:
        planned, found = _planned(backing, new)
        seen = {"since": planned.since, "until": planned.end, "rate": planned.rate}
        return answer(ReplayPreview.model_validate({**seen, "records": records(found), "partitions": parts(found)}))
    return once(
        backing.deployment.engine,
        key,
        lambda: _create(caller, backing, new, key),
        lambda creation: _created_before(caller, backing.deployment, creation),
    )


def _create(caller: Caller, backing: Backing, new: NewReplay, key: RequestDigests | None) -> Response:
    where = backing.deployment
    planned, found = _planned(backing, new)
    with where.engine.begin() as connection:
        number = create(connection, where.group, caller.actor, planned, found)
        begun = replays.load(connection, number)
        if key is not None:
            note(connection, key, number)
    assert begun is not None, "it was stored just now"  # noqa: S101 (for mypy)
    return _created(caller, begun)


def _created_before(caller: Caller, where: Deployment, creation: Creation) -> Response:
    found = replays.load(where.engine, creation.resource_id)
    if found is None:
        raise gone("replay")
    return _created(caller, found)


def _created(caller: Caller, item: replays.Replay) -> Response:
    return answer(_shown_to(caller, item), HTTPStatus.CREATED, {"location": f"/v1/replays/{item.id}"})


@router.get("/{replay_id}", response_model=Replay)
def show_replay(caller: Reader, backing: Backed, replay_id: ReplayId) -> Response:
    """Show a replay and its progress."""
    of_all_tenants(caller)
    return answer(_shown(backing.deployment.replay(replay_id)))


@router.post("/{replay_id}/cancel", response_model=Replay)
def cancel_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: EmptyBody) -> Response:
    """Cancel a replay: it reads no more, and what it has read is sent. 409: it has ended."""
    of_all_tenants(caller)
    where = backing.deployment
    where.replay(replay_id)
    if not cancel(where.engine, caller.actor, replay_id, where.clock()):
        raise Conflict("the replay has ended")
    return answer(_shown_to(caller, where.replay(replay_id)))


@router.post("/{replay_id}/resume", response_model=Replay)
def resume_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: EmptyBody) -> Response:
    """Go on with a cancelled replay where it stopped. 409: it is not cancelled, or its subscription was removed."""
    of_all_tenants(caller)
    where = backing.deployment
    found = where.replay(replay_id)
    if not resume(where.engine, caller.actor, replay_id):
        raise Conflict((found.state == "cancelled" and found.last_error) or "the replay is not cancelled")
    return answer(_shown_to(caller, where.replay(replay_id)))


def _planned(backing: Backing, new: NewReplay) -> tuple[Plan, Sequence[Span]]:
    receiver = backing.deployment.subscription(new.subscription_id)
    if not receiver.enabled:
        raise Conflict("the subscription is disabled; enable it first")
    wanted = Wanted(new.since, new.until, new.event_type, new.topics or (), new.rate, new.ordered)
    try:
        planned = plan(receiver, wanted, backing.deployment.clock(), None)
        return planned, spans_soon(backing.replayed(), planned)
    except (InvalidReplay, SettingsError, Unavailable):
        raise
    except WebhooksError as error:
        raise Conflict(str(error)) from None


def _shown_to(caller: Caller, item: replays.Replay) -> dict[str, Any]:
    """The replay that the caller has begun or changed: only its id without the scope `read`."""
    return _shown(item) if "read" in caller.scopes else {"id": item.id}


def _shown(item: replays.Replay) -> dict[str, Any]:
    return Replay.model_validate(item).model_dump()
