"""Subscriptions whose every attempt fails: noted after a minute, disabled after days, cleared by one success.

The note (`failing_since`) is in the database, where all workers see it. The note alone disables nothing: this worker
must have seen failures of several events, spread over the time since then.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage
from consumer.database.job import Backoff, ThreadJob
from consumer.http.urls import redact_url
from consumer.ledger import upkeep
from consumer.ledger.rows import OperationalEvent
from consumer.loop.part import Part
from consumer.subscriptions.endpoint import Endpoint

log = structlog.get_logger(__name__)
T = TypeVar("T")

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

LONGEST_BACK_OFF = 60.0  # seconds, of one note
FAILED = "could not write a subscription's new state, or an operational event"


@dataclass(slots=True, eq=False)
class _Note:
    write: Callable[[Engine], object]
    on_written: Callable[[], object]
    backoff: Backoff


class Notes(Part):
    """Writes what no record waits for: a subscription is failing, recovered or disabled, an event says so.

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
    """The failures that this worker has seen. Times are unix seconds; a `disable_after` of 0 never disables."""

    def __init__(self, notes: Notes, group: str, disable_after: float) -> None:
        self._notes = notes
        self._group = group
        self._disable_after = disable_after
        self._unnoted = OrderedDict[int, _Failures]()  # the one that has been counted for the longest time first
        self._noted = OrderedDict[int, _Failures]()  # the earliest last failure first
        self._writing: set[tuple[str, int]] = set()  # a locked row takes as many minutes as its lock
        self._handled = OrderedDict[int, float]()  # the note that a success (negative) or disabling has ended

    def failed(self, endpoint: Endpoint, now: float, events: Iterable[str], *, quietly: bool = False) -> None:
        """An attempt at these events (webhook ids) has failed.

        `quietly` publishes no operational event, because the attempt was to deliver one.
        """
        key, noted = endpoint.subscription_id, endpoint.failing_since
        if noted is None:
            self._count(key, now)
            return
        self._unnoted.pop(key, None)  # when a worker removes the note, counting begins again
        if (
            self._is_spread(key, noted, now, events)
            and now - noted >= self._disable_after
            and self._handled.get(key) != noted
        ):
            _keep(self._handled, key, noted)
            reason = f"every attempt failed for {(now - noted) / 86400:.1f} days"
            self.disable(endpoint, reason, now, now - self._disable_after, quietly=quietly)

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
            at = max(since, now - OLDEST_NOTE * self._disable_after) if self._disable_after else since
            self._write("failing", key, lambda engine: upkeep.failing(engine, key, at))

    def _is_spread(self, key: int, noted: float, now: float, events: Iterable[str]) -> bool:
        """Note a failure after a note. True if there were enough of them here to disable the subscription."""
        failures = self._noted.get(key)
        if failures is None or failures.since != noted:
            failures = _Failures(noted, now, noted)
        failures.last = now
        _keep(self._noted, key, failures)
        if not self._disable_after:
            return False
        failures.parts.add(int((now - noted) / self._disable_after * PARTS))
        if len(failures.events) < EVENTS:
            failures.events.update(events)
        return len(failures.parts) >= SPREAD and len(failures.events) >= EVENTS

    def succeeded(self, endpoint: Endpoint, now: float, *, quietly: bool = False) -> None:
        """An attempt has succeeded. Call it only if `remembers` is true."""
        key = endpoint.subscription_id
        self._unnoted.pop(key, None)
        self._noted.pop(key, None)
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
        return endpoint.failing_since is not None or key in self._unnoted or key in self._noted

    def failing_since(self, now: float) -> dict[int, float]:
        """Subscriptions of which this worker sees nothing but failures, and since when; the longest first.

        Leaves out subscriptions whose last failure is SHOWN seconds old. Safe to call from another thread.
        """
        found = dict([*list(self._noted.items()), *list(self._unnoted.items())])
        shown = [(each.since, key) for key, each in found.items() if now - each.last < SHOWN]
        return {key: since for since, key in sorted(shown)}

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
        self._unnoted.pop(key, None)
        self._noted.pop(key, None)
        what = "gone" if failing_before is None else "failed"  # a note that it has failed may come to nothing
        if (what, key) in self._writing:  # every open request may get the same answer
            return
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
        self._write(what, key, write)

    def _write(self, what: str, key: int, write: Callable[[Engine], object]) -> None:
        if (what, key) not in self._writing:
            self._writing.add((what, key))
            self._notes.add(write, partial(self._writing.discard, (what, key)))


def _keep(kept: OrderedDict[int, T], key: int, value: T) -> None:
    """Keep MOST values, the last ones."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MOST:
        kept.popitem(last=False)
