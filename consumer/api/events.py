"""/v1/events: an event of the log, who got it, and sending it again."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import Field

from consumer.api.backing import told
from consumer.api.context import Answer, Backed, Base64, Body, Cursor, Reader, Stamp, Text, Writer, answer
from consumer.api.observed import Attempt
from consumer.api.problems import invalid
from consumer.ops.story import ReceiverState
from models.delivery import TOPIC_LENGTH

router = APIRouter(prefix="/events/{topic}/{partition}/{offset}", tags=["events"])

SHOWN = 64 * 1024  # bytes of a body
Topic = Annotated[str, Path(min_length=1, max_length=TOPIC_LENGTH, examples=["orders"])]
Partition = Annotated[int, Path(ge=0, lt=2**31, examples=[3])]
Offset = Annotated[int, Path(ge=0, lt=2**63, examples=[1234])]


class EventReceiver(Answer):
    """A subscription, and what has become of the event there."""

    subscription_id: int
    url: Annotated[str | None, Field(description="Null: it was removed.", examples=["https://example.com/hooks"])]
    event_type: Annotated[str | None, Field(examples=["order.*"])]
    name: Annotated[str | None, Field(examples=["Orders to the warehouse"])]
    tenant: Annotated[str | None, Field(description="The subscription's; *: all.", examples=["acme"])]
    state: Annotated[ReceiverState, Field(description="unknown: nothing is on record.", examples=["waiting"])]
    why: Annotated[str | None, Field(examples=["filter: false for this event"])]
    matches: Annotated[bool, Field(description="It would get the event now.")]
    request: Annotated[
        str | None,
        Field(description="Method, URL, and headers that follow it.", examples=["PUT https://example.com/7"]),
    ]
    delivery_id: Annotated[int | None, Field(description="Its stored delivery.", examples=[42])]
    attempts: Annotated[list[Attempt], Field(description="The newest first.")]


class LoggedEvent(Answer):
    """An event of the log. `reason`: why the record carries none; then it has no receivers."""

    topic: Annotated[str, Field(examples=["orders"])]
    partition: int
    offset: int
    at: Annotated[Stamp, Field(description="The record's timestamp.", examples=["2026-07-28T14:00:00.120Z"])]
    key: Annotated[Text, Field(examples=["42"])]
    key_base64: Annotated[Base64, Field(validation_alias="key")]
    reason: str | None
    webhook_id: Annotated[str | None, Field(examples=["msg_143dab3b0a3b75b910a8f2797991ac8e"])]
    event_type: Annotated[str | None, Field(examples=["order.paid"])]
    tenant: Annotated[str | None, Field(examples=["acme"])]
    content_type: Annotated[str | None, Field(examples=["application/json"])]
    size: Annotated[int, Field(description="Bytes of the body.")]
    body: Annotated[Text, Field(description=f"Its first {SHOWN} bytes, as text.", examples=['{"amount": 5}'])]
    body_base64: Annotated[Base64, Field(validation_alias="body")]
    receivers: list[EventReceiver]
    more: Annotated[bool, Field(description="There are more receivers.")]
    next: Annotated[str | None, Field(description="`cursor` of the next receivers. Null: the end.")]
    other_tenants: Annotated[
        int | None,
        Field(description="Subscriptions to its type that are for other tenants. Null for a token of a tenant."),
    ]
    missing: Annotated[str | None, Field(description="Why attempts may be missing.")]


class NewResend(Body):
    """The subscription that gets the event again."""

    subscription_id: Annotated[int, Field(ge=-(2**63), lt=2**63, examples=[7])]


class Resent(Answer):
    """How it is sent: its stored delivery is due now, or a replay reads its record again."""

    subscription_id: int
    delivery_id: int | None
    replay_id: int | None


@router.get("", response_model=LoggedEvent)
def show_event(
    caller: Reader, backing: Backed, topic: Topic, partition: Partition, offset: Offset, cursor: Cursor = None
) -> Response:
    """Show an event: its record, who got it, who did not, and why. Its receivers come a hundred at a time."""
    found = backing.record(caller, topic, partition, offset)
    record, event = found.record, found.event
    story, following = (None, None) if event is None else backing.story(caller, event, cursor)
    receivers = [
        told(caller, each._asdict(), "why")
        | {"attempts": [told(caller, one._asdict(), "error") for one in each.attempts]}
        for each in (() if story is None else story.receivers)
    ]
    body = record.value or b"" if event is None else event.body
    shown = {
        **dict(zip(("topic", "partition", "offset"), record.id, strict=False)),
        "at": record.timestamp / 1000,
        "key": record.key,
        "reason": found.reason,
        "size": len(body),
        "body": body[:SHOWN],
        "receivers": receivers,
        "more": following is not None,
        "next": following,
        "other_tenants": None if story is None else story.others,
        "missing": None if story is None else story.missing,
        **{
            name: None if event is None else getattr(event, own)
            for name, own in (
                ("webhook_id", "webhook_id"),
                ("event_type", "type"),
                ("tenant", "tenant"),
                ("content_type", "content_type"),
            )
        },
    }
    return answer(LoggedEvent.model_validate(shown))


@router.post("/resend", status_code=HTTPStatus.ACCEPTED, response_model=Resent)
def resend_event(
    caller: Writer, backing: Backed, topic: Topic, partition: Partition, offset: Offset, again: NewResend
) -> Response:
    """Send a subscription an event again, also if it was delivered: with the same webhook-id, by the workers.

    409 if the subscription would not get it, or gets it anyway.
    """
    found = backing.record(caller, topic, partition, offset)
    if found.event is None:
        raise invalid(f"the record carries no event: {found.reason}")
    sent = backing.resend(caller, found.event, again.subscription_id)
    return answer(Resent.model_validate(sent), HTTPStatus.ACCEPTED)
