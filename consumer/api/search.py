"""/v1/search: what a text names, in the database and in the log."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from consumer.api.context import At, Backed, Reader, Shown, Stamp, answer, unix
from consumer.api.problems import Code, Mistake, RequestRefused
from consumer.errors import InvalidPosition
from consumer.ops.find import SHORTEST, Hit, Kind

router = APIRouter(tags=["search"])

RECENT = 86400.0  # seconds: how far back the log is searched, unless the request says it
_LONGEST = 500  # characters


class Found(Shown):
    """A thing that the text names by its field `matched`; a record has a place."""

    kind: Kind
    matched: Annotated[str, Field(description="The field that has the text.", examples=["webhook-id"])]
    what: Annotated[str, Field(description="It, in words.", examples=["order.paid"])]
    id: int | None
    topic: Annotated[str | None, Field(examples=["orders"])]
    partition: int | None
    offset: int | None
    at: Annotated[Stamp | None, Field(description="The record's timestamp.", examples=["2026-07-28T14:00:00.120Z"])]


class FoundPage(Shown):
    """What was found in this part. `more`: this part has more hits. `next`: the rest of the log is to be searched."""

    items: list[Found]
    more: bool
    records_left: Annotated[
        int | None, Field(description="Records of the log that are still to be searched. Null for a token of a tenant.")
    ]
    next: Annotated[str | None, Field(description="`cursor` of the next part. Null: the end.")]


@router.get("/search", response_model=FoundPage)
def search_all(
    caller: Reader,
    backing: Backed,
    q: Annotated[str, Query(min_length=1, max_length=_LONGEST, description="The text.", examples=["order-4711"])],
    since: At = None,
    cursor: Annotated[str | None, Query(description="`next` of the part before.")] = None,
) -> Response:
    """Find subscriptions, deliveries, replays and events by an id, a key, a place, a URL, a tenant or an event type.

    The log since a time (by default for a day) is searched for the ids and keys of events, and for the values of
    WEBHOOK_SEARCH_FIELDS: in parts of up to 5 s, each by the cursor that the part before gave.
    """
    hits: list[Hit] = [] if cursor else backing.find(caller, q)
    more, following = False, None
    left: int | None = 0
    if backing.log is not None and len(q) >= SHORTEST:
        begin = unix(since) or backing.deployment.clock() - RECENT
        try:
            stretch, following = backing.find_in_log(caller, q, begin, cursor)
        except InvalidPosition:
            why = "is not a cursor of this search; leave it out to begin"
            raise RequestRefused(Code.INVALID, errors=[Mistake(parameter="cursor", detail=why)]) from None
        hits, more = [*hits, *stretch.hits], stretch.more
        left = stretch.records_left if caller.tenant is None else None
    return answer(FoundPage.model_validate({"items": hits, "more": more, "records_left": left, "next": following}))
