"""/v1/search: what a text names, in the database and in the log."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.context import Answer, At, Backed, Cursor, Page, Reader, Stamp, answer, unix
from consumer.ops.find import SHORTEST, Hit, Kind

router = APIRouter(tags=["search"])

RECENT = 86400.0  # seconds: how far back the log is searched, unless the request says it
_LONGEST = 500  # characters


class SearchHit(Answer):
    """A thing that the text names by its field `matched`; a record has a place."""

    kind: Kind
    matched: Annotated[str, Field(description="The field that has the text.", examples=["webhook-id"])]
    what: Annotated[str, Field(description="It, in words.", examples=["order.paid"])]
    id: int | None
    topic: Annotated[str | None, Field(examples=["orders"])]
    partition: int | None
    offset: int | None
    at: Annotated[Stamp | None, Field(description="The record's timestamp.", examples=["2026-07-28T14:00:00.120Z"])]


class SearchHitPage(Page):
    """What was found in this part of the log, of which `next` begins the rest. `more`: this part has more hits."""

    items: list[SearchHit]
    more: bool
    records_left: Annotated[
        int | None, Field(description="Records of the log that are still to be searched. Null for a token of a tenant.")
    ]


@router.get("/search", response_model=SearchHitPage)
def search_all(
    caller: Reader,
    backing: Backed,
    q: Annotated[str, Query(min_length=1, max_length=_LONGEST, description="The text.", examples=["order-4711"])],
    since: At = None,
    cursor: Cursor = None,
) -> Response:
    """Find subscriptions, deliveries, replays and events by an id, a key, a place, a name, a URL or an event type.

    A name or URL may have the text in it, in upper or lower case; an external id, a tenant and an event type are it.

    The log since a time (by default for a day) is searched for the ids and keys of events, and for the values of
    WEBHOOK_SEARCH_FIELDS: in parts of up to 5 s, each by the cursor that the part before gave.
    """
    hits: list[Hit] = [] if cursor else backing.find(caller, q)
    more, following = False, None
    left: int | None = 0
    if backing.log is not None and len(q) >= SHORTEST:
        at = unix(backing, since)
        begin = backing.deployment.clock() - RECENT if at is None else at
        stretch, left, following = backing.find_in_log(caller, q, begin, cursor)
        hits, more = [*hits, *stretch.hits], stretch.more
    return answer(SearchHitPage.model_validate({"items": hits, "more": more, "records_left": left, "next": following}))
