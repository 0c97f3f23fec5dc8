"""The first page, live: deliveries made and owed, and the receivers in trouble.

Failing receivers come first, then unusable and disabled ones, then others with waiting deliveries.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from itertools import chain, islice
from statistics import quantiles
from threading import Lock
from typing import NamedTuple

from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from consumer.api.backing import Backing
from consumer.api.tokens import Caller
from consumer.console import charts
from consumer.console.app import Frame, PageRoute, Visit, to
from consumer.console.charts import Bar
from consumer.console.rendering import (
    LATELY,
    SOME,
    Badge,
    attempt_row,
    by_minute,
    number,
    share_failed,
    state_of_attempts,
)
from consumer.console.session import ConsoleSession
from consumer.events.attempt import DELIVERED, Attempt
from consumer.ops.attempts import AttemptHistory, Minute
from consumer.ops.cluster import Lag
from consumer.ops.overview import LISTED, MOST_COUNTED, Overview
from consumer.subscriptions.health import named

REFRESH = 2.0  # seconds between two readings, for all watchers together
STREAMS = 50  # watchers at once, of 200 connections
STREAM_SECONDS = 60.0  # then the browser connects again, and may have been signed out meanwhile
RECENT = 5_000  # attempts from which times and the latest failures are taken
FAILURES = 10  # shown
_COLUMNS = 30  # of a receiver's chart: two minutes each


class TroubledReceiver(NamedTuple):
    """A row of the table: a subscription, and its worst problem; `since` in unix seconds."""

    id: int
    url: str
    event_type: str
    tenant: str
    state: Badge
    since: float | None = None
    error: str | None = None
    waiting: str = ""
    chart: str = ""


class Live:
    """The overview as values for its template, made once for all watchers. Used by any thread."""

    def __init__(self, backing: Backing, look: Callable[[], Overview]) -> None:
        """`look` gives the same overview for some seconds."""
        self._backing = backing
        self._look = look
        self._lock = Lock()
        self._made: tuple[Overview, dict[str, object]] | None = None

    def values(self) -> dict[str, object]:
        """The values of the present overview."""
        seen = self._look()
        with self._lock:
            if self._made is None or self._made[0] is not seen:
                self._made = seen, _values(self._backing, seen)
            return self._made[1]


def routes(live: Live, group: str) -> list[PageRoute]:
    """The page."""
    return [PageRoute("/", partial(_show, live, group))]


def stream(live: Live, frame: Frame) -> Route:
    """The page's events: its live part, every REFRESH seconds if it has changed."""
    watchers = asyncio.Semaphore(STREAMS)
    reading: asyncio.Task[str] | None = None

    def read(request: Request, session: ConsoleSession) -> Awaitable[str]:
        """The live part, the same for all watchers and read once: each in a thread would take one from the pages."""
        nonlocal reading
        if reading is None or reading.done():
            reading = asyncio.create_task(
                run_in_threadpool(lambda: frame.fragment(request, session, "overview_live.html", **live.values()))
            )
        return asyncio.shield(reading)

    async def events(request: Request) -> Response:
        if (refusal := await _refusal(frame, request)) is not None:
            return Response(status_code=refusal)
        if watchers.locked():
            return Response(status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "30"})
        return EventSourceResponse(parts(request), ping=15)

    async def parts(request: Request) -> AsyncIterator[dict[str, str]]:
        async with watchers:
            end, sent = time.monotonic() + STREAM_SECONDS, ""
            yield {"comment": "begun"}  # the answer's head waits for the first bytes of its body
            while time.monotonic() < end:
                await asyncio.sleep(REFRESH)
                session = frame.session(request)
                if session is None or not _may_watch(session.caller):
                    return
                if (now := await read(request, session)) != sent:
                    sent = now
                    yield {"event": "overview", "data": now}

    return Route("/live", events)


async def _refusal(frame: Frame, request: Request) -> HTTPStatus | None:
    session = frame.session(request)
    if session is None or await frame.ended(request, session):
        return HTTPStatus.UNAUTHORIZED
    return None if _may_watch(session.caller) else HTTPStatus.FORBIDDEN


def _may_watch(caller: Caller) -> bool:
    return caller.tenant is None and "read" in caller.scopes


def _show(live: Live, group: str, visit: Visit) -> Response:
    if visit.caller.tenant is not None:
        return to("/subscriptions")
    return visit.render("overview.html", group=group, **live.values())


def _values(backing: Backing, seen: Overview) -> dict[str, object]:
    history = backing.history
    faults = [each._asdict() for each in seen.faults]
    if history is not None and history.fault is not None:
        faults.append({"part": "attempts", "reason": history.fault})
    attempts = [] if history is None else history.recent(None, RECENT)
    failures = islice((each for each in attempts if each.outcome != DELIVERED), FAILURES)
    return {
        "faults": faults,
        "hour": None if history is None else _hour(history.summary(None), attempts, backing.deployment.clock()),
        "failures": [attempt_row(each) for each in failures],
        "lag": None if seen.lag is None else _lag(seen.lag),
        "waiting": None if seen.states is None else {name: bounded(value) for name, value in seen.states.items()},
        "receivers": list(receivers(backing, seen)),
    }


def _hour(minutes: Sequence[Minute], attempts: Sequence[Attempt], now: float) -> dict[str, object]:
    columns = by_minute(minutes)
    delivered, failed = sum(each.succeeded for each in columns), sum(each.failed for each in columns)
    tried = delivered + failed
    recent = sum(each.succeeded + each.failed for each in columns[-2:])  # of the last full minute, and of this one
    took = sorted(each.seconds for each in attempts)
    twentieths = quantiles(took, n=20) if len(took) > 1 else took * 19
    return {
        "delivered": delivered,
        "failed": failed,
        "rate": number(recent / (60 + now % 60)),
        "chart": charts.bars(columns, "Attempts in each of the last sixty minutes"),
        "share": delivered / tried if tried else None,
        "share_chart": charts.bars(
            [Bar(0, each.failed, each.label) for each in columns], "Failed attempts in each of the last sixty minutes"
        ),
        "median": twentieths[9] if twentieths else None,
        "slow": twentieths[18] if twentieths else None,
        "latency_chart": charts.line(list(_medians(attempts)), "Time of attempts, from earlier to now"),
    }


def _medians(attempts: Sequence[Attempt], columns: int = 60) -> Iterator[float]:
    """The median times of `columns` groups of attempts, oldest first; `attempts` are newest first."""
    size = max(1, len(attempts) // columns)
    for begin in range(0, len(attempts) - size + 1, size):
        part = sorted(each.seconds for each in attempts[::-1][begin : begin + size])
        yield part[len(part) // 2]


def _lag(partitions: Sequence[Lag]) -> dict[str, object]:
    worst = max(partitions, key=lambda each: each.records, default=None)
    return {
        "total": sum(each.records for each in partitions),
        "partitions": len(partitions),
        "worst": f"{worst.topic}[{worst.partition}]" if worst is not None and worst.records else None,
    }


def receivers(backing: Backing, seen: Overview) -> Iterator[TroubledReceiver]:
    """The rows: each subscription once, with its worst problem."""
    owed = {each.subscription_id: each.waiting for each in seen.loaded or ()}
    owed |= {each.subscription.subscription_id: each.waiting for each in seen.failing or ()}
    history = backing.history
    lately = () if history is None else _degraded(backing, history)
    shown: set[int] = set()
    for each in chain(_failing(seen), _broken(seen), _disabled(seen), lately, _loaded(seen)):
        if each.id not in shown:
            shown.add(each.id)
            row = each._replace(waiting=bounded(owed.get(each.id, 0)))
            if history is not None:
                error = each.error or _last_error(history, each.id)
                row = row._replace(error=error, chart=_chart(history, each.id))
            yield row


def bounded(count: int) -> str:
    """A count that stops at MOST_COUNTED."""
    return f"more than {MOST_COUNTED:,}" if count > MOST_COUNTED else number(count)


def _failing(seen: Overview) -> Iterator[TroubledReceiver]:
    for each in seen.failing or ():
        it, last = each.subscription, each.last
        error = None if last is None else last.error
        state = Badge("failing", "bad")
        yield TroubledReceiver(it.subscription_id, it.url, it.event_type, it.tenant, state, it.since.timestamp(), error)


def _broken(seen: Overview) -> Iterator[TroubledReceiver]:
    for item in seen.problematic.subscriptions if seen.problematic else ():
        if item.broken:
            problem = str(item.problems[0])
            yield TroubledReceiver(
                item.id, item.url, item.event_type, item.tenant, Badge("broken", "bad"), error=problem
            )


def _disabled(seen: Overview) -> Iterator[TroubledReceiver]:
    for it in seen.disabled or ():
        state = Badge("disabled", "warn")
        yield TroubledReceiver(it.subscription_id, it.url, it.event_type, it.tenant, state, error=it.reason)


def _degraded(backing: Backing, history: AttemptHistory) -> Iterator[TroubledReceiver]:
    """Subscriptions of which some attempts of the last minutes have failed."""
    failed = [each for each in history.most_failed(LATELY, LISTED) if share_failed(each) >= SOME]
    theirs = named(backing.deployment.engine, [each.subscription_id for each in failed])
    for tried in failed:
        if (found := theirs.get(tried.subscription_id)) is not None:
            yield TroubledReceiver(*found[:4], state_of_attempts(tried) if found.enabled else Badge("disabled", "warn"))


def _loaded(seen: Overview) -> Iterator[TroubledReceiver]:
    for each in seen.loaded or ():
        found, error = each.subscription, None if each.last is None else each.last.error
        if found is None:
            state = Badge("removed", "warn")
            yield TroubledReceiver(each.subscription_id, "a removed subscription", "", "*", state, error=error)
        else:
            yield TroubledReceiver(*found[:4], Badge("waiting", "warn"), error=error)


def _last_error(history: AttemptHistory, subscription_id: int) -> str | None:
    return next((each.error for each in history.recent(subscription_id, LISTED) if each.error), None)


def _chart(history: AttemptHistory, subscription_id: int) -> str:
    return charts.bars(list(_in_twos(by_minute(history.summary(subscription_id)))), "Attempts in the last hour")


def _in_twos(columns: Sequence[Bar]) -> Iterable[Bar]:
    size = max(1, len(columns) // _COLUMNS)
    for begin in range(0, len(columns), size):
        part = columns[begin : begin + size]
        yield Bar(sum(each.succeeded for each in part), sum(each.failed for each in part), part[0].label)
