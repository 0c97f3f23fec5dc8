"""The first page, live: deliveries made and owed, and the receivers in trouble.

Failing receivers come first, then unusable ones, those whose events Kafka soon removes, disabled and paused ones,
then others with waiting deliveries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from statistics import quantiles
from typing import NamedTuple

from starlette.responses import Response

from consumer.api.backing import Backing
from consumer.console.app import PageRoute, Visit, to
from consumer.console.rendering import LATELY, SOME, Badge, number, share_failed, state_of_attempts
from consumer.events.attempt import DELIVERED, Attempt
from consumer.ops.attempts import AttemptHistory, Minute
from consumer.ops.cluster import Lag
from consumer.ops.overview import LISTED, MOST_COUNTED, Overview
from consumer.subscriptions.health import named, time_left

RECENT = 5_000  # attempts from which times and the latest failures are taken
FAILURES = 10  # shown


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
    minutes: Sequence[Minute] = ()


def routes(live: Callable[[], Mapping[str, object]], group: str) -> list[PageRoute]:
    """The page. `live` gives its `values`, the same for all visitors for some seconds."""

    def show(visit: Visit) -> Response:
        if visit.caller.tenant is not None:
            return to("/subscriptions")
        return visit.render("overview.html", group=group, **live())

    return [PageRoute("/", show)]


def values(backing: Backing, look: Callable[[], Overview]) -> dict[str, object]:
    """The present overview as values for its template."""
    seen, history = look(), backing.history
    faults = [each._asdict() for each in seen.faults]
    if history is not None and history.fault is not None:
        faults.append({"part": "the attempts", "reason": history.fault})
    attempts = [] if history is None else history.recent(None, RECENT)
    return {
        "faults": faults,
        "hour": None if history is None else _hour(history.summary(None), attempts, backing.deployment.clock()),
        "failures": list(islice((each for each in attempts if each.outcome != DELIVERED), FAILURES)),
        "lag": None if seen.lag is None else _lag(seen.lag),
        "waiting": None if seen.states is None else {name: bounded(value) for name, value in seen.states.items()},
        "receivers": list(_receivers(backing, seen)),
        "unknown": any(part is None for part in (seen.failing, seen.disabled, seen.paused, seen.problematic)),
        "enabled": seen.problematic is not None and seen.problematic.looked_at > 0,
    }


def _hour(minutes: Sequence[Minute], attempts: Sequence[Attempt], now: float) -> dict[str, object]:
    delivered, failed = sum(each.ok for each in minutes), sum(each.failed for each in minutes)
    recent = sum(each.ok + each.failed for each in minutes[-2:])  # of the last full minute, and of this one
    took = sorted(each.seconds for each in attempts)
    twentieths = quantiles(took, n=20) if len(took) > 1 else took * 19
    return {
        "delivered": delivered,
        "failed": failed,
        "rate": number(recent / (60 + now % 60)),
        "minutes": minutes,
        "share": delivered / (delivered + failed) if delivered + failed else None,
        "median": twentieths[9] if twentieths else None,
        "slow": twentieths[18] if twentieths else None,
    }


def _lag(partitions: Sequence[Lag]) -> dict[str, object]:
    worst = max(partitions, key=lambda each: each.records, default=None)
    return {
        "total": sum(each.records for each in partitions),
        "partitions": len(partitions),
        "worst": f"{worst.topic}[{worst.partition}]" if worst is not None and worst.records else None,
    }


def bounded(count: int) -> str:
    """A count that stops at MOST_COUNTED."""
    return f"more than {MOST_COUNTED:,}" if count > MOST_COUNTED else number(count)


def _receivers(backing: Backing, seen: Overview) -> Iterator[TroubledReceiver]:
    """The rows: each subscription once, with its worst problem."""
    owed = {each.subscription_id: each.waiting for each in seen.loaded or ()}
    owed |= {each.subscription.subscription_id: each.waiting for each in seen.failing or ()}
    history = backing.history
    shown: set[int] = set()
    for each in _troubled(backing, seen):
        if each.id not in shown:
            shown.add(each.id)
            row = each._replace(waiting=bounded(owed.get(each.id, 0)))
            if history is not None:
                last = next((each.error for each in history.recent(row.id, LISTED) if each.error), None)
                row = row._replace(error=row.error or last, minutes=history.summary(row.id))
            yield row


def _troubled(backing: Backing, seen: Overview) -> Iterator[TroubledReceiver]:
    """A row for each problem, the worst first."""
    for failing in seen.failing or ():
        it, error = failing.subscription, failing.last and failing.last.error
        yield TroubledReceiver(*it[:4], Badge("failing", "bad"), it.since.timestamp(), error)
    for item in seen.problematic.subscriptions if seen.problematic else ():
        if item.broken:
            badge, problem = Badge("broken", "bad"), str(item.problems[0])
            yield TroubledReceiver(item.id, item.url, item.event_type, item.tenant, badge, error=problem)
    for expiring in seen.expiring or ():
        left = time_left(expiring.expires.timestamp() - seen.at)
        yield TroubledReceiver(*expiring[:4], Badge("expires", "bad"), error=f"Kafka removes its next event in {left}")
    for listed in seen.disabled or ():
        yield TroubledReceiver(*listed[:4], Badge("disabled", "warn"), error=listed.reason)
    for listed in seen.paused or ():
        since = None if listed.paused_at is None else listed.paused_at.timestamp()
        yield TroubledReceiver(*listed[:4], Badge("paused", "warn"), since, listed.reason)
    if backing.history is not None:
        yield from _degraded(backing, backing.history)
    for loaded in seen.loaded or ():
        found, error = loaded.subscription, loaded.last and loaded.last.error
        if found is None:
            removed = loaded.subscription_id, "a removed subscription", "", "*"
            yield TroubledReceiver(*removed, Badge("removed", "warn"), error=error)
        else:
            yield TroubledReceiver(*found[:4], Badge("waiting", "warn"), error=error)


def _degraded(backing: Backing, history: AttemptHistory) -> Iterator[TroubledReceiver]:
    """Subscriptions of which some attempts of the last minutes have failed."""
    failed = [each for each in history.most_failed(LATELY, LISTED) if share_failed(each) >= SOME]
    theirs = named(backing.deployment.engine, [each.subscription_id for each in failed])
    for tried in failed:
        if (found := theirs.get(tried.subscription_id)) is not None:
            badge = state_of_attempts(tried) if found.mode == "enabled" else Badge(found.mode, "warn")
            yield TroubledReceiver(*found[:4], badge)
