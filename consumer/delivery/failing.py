"""Subscriptions whose every attempt fails: noted after a minute, paused after days, cleared by one success.

The note (`failing_since`) is in the database, where all workers see it. The note alone pauses nothing: this worker
must have seen failures of several events, spread over the time since then.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage
from consumer.database.job import Backoff, ThreadJob
from consumer.http.urls import redact_url
from consumer.ledger import pauses, upkeep
from consumer.ledger.rows import OperationalEvent
from consumer.loop.part import Part
from consumer.subscriptions.endpoint import Endpoint

log = structlog.get_logger(__name__)
T = TypeVar("T")

NOTE_AFTER = 60.0  # seconds of nothing but failures
# The earliest time noted, as a fraction of the time after which it pauses. A subscription that failed here long ago
# may have succeeded on another worker since, or the clock was set. Any success on any worker removes the note.
OLDEST_NOTE = 0.5
# The time until a subscription is paused has PARTS parts. This worker must have seen failures in SPREAD parts, and of
# EVENTS events.
PARTS = 5
SPREAD = 3
EVENTS = 3
MOST = 100_000  # subscriptions remembered between first failure and note, and as many that are noted
# Seconds without a note after which a subscription makes room for another one, if there are MOST. A receiver that is
# down is tried about once a minute, so it is noted, and forgotten here, within four minutes.
STALE = 600.0
SHOWN = 900.0  # seconds for which a subscription is shown after a failure; a Retry-After keeps a breaker open for 600

LONGEST_BACK_OFF = 60.0  # seconds, of one note
FAILED = "could not write a subscription's new state, or an operational event"


@dataclass(slots=True, eq=False)
class _Note:
    write: Callable[[Engine], object]
    on_written: Callable[[], object]
    backoff: Backoff


class Notes(Part):
    """Writes what no record waits for: a subscription is failing, recovered, paused or disabled, an event says so.

    Notes are written one at a time, on a thread for which storing does not wait. A note that the database refuses, or
    whose row is locked, has its own back-off, and the others go on. Used on the loop's thread.
    """

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        monotonic: Callable[[], float],
        on_operation: Callable[[], None],
    ) -> None:
        """`on_operation` is called when an operational event may have been written."""
        self._engine, self._monotonic = engine, monotonic
        self._on_operation = on_operation
        self._notes: deque[_Note] = deque()  # without the note that is being written
        self.writes = ThreadJob[object](thread.submit, FAILED, monotonic, backs_off=is_outage)

    @property
    def pending(self) -> int:
        """How many notes are not yet written; a stop loses them."""
        return len(self._notes) + self.writes.busy

    @property
    def fault(self) -> str | None:
        """Why a note is not written, for /readyz."""
        own = (note.backoff.fault for note in list(self._notes) if note.backoff.fault is not None)
        return self.writes.fault or next(own, None)

    def add(self, write: Callable[[Engine], object], on_written: Callable[[], object] = lambda: None) -> None:
        """`write` gets the engine, on the database thread, and may be called again; then `on_written`, on the loop."""
        self._notes.append(_Note(write, on_written, Backoff(self._monotonic, longest=LONGEST_BACK_OFF)))

    @property
    def writable(self) -> bool:
        """A note is being written, or may be at once: a stop waits for it."""
        return self.writes.busy or any(note.backoff.ready for note in self._notes)

    @property
    def busy(self) -> bool:
        """Notes are pending."""
        return self.pending > 0

    def poll(self, _now: float) -> None:
        """Start to write the next note, unless one is under way."""
        if not self.writes.ready:
            return
        for note in self._notes:
            if note.backoff.ready:
                self._notes.remove(note)
                self.writes.start(
                    partial(note.write, self._engine), partial(self._written, note), partial(self._failed, note)
                )
                return

    def _written(self, note: _Note, _answer: object) -> None:
        note.backoff.succeeded()
        note.on_written()
        self._on_operation()

    def _failed(self, note: _Note, error: Exception) -> None:
        if is_outage(error):
            self._notes.appendleft(note)
        else:
            note.backoff.failed(error, FAILED)
            self._notes.append(note)


@dataclass(slots=True)
class _Failures:
    """Nothing but failures from `since` to `last`.

    Until the subscription is noted, a note is written when `counted_from` is a minute old. After that, `parts` are the
    parts of the time in which attempts failed here, and `events` a few of their webhook ids.
    """

    since: float
    last: float
    counted_from: float
    parts: set[int] = field(default_factory=set)
    events: set[str] = field(default_factory=set)


class Failing:
    """The failures that this worker has seen. Times are unix seconds; a `pause_after` of 0 never pauses."""

    def __init__(self, notes: Notes, group: str, pause_after: float) -> None:
        self._notes = notes
        self._group = group
        self._pause_after = pause_after
        self._unnoted = OrderedDict[int, _Failures]()  # the one that has been counted for the longest time first
        self._noted = OrderedDict[int, _Failures]()  # the earliest last failure first
        self._writing: set[tuple[str, int]] = set()  # a locked row takes as many minutes as its lock
        self._handled = OrderedDict[int, float]()  # the note that a success (negative) or a pause has ended
        self._probed = OrderedDict[int, datetime]()  # since when the subscriptions are paused that this worker probes

    def failed(self, endpoint: Endpoint, now: float, events: Iterable[str], *, quietly: bool = False) -> None:
        """An attempt at these events (webhook ids) has failed.

        `quietly` publishes no operational event, because the attempt was to deliver one.
        """
        key, noted = endpoint.subscription_id, endpoint.failing_since
        if endpoint.paused:
            self._probed.pop(key, None)
            return
        if noted is None:
            self._count(key, now)
            return
        self._unnoted.pop(key, None)  # when a worker removes the note, counting begins again
        if (
            self._is_spread(key, noted, now, events)
            and now - noted >= self._pause_after
            and self._handled.get(key) != noted
        ):
            _keep(self._handled, key, noted)
            reason = f"every attempt failed for {(now - noted) / 86400:.1f} days"
            pause = partial(pauses.pause, now=now, failing_before=now - self._pause_after)
            told = OperationalEvent("subscription.paused", f"paused-{key}-{round(now * 1000)}", _why(endpoint, reason))
            self._stop(endpoint, pause, None if quietly else told, reason, "pausing a subscription")

    def _count(self, key: int, now: float) -> None:
        """Count a failure of a subscription without a note, and write the note after a minute."""
        failures = self._unnoted.get(key)
        if failures is None:
            if len(self._unnoted) >= MOST:
                oldest = next(iter(self._unnoted))
                if now - self._unnoted[oldest].counted_from < STALE:
                    return
                del self._unnoted[oldest]
            self._unnoted[key] = _Failures(now, now, now)
            return
        failures.last, since = now, failures.counted_from
        if now - since >= NOTE_AFTER:
            failures.counted_from = now  # another worker's success may remove the note before this worker sees it
            self._unnoted.move_to_end(key)
            at = max(since, now - OLDEST_NOTE * self._pause_after) if self._pause_after else since
            self._write("failing", key, lambda engine: upkeep.failing(engine, key, at))

    def _is_spread(self, key: int, noted: float, now: float, events: Iterable[str]) -> bool:
        """Note a failure after a note. True if there were enough of them here to pause the subscription."""
        failures = self._noted.get(key)
        if failures is None or failures.since != noted:
            failures = _Failures(noted, now, noted)
        failures.last = now
        _keep(self._noted, key, failures)
        if not self._pause_after:
            return False
        failures.parts.add(int((now - noted) / self._pause_after * PARTS))
        if len(failures.events) < EVENTS:
            failures.events.update(events)
        return len(failures.parts) >= SPREAD and len(failures.events) >= EVENTS

    def succeeded(self, endpoint: Endpoint, now: float, *, quietly: bool = False) -> None:
        """An attempt has succeeded. Call it only if `remembers` is true."""
        key = endpoint.subscription_id
        self._unnoted.pop(key, None)
        self._noted.pop(key, None)
        if (paused_at := self._probed.pop(key, None)) is not None:
            self._resume(endpoint, paused_at, now, quietly=quietly)
            return
        noted = endpoint.failing_since
        if noted is None or self._handled.get(key) == -noted:
            return
        _keep(self._handled, key, -noted)
        log.info("subscription recovered", subscription=key, seconds=round(now - noted))
        data = {"subscription_id": key, "url": redact_url(endpoint.url), "failed_for_seconds": round(now - noted)}
        identity = f"recovered-{key}-{round(noted * 1000)}"
        operation = None if quietly else OperationalEvent("subscription.recovered", identity, data)
        self._notes.add(lambda engine: upkeep.recovered(engine, self._group, key, operation))

    def remembers(self, endpoint: Endpoint) -> bool:
        """The endpoint has failed before, so a success must be reported."""
        key = endpoint.subscription_id
        failed_before = endpoint.failing_since is not None or key in self._unnoted or key in self._noted
        return failed_before or key in self._probed

    def probes(self, subscription_id: int, paused_at: datetime) -> None:
        """This worker is about to probe a subscription that is paused since then: a success resumes it."""
        _keep(self._probed, subscription_id, paused_at)

    def _resume(self, endpoint: Endpoint, paused_at: datetime, now: float, *, quietly: bool) -> None:
        key, seconds = endpoint.subscription_id, round(now - paused_at.timestamp())
        data = {"subscription_id": key, "url": redact_url(endpoint.url), "paused_for_seconds": seconds}
        identity = f"resumed-{key}-{round(paused_at.timestamp() * 1000)}"
        operation = None if quietly else OperationalEvent("subscription.resumed", identity, data)

        def write(engine: Engine) -> None:
            if pauses.resume(engine, self._group, key, paused_at, now, operation):
                log.info("subscription resumed: a probe has succeeded", subscription=key, paused_for_seconds=seconds)

        self._notes.add(write)

    def failing_since(self, now: float) -> dict[int, float]:
        """Subscriptions of which this worker sees nothing but failures, and since when; the longest first.

        Leaves out subscriptions whose last failure is SHOWN seconds old. Safe to call from another thread.
        """
        found = dict([*list(self._noted.items()), *list(self._unnoted.items())])
        shown = [(each.since, key) for key, each in found.items() if now - each.last < SHOWN]
        return {key: since for since, key in sorted(shown)}

    def disable(self, endpoint: Endpoint, reason: str, now: float, *, quietly: bool = False) -> None:
        """Disable a subscription: its receiver has answered 410."""
        key = endpoint.subscription_id
        told = OperationalEvent("subscription.disabled", f"disabled-{key}-{round(now * 1000)}", _why(endpoint, reason))
        self._probed.pop(key, None)
        self._stop(endpoint, upkeep.disable, None if quietly else told, reason, "disabling a subscription")

    def _stop(
        self,
        endpoint: Endpoint,
        write: Callable[..., object],
        operation: OperationalEvent | None,
        reason: str,
        what: str,
    ) -> None:
        key = endpoint.subscription_id
        self._unnoted.pop(key, None)
        self._noted.pop(key, None)
        if (what, key) in self._writing:  # every open request may get the same answer
            return
        log.warning(what, subscription=key, reason=reason)
        mine = {"group": self._group, "subscription_id": key, "reason": reason, "url": endpoint.url}
        self._write(what, key, partial(write, **mine, operation=operation))

    def _write(self, what: str, key: int, write: Callable[[Engine], object]) -> None:
        if (what, key) not in self._writing:
            self._writing.add((what, key))
            self._notes.add(write, partial(self._writing.discard, (what, key)))


def _why(endpoint: Endpoint, reason: str) -> dict[str, object]:
    return {"subscription_id": endpoint.subscription_id, "url": redact_url(endpoint.url), "reason": reason}


def _keep(kept: OrderedDict[int, T], key: int, value: T) -> None:
    """Keep MOST values, the last ones."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST:
        kept.popitem(last=False)
