"""/v1/audit: what people changed, and what the service did by itself."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.backing import of_all_tenants, reading_log
from consumer.api.context import Answer, Backed, Cursor, Limit, OfSubscription, Page, Reader, Stamp, answer
from consumer.ops import events
from consumer.ops.events import AuditQuery

router = APIRouter(tags=["audit"])


class AuditEntry(Answer):
    """An operational event. `data` depends on its type."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00.120Z"])]
    type: Annotated[str, Field(examples=["subscription.paused"])]
    subscription_id: int | None
    actor: Annotated[str | None, Field(description="Null: the service itself.", examples=["api:grafana"])]
    via: Annotated[str, Field(description="`api`, `cli`, `console` or `service`.", examples=["api"])]
    data: dict[str, Any]


class AuditPage(Page):
    """Operational events, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[AuditEntry]


@router.get("/audit", response_model=AuditPage)
def list_audit(
    caller: Reader,
    backing: Backed,
    type: Annotated[  # noqa: A002 (the name in the query, as in the answer)
        str, Query(description="Of this type, or of this part before the dot.", examples=["replay"], max_length=255)
    ] = "",
    actor: Annotated[
        str, Query(description="All of the actor, its name, or its `via`.", examples=["console"], max_length=255)
    ] = "",
    subscription_id: OfSubscription = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List operational events, newest first. A token of a tenant gets a 403: they are about all tenants."""
    of_all_tenants(caller)
    position = backing.position("audit", cursor)
    with reading_log(caller):
        found = events.audit(backing.cluster(), limit, AuditQuery(type, actor, subscription_id), position)
    following = None if found.position is None else backing.cursor("audit", found.position)
    return answer(AuditPage(items=[AuditEntry.model_validate(each) for each in found.found], next=following))
