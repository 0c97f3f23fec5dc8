"""Subscriptions whose every attempt fails: noted after a minute, disabled after days, cleared by one success.

The note (`failing_since`) is in the database, where all workers see it. A failure of less than a minute costs no
statement. The note alone disables nothing: this worker must have seen failures of several events, spread over the time
since then. Two events that failed five days apart, with nothing in between, say little about a receiver.
"""

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import structlog

from consumer.delivery.notes import Notes
from consumer.http.urls import redact_url
from consumer.ledger import upkeep
from consumer.ledger.rows import OperationalEvent
from consumer.subscriptions.endpoint import Endpoint

log = structlog.get_logger(__name__)

NOTE_AFTER = 60.0  # seconds of nothing but failures
# The earliest time noted, as a fraction of the time after which it disables. A subscription that failed here long ago
# may have succeeded on another worker since, or the clock was set. Any success on any worker removes the note.
OLDEST_NOTE = 0.5
# The time until a subscription is disabled has PARTS parts. This worker must have seen failures in SPREAD parts, and of
# EVENTS events.
PARTS = 5
SPREAD = 3
EVENTS = 3
MOST = 100_000  # subscriptions remembered between first failure and note, and as many that are noted
# Seconds without a note after which a subscription makes room for another one, if there are MOST. A receiver that is
# down is tried about once a minute, so it is noted, and forgotten here, within four minutes.
STALE = 600.0
SHOWN = 900.0  # seconds for which a subscription is shown after a failure; a Retry-After keeps a breaker open for 600


class _Evidence(NamedTuple):
    """Failures seen here since the time noted: in which parts of the time, and for which events (a few ids)."""

    noted: float
    parts: set[int]
    events: set[str]


class _Failure(NamedTuple):
    """Nothing but failures since `since`; `noted` is the endpoint's `failing_since` at the last failure."""

    since: float
    last: float
    noted: float | None


class Failing:
    """The failures that this worker has seen. Times are unix seconds; a `disable_after` of 0 never disables."""

    def __init__(self, notes: Notes, group: str, disable_after: float) -> None:
        self._notes = notes
        self._group = group
        self._disable_after = disable_after
        self._since = OrderedDict[int, float]()  # first failure after the last success; the oldest first
        self._failures = OrderedDict[int, _Failure]()  # for metrics; the earliest last failure first
        self._evidence = OrderedDict[int, _Evidence]()  # of noted subscriptions; the earliest last failure first
        self._noting: set[int] = set()  # being written: a locked row takes as many minutes as its lock
        self._disabling: set[int] = set()  # being written, for a 410: every open request may get the same answer
        self._handled = OrderedDict[int, float]()  # the note that a success (negative) or disabling has ended

    def failed(self, endpoint: Endpoint, now: float, events: Iterable[str], *, quietly: bool = False) -> None:
        """An attempt at these events (webhook ids) has failed.

        `quietly` publishes no operational event, because the attempt was to deliver one.
        """
        key = endpoint.subscription_id
        noted = endpoint.failing_since
        self._remember(key, now, noted)
        if noted is not None:
            self._since.pop(key, None)  # when a worker removes the note, counting begins again
            if (
                self._disable_after
                and self._is_spread(key, noted, now, events)
                and now - noted >= self._disable_after
                and self._handled.get(key) != noted
            ):
                self._handle(key, noted)
                reason = f"every attempt failed for {_days(now - noted)}"
                self.disable(endpoint, reason, now, now - self._disable_after, quietly=quietly)
            return
        since = self._since.get(key)
        if since is None:
            if len(self._since) >= MOST:
                oldest = next(iter(self._since))
                if now - self._since[oldest] < STALE:
                    return
                del self._since[oldest]
            self._since[key] = now
        elif now - since >= NOTE_AFTER:
            self._since[key] = now  # another worker's success may remove the note before this worker sees it
            self._since.move_to_end(key)
            if key in self._noting:
                return
            self._noting.add(key)
            at = max(since, now - OLDEST_NOTE * self._disable_after) if self._disable_after else since
            self._notes.add(lambda engine: upkeep.failing(engine, key, at), partial(self._noting.discard, key))

    def _remember(self, key: int, now: float, noted: float | None) -> None:
        before = self._failures.get(key)
        # The removal of a note means a success on another worker.
        unnoted_since = now if before is None or before.noted is not None else before.since
        since = unnoted_since if noted is None else noted
        self._failures[key] = _Failure(since, now, noted)
        self._failures.move_to_end(key)
        if len(self._failures) > 2 * MOST:
            self._failures.popitem(last=False)

    def _is_spread(self, key: int, noted: float, now: float, events: Iterable[str]) -> bool:
        evidence = self._evidence.get(key)
        if evidence is None or evidence.noted != noted:
            evidence = self._evidence[key] = _Evidence(noted, set(), set())
            if len(self._evidence) > MOST:
                self._evidence.popitem(last=False)
        self._evidence.move_to_end(key)
        evidence.parts.add(int((now - noted) / self._disable_after * PARTS))
        if len(evidence.events) < EVENTS:
            evidence.events.update(events)
        return len(evidence.parts) >= SPREAD and len(evidence.events) >= EVENTS

    def succeeded(self, endpoint: Endpoint, now: float, *, quietly: bool = False) -> None:
        """An attempt has succeeded. Call it only if `remembers` is true."""
        key = endpoint.subscription_id
        self._since.pop(key, None)
        self._failures.pop(key, None)
        self._evidence.pop(key, None)
        noted = endpoint.failing_since
        if noted is None or self._handled.get(key) == -noted:
            return
        self._handle(key, -noted)
        log.info("subscription recovered", subscription=key, seconds=round(now - noted))
        data = {"subscription_id": key, "url": redact_url(endpoint.url), "failed_for_seconds": round(now - noted)}
        identity = f"recovered-{key}-{round(noted * 1000)}"
        operation = None if quietly else OperationalEvent("subscription.recovered", identity, data)
        self._notes.add(lambda engine: upkeep.recovered(engine, self._group, key, operation))

    def remembers(self, endpoint: Endpoint) -> bool:
        """The endpoint has failed before, so a success must be reported."""
        key = endpoint.subscription_id
        return endpoint.failing_since is not None or key in self._since or key in self._failures

    def failing_since(self, now: float) -> dict[int, float]:
        """Subscriptions of which this worker sees nothing but failures, and since when; the longest first.

        Leaves out subscriptions whose last failure is SHOWN seconds old. Safe to call from another thread.
        """
        failures = [(each.since, key) for key, each in list(self._failures.items()) if now - each.last < SHOWN]
        return {key: since for since, key in sorted(failures)}

    def disable(
        self,
        endpoint: Endpoint,
        reason: str,
        now: float,
        failing_before: float | None = None,
        *,
        quietly: bool = False,
    ) -> None:
        """Disable a subscription: its receiver has answered 410, or it has failed since before `failing_before`."""
        key = endpoint.subscription_id
        self._since.pop(key, None)
        self._failures.pop(key, None)
        if failing_before is None:
            if key in self._disabling:
                return
            self._disabling.add(key)
        log.warning("disabling a subscription", subscription=key, reason=reason)
        data = {"subscription_id": key, "url": redact_url(endpoint.url), "reason": reason}
        identity = f"disabled-{key}-{round(now * 1000)}"
        write = partial(
            upkeep.disable,
            group=self._group,
            subscription_id=key,
            reason=reason,
            operation=None if quietly else OperationalEvent("subscription.disabled", identity, data),
            failing_before=failing_before,
            url=endpoint.url,
        )
        self._notes.add(write, partial(self._disabling.discard, key))

    def _handle(self, key: int, noted: float) -> None:
        self._handled[key] = noted
        self._handled.move_to_end(key)
        if len(self._handled) > MOST:
            self._handled.popitem(last=False)


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days"
