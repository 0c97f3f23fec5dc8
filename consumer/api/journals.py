"""/v1/dead-letters and /v1/audit: the topics that workers write beside the events. They are about all tenants."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.backing import Backing, of_all_tenants, reading_log
from consumer.api.context import (
    Answer,
    Backed,
    Base64,
    Cursor,
    EmptyBody,
    Limit,
    Page,
    Reader,
    Stamp,
    Text,
    Writer,
    answer,
)
from consumer.api.events import Offset, Partition
from consumer.ops import dead_letters, events
from consumer.ops.events import TailPosition

router = APIRouter()


class DeadLetter(Answer):
    """A dead letter, at its place in the dead-letter topic. `key` and `value` are untrusted."""

    partition: int
    offset: int
    at: Annotated[Stamp, Field(description="When it was written.", examples=["2026-07-28T14:00:00.120Z"])]
    topic: Annotated[str, Field(description="The topic of its record.", examples=["orders"])]
    origin: Annotated[str, Field(description="The place of its record.", examples=["orders[3] @ 1234"])]
    reason: Annotated[str, Field(examples=["not_json"])]
    detail: Annotated[str, Field(examples=["the value is not JSON"])]
    key: Annotated[Text, Field(examples=["42"])]
    key_base64: Annotated[Base64, Field(validation_alias="key")]
    value: Annotated[Text, Field(description=f"Its first {dead_letters.SHOWN} bytes, as text.", examples=["<a>"])]
    value_base64: Annotated[Base64, Field(validation_alias="value")]
    size: Annotated[int, Field(description="Bytes of the record's value.")]
    lacking: Annotated[str | None, Field(description="Why it cannot be published again.", examples=[None])]
    published_at: Annotated[Stamp | None, Field(description="When it was published again, within a week.")]


class DeadLetterPage(Page):
    """Dead letters, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[DeadLetter]


class AuditEntry(Answer):
    """An operational event. `data` depends on its type."""

    at: Annotated[Stamp, Field(examples=["2026-07-28T14:00:00.120Z"])]
    type: Annotated[str, Field(examples=["subscription.paused"])]
    subscription_id: int | None
    actor: Annotated[str | None, Field(description="Null: the service itself.", examples=["api:grafana"])]
    via: Annotated[str, Field(description="`api`, `cli`, `console` or `service`.", examples=["api"])]
    data: dict[str, Any]


class AuditEntryPage(Page):
    """Operational events, newest first. A page may have fewer than `limit`, even none, and still a `next`."""

    items: list[AuditEntry]


@router.get("/dead-letters", tags=["dead letters"], response_model=DeadLetterPage)
def list_dead_letters(caller: Reader, backing: Backed, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """List dead letters, newest first. A token of a tenant gets a 403: nobody knows whose they are."""
    of_all_tenants(caller)
    with reading_log(caller):
        found = dead_letters.recent(backing.cluster(), limit, backing.position("dead-letters", cursor, TailPosition))
    following = backing.cursor("dead-letters", found.position)
    return answer(DeadLetterPage(items=_shown(backing, *found.found), next=following))


@router.get("/dead-letters/{partition}/{offset}", tags=["dead letters"], response_model=DeadLetter)
def show_dead_letter(caller: Reader, backing: Backed, partition: Partition, offset: Offset) -> Response:
    """Show a dead letter, by its place in the dead-letter topic."""
    of_all_tenants(caller)
    with reading_log(caller):
        found = dead_letters.letter_at(backing.cluster(), partition, offset)
    return answer(_shown(backing, found)[0])


@router.post("/dead-letters/{partition}/{offset}/publish", tags=["dead letters"], status_code=HTTPStatus.NO_CONTENT)
def publish_dead_letter(
    caller: Writer, backing: Backed, partition: Partition, offset: Offset, _: EmptyBody
) -> Response:
    """Publish a dead letter again, to its own topic, unchanged, once its cause is removed. 409: it is not whole."""
    of_all_tenants(caller)
    with reading_log(caller):
        dead_letters.publish_again(backing.changes(caller), backing.cluster(), partition, offset)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get("/audit", tags=["audit"], response_model=AuditEntryPage)
def list_audit(
    caller: Reader,
    backing: Backed,
    type: Annotated[str, Query(description="All of it, or its part before the dot.", max_length=255)] = "",  # noqa: A002 (as in the answer)
    actor: Annotated[str, Query(description="All of it, its name alone, or its `via`.", max_length=255)] = "",
    subscription_id: Annotated[int | None, Query(examples=[7])] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List operational events, newest first. A token of a tenant gets a 403."""
    of_all_tenants(caller)
    query, position = (
        events.AuditQuery(type, actor, subscription_id),
        backing.position("audit", cursor, TailPosition),
    )
    with reading_log(caller):
        found = events.audit(backing.cluster(), limit, query, position)
    items = [AuditEntry.model_validate(each) for each in found.found]
    return answer(AuditEntryPage(items=items, next=backing.cursor("audit", found.position)))


def _shown(backing: Backing, *letters: dead_letters.DeadLetter) -> list[DeadLetter]:
    again = dead_letters.published(backing.deployment, backing.cluster(), letters)
    told = (each._asdict() | {"published_at": again.get((each.partition, each.offset))} for each in letters)
    return [DeadLetter.model_validate(each) for each in told]
