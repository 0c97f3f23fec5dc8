"""Probes subscriptions that failures have paused: one owed event now and then shows whether a receiver works again."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.job import ThreadJob
from consumer.delivery.failing import Failing
from consumer.delivery.known_rows import StoredKeys
from consumer.delivery.recall import Recall
from consumer.events.event import TopicPartition
from consumer.ledger import pauses
from consumer.ledger.pauses import Claimed
from consumer.ledger.rows import DueDelivery, DueKey
from consumer.loop.part import Part

LOOK_EVERY = 60.0  # seconds between two looks for probes that are due, or WEBHOOK_RESUME_PROBE if that is shorter
SOON = 1.0  # seconds until the next look, if there are more

Fetch = Callable[[Mapping[int, DueKey], float], list[DueDelivery]]


class _Answer(NamedTuple):
    claimed: Claimed
    rows: Sequence[DueDelivery]


class Probes(Part):
    """Each worker looks for probes that it can make itself: of events of its own partitions, which `partitions` gives.

    `fetch` reads stored deliveries, on the database thread; `from_log` lets the first event of a due key's cursor out.
    A probe is not repeated if it cannot be sent now, or if this process ends: the next one is due after `every` seconds
    (0: there are none).
    """

    def __init__(
        self,
        engine: Engine,
        group: str,
        every: float,
        fetch: Fetch,
        thread: DatabaseThread,
        recall: Recall,
        stored_keys: StoredKeys,
        failing: Failing,
        from_log: Callable[[DueKey, float], None],
        partitions: Callable[[], Collection[TopicPartition]],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine, self._group, self._every = engine, group, every
        self._fetch = fetch
        self._looks = ThreadJob[_Answer](thread.submit, "could not look for subscriptions to probe", monotonic)
        self._recall = recall
        self._stored_keys = stored_keys
        self._failing = failing
        self._from_log = from_log
        self._partitions = partitions
        self._clock = clock
        self._next = monotonic()
        self._after = pauses.FIRST

    @property
    def fault(self) -> str | None:
        """Why looks fail."""
        return self._looks.fault

    def poll(self, now: float) -> None:
        """Look for probes that are due, now and then."""
        if not self._every or now < self._next or not self._looks.ready or not (owned := self._partitions()):
            return
        self._next = now + min(self._every, LOOK_EVERY)
        partitions, clock, after = frozenset(owned), self._clock(), self._after
        reading = self._stored_keys.begin_reading()

        def job() -> _Answer:
            claimed = pauses.claim(self._engine, self._group, partitions, clock, self._every, after)
            rows = {probe.row: probe.due_key for probe in claimed.probes if probe.row is not None}
            return _Answer(claimed, self._fetch(rows, clock))

        def found(answer: _Answer) -> None:
            self._after = pauses.FIRST if answer.claimed.end is None else answer.claimed.end
            if answer.claimed.end is not None:
                self._next = now + SOON
            for probe in answer.claimed.probes:
                self._failing.probes(probe.due_key[2], probe.paused_at)
                if probe.row is None:
                    self._from_log(probe.due_key, now)
            self._recall.send(answer.rows, reading)
            self._stored_keys.end_reading(reading)

        def failed(_error: Exception) -> None:
            self._next = 0.0  # the back-off decides: the worker is not ready until a look succeeds
            self._stored_keys.end_reading(reading)

        self._looks.start(job, found, failed)
