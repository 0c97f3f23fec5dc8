"""Pages about events: recent attempts, one event, event types, dead letters and operational events."""

from collections import Counter
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from itertools import chain
from operator import attrgetter
from urllib.parse import quote, urlencode

import orjson
from starlette.responses import Response

from consumer.api.backing import Backing, of_all_tenants, seeing
from consumer.api.problems import Code, RequestRefused
from consumer.console.app import PageRoute, Visit, to
from consumer.console.rendering import numbered, whole
from consumer.console.subscriptions import Pager
from consumer.errors import WebhooksError
from consumer.events.attempt import DELIVERED, Attempt
from consumer.intake.record import Unreadable
from consumer.ops import dead_letters, events
from consumer.ops.events import AuditQuery
from consumer.ops.story import MOST
from consumer.subscriptions.health import named_types

SHOWN = 100  # attempts on a page
BODY = 64 * 1024  # bytes of a value
LETTERS, OPERATIONS = 50, 200  # records shown
TYPES, ATTEMPTS = 200, 10_000
_PLACE = ("topic", "partition", "offset")


def _recent(backing: Backing, visit: Visit) -> Response:
    asked = {name: visit.query.get(name, "").strip() for name in ("webhook_id", *_PLACE)}
    partition, offset = whole(asked["partition"]), whole(asked["offset"])
    if asked["topic"] and partition is not None and offset is not None:
        return to(_path((asked["topic"], partition, offset)))
    caller, history = visit.caller, backing.history
    newest = [] if history is None else history.recent(None, SHOWN, seeing(caller, asked["webhook_id"] or None))
    return visit.render(
        "events.html",
        asked=asked,
        on=history is not None,
        rows=backing.own(caller, newest),
        known=backing.receivers(caller, {each.subscription_id for each in newest}),
    )


def _show(backing: Backing, visit: Visit) -> Response:
    found = backing.record(visit.caller, *_place(visit))
    headers, story, following = found.record.headers, None, None
    if found.event is not None:
        story, following = backing.story(visit.caller, found.event, visit.query.get("cursor") or None)
    tried = () if story is None else chain.from_iterable(each.attempts for each in story.receivers)
    return visit.render(
        "event.html",
        record=found.record,
        event=found.event,
        reason=found.reason,
        value=found.record.value or b"",
        headers=() if headers is None or isinstance(headers, Unreadable) else headers,
        most=BODY,
        story=story,
        known={each.subscription_id: each for each in (() if story is None else story.receivers) if each.url},
        place=_path(_place(visit)),
        resent=_resent(visit, tried),
        page=Pager(
            "?#receivers" if "cursor" in visit.query else None,
            following and f"?{urlencode({'cursor': following})}#receivers",
            MOST,
        ),
    )


def _follow(backing: Backing, visit: Visit) -> Response:
    """Has the page loaded again once there is an attempt of the resend that it names. Looks in memory alone."""
    place, sees, history = _place(visit), seeing(visit.caller), backing.history
    tried = [] if history is None else history.recent(None, SHOWN, lambda each: each.place == place and sees(each))
    made = _resent(visit, tried)
    return Response(None, HTTPStatus.NO_CONTENT, {"hx-refresh": "true"} if made and made[1] else None)


def _resent(visit: Visit, tried: Iterable[Attempt]) -> tuple[int, Attempt | None] | None:
    """The subscription of the resend that the query names, and its first attempt since; None: it names none."""
    subscription, newest = (whole(visit.query.get(name, "")) for name in ("resent", "newest"))
    if subscription is None:
        return None
    since = (each for each in tried if each.subscription_id == subscription and int(each.at * 1000) > (newest or 0))
    return subscription, min(since, key=attrgetter("at"), default=None)


def _resend(backing: Backing, visit: Visit) -> Response:
    subscription, place = whole(visit.form.get("subscription", "")), _place(visit)
    event = backing.record(visit.caller, *place).event
    if subscription is None or event is None:
        raise RequestRefused(Code.BAD_REQUEST, "The form names no subscription, or the record carries no event.")
    backing.resend(visit.caller, event, subscription)
    asked = {"resent": str(subscription), "newest": visit.form.get("newest", "")}
    return to(_path(place), **asked)


def _path(place: tuple[str, int, int]) -> str:
    return f"/events/{quote(place[0], safe='')}/{place[1]}/{place[2]}"


def _place(visit: Visit) -> tuple[str, int, int]:
    return visit.path["topic"], int(visit.path["partition"]), int(visit.path["offset"])


def _dead_letters(backing: Backing, visit: Visit) -> Response:
    of_all_tenants(visit.caller)
    kafka = backing.cluster()
    fault, found = None, []
    again: Mapping[dead_letters.Place, float] = {}
    try:
        found = dead_letters.recent(kafka, LETTERS).found
        again = dead_letters.published(backing.deployment, kafka, found)
    except WebhooksError as error:
        fault = str(error)
    return visit.render(
        "dead_letters.html",
        topic=kafka.dead_letter_topic,
        rows=[(letter, again.get((letter.partition, letter.offset))) for letter in found],
        fault=fault,
    )


def _publish(backing: Backing, visit: Visit) -> Response:
    of_all_tenants(visit.caller)
    partition, offset = whole(visit.form.get("partition", "")), whole(visit.form.get("offset", ""))
    if partition is None or offset is None:
        raise RequestRefused(Code.BAD_REQUEST, "The form does not name a dead letter.")
    dead_letters.publish_again(backing.changes(visit.caller), backing.cluster(), partition, offset)
    return to("/dead-letters", "published")


def _audit(backing: Backing, visit: Visit) -> Response:
    of_all_tenants(visit.caller)
    kafka = backing.cluster()
    asked = {name: visit.query.get(name, "").strip() for name in ("type", "actor", "subscription")}
    found, fault = [], None
    try:
        found = events.audit(
            kafka, OPERATIONS, AuditQuery(asked["type"], asked["actor"], numbered(asked["subscription"]))
        ).found
    except (WebhooksError, ValueError) as error:
        fault = str(error)
    rows = [(entry, _summary(entry), orjson.dumps(entry.data, option=orjson.OPT_INDENT_2).decode()) for entry in found]
    most = events.SEARCHED if any(asked.values()) else None
    return visit.render(
        "audit.html",
        topic=kafka.operations_topic,
        asked=asked,
        searched=most,
        rows=rows,
        known=backing.receivers(visit.caller, {each.subscription_id for each in found if each.subscription_id}),
        fault=fault,
    )


def _summary(entry: events.AuditEntry) -> str:
    changed, url = entry.data.get("changed"), entry.data.get("url")
    match entry.data:
        case {"replay_id": number}:
            return f"replay {number}"
        case {"delivery_ids": [*ids]}:
            return f"{len(ids)} deliveries"
        case {"published_to": [*topics], "places": [*places]}:
            return f"{len(places)} dead letters, to {', '.join(map(str, topics))}"
    return ", ".join(map(str, changed)) if isinstance(changed, list) and changed else str(url or "details")


def _types(backing: Backing, visit: Visit) -> Response:
    of_all_tenants(visit.caller)
    attempts = [] if backing.history is None else backing.history.recent(None, ATTEMPTS)
    delivered = Counter(each.event_type for each in attempts if each.outcome == DELIVERED)
    failed = Counter(each.event_type for each in attempts if each.outcome != DELIVERED)
    seen = {each.event_type: each.at for each in reversed(attempts)}
    named = {each.event_type: each.subscriptions for each in named_types(backing.deployment.engine, TYPES)}
    names = sorted({*named, *seen})
    return visit.render(
        "types.html",
        rows=[
            {
                "name": name,
                "subscriptions": named.get(name, 0),
                "delivered": delivered[name],
                "failed": failed[name],
                "seen": seen.get(name),
            }
            for name in names
        ],
    )


ROUTES = (
    PageRoute("/events", _recent),
    PageRoute("/events/{topic}/{partition:number}/{offset:number}", _show),
    PageRoute("/events/{topic}/{partition:number}/{offset:number}/resend", _resend, "write", post=True),
    PageRoute("/events/{topic}/{partition:number}/{offset:number}/resent", _follow),
    PageRoute("/dead-letters", _dead_letters),
    PageRoute("/dead-letters/publish", _publish, "write", post=True),
    PageRoute("/audit", _audit),
    PageRoute("/types", _types),
)
