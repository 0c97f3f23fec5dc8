"""/v1/replays: what is sent once more from the log, and how far it is."""

import time
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from consumer.api.problems import Refused
from consumer.api.v1.context import Backed, Backing, Reader, Writer, answer, described, iso, of_all_tenants
from consumer.api.v1.models import Nothing
from consumer.ledger import replays

router = APIRouter(prefix="/replays", tags=["replays"])

ReplayId = Annotated[int, Path(ge=1, lt=2**63, description="Id of a replay.", examples=[3])]


class Replay(BaseModel):
    """A replay as it stands."""

    id: Annotated[int, Field(examples=[3])]
    subscription_id: Annotated[int, Field(examples=[7])]
    state: Annotated[str, Field(description="unfinished, finished or cancelled.", examples=["unfinished"])]
    since: Annotated[str, Field(description="Records from then on.", examples=["2026-07-28T12:00:00Z"])]
    until: Annotated[str, Field(description="Records before.", examples=["2026-07-28T14:00:00Z"])]
    stored: Annotated[int, Field(description="Deliveries stored for the workers.", examples=[1204])]
    records: Annotated[int | None, Field(description="Records to read in all.", examples=[20000])]
    records_left: Annotated[int, Field(examples=[5000])]
    created_at: Annotated[str, Field(examples=["2026-07-28T14:00:00Z"])]
    finished_at: Annotated[str | None, Field(examples=[None])]


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
    """List replays, the newest first. `kafka-webhooks replay` starts one."""
    of_all_tenants(caller)
    registry = backing.registry
    found = replays.find(registry.engine, limit=limit, group=registry.group, subscription=subscription, before=before)
    return answer({"items": [_shown(each) for each in found], "next": found[-1].id if len(found) == limit else None})


@router.get("/{replay_id}", response_model=Replay, responses=described(404))
def show_replay(caller: Reader, backing: Backed, replay_id: ReplayId) -> Response:
    """Show a replay and its progress."""
    of_all_tenants(caller)
    return answer(_shown(_of(backing, replay_id)))


@router.post("/{replay_id}/cancel", response_model=Replay, responses=described(404, 409))
def cancel_replay(caller: Writer, backing: Backed, replay_id: ReplayId, _: Nothing) -> Response:
    """Have a replay read no more. What it has stored is sent. 409: it has ended."""
    of_all_tenants(caller)
    _of(backing, replay_id)
    if not replays.cancel(backing.registry.engine, replay_id, time.time()):
        raise Refused(HTTPStatus.CONFLICT, "conflict", "the replay has ended")
    return answer(_shown(_of(backing, replay_id)))


def _of(backing: Backing, replay_id: int) -> replays.Replay:
    found = replays.load(backing.registry.engine, replay_id)
    if found is None or found.group != backing.registry.group:
        raise Refused(HTTPStatus.NOT_FOUND, "not-found", "there is no such replay")
    return found


def _shown(item: replays.Replay) -> dict[str, Any]:
    return {
        "id": item.id,
        "subscription_id": item.subscription_id,
        "state": item.state,
        "since": iso(item.since),
        "until": iso(item.until),
        "stored": item.matched,
        "records": item.record_count,
        "records_left": item.left,
        "created_at": iso(item.created_at),
        "finished_at": iso(item.finished_at),
    }
