"""/v1/replays: events that are sent again from the log.

A replay reads the topics of all tenants: a token of one does not see how many records there are, nor who began it.
"""

from collections.abc import Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import Field
from typing_extensions import TypeAliasType

from consumer.api.backing import Backing, reading_log
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
from consumer.ledger import replays
from consumer.ledger.replays import Span
from consumer.ledger.request_keys import Creation, RequestDigests, note
from consumer.ops.replay_request import Plan, Wanted, create, end, go_on, parts, prepare, records
from models.subscription import EVENT_TYPE_LENGTH

router = APIRouter(prefix="/replays", tags=["replays"])

ReplayState = TypeAliasType("ReplayState", replays.State)
ReplayId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a replay.", examples=[3])]
_HIDDEN = "Null for a token of a tenant."
_OF_ALL = ("records", "records_left", "created_by")

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
            description="Deliveries per second, at most the subscription's limit; without one, a tenant's 100. "
            "Null: a tenth of the limit, or 100.",
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
    records: Annotated[int | None, Field(description=_HIDDEN, examples=[1200])]
    partitions: Annotated[list[ReplayPartition] | None, Field(description=_HIDDEN)]


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
    records: Annotated[int | None, Field(description=f"Records to read in all. {_HIDDEN}", examples=[20000])]
    records_left: Annotated[int | None, Field(description=f"Still to be read or sent. {_HIDDEN}", examples=[5000])]
    created_at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00Z"])]
    finished_at: Annotated[Stamp | None, Field(examples=[None])]
    cancelled_at: Annotated[Stamp | None, Field(examples=[None])]
    created_by: Annotated[str | None, Field(description=f"Null: not noted. {_HIDDEN}", examples=["api:grafana"])]
    last_error: Annotated[str | None, Field(description="Why it makes no progress.", examples=[None])]


class ReplayPage(Page):
    """Replays, the newest first."""

    items: list[Replay]


@router.get("", response_model=ReplayPage)
def list_replays(
    caller: Reader,
    backing: Backed,
    subscription_id: OfSubscription = None,
    state: Annotated[ReplayState | None, Query(examples=["running"])] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List replays, the newest first."""
    where, tenant, before = backing.deployment, caller.tenant, backing.position("replays", cursor, int)
    found = replays.find(
        where.engine,
        limit=limit + 1,
        group=where.group,
        subscription=subscription_id,
        before=before,
        tenant=tenant,
        state=state,
    )
    return answer(paged(backing, "replays", [_shown(caller, each) for each in found], limit, itemgetter("id")))


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
    """Begin a replay, which the workers run.

    409: the subscription is disabled, Kafka is not configured, or 10 replays of the token's tenant go on.
    """
    if new.dry_run:
        planned, found = _planned(caller, backing, new)
        seen: dict[str, Any] = {"since": planned.since, "until": planned.end, "rate": planned.rate}
        counted = caller.tenant is None
        seen |= {"records": records(found) if counted else None, "partitions": parts(found) if counted else None}
        return answer(ReplayPreview.model_validate(seen))
    return once(
        backing.deployment.engine,
        key,
        lambda: _create(caller, backing, new, key),
        lambda creation: _created_before(caller, backing, creation),
    )


def _create(caller: Caller, backing: Backing, new: NewReplay, key: RequestDigests | None) -> Response:
    where = backing.deployment
    planned, found = _planned(caller, backing, new)
    with where.engine.begin() as connection:
        number = create(connection, where.group, caller.actor, planned, found)
        begun = replays.load(connection, number)
        if key is not None:
            note(connection, key, number)
    assert begun is not None, "it was stored just now"  # noqa: S101 (for mypy)
    return _created(caller, begun)


def _created_before(caller: Caller, backing: Backing, creation: Creation) -> Response:
    found = replays.load(backing.deployment.engine, creation.resource_id, caller.tenant)
    if found is None:
        raise gone("replay")
    return _created(caller, found)


def _created(caller: Caller, item: replays.Replay) -> Response:
    return answer(_shown_to(caller, item), HTTPStatus.CREATED, {"location": f"/v1/replays/{item.id}"})


@router.get("/{replay_id}", response_model=Replay)
def show_replay(caller: Reader, backing: Backed, replay_id: ReplayId) -> Response:
    """Show a replay and its progress."""
    return answer(_shown(caller, backing.deployment.replay(replay_id, caller.tenant)))


@router.post("/{replay_id}/cancel", response_model=Replay)
def cancel_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: EmptyBody) -> Response:
    """Cancel a replay: it reads no more, and what it has read is sent. 409: it has ended."""
    return answer(_shown_to(caller, end(backing.changes(caller), replay_id)))


@router.post("/{replay_id}/resume", response_model=Replay)
def resume_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: EmptyBody) -> Response:
    """Go on with a cancelled replay where it stopped. 409: it is not cancelled, or its subscription was removed."""
    return answer(_shown_to(caller, go_on(backing.changes(caller), replay_id)))


def _planned(caller: Caller, backing: Backing, new: NewReplay) -> tuple[Plan, Sequence[Span]]:
    wanted = Wanted(new.since, new.until, new.event_type, new.topics or (), new.rate, new.ordered)
    with reading_log(caller):
        return prepare(backing.changes(caller), backing.replayed(), new.subscription_id, wanted, None)


def _shown_to(caller: Caller, item: replays.Replay) -> dict[str, Any]:
    """The replay that the caller has begun or changed: only its id without the scope `read`."""
    return _shown(caller, item) if "read" in caller.scopes else {"id": item.id}


def _shown(caller: Caller, item: replays.Replay) -> dict[str, Any]:
    hidden = {} if caller.tenant is None else dict.fromkeys(_OF_ALL)
    return Replay.model_validate(item).model_dump() | hidden
