"""The database kept tidy: rows follow their subscriptions, keys stay in order, what nobody needs any more goes."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Engine

from consumer.database import DatabaseThread
from consumer.event import Place
from consumer.ledger import due, operations, ordering, upkeep
from consumer.trouble import Trouble

log = structlog.get_logger(__name__)

SLICE = 0.2  # seconds of one job, and the step that is under way then: deliveries wait to be stored meanwhile
PRUNED = 1000  # rows in one transaction

Mark = int | str | None
# Takes a short step, from where its last one ended (None: from the start). Says where it ended; None: all is done.
Chore = Callable[[Any], Mark]


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
        self._reached: Mark = None  # by the first of them
        self._waiting = 0
        self._counted: Callable[[int], None] | None = None
        self._trouble = Trouble(monotonic)

    @property
    def fault(self) -> str | None:
        """Why the chores are not done, for /readyz."""
        return self._trouble.fault

    def begin(
        self,
        places: Collection[Place],
        marks: Mapping[Place, int],
        counted: Callable[[int], None],
        *,
        leads: bool,
    ) -> None:
        """Do everything once, unless the last time is not over yet.

        `places` are the partitions whose stored deliveries are this worker's; `marks` the offsets below which a restart
        asks for nothing. What is not a partition's, but all workers' alike, is done by the one that `leads`: there
        `counted` is told how many deliveries of the group wait for their time or turn, on the loop.
        """
        if self._chores or self._running:
            return
        now = self._clock()
        self._counted = counted if leads else None
        if leads:
            self._chores += (partial(self._reconcile, now), partial(self._expire, now))
        self._chores.extend(partial(self._mend, place, now) for place in places)
        self._chores.extend(partial(self._prune, place, mark) for place, mark in marks.items())
        if leads:
            self._chores.append(self._count)

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
            self._reached = self._chores[0](self._reached)
            if self._reached is None:
                self._chores.popleft()
            if time.monotonic() >= end:
                break
        return len(self._chores)

    def _done(self, left: int | Exception) -> None:
        self._running = False
        if self._trouble.judge(left, "could not tidy the stored deliveries") and not left and self._counted:
            self._counted(self._waiting)

    def _reconcile(self, now: float, after: int | None) -> Mark:
        return upkeep.reconcile(self._engine, now, upkeep.FIRST if after is None else after).end

    def _expire(self, now: float, _after: Mark) -> Mark:
        dropped = operations.expire(self._engine, self._group, now - operations.KEPT)
        if dropped:
            log.error("operational events were dropped, their topic took none for a week", number=dropped)
        return dropped or None

    def _mend(self, place: Place, now: float, after: str | None) -> Mark:
        return ordering.mend(self._engine, self._group, *place, now, after or ordering.FIRST).end

    def _prune(self, place: Place, mark: int, _after: Mark) -> Mark:
        pruned = upkeep.prune(self._engine, self._group, *place, mark, PRUNED)
        return pruned if pruned == PRUNED else None

    def _count(self, _after: Mark) -> Mark:
        self._waiting = 0
        for topic, highest in due.open_topics(self._engine, self._group):
            self._chores.extend(partial(self._count_in, (topic, number)) for number in range(highest + 1))
        return None

    def _count_in(self, place: Place, _after: Mark) -> Mark:
        self._waiting += upkeep.waiting(self._engine, self._group, *place)
        return None
