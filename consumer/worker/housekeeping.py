"""Keeps the database tidy: rows follow changed subscriptions, keys stay in order, unneeded rows are deleted.

Each job has its own back-off, and the others go on: a locked row in one partition does not stop work on the others.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import structlog
from sqlalchemy import Engine

from consumer.database.engine import DatabaseThread
from consumer.database.errors import is_outage, translated
from consumer.database.job import Backoff, ThreadJob
from consumer.errors import RowsRefused
from consumer.events.event import TopicPartition
from consumer.ledger import assigned, cursors, given_up, marks, ordering, outbox, pauses, replays, upkeep
from consumer.ledger.cursors import KeptCursor
from consumer.loop.part import Part
from consumer.subscriptions import tls
from consumer.worker.ownership import NO_LOG

log = structlog.get_logger(__name__)

SLICE = 0.2  # seconds of one slice, which finishes the step that is under way
PRUNED = 1000  # rows in one transaction
LONGEST_BACK_OFF = 60.0  # seconds, of a job that fails while others succeed
RECONCILE = "rows of changed subscriptions"
LOOK_AT_CERTIFICATES = 3600.0  # seconds between two checks
PURGE_EVERY = 3600.0  # seconds between two passes over all rows
MOST_CERTIFICATES = 20  # the first to expire
BEFORE_ALL = -1  # no partition has a lower number

# Called with the number of the group's deliveries that wait for their time or turn, and with the partitions that have
# rows, of the topics that have open or delivered rows.
Counted = Callable[[int, Collection[TopicPartition]], None]

# Takes a short step from where the last one ended (None: from the start). Returns where it ended; None: done.
Step = Callable[[Any], Any]


def _nothing() -> None:
    """Most jobs leave nothing to do on the loop."""


@dataclass(slots=True, eq=False)
class _Job:
    """A job with its progress; `on_done` is called on the loop.

    While a slice runs, `reached`, `done` and `error` belong to the database thread.
    """

    name: str
    step: Step
    backoff: Backoff
    on_done: Callable[[], object]
    reached: Any = None
    done: bool = False
    error: Exception | None = None  # raised in the last slice


class Housekeeping(Part):
    """Runs jobs in slices, between the other work of their database thread, until all are done.

    `expiring`: the subscriptions' certificates that expire first, in that order, as of the leader's last check.
    `paused`: the number of subscriptions that failures have paused, as of the leader's last round.
    """

    def __init__(
        self,
        engine: Engine,
        thread: DatabaseThread,
        group: str,
        give_up: Callable[[Sequence[KeptCursor], str], object],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        *,
        publishes: bool = False,
        keep: float | None = None,
    ) -> None:
        """`give_up` deletes cursors whose topic is gone, and reports what they owed.

        `publishes`: deliveries that are given up go to a topic. `keep`: seconds after which rows are deleted that are
        exhausted and published; None: never.
        """
        self._engine, self._group, self._publishes, self._keep = engine, group, publishes, keep
        self._give_up = give_up
        self._gone: dict[TopicPartition, list[KeptCursor]] = {}  # set by the database thread
        self._clock, self._monotonic = clock, monotonic
        self._jobs: dict[str, _Job] = {}  # unfinished jobs by name, the next one first
        self._asked: Callable[[], None] | None = None  # the round that begins when no slice runs
        self._waiting = 0  # like the next two, set by the database thread and read when the job is done
        self._stored: list[TopicPartition] = []
        self._with_rows: set[TopicPartition] = set()
        self.expiring: tuple[tls.Expiry, ...] = ()  # empty in a worker that does not lead
        self._expiries: list[tls.Expiry] = []  # of the check that is under way, on the database thread
        self.paused = 0  # likewise
        self._now_paused = 0  # of the count that is under way
        self._next_look = self._next_purge = monotonic()
        self._refused: dict[int, str] = {}  # by subscription, in the pass that is under way; on the database thread
        self._unchanged: str | None = None  # why the last pass could not change some rows
        self._slices = ThreadJob[None](thread.submit, "could not tidy the stored deliveries", monotonic)

    @property
    def pending(self) -> bool:
        """Jobs that were begun are not done."""
        return bool(self._jobs or self._asked)

    @property
    def fault(self) -> str | None:
        """Why jobs are not done, for /readyz: an outage, else the error of the first job that failed."""
        jobs = list(self._jobs.values())
        own = (f"{job.backoff.fault} ({job.name})" for job in jobs if job.backoff.fault is not None)
        return self._slices.fault or next(own, None) or self._unchanged

    @property
    def backoff(self) -> float:
        """Seconds that the housekeeping pauses after an error; 0 after a success."""
        return self._slices.backoff

    def begin(
        self,
        partitions: Collection[TopicPartition],
        marks: Mapping[TopicPartition, int],
        counted: Counted,
        *,
        leads: bool,
    ) -> None:
        """Begin all jobs, once the slice that runs has ended. Unfinished jobs continue, and are not begun again.

        This worker sends the stored deliveries of `partitions`; `marks` are the offsets below which a restart reads no
        rows. Partitions without rows get no jobs. Only a worker that `leads` does the jobs of the whole group, and
        calls `counted`, on the loop.
        """
        self._asked = partial(self._begin, partitions, marks, counted if leads else None)

    def _begin(
        self, partitions: Collection[TopicPartition], marks: Mapping[TopicPartition, int], counted: Counted | None
    ) -> None:
        here = {partition: self._jobs_of(partition, partitions, marks) for partition in {*partitions, *marks}}
        jobs: list[_Job] = []
        if counted is None:
            self.expiring, self._next_look, self._unchanged, self.paused = (), 0.0, None, 0
        else:
            jobs += [
                self._job(RECONCILE, self._reconcile, self._reconciled),
                self._job("old operational events", self._expire),
                self._job("old marks", self._forget_marks),
                self._job("replays that have ended", self._finish_replays),
                self._job("count of waiting deliveries", self._count, lambda: counted(self._waiting, self._stored)),
                self._job("count of paused subscriptions", self._count_paused, self._paused_counted),
            ]
            if self._publishes and self._monotonic() >= self._next_purge:
                purge = partial(self._purge, None if self._keep is None else self._clock() - self._keep)
                jobs.append(self._job("exhausted rows", purge, self._purged))
            if self._monotonic() >= self._next_look:
                jobs.append(self._job("certificates that expire", self._look_at_certificates, self._looked))
        if here:
            find = partial(self._find, frozenset(here))
            jobs.append(self._job("partitions with rows", find, lambda: self._found(here)))
        begun = {job.name: job for job in chain(jobs, *here.values())}
        unfinished = {name: job for name, job in self._jobs.items() if name in begun}
        for name, job in unfinished.items():  # for the partitions and marks of now
            job.step, job.on_done = begun[name].step, begun[name].on_done
        self._jobs = {job.name: job for job in jobs} | unfinished

    def _job(self, name: str, step: Step, on_done: Callable[[], object] = _nothing) -> _Job:
        return _Job(name, step, Backoff(self._monotonic, longest=LONGEST_BACK_OFF), on_done)

    def _jobs_of(
        self, partition: TopicPartition, partitions: Collection[TopicPartition], marks: Mapping[TopicPartition, int]
    ) -> list[_Job]:
        shown = f"{partition[0]}[{partition[1]}]"
        jobs: list[_Job] = []
        if partition in partitions:
            jobs.append(self._job(f"order of keys in {shown}", partial(self._mend, partition)))
        if partition in marks:
            jobs.append(self._job(f"delivered rows of {shown}", partial(self._prune, partition, marks[partition])))
        if marks.get(partition) == NO_LOG:
            give_up = partial(self._give_up_gone, partition)
            jobs.append(self._job(f"cursors of {shown}", partial(self._find_gone, partition), give_up))
        return jobs

    def _found(self, here: Mapping[TopicPartition, Sequence[_Job]]) -> None:
        for job in chain.from_iterable(here[partition] for partition in sorted(self._with_rows)):
            self._jobs.setdefault(job.name, job)

    def poll(self, _now: float) -> None:
        """Start the next slice, if there are jobs and the last slice has ended."""
        if self._asked is not None and not self._slices.busy:  # the jobs of a slice belong to the database thread
            asked, self._asked = self._asked, None
            asked()
        if not self._jobs or not self._slices.ready:
            return
        ready = [job for job in self._jobs.values() if job.backoff.ready]
        if ready:
            worked: list[_Job] = []
            self._slices.start(
                partial(_slice, ready, worked),
                lambda _: self._worked(worked),
                lambda _error: self._interrupted(worked, ready[len(worked)]),  # the job after those that worked
            )

    def close(self) -> None:
        """Begin no more slices."""
        self._jobs, self._asked = {}, None

    def _interrupted(self, worked: Sequence[_Job], job: _Job) -> None:
        """An outage has interrupted this job: the next slice begins with another one."""
        self._worked(worked)
        if self._jobs.pop(job.name, None) is not None:
            self._jobs[job.name] = job

    def _worked(self, worked: Sequence[_Job]) -> None:
        for job in worked:
            if self._jobs.pop(job.name, None) is None:
                continue  # closed meanwhile
            error, job.error = job.error, None
            if error is None:
                job.backoff.succeeded()
            else:
                job.backoff.failed(error, f"could not tidy the stored deliveries ({job.name})")
            if job.done:
                job.on_done()
            else:
                self._jobs[job.name] = job  # at the end, so that the others do not wait for it

    def _find(self, partitions: Collection[TopicPartition], _after: object) -> None:
        self._with_rows = assigned.with_rows(self._engine, self._group, partitions)

    def _reconcile(self, after: int | None) -> int | None:
        if after is None:
            self._refused = {}
            after = upkeep.FIRST
        try:
            return upkeep.reconcile(self._engine, self._clock(), after, self._refused).end
        except RowsRefused as error:  # a locked row costs half a minute: once in a pass, and other jobs go between
            self._refused[error.subscription_id] = str(error)
            return after

    def _reconciled(self) -> None:
        """A pass has ended: report the subscriptions whose rows could not be changed. The next pass tries again."""
        self._unchanged = None
        if self._refused:
            subscription, error = next(iter(self._refused.items()))
            more = f" and {len(self._refused) - 1} more" if len(self._refused) > 1 else ""
            self._unchanged = f"database: {error} ({RECONCILE}: {subscription}{more})"
            log.error("rows of changed subscriptions cannot be changed; tried again in a minute", refused=self._refused)

    def _expire(self, _after: object) -> int | None:
        dropped = outbox.expire(self._engine, self._group, self._clock() - outbox.KEPT)
        if dropped:
            log.error("operational events were dropped: Kafka stored none of them for a week", number=dropped)
        return dropped or None

    def _purge(self, before: float | None, after: int | None) -> int | None:
        ids = upkeep.next_exhausted(self._engine, upkeep.FIRST if after is None else after)
        if ids is None:
            return None
        try:
            given_up.owe(self._engine, self._group, *ids)
            if before is not None:
                given_up.purge(self._engine, self._group, before, *ids)
        except Exception as error:
            if is_outage(translated(error)):
                raise  # tried again from here
            log.exception("exhausted rows cannot be changed or deleted; tried again in an hour", ids=ids)
        return ids[1]

    def _purged(self) -> None:
        self._next_purge = self._monotonic() + PURGE_EVERY

    def _forget_marks(self, _after: object) -> None:
        marks.expire(self._engine, self._group, self._clock() - marks.KEPT)

    def _finish_replays(self, _after: object) -> None:
        replays.finish(self._engine, self._clock())

    def _look_at_certificates(self, after: int | None) -> int | None:
        found, rest = tls.expiries_after(self._engine, tls.FIRST if after is None else after)
        before = [] if after is None else self._expiries
        self._expiries = sorted([*before, *found], key=lambda expiry: expiry.not_after)[:MOST_CERTIFICATES]
        return rest

    def _count_paused(self, _after: object) -> None:
        self._now_paused = pauses.count(self._engine)

    def _paused_counted(self) -> None:
        self.paused = self._now_paused

    def _looked(self) -> None:
        self.expiring, self._next_look = tuple(self._expiries), self._monotonic() + LOOK_AT_CERTIFICATES

    def _mend(self, partition: TopicPartition, after: str | None) -> str | None:
        return ordering.repair(self._engine, self._group, *partition, self._clock(), after or ordering.FIRST).end

    def _prune(self, partition: TopicPartition, mark: int, after: object) -> int | None:
        if after is None:
            marks.prune(self._engine, self._group, *partition, mark)
            cursors.prune(self._engine, self._group, partition, mark)
        pruned = upkeep.prune(self._engine, self._group, *partition, mark, PRUNED)
        return pruned if pruned == PRUNED else None

    def _find_gone(self, partition: TopicPartition, _after: object) -> None:
        self._gone[partition] = cursors.of_partition(self._engine, self._group, partition)

    def _give_up_gone(self, partition: TopicPartition) -> None:
        self._give_up(self._gone.pop(partition), "the topic was deleted")

    def _count(self, at: tuple[Sequence[str], int] | None) -> tuple[Sequence[str], int] | None:
        """Count one partition per step; `at`: the topics that are left, and the partition of the first counted last."""
        if at is None:
            self._waiting, self._stored = 0, []
            at = assigned.open_topics(self._engine, self._group), BEFORE_ALL
        topics, last = at
        if not topics:
            return None
        number = assigned.next_partition(self._engine, self._group, topics[0], last)
        if number is None:
            return (topics[1:], BEFORE_ALL) if topics[1:] else None
        self._waiting += upkeep.waiting(self._engine, self._group, topics[0], number)
        self._stored.append((topics[0], number))
        return topics, number


def _slice(jobs: Sequence[_Job], worked: list[_Job]) -> None:
    """Run jobs in turn, on the database thread, for SLICE seconds. `worked` gets the jobs that made a step or failed.

    Raises the error of an outage, in which no job would get further.
    """
    end = time.monotonic() + SLICE
    for job in jobs:
        try:
            while not job.done:
                job.reached = job.step(job.reached)
                job.done = job.reached is None
                if time.monotonic() >= end:
                    break
        except Exception as error:
            cause = translated(error)
            if is_outage(cause):
                raise
            job.error = cause
        worked.append(job)
        if job.error is not None or time.monotonic() >= end:
            return
