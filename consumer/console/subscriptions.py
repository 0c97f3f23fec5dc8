"""The list of subscriptions, and the page of a subscription."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.backing import Backing
from consumer.api.problems import Code, RequestRefused
from consumer.console.app import BASE, PageRoute, Visit, reason_for
from consumer.console.rendering import moment, reason_of, state_of, tried_lately, whole
from consumer.console.replays import form_for
from consumer.errors import NotFound, WebhooksError
from consumer.events.attempt import Attempt
from consumer.ledger.admin import DeliveryQuery
from consumer.ops.attempt_statistics import AttemptStatistics
from consumer.ops.ping import ping_event
from consumer.subscriptions import repository
from consumer.subscriptions.options import DESCRIPTIVE, OPTIONS
from consumer.subscriptions.repository import State
from consumer.subscriptions.subscribed import Subscribed

PAGE = 50
ATTEMPTS, STORED = 50, 10  # shown on a subscription's page
_STATES = (("", "any"), *((state, state) for state in get_args(State)))
_PARTS = ("name", "url", "external_id", "event_type", "tenant")  # of the filter, besides the state


class Pager(NamedTuple):
    """Links to other pages of a list; None if there is none."""

    first: str | None
    next: str | None
    size: int


def _list(backing: Backing, visit: Visit) -> Response:
    asked = {name: visit.query.get(name, "").strip() for name in (*_PARTS, "state")}
    state = asked["state"] if asked["state"] in get_args(State) else None
    after = visit.query.get("after", "")
    where = backing.deployment
    found = repository.page(
        where.engine,
        where.vault,
        after=whole(after),
        limit=PAGE + 1,
        state=state,  # type: ignore[arg-type]  # one of its values
        **{name: asked[name] or None for name in _PARTS} | {"tenant": visit.caller.tenant or asked["tenant"] or None},
        rules=where.rules,
        clock=where.clock,
    )
    rows = found[:PAGE]
    filters = {name: value for name, value in asked.items() if value}
    here = f"{BASE}/subscriptions?"
    return visit.render(
        "subscriptions.html",
        asked=asked,
        states=_STATES,
        filtered=bool(filters),
        rows=rows,
        page=Pager(
            here + urlencode(filters) if after else None,
            here + urlencode(filters | {"after": str(rows[-1].id)}) if len(found) > PAGE else None,
            PAGE,
        ),
    )


def _show(backing: Backing, visit: Visit) -> Response:
    caller, history = visit.caller, backing.history
    item = backing.deployment.subscription(int(visit.path["id"]), caller.tenant)
    minutes = None if history is None else history.summary(item.id)
    asked = {name: visit.query.get(name, "") for name in ("since", "until")}
    attempts: Sequence[Attempt] = ()
    following = missing = None
    if history is not None:
        try:
            times = moment(asked["since"]), moment(asked["until"])
        except ValueError as error:
            raise RequestRefused(Code.BAD_REQUEST, str(error)) from None
        cursor = visit.query.get("cursor") or None
        attempts, following, missing = backing.attempts(caller, item.id, times, cursor, ATTEMPTS)
    stored = backing.search(caller, DeliveryQuery(subscription=item.id), STORED, None)
    return visit.render(
        "subscription.html",
        it=item,
        state=state_of(item, None if minutes is None else tried_lately(minutes, item.id)),
        reason=reason_of(item),
        options=_options(item),
        minutes=minutes,
        asked=asked,
        attempts=attempts,
        missing=missing,
        earlier=following and "?" + urlencode(asked | {"cursor": following}),
        stored=stored.deliveries,
        group=backing.deployment.group,
        owed=backing.owed(caller, item.id),
        form=form_for(backing, caller, item),
        may_ask=backing.ask is not None,
    )


def _statistics(backing: Backing, visit: Visit) -> Response:
    """A part of the subscription's page, which asks for it again as long as more is read each time."""
    subscription, before = int(visit.path["id"]), whole(visit.query.get("unread", ""))
    found, fault = AttemptStatistics([], [], 0), None
    try:
        found = backing.statistics(visit.caller, subscription)
    except NotFound:
        raise
    except (WebhooksError, RequestRefused) as error:  # htmx would not show another status
        fault = reason_for(visit.caller, error)
    more = 0 < found.unread < (before or found.unread + 1)
    return visit.render("statistics.html", id=subscription, found=found, more=more, fault=fault)


def _options(item: Subscribed) -> list[tuple[str, object]]:
    """The options that differ from their defaults, by name, without those that the page shows elsewhere."""
    usual = {name: option.default for name, option in OPTIONS.items()}
    return [
        (
            name.removeprefix("event_").replace("_", " "),
            "set, with its values hidden" if name == "custom_headers" else value,
        )
        for name, value in item.options.items()
        if value is not None and value != usual[name] and name not in {"url", "event_type", "tenant", *DESCRIPTIVE}
    ]


def _ping(backing: Backing, visit: Visit) -> Response:
    number = int(visit.path["id"])
    made = backing.send_test_event(visit.caller, number, ping_event(number, backing.deployment.clock()))
    return visit.tell(_path(visit), {"kind": "ping", **_exchange(made)})


def _verify(backing: Backing, visit: Visit) -> Response:
    with backing.verifying(visit.caller) as verify:
        answer, _ = verify(backing.changes(visit.caller), int(visit.path["id"]))
    return visit.tell(_path(visit), {"kind": "verification", **answer})


def _exchange(made: Mapping[str, Any]) -> dict[str, str]:
    head = "\n".join(f"{name}: {value}" for name, value in made["headers"].items())
    answer = "no answer" if made["status"] is None else f"status {made['status']}"
    return {
        "outcome": made["verdict"],
        "request": f"{head}\n\n{made['body'] or ''}".strip(),
        "answer": f"{answer}\n\n{made['response'] or made['advice'] or ''}".strip(),
    }


def _path(visit: Visit) -> str:
    return f"/subscriptions/{visit.path['id']}"


ROUTES = (
    PageRoute("/subscriptions", _list),
    PageRoute("/subscriptions/{id:number}", _show),
    PageRoute("/subscriptions/{id:number}/statistics", _statistics),
    PageRoute("/subscriptions/{id:number}/ping", _ping, "write", post=True),
    PageRoute("/subscriptions/{id:number}/verify", _verify, "write", post=True),
)
