"""The search of stored deliveries, and the page of a delivery."""

import time
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.backing import Backing, redelivering, seeing
from consumer.api.problems import Code, RequestRefused
from consumer.console.app import BASE, PageRoute, Said, Visit
from consumer.console.rendering import moment, numbered, stored_state, whole
from consumer.console.subscriptions import Pager
from consumer.errors import InvalidPosition, NotFound
from consumer.events.attempt import Attempt
from consumer.ledger.admin import DeliveryQuery, StoredDelivery
from consumer.ledger.rows import AttemptFailure
from consumer.ledger.search import MOST
from consumer.ops.waiting import waits_for
from models import Status

PAGE = 50
SHOWN = 64 * 1024  # bytes of a payload
ATTEMPTS = 50  # shown
_STATES = (("", "any"), *((status.value, stored_state(status).word) for status in Status))
_REDELIVERABLE = frozenset((Status.PARKED, Status.HELD, Status.EXHAUSTED))
_FILTERS = ("state", "subscription", "event_type", "since", "until")
SECONDS, COUNTING = 5.0, 1.0  # in which one request redelivers, or counts, a page after the other


def _search(backing: Backing, visit: Visit) -> Response:
    asked = {name: visit.query.get(name, "").strip() for name in _FILTERS}
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
        filters=filters,
        rows=rows,
        known=backing.receivers(visit.caller, {each.subscription_id for each in rows}),
        wrong=wrong,
        page=Pager(
            here + urlencode(filters) if position else None,
            here + urlencode(filters | {"position": following}) if following else None,
            PAGE,
        ),
    )


def _query(asked: dict[str, str]) -> DeliveryQuery:
    """The query of the form's fields. Raises ValueError for an invalid field."""
    if asked["state"] and asked["state"] not in set(Status):
        raise ValueError(f"There is no state {asked['state']}.")
    return DeliveryQuery(
        [Status(asked["state"])] if asked["state"] else (),
        numbered(asked["subscription"]),
        None,
        asked["event_type"] or None,
        None,
        moment(asked["since"]),
        moment(asked["until"]),
    )


def _show(backing: Backing, visit: Visit) -> Response:
    where, history = backing.deployment, backing.history
    try:
        item, event = where.delivery(int(visit.path["id"]), visit.caller.tenant)
    except NotFound:
        text = f"Delivery {visit.path['id']} is not stored any more: it was delivered, or given up and removed."
        event_path = visit.query.get("event", "")
        on = [(event_path, "What became of its event")] if event_path.startswith("/events/") else []
        return visit.render("error.html", HTTPStatus.NOT_FOUND, title="Not stored any more", text=text, kind="", on=on)
    place, sees = item.record[:3], seeing(visit.caller)
    attempts: Sequence[Attempt] = (
        ()
        if history is None
        else history.recent(item.subscription_id, ATTEMPTS, lambda each: each.place == place and sees(each))
    )
    return visit.render(
        "delivery.html",
        it=item,
        event=event,
        known=backing.receivers(visit.caller, [item.subscription_id]).get(item.subscription_id),
        wait=waits_for(where, item),
        attempts=attempts,
        redeliverable=item.status in _REDELIVERABLE,
        shown=SHOWN,
        failures=_unlisted(item, attempts),
    )


def _unlisted(item: StoredDelivery, attempts: Sequence[Attempt]) -> dict[str, AttemptFailure]:
    """The stored failures that are not among the attempts, by their titles."""
    tried = [(each.at, each.error) for each in attempts]
    found = {}
    for title, each in (("Last failure", item.last), ("First failure", item.first)):
        if each is not None and not any(abs(each.at - at) < 1 and each.error == error for at, error in tried):
            found[title] = each
            tried.append((each.at, each.error))
    return found


def _redeliver(backing: Backing, visit: Visit) -> Response:
    ids = visit.selected()
    return visit.back("/deliveries", _marked(len(backing.changes(visit.caller).redeliver_these(ids)), len(ids)))


def _marked(number: int, found: int) -> Said:
    if number == found:
        return Said(f"Marked: {number:,}.", more="Workers send them within seconds, and held ones later.")
    why = "The others are delivered by now, keep their turn in an order, or have no subscription."
    return Said(f"Marked: {number:,} of {found:,}.", "warn", why)


def _redeliver_all(backing: Backing, visit: Visit) -> Response:
    """Redeliver what the filters find, for some seconds; the page that follows goes on behind the last one.

    The page that asks before has counted them, for a second.
    """
    form, changes = visit.form, backing.changes(visit.caller)
    asked = {name: form.get(name, "").strip() for name in _FILTERS}
    try:
        query = _query(asked)
    except ValueError as error:
        raise RequestRefused(Code.BAD_REQUEST, str(error)) from None
    query = query._replace(statuses=_REDELIVERABLE.intersection(query.statuses or _REDELIVERABLE))
    if not query.statuses:
        raise RequestRefused(Code.BAD_REQUEST, f"Deliveries that are {asked['state']} cannot be sent again.")
    marked, found = (whole(form.get(name, "")) or 0 for name in ("marked", "found"))
    sure, position = "sure" in form, form.get("position") or None
    until = time.monotonic() + (SECONDS if sure else COUNTING)
    with redelivering(visit.caller):
        while True:
            page = backing.search(visit.caller, query, MOST, position)
            if sure:
                marked += len(changes.redeliver_these({each.id for each in page.deliveries}))
            found, position = found + len(page.deliveries), page.position
            if position is None or time.monotonic() >= until:
                break
    if sure and position is None:
        return visit.back("/deliveries", _marked(marked, found))
    progress = {"marked": marked, "found": found, "position": position} if sure else None
    number = f"{'more than ' if position else ''}{found:,}"
    home = form.get("back", "/deliveries")
    return visit.render("redeliver_all.html", asked=asked, progress=progress, number=number, return_to=home)


ROUTES = (
    PageRoute("/deliveries", _search),
    PageRoute("/deliveries/{id:number}", _show),
    PageRoute("/deliveries/redeliver", _redeliver, "write", post=True),
    PageRoute("/deliveries/redeliver-all", _redeliver_all, "write", post=True),
)
