"""The list of subscriptions, and the page of a subscription."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.backing import Backing
from consumer.api.problems import RequestRefused
from consumer.api.tokens import Caller
from consumer.console.app import BASE, PageRoute, Visit, reason_for
from consumer.console.rendering import LATELY, Badge, moment, reason_of, state_of, tried_lately, whole
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
ATTEMPTS, STORED, FEW = 50, 10, 10  # shown on a subscription's page; FEW attempts, unless it is asked for earlier ones
READ, LOOKED_AT = 500, 5_000  # subscriptions of a statement and of a page, if a state is judged: 0.2 s
MOST_FAILED = 10_000  # subscriptions that have failed lately
# The enabled ones that are meant, by their states. One that fails lately is warned of, however often it fails.
_JUDGED: Mapping[str, Callable[[Badge], bool]] = {
    "broken": lambda state: state.word == "broken",
    "warning": lambda state: state.word not in {"broken", "failing", "well"},
}
_STATES = (("", "any"), *((state, state) for state in (*get_args(State), *_JUDGED)))
_TABS = {"attempts": "Attempts", "waiting": "Waiting", "replay": "Replay", "secrets": "Secrets", "options": "Options"}
_PARTS = ("name", "url", "external_id", "event_type", "tenant")  # of the filter, besides the state


class Pager(NamedTuple):
    """Links to other pages of a list; None if there is none."""

    first: str | None
    next: str | None
    size: int


def _list(backing: Backing, visit: Visit) -> Response:
    asked = {name: visit.query.get(name, "").strip() for name in (*_PARTS, "state")}
    after = visit.query.get("after", "")
    known = asked["state"] in dict(_STATES)
    rows, following = _found(backing, visit.caller, asked, whole(after)) if known else ([], None)
    filters = {name: value for name, value in asked.items() if value}
    here = f"{BASE}/subscriptions?"
    return visit.render(
        "subscriptions.html",
        HTTPStatus.OK if known else HTTPStatus.BAD_REQUEST,
        wrong=None if known else f"There is no state {asked['state']}.",
        asked=asked,
        states=_STATES,
        filtered=bool(filters),
        rows=rows,
        page=Pager(
            here + urlencode(filters) if after else None,
            here + urlencode(filters | {"after": str(following)}) if following is not None else None,
            PAGE,
        ),
    )


def _found(
    backing: Backing, caller: Caller, asked: Mapping[str, str], after: int | None
) -> tuple[list[tuple[Subscribed, Badge]], int | None]:
    """A page of subscriptions with their states, and the id after which the next one begins; None: it is the last.

    The states of _JUDGED are not in the database: among LOOKED_AT subscriptions a page may find few, or none.
    """
    where, history, judged = backing.deployment, backing.history, _JUDGED.get(asked["state"])
    limit = READ if judged else PAGE + 1
    wanted: dict[str, Any] = {name: value or None for name, value in asked.items()}
    wanted |= {"tenant": caller.tenant or wanted["tenant"]} | ({"state": "enabled"} if judged else {})
    some: Callable[..., tuple[Subscribed, ...]] = partial(
        repository.page, where.engine, where.vault, limit=limit, rules=where.rules, clock=where.clock, **wanted
    )
    failed = () if history is None else history.most_failed(LATELY, MOST_FAILED)
    tried = {each.subscription_id: each for each in failed}
    rows: list[tuple[Subscribed, Badge]] = []
    for _ in range(LOOKED_AT // READ if judged else 1):
        for item in (found := some(after=after)):
            state = state_of(item, tried.get(item.id))
            if judged is None or judged(state):
                if len(rows) == PAGE:
                    return rows, rows[-1][0].id
                rows.append((item, state))
        if len(found) < limit:
            return rows, None
        after = found[-1].id
    return rows, after


def _show(backing: Backing, visit: Visit) -> Response:
    caller, history = visit.caller, backing.history
    item = backing.deployment.subscription(int(visit.path["id"]), caller.tenant)
    minutes = None if history is None else history.summary(item.id)
    form = form_for(backing, caller, item)
    tabs = {name: title for name, title in _TABS.items() if name != "replay" or form}
    tab = visit.query.get("tab", "")
    if tab not in tabs:
        tab = "waiting" if history is None else "attempts"  # what says most about a failure
    asked = {name: visit.query.get(name, "") for name in ("since", "until")}
    attempts: Sequence[Attempt] = ()
    following = missing = wrong = None
    if tab == "attempts" and history is not None:
        try:
            times = moment(asked["since"]), moment(asked["until"])
        except ValueError as error:
            wrong = str(error)
        else:
            cursor = visit.query.get("cursor") or None
            most = ATTEMPTS if cursor or any(times) else FEW
            attempts, following, missing = backing.attempts(caller, item.id, times, cursor, most)
    waits = tab == "waiting"
    return visit.render(
        "subscription.html",
        HTTPStatus.BAD_REQUEST if wrong else HTTPStatus.OK,
        it=item,
        tabs=tabs,
        tab=tab,
        state=state_of(item, None if minutes is None else tried_lately(minutes, item.id)),
        reason=reason_of(item),
        options=_options(item),
        minutes=minutes,
        asked=asked,
        attempts=attempts,
        missing=missing,
        wrong=wrong,
        earlier=following and "?" + urlencode(asked | {"cursor": following}),
        stored=backing.search(caller, DeliveryQuery(subscription=item.id), STORED, None).deliveries if waits else (),
        group=backing.deployment.group,
        owed=backing.owed(caller, item.id) if waits else (),
        form=form,
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
    """The tab on which the form stands."""
    return f"/subscriptions/{visit.path['id']}?{urlencode({'tab': visit.query.get('tab', '')})}"


ROUTES = (
    PageRoute("/subscriptions", _list),
    PageRoute("/subscriptions/{id:number}", _show),
    PageRoute("/subscriptions/{id:number}/statistics", _statistics),
    PageRoute("/subscriptions/{id:number}/ping", _ping, "write", post=True),
    PageRoute("/subscriptions/{id:number}/verify", _verify, "write", post=True),
)
