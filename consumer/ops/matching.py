"""Whether a subscription gets an event, by its present options, and why not. Nothing is sent."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from requests import RequestException

from consumer.events.event import Event
from consumer.expressions.expression import EventTooLarge, Expression, ExpressionFailed
from consumer.http.urls import redact_url
from consumer.matching.selection import FILTER_TOO_LARGE
from consumer.ops.changes import Deployment
from consumer.sending.request import shown
from consumer.subscriptions import event_types, repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.follows import follows_of
from consumer.subscriptions.options import Effect, read
from consumer.subscriptions.patterns import candidates, matches
from consumer.subscriptions.subscribed import Subscribed
from models.subscription import EVERY_TENANT


def candidates_of(
    where: Deployment,
    event_type: str,
    most: int,
    tenant: str | Sequence[str] | None = None,
    after: int | None = None,
) -> list[Subscribed]:
    """At most `most` subscriptions by id, above `after`, whose type or pattern matches an event's type.

    Those of a tenant, of several, or of all.
    """
    page = partial(repository.page, where.engine, where.vault, after=after, limit=most, rules=where.rules)
    return [*page(event_type=candidates(event_type), tenant=tenant)]


def hindrance(item: Subscribed, event: Event, variables: Mapping[str, object]) -> str | None:
    """The reason why a subscription does not get an event of its type, or None. `variables`: of the event."""
    return barred(item, event.type) or refusal(meant_by(item), event, variables)


def barred(item: Subscribed, event_type: str) -> str | None:
    """The reason why a subscription gets no event of a type at all, or None."""
    unmatched = next((str(problem) for problem in item.problems if problem.effect is Effect.UNMATCHED), None)
    if not item.enabled:
        return f"disabled: {item.disabled_reason}" if item.disabled_reason else "disabled"
    if unmatched is not None:
        return unmatched
    if not any(matches(each, event_type) and event_types.refusal(each) is None for each in item.event_types):
        return f"event_types: it gets {', '.join(item.event_types)}"
    return None


def meant_by(item: Subscribed) -> dict[str, Any]:
    """The options for `refusal`. With a filter that cannot be used, a subscription's events are stored: they match."""
    meant, _ = read(item.options)
    broken = any(problem.option == "event_filter" for problem in item.problems)
    return {**meant, "event_filter": None} if broken else {**meant}


def endpoint_like(meant: Mapping[str, Any], url: str) -> Endpoint:
    """An endpoint with the options that shape a request, without any secret."""
    return Endpoint(
        0,
        url,
        (),
        payload_format=meant["payload_format"],
        projection=meant["projection"],
        method=meant["method"],
        headers=meant["custom_headers"] or (),
        follows=follows_of(meant),
    )


def request_for(item: Subscribed, event: Event) -> str:
    """The request that a subscription's receiver would get, as `sending.request.shown`, or why there is none."""
    meant, problems = read(item.options)
    if any(problem.effect is Effect.STORED for problem in problems):
        return "none: the subscription is broken"
    try:
        method, url, *lines = shown(endpoint_like(meant, str(item.options["url"])), event).split(maxsplit=2)
        return "\n".join((f"{method} {redact_url(url)}", *lines))
    except (ValueError, RequestException) as error:
        return f"none: {error}"


def refusal(meant: Mapping[str, Any], event: Event, variables: Mapping[str, object]) -> str | None:
    """Why a subscription with these options, from `options.read`, does not get an event of its type; None: it does."""
    if meant["tenant"] not in {EVERY_TENANT, event.tenant}:
        return f"tenant: it gets events of {meant['tenant']}; the tenant of this event is {event.tenant or 'none'}"
    if meant["topics"] is not None and event.record.topic not in meant["topics"]:
        return f"topics: it gets events of {', '.join(sorted(meant['topics']))}"
    return None if meant["event_filter"] is None else _refusal(meant["event_filter"], variables)


def _refusal(chosen: Expression, variables: Mapping[str, object]) -> str | None:
    """Why a filter does not choose an event; None if it does."""
    try:
        value = chosen.value(variables)
    except EventTooLarge:
        return f"{FILTER_TOO_LARGE}; its delivery is given up"
    except ExpressionFailed as error:
        return f"filter: it fails on this event: {error}"
    if not isinstance(value, bool):
        return "filter: its value is neither true nor false"
    return None if value else "filter: false for this event"
