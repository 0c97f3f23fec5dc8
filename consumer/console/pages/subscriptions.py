"""The list of subscriptions, and the page of a subscription."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from consumer.api.problems import Refused
from consumer.api.v1.context import check_url, exchanging, seeing
from consumer.console import charts
from consumer.console.app import BASE, Entry, Refusal, Visit, to
from consumer.console.pages.replays import form_for
from consumer.console.sources import (
    Sources,
    attempt_row,
    by_minute,
    reason_of,
    row_of,
    state_of,
    tried_lately,
    visible,
    whole,
)
from consumer.crypto.keys import parse_signing_key, receiver_key
from consumer.errors import InvalidSubscription
from consumer.ledger.search import Query, search
from consumer.ops import changes
from consumer.ops.ping import describe, ping_event
from consumer.ops.verification import describe as describe_answer
from consumer.ops.verification import verify
from consumer.subscriptions import repository
from consumer.subscriptions.options import OPTIONS
from consumer.subscriptions.repository import State, Subscribed

PAGE = 50
ATTEMPTS, STORED = 50, 10  # shown on a subscription's page
OVERLAP = timedelta(hours=24)  # in which the previous secret signs too
_STATES = (("", "any"), *((state, state) for state in get_args(State)))
_PARTS = ("url", "event_type", "tenant")  # of the filter, besides the state


class Pager(NamedTuple):
    """Links to other pages of a list; None if there is none."""

    first: str | None
    next: str | None
    size: int


def entries(sources: Sources) -> list[Entry]:
    """The pages and forms of subscriptions."""
    read: dict[str, Callable[[Sources, Visit], Response]] = {
        "/subscriptions": _list,
        "/subscriptions/new": _new,
        "/subscriptions/{id:number}": _show,
    }
    write: dict[str, Callable[[Sources, Visit], Response]] = {
        "/subscriptions/new": _create,
        "/subscriptions/{id:number}/enable": partial(_set_enabled, enabled=True),
        "/subscriptions/{id:number}/disable": partial(_set_enabled, enabled=False),
        "/subscriptions/{id:number}/ping": _ping,
        "/subscriptions/{id:number}/verify": _verify,
    }
    return [
        *(Entry(path, partial(page, sources)) for path, page in read.items()),
        *(Entry(path, partial(page, sources), "write", post=True) for path, page in write.items()),
        Entry("/subscriptions/{id:number}/rotate-secret", partial(_rotate, sources), "secrets", post=True),
    ]


def _list(sources: Sources, visit: Visit) -> Response:
    asked = {name: visit.query.get(name, "").strip() for name in (*_PARTS, "state")}
    state = asked["state"] if asked["state"] in get_args(State) else None
    after = visit.query.get("after", "")
    found = repository.page(
        sources.registry.engine,
        sources.registry.vault,
        after=whole(after),
        limit=PAGE + 1,
        event_type=asked["event_type"] or None,
        tenant=visit.caller.tenant or asked["tenant"] or None,
        state=state,  # type: ignore[arg-type]  # one of its values
        url=asked["url"] or None,
        rules=sources.registry.rules,
        clock=sources.clock,
    )
    rows = found[:PAGE]
    filters = {name: value for name, value in asked.items() if value}
    here = f"{BASE}/subscriptions?"
    return visit.render(
        "subscriptions.html",
        asked=asked,
        states=_STATES,
        filtered=bool(filters),
        rows=[
            {
                "id": item.id,
                "url": item.url,
                "event_type": item.event_type,
                "tenant": item.tenant,
                "state": state_of(item),
                "reason": reason_of(item) if item.enabled else item.disabled_reason,
                "created": item.created_at and item.created_at.timestamp(),
            }
            for item in rows
        ],
        page=Pager(
            here + urlencode(filters) if after else None,
            here + urlencode(filters | {"after": str(rows[-1].id)}) if len(found) > PAGE else None,
            PAGE,
        ),
    )


def _new(_sources: Sources, visit: Visit) -> Response:
    return visit.render("subscription_new.html", given=dict.fromkeys(_PARTS, ""), wrong=None)


def _create(sources: Sources, visit: Visit) -> Response:
    given = {name: visit.form.get(name, "").strip() for name in ("url", "event_type", "tenant")}
    caller = visit.caller
    try:
        check_url(sources.refusal, given["url"])
        tenant = caller.tenant or given["tenant"]
        added = changes.add(
            sources.registry,
            caller.actor,
            given["url"],
            given["event_type"],
            **({"tenant": tenant} if tenant else {}),  # type: ignore[arg-type]  # an option
        )
    except InvalidSubscription as error:
        return visit.render("subscription_new.html", HTTPStatus.BAD_REQUEST, given=given, wrong=str(error))
    return to(f"/subscriptions/{added.id}", "created")


def _show(sources: Sources, visit: Visit) -> Response:
    return _page(sources, visit, _of(sources, visit))


def _page(sources: Sources, visit: Visit, item: Subscribed, **more: object) -> Response:
    history = sources.history
    minutes = None if history is None else history.summary(item.id)
    attempts = [] if history is None else history.recent(item.id, ATTEMPTS, seeing(visit.caller))
    stored = search(sources.registry.engine, Query(subscription=item.id, tenant=visit.caller.tenant), STORED)
    return visit.render(
        "subscription.html",
        it={
            "id": item.id,
            "url": item.url,
            "event_type": item.event_type,
            "tenant": item.tenant,
            "enabled": item.enabled,
            "state": state_of(item, None if minutes is None else tried_lately(minutes, item.id)),
            "reason": reason_of(item),
            "problems": [{"option": each.option, "text": f"{each.why}; {each.effect.value}"} for each in item.problems],
            "options": _options(item),
            "secrets": item.secrets,
            "credentials": item.credentials,
            "tls": item.tls,
            "verified": item.verified,
            "created": item.created_at and item.created_at.timestamp(),
        },
        hour=None
        if minutes is None
        else {
            "chart": charts.bars(by_minute(minutes), "Attempts in each of the last sixty minutes"),
            "delivered": sum(each.ok for each in minutes),
            "failed": sum(each.failed for each in minutes),
            "most": max(each.ok + each.failed for each in minutes),
        },
        attempts=[*map(attempt_row, attempts)],
        stored=[row_of(each) for each in stored.deliveries],
        form=form_for(sources, visit.caller, item),
        may_ask=sources.ask is not None,
        **{"ping": None, "key": None, "verification": None, **more},
    )


def _options(item: Subscribed) -> list[tuple[str, object]]:
    """The options that differ from their defaults, by name; the url and type are in the title."""
    usual = {name: option.default for name, option in OPTIONS.items()}
    return [
        (
            name.removeprefix("event_").replace("_", " "),
            "set, with its values hidden" if name == "custom_headers" else value,
        )
        for name, value in item.options.items()
        if value is not None and value != usual[name] and name not in {"url", "event_type", "tenant"}
    ]


def _set_enabled(sources: Sources, visit: Visit, *, enabled: bool) -> Response:
    item = _of(sources, visit)
    changes.set_enabled(sources.registry, visit.caller.actor, item.id, enabled)
    return to(f"/subscriptions/{item.id}", "enabled" if enabled else "disabled")


def _ping(sources: Sources, visit: Visit) -> Response:
    item = _of(sources, visit)
    if sources.ping is None:
        raise Refusal(HTTPStatus.CONFLICT, "Set WEBHOOK_SECRET for this process: the test event has to be signed.")
    registry = sources.registry
    default = tuple(map(parse_signing_key, registry.default))
    found = repository.get_endpoint(registry.engine, item.id, default, registry.vault, registry.rules)
    if found is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"There is no subscription {item.id}.")
    endpoint, event = found[1], ping_event(item.id, sources.clock())
    with _exchanging():
        changes.note_ping(registry, visit.caller.actor, item, event.type)
        made = describe(endpoint, sources.ping(endpoint, event))
    return _page(sources, visit, item, ping=_exchange(made))


def _verify(sources: Sources, visit: Visit) -> Response:
    item = _of(sources, visit)
    if sources.ask is None:
        raise Refusal(
            HTTPStatus.CONFLICT, "Set WEBHOOK_ORIGIN and WEBHOOK_SECRET for this process, as workers have them."
        )
    with _exchanging():
        done = verify(sources.registry, visit.caller.actor, item.id, sources.ask)
    if done is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"There is no subscription {item.id}.")
    return _page(sources, visit, done.subscription, verification=describe_answer(done.permission))


@contextmanager
def _exchanging() -> Iterator[None]:
    """The limit of open requests to receivers, which the API and the console share."""
    try:
        with exchanging():
            yield
    except Refused as refused:
        raise Refusal(HTTPStatus(refused.status), f"{str(refused).capitalize()}.") from None


def _exchange(made: Mapping[str, Any]) -> dict[str, str]:
    head = "\n".join(f"{name}: {value}" for name, value in made["headers"].items())
    answer = "no answer" if made["status"] is None else f"status {made['status']}"
    return {
        "outcome": made["verdict"],
        "request": f"{head}\n\n{made['body'] or ''}".strip(),
        "answer": f"{answer}\n\n{made['answer'] or made['advice'] or ''}".strip(),
    }


def _rotate(sources: Sources, visit: Visit) -> Response:
    item = _of(sources, visit)
    rotation = changes.rotate(
        sources.registry, visit.caller.actor, item.id, overlap=OVERLAP, now=datetime.fromtimestamp(sources.clock(), UTC)
    )
    if rotation is None:
        raise Refusal(HTTPStatus.NOT_FOUND, f"There is no subscription {item.id}.")
    return _page(sources, visit, _of(sources, visit), key=receiver_key(rotation.secret))


def _of(sources: Sources, visit: Visit) -> Subscribed:
    return visible(sources, visit.caller, int(visit.path["id"]))
