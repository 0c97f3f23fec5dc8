"""Receivers by trouble: failing ones first, then unusable and disabled ones, then others with waiting deliveries."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from consumer.console import charts
from consumer.console.charts import Bar
from consumer.console.rendering import State, number
from consumer.console.sources import LATELY, SOME, Sources, by_minute, share_failed, state_of_attempts
from consumer.ops.attempts import AttemptHistory
from consumer.ops.overview import LISTED, MOST_COUNTED, Overview
from consumer.subscriptions.health import named

_COLUMNS = 30  # of a receiver's chart: two minutes each


class Trouble(NamedTuple):
    """A subscription, and its worst problem; `since` in unix seconds."""

    id: int
    url: str
    event_type: str
    tenant: str
    state: State
    since: float | None = None
    error: str | None = None


class Receiver(NamedTuple):
    """A row of the table."""

    trouble: Trouble
    waiting: str
    chart: str


def receivers(sources: Sources, seen: Overview) -> Iterator[Receiver]:
    """The rows: each subscription once, with its worst problem."""
    owed = {each.subscription_id: each.waiting for each in seen.loaded or ()}
    owed |= {each.subscription.subscription_id: each.waiting for each in seen.failing or ()}
    history = sources.history
    lately = () if history is None else _degraded(sources, history)
    shown: set[int] = set()
    for each in chain(_failing(seen), _broken(seen), _disabled(seen), lately, _loaded(seen)):
        if each.id not in shown:
            shown.add(each.id)
            told = each if history is None or each.error else each._replace(error=_last_error(history, each.id))
            yield Receiver(told, bounded(owed.get(each.id, 0)), "" if history is None else _chart(history, each.id))


def bounded(count: int) -> str:
    """A count that stops at MOST_COUNTED."""
    return f"more than {MOST_COUNTED:,}" if count > MOST_COUNTED else number(count)


def _failing(seen: Overview) -> Iterator[Trouble]:
    for each in seen.failing or ():
        it, last = each.subscription, each.last
        error = None if last is None else last.error
        state = State("failing", "bad")
        yield Trouble(it.subscription_id, it.url, it.event_type, it.tenant, state, it.since.timestamp(), error)


def _broken(seen: Overview) -> Iterator[Trouble]:
    for item in seen.problematic.subscriptions if seen.problematic else ():
        if item.broken:
            problem = str(item.problems[0])
            yield Trouble(item.id, item.url, item.event_type, item.tenant, State("broken", "bad"), error=problem)


def _disabled(seen: Overview) -> Iterator[Trouble]:
    for it in seen.disabled or ():
        state = State("disabled", "warn")
        yield Trouble(it.subscription_id, it.url, it.event_type, it.tenant, state, error=it.reason)


def _degraded(sources: Sources, history: AttemptHistory) -> Iterator[Trouble]:
    """Subscriptions of which some attempts of the last minutes have failed."""
    failed = [each for each in history.most_failed(LATELY, LISTED) if share_failed(each) >= SOME]
    theirs = named(sources.registry.engine, [each.subscription_id for each in failed])
    for tried in failed:
        if (found := theirs.get(tried.subscription_id)) is not None:
            yield Trouble(*found[:4], state_of_attempts(tried) if found.enabled else State("disabled", "warn"))


def _loaded(seen: Overview) -> Iterator[Trouble]:
    for each in seen.loaded or ():
        found, error = each.subscription, None if each.last is None else each.last.error
        if found is None:
            state = State("removed", "warn")
            yield Trouble(each.subscription_id, "a removed subscription", "", "*", state, error=error)
        else:
            yield Trouble(*found[:4], State("waiting", "warn"), error=error)


def _last_error(history: AttemptHistory, subscription_id: int) -> str | None:
    return next((each.error for each in history.recent(subscription_id, LISTED) if each.error), None)


def _chart(history: AttemptHistory, subscription_id: int) -> str:
    return charts.bars(list(_in_twos(by_minute(history.summary(subscription_id)))), "Attempts in the last hour")


def _in_twos(columns: Sequence[Bar]) -> Iterable[Bar]:
    size = max(1, len(columns) // _COLUMNS)
    for begin in range(0, len(columns), size):
        part = columns[begin : begin + size]
        yield Bar(sum(each.succeeded for each in part), sum(each.failed for each in part), part[0].label)
