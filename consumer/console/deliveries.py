"""The search of stored deliveries, and the page of a delivery."""

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.backing import Backing, seeing
from consumer.api.problems import Code, RequestRefused
from consumer.console.app import BASE, PageRoute, Visit, to
from consumer.console.rendering import whole
from consumer.console.subscriptions import Pager
from consumer.errors import InvalidPosition
from consumer.events.attempt import Attempt
from consumer.ledger.admin import DeliveryQuery, StoredDelivery
from consumer.ops.waiting import wait_of
from consumer.subscriptions import repository
from models import Status

PAGE = 50
SHOWN = 64 * 1024  # bytes of a payload
ATTEMPTS = 50  # shown
_STATES = (("", "any"), *((status.value, status.value) for status in Status))
_REDELIVERABLE = {"parked", "held", "exhausted"}


def _search(backing: Backing, visit: Visit) -> Response:
    asked = {
        name: visit.query.get(name, "").strip() for name in ("state", "subscription", "event_type", "since", "until")
    }
    position = visit.query.get("position") or None
    wrong, following = None, None
    rows: Sequence[StoredDelivery] = ()
    try:
        found = backing.search(visit.caller, _query(asked), PAGE, position)
    except (ValueError, InvalidPosition) as error:
        wrong = str(error)
    else:
        rows, following = found.deliveries, found.position
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
    where, history = backing.deployment, backing.history
    item, event = where.delivery(int(visit.path["id"]), visit.caller.tenant)
    record, sees = item.record, seeing(visit.caller)
    place = (record.topic, record.partition, record.offset)

    def is_of_it(each: Attempt) -> bool:
        return (each.topic, each.partition, each.offset) == place and sees(each)

    receiver = repository.get(where.engine, item.subscription_id, where.vault, where.rules)
    failures = [("First failure", item.first)] if item.first != item.last else []
    return visit.render(
        "delivery.html",
        it=item,
        event=event,
        wait=wait_of(where.engine, item, receiver, where.clock()),
        attempts=[] if history is None else history.recent(item.subscription_id, ATTEMPTS, is_of_it),
        redeliverable=item.status in _REDELIVERABLE,
        shown=SHOWN,
        failures=[(title, each) for title, each in (*failures, ("Last failure", item.last)) if each is not None],
    )


def _redeliver(backing: Backing, visit: Visit) -> Response:
    ids = {number for text in visit.form.getlist("id") if (number := whole(text)) is not None}
    if not ids:
        raise RequestRefused(Code.BAD_REQUEST, "Select the deliveries first.")
    marked = backing.changes(visit.caller).redeliver_these(ids)
    return to("/deliveries", "redelivered" if len(marked) == len(ids) else "redelivered_partly")


ROUTES = (
    PageRoute("/deliveries", _search),
    PageRoute("/deliveries/{id:number}", _show),
    PageRoute("/deliveries/redeliver", _redeliver, "write", post=True),
)
