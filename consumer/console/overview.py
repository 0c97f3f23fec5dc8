"""The first page, live: deliveries made and owed, and the receivers in trouble.

Failing receivers come first, then unusable ones, those whose events Kafka soon removes, disabled and paused ones,
then others with waiting deliveries.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from heapq import nlargest
from itertools import islice
from operator import attrgetter
from statistics import quantiles
from typing import NamedTuple

from starlette.responses import Response

from consumer.api.backing import Backing, seeing, told_fault
from consumer.api.tokens import ANYONE, Caller
from consumer.console.app import PageRoute, Visit
from consumer.console.rendering import LATELY, SOME, Badge, number, share_failed, state_of_attempts, tried_lately
from consumer.events.attempt import DELIVERED, Attempt
from consumer.ops.attempts import AttemptHistory, Minute, Tried
from consumer.ops.cluster import Lag
from consumer.ops.overview import LISTED, MOST_COUNTED, Overview, shared
from consumer.subscriptions.health import ListedSubscription, time_left

RECENT = 5_000  # attempts from which times and the latest failures are taken
RECENT_OF_TENANT = 1_000  # the same, of a tenant: from up to as many subscriptions, 20 µs each
FAILURES = 10  # shown
TENANTS = 64  # whose overviews are kept


class TroubledReceiver(NamedTuple):
    """A row of the table: a subscription, and its worst problem; `since` in unix seconds."""

    id: int
    url: str
    event_type: str
    tenant: str
    name: str | None
    state: Badge
    since: float | None = None
    error: str | None = None
    waiting: str = ""
    minutes: Sequence[Minute] = ()


def routes(backing: Backing) -> list[PageRoute]:
    """The page. Its `values` are the same for all visitors of a tenant for some seconds."""

    @lru_cache(TENANTS)
    def live(tenant: str | None) -> Callable[[], Mapping[str, object]]:
        return shared(partial(values, backing, ANYONE._replace(tenant=tenant)))

    def show(visit: Visit) -> Response:
        return visit.render("overview.html", group=backing.deployment.group, **live(visit.caller.tenant)())

    return [PageRoute("/", show)]


def values(backing: Backing, caller: Caller) -> dict[str, object]:
    """The present overview, as far as the caller may see it, as values for its template."""
    seen, history = backing.overview(caller), backing.history
    # A tenant lacks the parts that are about all: nothing is wrong with them.
    faults = [each._asdict() for each in seen.faults] if caller.tenant is None else []
    if history is not None and history.fault is not None:
        faults.append({"part": "the attempts", "reason": told_fault(caller, history.fault)})
    tries = None if history is None else _tries(backing, history, caller)
    newest = [] if tries is None else tries.newest
    return {
        "faults": faults,
        "hour": None if tries is None else _hour(tries.minutes, newest, backing.deployment.clock()),
        "failures": _failures(newest),
        "known": {} if tries is None else tries.known,
        "lag": None if seen.lag is None else _lag(seen.lag),
        "waiting": None if seen.states is None else {name: bounded(value) for name, value in seen.states.items()},
        "receivers": list(_receivers(backing, caller, seen, tries)),
        "unknown": any(part is None for part in (seen.failing, seen.disabled, seen.paused, seen.problematic)),
        "enabled": seen.problematic is not None and seen.problematic.looked_at > 0,
    }


def _failures(newest: Iterable[Attempt]) -> list[tuple[Attempt, int]]:
    """The latest failure of each subscription, the newest first, and how many it has among these attempts."""
    failed = [each for each in newest if each.outcome != DELIVERED]
    latest = {each.subscription_id: each for each in reversed(failed)}
    counted = Counter(each.subscription_id for each in failed)
    return [(latest[number], counted[number]) for number in islice(counted, FAILURES)]


class _Tries(NamedTuple):
    """Attempts of the last hour that a caller may see."""

    newest: Sequence[Attempt]
    known: Mapping[int, ListedSubscription]  # their subscriptions, as far as they are shown
    minutes: Sequence[Minute]
    degraded: Sequence[TroubledReceiver]  # those of which some attempts of the last minutes have failed


def _tries(backing: Backing, history: AttemptHistory, caller: Caller) -> _Tries:
    """A tenant's are of the subscriptions of its newest attempts."""
    if caller.tenant is None:
        newest, minutes = history.recent(None, RECENT), history.summary(None)
        failed = history.most_failed(LATELY, LISTED)
        ids = {each.subscription_id for each in failed} | {last.subscription_id for last, _ in _failures(newest)}
        theirs = backing.receivers(caller, ids)
    else:
        newest = history.recent(None, RECENT_OF_TENANT, seeing(caller))
        theirs = backing.receivers(caller, {each.subscription_id for each in newest})
        newest = [each for each in newest if each.subscription_id in theirs]
        hours = {number: history.summary(number) for number in theirs}
        minutes = [
            Minute(of[0].at, sum(each.ok for each in of), sum(each.failed for each in of))
            for of in zip(*hours.values(), strict=True)
        ]
        tried = (tried_lately(hour, number) for number, hour in hours.items())
        failed = nlargest(LISTED, tried, key=attrgetter("failed"))
    return _Tries(newest, theirs, minutes, [*_degraded(failed, theirs)])


def _degraded(failed: Iterable[Tried], theirs: Mapping[int, ListedSubscription]) -> Iterator[TroubledReceiver]:
    for tried in failed:
        if share_failed(tried) >= SOME and (found := theirs.get(tried.subscription_id)) is not None:
            badge = state_of_attempts(tried) if found.mode == "enabled" else Badge(found.mode, "warn")
            yield TroubledReceiver(*found[:5], badge)


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


def _receivers(backing: Backing, caller: Caller, seen: Overview, tries: _Tries | None) -> Iterator[TroubledReceiver]:
    """The rows: each subscription once, with its worst problem."""
    owed = {each.subscription_id: each.waiting for each in seen.loaded or ()}
    owed |= {each.subscription.subscription_id: each.waiting for each in seen.failing or ()}
    history = backing.history
    shown: set[int] = set()
    for each in _troubled(seen, tries):
        if each.id not in shown:
            shown.add(each.id)
            row = each._replace(waiting=bounded(owed.get(each.id, 0)))
            if history is not None:
                recent = history.recent(row.id, LISTED, seeing(caller))
                last = next((each.error for each in recent if each.error), None)
                row = row._replace(error=row.error or last, minutes=history.summary(row.id))
            yield row


def _troubled(seen: Overview, tries: _Tries | None) -> Iterator[TroubledReceiver]:
    """A row for each problem, the worst first."""
    for failing in seen.failing or ():
        it, error = failing.subscription, failing.last and failing.last.error
        yield TroubledReceiver(*it[:5], Badge("failing", "bad"), it.since.timestamp(), error)
    for item in seen.problematic.subscriptions if seen.problematic else ():
        if item.broken:
            badge, name = Badge("broken", "bad"), item.options["name"]
            known = item.id, item.url, item.event_type, item.tenant, name
            yield TroubledReceiver(*known, badge, error=str(item.problems[0]))
    for expiring in seen.expiring or ():
        left = time_left(expiring.expires.timestamp() - seen.at)
        yield TroubledReceiver(*expiring[:5], Badge("expires", "bad"), error=f"Kafka removes its next event in {left}")
    for listed in seen.disabled or ():
        yield TroubledReceiver(*listed[:5], Badge("disabled", "warn"), error=listed.reason)
    for listed in seen.paused or ():
        since = None if listed.paused_at is None else listed.paused_at.timestamp()
        yield TroubledReceiver(*listed[:5], Badge("paused", "warn"), since, listed.reason)
    yield from () if tries is None else tries.degraded
    for loaded in seen.loaded or ():
        found, error = loaded.subscription, loaded.last and loaded.last.error
        if found is None:
            removed = loaded.subscription_id, "a removed subscription", "", "*", None
            yield TroubledReceiver(*removed, Badge("removed", "warn"), error=error)
        else:
            yield TroubledReceiver(*found[:5], Badge("waiting", "warn"), error=error)
