"""Replays: their progress, and the form that begins one."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from starlette.responses import Response

from consumer.api.backing import Backing, reading_log
from consumer.api.tokens import Caller
from consumer.console.app import PageRoute, Visit, to
from consumer.console.rendering import Badge, whole
from consumer.errors import InvalidReplay, KafkaUnavailable, NotFound, WebhooksError
from consumer.events.event import utc
from consumer.ledger import replays
from consumer.ledger.replays import Replay, Span
from consumer.ops.replay_request import NO_KAFKA, Plan, Wanted, create, end, go_on, prepare, records
from consumer.subscriptions.subscribed import Subscribed

SHOWN = 100
PARTITIONS = 200  # of a preview, that are listed
_KINDS = {"finished": "good", "cancelled": "warn", "waiting": "warn"}
_COMMAND = "kafka-webhooks replay --subscription 7 --since 2h"
_FIELDS = ("subscription", "since", "until", "event_type", "rate", "ordered")
_NOTHING = dict.fromkeys(_FIELDS, "")


class Form(NamedTuple):
    """The form: the typed values, the errors by field ("": the whole form), and the subscription whose page has it."""

    given: Mapping[str, str]
    wrong: Mapping[str, str]
    subscription: int | None = None


class _Wrong(Exception):
    """A field is invalid ("": the whole form); the text is a sentence."""

    def __init__(self, field: str, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.field, self.status = field, status


def form_for(backing: Backing, caller: Caller, item: Subscribed) -> Form | None:
    """The form on a subscription's page; None if the visitor can begin no replay to it."""
    if backing.log is None or "write" not in caller.scopes or not item.enabled:
        return None
    return Form(_NOTHING, {}, item.id)


def _list(backing: Backing, visit: Visit) -> Response:
    where, tenant = backing.deployment, visit.caller.tenant
    found = replays.find(where.engine, limit=SHOWN, group=where.group, tenant=tenant)
    rows = [_row(each, counted=tenant is None) for each in found]
    form = Form(_NOTHING, {}) if backing.log is not None else None
    known = backing.receivers(visit.caller, {each.subscription_id for each in found})
    live = any(row["open"] for row in rows)
    return visit.render(
        "replays.html", rows=rows, known=known, live=live, form=form, missing=NO_KAFKA, command=_COMMAND
    )


def _row(item: Replay, *, counted: bool) -> dict[str, object]:
    """A row of the list; a visitor of a tenant sees neither how many records there are, nor who began it."""
    read = item.records - item.records_left
    return {
        "id": item.id,
        "subscription_id": item.subscription_id,
        "state": Badge(item.state, _KINDS.get(item.state, "")),
        "error": item.last_error,
        "done": read / item.records if item.records and counted else None,
        "progress": f"{read:,} of {item.records:,} records" if counted else "",
        "began": item.created_at,
        "by": item.created_by if counted else None,
        "open": not item.ended,
        "resumes": item.cancelled_at is not None and not item.last_error,
    }


def _preview(backing: Backing, visit: Visit) -> Response:
    """Show the records that a replay would read, and the button that begins it."""
    given = _given(visit)
    try:
        planned, found = _planned(backing, visit.caller, given)
    except _Wrong as wrong:
        return _again(visit, given, wrong)
    number = records(found)
    return visit.render(
        "replay_new.html",
        form=Form(given, {}),
        preview={
            "receiver": backing.receivers(visit.caller, [planned.receiver.id]).get(planned.receiver.id),
            "event_type": planned.event_type or planned.receiver.event_type,
            "unordered": planned.receiver.options["ordering"] == "key" and not planned.ordered,
            "since": planned.since,
            "until": planned.end,
            "rate": planned.rate,
            "any": bool(found),
            "records": number if visit.caller.tenant is None else None,
            "takes": number / planned.rate,
            "parts": [(f"{each.topic}[{each.number}]", each.end - each.begin) for each in found[:PARTITIONS]],
            "partitions": len(found),
            # With these times it reads the records shown, however long the page stays open.
            "fields": given | {"since": _time(planned.since), "until": _time(planned.end)},
        },
    )


def _start(backing: Backing, visit: Visit) -> Response:
    given = _given(visit)
    registry = backing.deployment
    try:
        planned, found = _planned(backing, visit.caller, given)
    except _Wrong as wrong:
        return _again(visit, given, wrong)
    with registry.engine.begin() as connection:
        create(connection, registry.group, visit.caller.actor, planned, found)
    return to("/replays", "replaying")


def _given(visit: Visit) -> dict[str, str]:
    asked = visit.form or visit.query
    return {name: asked.get(name, "").strip() for name in _FIELDS}


def _again(visit: Visit, given: Mapping[str, str], wrong: _Wrong) -> Response:
    form = Form(given, {wrong.field: str(wrong)})
    return visit.render("replay_new.html", wrong.status, form=form, preview=None)


def _planned(backing: Backing, caller: Caller, given: Mapping[str, str]) -> tuple[Plan, Sequence[Span]]:
    """The replay that the form asks for. Raises _Wrong."""
    log, subscription = backing.replayed(), whole(given["subscription"])
    if subscription is None:
        raise _Wrong("subscription", "It is not the number of a subscription.")
    wanted = Wanted(
        given["since"],
        given["until"] or None,
        given["event_type"] or None,
        rate=_number("rate", given["rate"]),
        ordered=bool(given["ordered"]),
    )
    try:
        with reading_log(caller):
            return prepare(backing.changes(caller), log, subscription, wanted)
    except NotFound as error:
        raise _Wrong("subscription", f"{error}.".capitalize(), HTTPStatus.NOT_FOUND) from None
    except InvalidReplay as error:
        raise _Wrong(error.option, f"It {error.why}.") from None
    except KafkaUnavailable as error:
        raise _Wrong("", f"{error}.", HTTPStatus.SERVICE_UNAVAILABLE) from None
    except WebhooksError as error:
        raise _Wrong("", f"{error}.", HTTPStatus.CONFLICT) from None


def _number(field: str, text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise _Wrong(field, "It is not a number.") from None


def _time(at: float) -> str:
    return utc(at).isoformat(timespec="milliseconds")


def _cancel(backing: Backing, visit: Visit) -> Response:
    end(backing.changes(visit.caller), int(visit.path["id"]))
    return to("/replays", "cancelled")


def _resume(backing: Backing, visit: Visit) -> Response:
    go_on(backing.changes(visit.caller), int(visit.path["id"]))
    return to("/replays", "goes-on")


ROUTES = (
    PageRoute("/replays", _list),
    PageRoute("/replays", _start, "write", post=True),
    PageRoute("/replays/preview", _preview, "write"),
    PageRoute("/replays/{id:number}/cancel", _cancel, "write", post=True),
    PageRoute("/replays/{id:number}/resume", _resume, "write", post=True),
)
