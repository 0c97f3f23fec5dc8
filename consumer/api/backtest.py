"""/v1/subscriptions/backtest: tries options on the log before they are saved."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import Field, create_model

from consumer.api.context import Answer, Backed, Body, Moment, Reader, answer, unix
from consumer.api.models import EventTypes, check_spelling, option_fields
from consumer.api.problems import Code, Mistake, RequestRefused
from consumer.api.search import RECENT
from consumer.errors import InvalidPosition

router = APIRouter(prefix="/subscriptions/backtest", tags=["subscriptions"])

TRIED = ("tenant", "topics", "event_filter", "payload_format", "projection", "url", "method", "header_expressions")
_Tried: Any = create_model("_Tried", __base__=Body, **option_fields(TRIED))


class NewBacktest(_Tried):  # type: ignore[misc]  # made from the columns
    """Options to try on the log since a time, by default for a day."""

    event_type: Annotated[str | None, Field(examples=["order.*"])] = None
    event_types: EventTypes = None
    since: Moment | None = None
    cursor: Annotated[str | None, Field(description="`next` of the part before.", examples=[None])] = None


class BacktestSample(Answer):
    """A matching event as it would be sent. `wrong`: why it cannot be rendered."""

    topic: str
    partition: int
    offset: int
    webhook_id: str
    event_type: str
    request: Annotated[str | None, Field(description="Method, URL, and headers that follow the event.")]
    content_type: str | None
    body: Annotated[str | None, Field(description="Its beginning.")]
    wrong: str | None


class Backtest(Answer):
    """What was found in this part of the log."""

    records: Annotated[int | None, Field(description="That were read. Null for a token of a tenant.")]
    records_left: Annotated[int | None, Field(description="That are still to be read. Null for a token of a tenant.")]
    events: Annotated[int, Field(description="Of its types and tenant.")]
    matched: int
    by_type: dict[str, int]
    by_hour: Annotated[dict[str, int], Field(description="By the hour's beginning.")]
    refused: Annotated[dict[str, int], Field(description="The others, by the reason.")]
    samples: list[BacktestSample]
    next: Annotated[str | None, Field(description="`cursor` of the next part. Null: the end.")]


@router.post("", response_model=Backtest)
def backtest_subscription(caller: Reader, backing: Backed, tried: NewBacktest) -> Response:
    """Show how many events of the log would match, and the first ones as they would be sent. Nothing is sent or stored.

    The log is read in parts of up to 5 s: go on with `cursor` while `next` is not null, and add the numbers up.
    """
    given = {name: value for name, value in tried.model_dump(exclude={"since", "cursor"}).items() if value is not None}
    check_spelling(given)
    at = unix(backing, tried.since)
    begin = backing.deployment.clock() - RECENT if at is None else at
    try:
        found, left, following = backing.backtest(caller, given, begin, tried.cursor)
    except InvalidPosition:
        why = "is not a cursor of this backtest; leave it out to begin"
        raise RequestRefused(Code.INVALID, errors=[Mistake(pointer="/cursor", detail=why)]) from None
    hidden = {} if caller.tenant is None else {"records": None}
    return answer(Backtest.model_validate({**found.as_json(), **hidden, "records_left": left, "next": following}))
