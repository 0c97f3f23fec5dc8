"""The database kept tidy: rows follow their subscriptions, keys stay in order, what nobody needs any more goes."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial

import structlog
from sqlalchemy import Engine

from consumer.database import DatabaseThread
from consumer.ledger import operations, ordering, upkeep
from consumer.trouble import Trouble

log = structlog.get_logger(__name__)

SLICE = 0.2  # seconds of one job, and the transaction that is under way then: deliveries wait to be stored meanwhile
PRUNED = 1000  # rows in one transaction

Place = tuple[str, int]
Chore = Callable[[float], bool]  # works until then (monotonic seconds), or a little longer; whether it is done


class Housekeeping:
    """Chores, done in slices between the other jobs of the database thread, and tried again until they are done."""

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._engine, self._thread, self._group, self._clock = engine, thread, group, clock
        self._chores: deque[Chore] = deque()  # while a slice runs, the database thread's
        self._running = False
        self._waiting = 0
        self._counted: Callable[[int], None] = lambda _: None
        self._trouble = Trouble(monotonic)

    @property
    def fault(self) -> str | None:
        """Why the chores are not done, for /readyz."""
        return self._trouble.fault

    def begin(self, places: Collection[Place], marks: Mapping[Place, int], counted: Callable[[int], None]) -> None:
        """Do everything once, unless the last time is not over yet.

        `places` are the partitions whose stored deliveries are this worker's; `marks` their committed offsets, below
        which a restart asks for nothing. `counted` is told how many deliveries of the group wait for their time or
        turn, on the loop.
        """
        if self._chores or self._running:
            return
        now = self._clock()
        self._counted = counted
        self._chores.extend(
            (
                partial(self._reconcile, now),
                partial(self._expire, now),
                *(partial(self._mend, place, now) for place in places),
                *(partial(self._prune, place, mark) for place, mark in marks.items()),
                self._count,
            )
        )

    def go_on(self) -> None:
        """Start the next slice, if there is something to do and the last one is answered."""
        if self._running or not self._chores or not self._trouble.over:
            return
        self._running = True
        self._thread.submit(self._slice, self._done)

    def _slice(self) -> int:
        """How many chores are left."""
        end = time.monotonic() + SLICE
        while self._chores:
            if self._chores[0](end):
                self._chores.popleft()
            if time.monotonic() >= end:
                break
        return len(self._chores)

    def _done(self, left: int | Exception) -> None:
        self._running = False
        if self._trouble.judge(left, "could not tidy the stored deliveries") and not left:
            self._counted(self._waiting)

    def _reconcile(self, now: float, end: float) -> bool:
        return not any(upkeep.reconcile(self._engine, now, end)) or time.monotonic() < end

    def _expire(self, now: float, _end: float) -> bool:
        if dropped := operations.expire(self._engine, self._group, now - operations.KEPT):
            log.error("operational events were dropped, their topic took none for a week", number=dropped)
        return True

    def _mend(self, place: Place, now: float, _end: float) -> bool:
        ordering.mend(self._engine, self._group, *place, now)
        return True

    def _prune(self, place: Place, mark: int, end: float) -> bool:
        while upkeep.prune(self._engine, self._group, *place, mark, PRUNED) == PRUNED:
            if time.monotonic() >= end:
                return False
        return True

    def _count(self, _end: float) -> bool:
        found = upkeep.counts(self._engine, self._group)
        self._waiting = found["parked"] + found["blocked"]
        return True
