"""The search of stored deliveries, and the page of a delivery."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.backing import Backing
from consumer.console.app import BASE, PageRoute, Refusal, Visit, to
from consumer.console.rendering import row_of, whole
from consumer.console.subscriptions import Pager
from consumer.errors import InvalidPosition
from consumer.ledger.admin import DeliveryQuery, StoredDetail
from models import Status

PAGE = 50
SHOWN = 64 * 1024  # bytes of a payload
_STATES = (("", "any"), *((status.value, status.value) for status in Status))
_REDELIVERABLE = {"parked", "held", "exhausted"}


def routes(backing: Backing) -> list[PageRoute]:
    """The pages and forms of deliveries."""
    return [
        PageRoute("/deliveries", partial(_search, backing)),
        PageRoute("/deliveries/{id:number}", partial(_show, backing)),
        PageRoute("/deliveries/redeliver", partial(_redeliver, backing), "write", post=True),
    ]


def _search(backing: Backing, visit: Visit) -> Response:
    asked = {
        name: visit.query.get(name, "").strip() for name in ("state", "subscription", "event_type", "since", "until")
    }
    position = visit.query.get("position") or None
    wrong, rows, following = None, [], None
    try:
        found = backing.search(visit.caller, _query(asked), PAGE, position)
    except (ValueError, InvalidPosition) as error:
        wrong = str(error)
    else:
        rows, following = [row_of(each) for each in found.deliveries], found.position
    filters = {name: value for name, value in asked.items() if value}
    here = f"{BASE}/deliveries?"
    return visit.render(
        "deliveries.html",
        HTTPStatus.OK if wrong is None else HTTPStatus.BAD_REQUEST,
        asked=asked,
        states=_STATES,
        rows=rows,
        wrong=wrong,
        page=Pager(
            here + urlencode(filters) if position else None,
            here + urlencode(filters | {"position": following}) if following else None,
            PAGE,
        ),
    )


def _query(asked: dict[str, str]) -> DeliveryQuery:
    """The query of the form's fields. Raises ValueError for an invalid field."""
    subscription = whole(asked["subscription"])
    if asked["subscription"] and subscription is None:
        raise ValueError("A subscription is named by its number.")
    if asked["state"] and asked["state"] not in set(Status):
        raise ValueError(f"There is no state {asked['state']}.")
    return DeliveryQuery(
        [Status(asked["state"])] if asked["state"] else (),
        subscription,
        None,
        asked["event_type"] or None,
        None,
        _moment(asked["since"]),
        _moment(asked["until"]),
    )


def _moment(text: str) -> float | None:
    """Unix seconds of a form's time without a zone, which is UTC, as the times on the page are."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text} is not a time; write it as 2026-01-31T13:00.") from None


def _show(backing: Backing, visit: Visit) -> Response:
    found = backing.deployment.delivery(int(visit.path["id"]), visit.caller.tenant)
    item, event = found
    body = event.body
    return visit.render(
        "delivery.html",
        it={
            **row_of(item)._asdict(),
            "redeliverable": item.status in _REDELIVERABLE,
            "size": f"{len(body):,}",
            "cut": f"{SHOWN:,}" if len(body) > SHOWN else None,
            "body": body[:SHOWN].decode(errors="replace"),
            "facts": list(_facts(found)),
            "failures": [
                (title, failure)
                for title, failure in (("First failure", item.first), ("Last failure", item.last))
                if failure is not None and (title == "Last failure" or item.first != item.last)
            ],
        },
    )


def _facts(found: StoredDetail) -> Iterator[tuple[str, object]]:
    item, event = found
    yield "webhook-id", item.webhook_id
    yield "record", f"{item.record.topic}[{item.record.partition}] @ {item.record.offset}"
    yield "key", "none" if event.key is None else event.key.decode(errors="backslashreplace")
    yield "content-type", event.content_type
    yield "tenant", event.tenant or "none"
    yield "attempts", item.attempt
    if item.replay:
        yield "replay", item.replay
    yield "group", item.group


def _redeliver(backing: Backing, visit: Visit) -> Response:
    ids = {number for text in visit.form.getlist("id") if (number := whole(text)) is not None}
    if not ids:
        raise Refusal(HTTPStatus.BAD_REQUEST, "Select the deliveries first.")
    marked = backing.changes(visit.caller).redeliver_these(ids)
    return to("/deliveries", "redelivered" if len(marked) == len(ids) else "redelivered_partly")
