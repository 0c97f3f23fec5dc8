"""The loop: from records to committed offsets, in one thread that owns all state.

    source.poll -> decode -> catalog -> lanes -> transport -> outcome -> settled -> source.commit
                     |                                          |
                dead letters                          retry in memory, or parking (database)

An offset is settled when each of its deliveries has been delivered or stored, when its record is in the dead-letter
topic, or when nobody subscribed. Nothing else moves it; `source.commit` commits what is settled.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from consumer.database.engine import DatabaseThread
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.notes import Notes
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.errors import FatalKafkaError
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import Partition
from consumer.intake.source import Source
from consumer.intake.topics import Topics, TopicWatch
from consumer.matching.budget import Budget
from consumer.matching.catalog import Catalog
from consumer.matching.inbox import Inbox
from consumer.sending.adapter import LoopAdapter
from consumer.sending.event_loop import Poller
from consumer.telemetry.metrics import Readings
from consumer.worker.clock import ClockWatch
from consumer.worker.dispatch import Dispatch
from consumer.worker.handover import STORE_DRAIN, Handover
from consumer.worker.housekeeping import Housekeeping, Unasked
from consumer.worker.ownership import Ownership
from consumer.worker.polling import IDLE_WAIT, Polling
from consumer.worker.relay import OutboxRelay
from consumer.worker.takeover import SLOW_DATABASE, Takeover

log = structlog.get_logger(__name__)

COMMIT_EVERY = 0.25  # seconds
COMMIT_RECORDS, COMMIT_REST = 256, 0.01  # settled records after which it is done earlier; seconds, below which never
LOOK_EVERY = 1.0  # seconds between two looks at clocks and shares
FIRST_TIDY, TIDY_EVERY = 5.0, 60.0  # seconds
REVOKE_DRAIN = 5.0  # seconds for requests in flight inside a rebalance, which all members wait for
REVOKE_PART = 0.7  # of the time that the group waits: who takes longer is thrown out, and can commit nothing
LEAVE_DATABASE = 1.0  # seconds for a statement that still runs: what it stores counts as not settled


def is_commit_due(since: float, moved: Callable[[], int]) -> bool:
    """Whether to commit, `since` seconds after the last commit. `moved` counts the records settled since then."""
    return since >= COMMIT_EVERY or (since >= COMMIT_REST and moved() >= COMMIT_RECORDS)


class Parts(NamedTuple):
    """All that a worker is made of, in the order of an event's path; `wiring` makes them."""

    poller: Poller
    source: Source
    topics: Topics
    topic_watch: TopicWatch
    polling: Polling
    dead_letters: DeadLetters
    catalog: Catalog
    inbox: Inbox
    budget: Budget
    dispatch: Dispatch
    lanes: Lanes
    memory: Memory
    sender: Sender
    transport: LoopAdapter
    settling: Settling
    parking: Parking
    recall: Recall
    notes: Notes
    relay: OutboxRelay
    ownership: Ownership
    takeover: Takeover
    handover: Handover
    housekeeping: Housekeeping
    clocks: ClockWatch
    threads: Sequence[DatabaseThread]


class Worker:
    """One member of the consumer group. All of it happens in the thread that calls `run`, until `stop`."""

    def __init__(self, parts: Parts, *, drain: float, monotonic: Callable[[], float]) -> None:
        """`drain`: seconds that requests in flight get to end when the worker stops."""
        self.parts = parts
        self.turned_at = monotonic()
        self._drain_seconds = drain
        self._monotonic = monotonic
        self._stopping = self._closing = False
        self._next_look = 0.0
        self._committed_at = -COMMIT_EVERY
        self._next_tidy = monotonic() + FIRST_TIDY
        self._unasked = Unasked()
        self._shared: tuple[frozenset[TopicPartition], int] | None = None  # the state by which limits are shared
        self._committed_until: float | None = None  # what was settled then is; None: all
        self._breakers_open = self._parked = 0  # at the last look, and at the last count

    def stop(self) -> None:
        """Finish what is in flight and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        parts = self.parts
        stored = parts.parking.fault or parts.recall.fault or parts.notes.fault or parts.housekeeping.fault
        faults = (
            parts.source.fault,
            parts.catalog.fault,
            stored,
            parts.takeover.fault,
            parts.dead_letters.fault,
            parts.clocks.fault,
        )
        reasons = [fault for fault in faults if fault]
        since = parts.dispatch.waiting_since
        if not reasons and since is not None and self._monotonic() - since >= SLOW_DATABASE:
            reasons.append(f"database: no answer for {self._monotonic() - since:.0f} s; events wait")
        return reasons

    def readings(self) -> Readings:
        """How things stand. Safe to call from another thread."""
        parts = self.parts
        owned = list(parts.source.partitions.items())
        return Readings(
            in_flight=parts.lanes.slots.in_flight,
            parked=self._parked,
            breaker_open=self._breakers_open,
            set_aside=parts.parking.set_aside,
            expressions_left_out=len(list(parts.budget)),
            commits=parts.source.commits_total,
            connections_opened=parts.transport.connections_opened,
            retention_overtaken=parts.source.overtaken_total,
            lag={place: partition.lag for place, partition in owned if partition.lag is not None},
        )

    def run(self) -> None:
        """Consume until `stop`. FatalKafkaError when librdkafka cannot go on: start a new process.

        Whatever else is raised, the group is left before: else its other members would wait for the partitions until
        the session times out.
        """
        try:
            while not self._stopping:
                self._run_once()
            self._close()
        except FatalKafkaError:  # the broker takes no more requests of this consumer: there is nothing to leave
            raise
        except Exception:
            if not self._closing:
                self._closing = True
                self.parts.source.close()
            raise

    def _run_once(self) -> None:
        parts = self.parts
        parts.polling.poll(idle=self._idle())  # 1. Records become events, or dead letters.
        parts.dispatch.go_on()
        self._tick(self._poll_timeout())
        parts.recall.look(parts.ownership.places)
        parts.relay.turn()
        self._maintain()

    # 2. Events become deliveries (`dispatch`), which are sent; results come back as calls of `settling.on_result`.

    def _tick(self, wait: float) -> None:
        parts = self.parts
        self.turned_at = now = self._monotonic()
        parts.lanes.wake(now)
        parts.sender.start()
        parts.poller.turn(wait)
        if self._stopping:  # others may come and go while this one drains
            parts.source.serve()
        parts.parking.pump()
        parts.notes.pump()
        parts.dead_letters.poll()
        if is_commit_due(now - self._committed_at, lambda: parts.source.moved):
            self._committed_at = now
            self._committed_until = parts.source.commit()

    def meanwhile(self, wait: float) -> None:
        """While partitions leave, which may take seconds: what has been read or stored of the others goes on."""
        parts = self.parts
        parts.dispatch.go_on()
        self._tick(0.0 if parts.lanes.ready() or parts.dispatch.pressed else wait)
        if not self._stopping:
            parts.recall.look(parts.ownership.places)

    def _idle(self) -> bool:
        """Nothing but a record can make work, so that the wait may be Kafka's."""
        parts = self.parts
        return not (
            parts.sender.open
            or parts.lanes.ready()
            or parts.source.opening
            or parts.dispatch.busy
            or parts.parking.busy
            or parts.parking.backlog
            or parts.notes.pending
            or parts.recall.busy
            or parts.dead_letters.pending
            or parts.relay.busy
            or parts.lanes.wakes_before(self._monotonic() + IDLE_WAIT)
        )

    def _poll_timeout(self) -> float:
        """Seconds the poller may wait: records do not wake it, so it looks at Kafka again soon after the last ones."""
        parts = self.parts
        if parts.lanes.ready() or parts.dispatch.pressed or self._idle():
            return 0.0
        return 0.001 if self._monotonic() - parts.polling.received_at < 1.0 else 0.005

    # 3. Now and then: the clock, the share of limits, rows that nobody owns, the database kept tidy.

    def _maintain(self) -> None:
        parts = self.parts
        now = self._monotonic()
        parts.catalog.want(())  # what failed is asked for again, though nobody waits for it any more
        parts.housekeeping.go_on()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if (jump := parts.clocks.jump()) is not None:
            log.warning("the system clock was set", seconds=round(jump, 1), meaning=parts.clocks.fault)
        shared = frozenset(parts.source.partitions), parts.topics.revision
        if shared != self._shared:
            self._shared = shared
            parts.lanes.rebound(partial(parts.topics.share, shared[0]))
        self._breakers_open = sum(lane.breaker.open_until is not None for lane in parts.lanes)
        leads = parts.ownership.leads
        if not leads:
            self._parked = 0  # whoever leads shows what the group has: so over workers both sum and maximum do
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_EVERY
            parts.housekeeping.begin(parts.ownership.places(), self._unasked_below(now), self._counted, leads=leads)
            parts.parking.ask_again()
            if not leads and parts.ownership.adopted:  # there is a lower topic now, and whoever owns it leads
                parts.handover.drain((), parts.ownership.released(), REVOKE_DRAIN)

    def _unasked_below(self, now: float) -> dict[TopicPartition, int]:
        """Offsets below which no restart asks for deliveries."""
        found = {place: partition.tracker.low_water_mark for place, partition in self.parts.source.partitions.items()}
        marks = {place: mark for place, mark in found.items() if mark is not None}
        return self.parts.ownership.unasked() | self._unasked.below(marks, self._committed_until, now)

    def _counted(self, waiting: int, topics: Collection[TopicPartition]) -> None:
        self._parked = waiting
        self.parts.ownership.adopt(topics)

    # 4. Partitions come and go. One that stops takes no more: what it began with them it would cut off.

    def assigned(self, partitions: Sequence[Partition]) -> None:
        if not self._stopping:
            self.parts.takeover.assigned(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        parts = self.parts
        if not self._closing:
            longest = REVOKE_PART * parts.source.rebalance_timeout
            seconds, until = min(REVOKE_DRAIN, self._drain_seconds, longest / 2), self._monotonic() + longest
            parts.handover.drain(partitions, parts.ownership.released(partitions), seconds, until)
            parts.handover.await_writes(partitions, until)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.parts.handover.lose(partitions, self.parts.ownership.released(partitions))

    def _close(self) -> None:
        parts = self.parts
        log.info("stopping", in_flight=len(parts.sender.open), seconds=self._drain_seconds)
        parts.source.pause()
        partitions = list(parts.source.partitions.values())
        parts.handover.drain(partitions, parts.ownership.released(partitions), self._drain_seconds)
        end = self._monotonic() + STORE_DRAIN
        while parts.notes.pending and self._monotonic() < end:
            self._tick(0.01)
        parts.source.commit_now(partitions)
        self._closing = True
        parts.ownership.close()
        parts.source.close()
        parts.topic_watch.close()
        parts.relay.close()
        parts.dead_letters.close()
        for thread in parts.threads:
            thread.close(LEAVE_DATABASE)
        parts.transport.close()
        parts.poller.close()
