"""Maintenance: checks the clock and shares limits each second, has the database tidied each minute."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import structlog

from consumer.delivery.lanes import Lanes
from consumer.delivery.parking import Parking
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition
from consumer.intake.source import Source
from consumer.intake.topics import ClusterView
from consumer.loop.part import Part
from consumer.worker.catch_up import CatchUp
from consumer.worker.housekeeping import Housekeeping
from consumer.worker.ownership import Handover, Ownership
from consumer.worker.polling import Polling

log = structlog.get_logger(__name__)

LOOK_EVERY = 1.0  # seconds between two checks of clocks and shares
FIRST_TIDY, TIDY_EVERY = 5.0, 60.0  # seconds
JUMP = 5.0  # seconds between two looks at the clocks that count as a jump; NTP slews by 0.5 ms a second at most
FAULT_SECONDS = 60.0  # for which /readyz reports a jump


class ClockWatch:
    """Notices jumps of the system clock. Call `jump` often: it compares the time since the last call.

    `clock` gives unix seconds, `monotonic` seconds that only go forward. Another thread may read `fault`.
    """

    def __init__(self, clock: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._clock, self._monotonic = clock, monotonic
        self._difference = clock() - monotonic()
        self._jumped: tuple[str, float] | None = None

    def jump(self) -> float | None:
        """Seconds by which the system clock was set forward, or back (negative), since the last call; None if not."""
        now = self._monotonic()
        difference = self._clock() - now
        drift, self._difference = difference - self._difference, difference
        if abs(drift) <= JUMP:
            return None
        way, sent = ("forward", "early") if drift > 0 else ("back", "late")
        meaning = (
            f"the system clock went {way} by {abs(drift):.0f} s: stored deliveries are sent by it and go out {sent}, "
            "receivers may refuse signatures; check NTP"
        )
        self._jumped = meaning, now + FAULT_SECONDS
        return drift

    @property
    def fault(self) -> str | None:
        """The effect of the last jump, for a minute after it was seen."""
        if self._jumped is None:
            return None
        text, until = self._jumped
        return text if self._monotonic() < until else None


class Maintenance(Part):
    """Runs between turns, not in them: it may give adopted rows up, which must not begin inside a rebalance.

    `parked` is the number of the group's deliveries that wait in the database, or 0 if another worker counts them;
    `breakers_open` is the number of open circuit breakers, without those that have had nothing to probe with for long:
    their subscriptions may have been disabled or removed.
    """

    def __init__(
        self,
        source: Source,
        topics: ClusterView,
        lanes: Lanes,
        parking: Parking,
        polling: Polling,
        ownership: Ownership,
        handover: Handover,
        housekeeping: Housekeeping,
        catch_up: CatchUp,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._topics = topics
        self._lanes = lanes
        self._parking = parking
        self._polling = polling
        self._ownership = ownership
        self._handover = handover
        self._housekeeping = housekeeping
        self._catch_up = catch_up
        self._clocks = ClockWatch(clock, monotonic)
        self._next_look = 0.0
        self._next_tidy = monotonic() + FIRST_TIDY
        self._marks: Mapping[TopicPartition, int] = {}  # the low-water marks at the last housekeeping
        self._marks_at = 0.0  # monotonic seconds
        self._begins: dict[AssignedPartition, int] = {}  # of logs, at the last housekeeping
        self._shared: tuple[frozenset[TopicPartition], int] | None = None  # the state by which limits are shared
        self.parked = self.breakers_open = 0

    @property
    def fault(self) -> str | None:
        """A jump of the system clock."""
        return self._clocks.fault

    def run(self, now: float) -> None:
        """Do the maintenance that is due at `now` (monotonic seconds)."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if (jump := self._clocks.jump()) is not None:
            log.warning("the system clock was set", seconds=round(jump, 1), meaning=self._clocks.fault)
        self._share_limits()
        breakers = [lane.breaker for lane in self._lanes if lane.breaker.open_until is not None]
        self.breakers_open = sum(not breaker.idle(now) for breaker in breakers)
        leads = self._ownership.leads()
        if not leads:
            self.parked = 0  # only the leader shows the group's number, so that the sum over workers is right
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_EVERY
            self._housekeeping.begin(
                self._ownership.topic_partitions(), self._unasked_below(now), self._counted, leads=leads
            )
            self._parking.ask_again()
            self._look_for_losses()
            if not leads and self._ownership.adopted:  # a new topic, the first by name, belongs to another worker
                self._handover.release_adopted()

    def _share_limits(self) -> None:
        shared = frozenset(self._source.partitions), self._topics.revision
        if shared != self._shared:
            self._shared = shared
            self._lanes.rebound(partial(self._topics.share, shared[0]))

    def _look_for_losses(self) -> None:
        """Where logs began a minute ago, too: an assignment may begin with what was known of an earlier topic."""
        before = self._begins
        self._begins = {each: each.log[0] for each in self._source.partitions.values()}
        for each, begin in self._begins.items():
            self._catch_up.overtaken(each.topic_partition, min(begin, before.get(each, -1)))

    def _unasked_below(self, now: float) -> dict[TopicPartition, int]:
        """Offsets below which no restart reads stored deliveries: low-water marks that have been committed."""
        until = self._polling.committed_until  # None: all that is settled is committed
        before = self._marks if until is None or until >= self._marks_at else {}
        self._marks_at, self._marks = (
            now,
            {
                topic_partition: mark
                for topic_partition, partition in self._source.partitions.items()
                if (mark := partition.tracker.low_water_mark) is not None
            },
        )
        committed = {each: min(mark, before[each]) for each, mark in self._marks.items() if each in before}
        return self._ownership.unasked() | committed

    def _counted(self, waiting: int, stored: Collection[TopicPartition]) -> None:
        self.parked = waiting
        self._ownership.adopt(stored)
