"""The loop: from records to committed offsets, in one thread that owns all state.

    polling ──▶ inbox ──▶ dispatch ──▶ lanes ──▶ sender ──▶ settling ──▶ committer
       │          ▲                      ▲                     │
       ▼       catalog                 recall ◀── database ◀── parking
    dead letters

An offset is settled when each of its deliveries has been delivered or stored, when a filter has refused them or nobody
has subscribed, when its record is in the dead-letter topic, or by an operator's decision. Only settled offsets are
committed.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import structlog

from consumer.database.engine import DatabaseThread
from consumer.delivery.failing import Failing
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
from consumer.loop.part import Part
from consumer.loop.poller import Poller
from consumer.matching.budget import Budget
from consumer.matching.catalog import Catalog
from consumer.matching.inbox import Inbox
from consumer.sending.adapter import LoopAdapter
from consumer.telemetry.metrics import LoopLag, Readings
from consumer.worker.attempt_log import AttemptLog
from consumer.worker.clock import ClockWatch
from consumer.worker.committer import Committer
from consumer.worker.dispatch import Dispatch
from consumer.worker.handover import REVOKE_DRAIN, STORE_DRAIN, Handover
from consumer.worker.housekeeping import Housekeeping
from consumer.worker.maintenance import Maintenance
from consumer.worker.outbox_relay import OutboxRelay
from consumer.worker.ownership import Ownership
from consumer.worker.polling import Polling
from consumer.worker.takeover import Takeover

log = structlog.get_logger(__name__)

REVOKE_PART = 0.7  # of the group's rebalance time-out: a member that takes longer is expelled and cannot commit
LEAVE_DATABASE = 1.0  # seconds for a statement that still runs at the end; its deliveries count as unsettled
# Seconds that the poller waits at most while a part is busy, because records do not wake it: SOON within RECENT seconds
# of the last record, LATER after that.
SOON, LATER, RECENT = 0.001, 0.005, 1.0
MOST_SHOWN = 20  # failing subscriptions that have a metric each


class Parts(NamedTuple):
    """All that a worker is made of; `wiring` constructs it."""

    poller: Poller
    threads: Sequence[DatabaseThread]
    transport: LoopAdapter
    memory: Memory
    lanes: Lanes
    settling: Settling
    inbox: Inbox
    budget: Budget
    topics: Topics
    source: Source
    ownership: Ownership
    handover: Handover
    maintenance: Maintenance
    failing: Failing
    polling: Polling
    takeover: Takeover
    catalog: Catalog
    dispatch: Dispatch
    sender: Sender
    parking: Parking
    notes: Notes
    dead_letters: DeadLetters
    committer: Committer
    recall: Recall
    relay: OutboxRelay
    housekeeping: Housekeeping
    clocks: ClockWatch
    topic_watch: TopicWatch
    attempt_log: AttemptLog | None


class Worker:
    """One member of the consumer group. All of it happens in the thread that calls `run`, until `stop`."""

    def __init__(
        self, parts: Parts, *, drain: float, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        """`drain`: seconds that requests in flight get to end when the worker stops. `clock` gives unix seconds."""
        self.parts = parts
        self.turned_at = monotonic()
        self._in_turn: Sequence[Part] = (
            parts.polling,
            parts.takeover,
            parts.catalog,
            parts.dispatch,
            parts.sender,
            parts.parking,
            parts.notes,
            parts.dead_letters,
            parts.committer,
            parts.recall,
            parts.relay,
            parts.housekeeping,
            parts.clocks,
            parts.topic_watch,
            *(() if parts.attempt_log is None else (parts.attempt_log,)),
        )
        self._drain_seconds = drain
        self._clock, self._monotonic = clock, monotonic
        self._lag = LoopLag()
        self._stopping = self._closing = False

    def stop(self) -> None:
        """Finish what is in flight and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        return list(dict.fromkeys(fault for part in self._in_turn if (fault := part.fault)))

    def readings(self) -> Readings:
        """The values of gauges. Safe to call from another thread."""
        parts = self.parts
        owned = list(parts.source.partitions.values())
        clock, now = self._clock(), self._monotonic()
        next_at, failing = parts.parking.due_keys.next_at, parts.failing.failing_since(clock)
        return Readings(
            in_flight=parts.lanes.slots.in_flight,
            parked=parts.maintenance.parked,
            breaker_open=parts.maintenance.breakers_open,
            set_aside=parts.parking.set_aside,
            expressions_left_out=len(list(parts.budget)),
            commits=parts.source.commits_total,
            connections_opened=parts.transport.connections_opened,
            retention_overtaken=parts.source.overtaken_total,
            lag={each.topic_partition: each.lag for each in owned if each.lag is not None},
            attempts_dropped=0 if parts.attempt_log is None else parts.attempt_log.dropped,
            oldest_unsettled=_ages(owned, clock),
            next_attempt=None if next_at is None else max(0.0, next_at - clock),
            failing=len(failing),
            failing_longest={key: max(0.0, clock - since) for key, since in islice(failing.items(), MOST_SHOWN)},
            queue_ages={
                queue: 0.0 if since is None else max(0.0, now - since)
                for queue, since in (
                    ("inbox", parts.inbox.oldest),
                    ("lanes", parts.lanes.oldest),
                    ("storing", parts.parking.oldest),
                )
            },
            database_seconds={thread.name: thread.seconds for thread in parts.threads},
            database_errors={thread.name: thread.errors for thread in parts.threads},
            database_backoff={
                "lookups": parts.catalog.backoff,
                "storing": parts.parking.write_backoff,
                "loading": parts.parking.read_backoff,
                "taking-up": parts.recall.backoff,
                "notes": parts.notes.backoff,
                "housekeeping": parts.housekeeping.backoff,
            },
            loop_lag=self._lag,
            turn_age=max(0.0, now - self.turned_at),
            ready=not self.reasons(),
        )

    def run(self) -> None:
        """Consume until `stop`. FatalKafkaError: librdkafka cannot go on; start a new process.

        Before any other exception is raised, the worker leaves the group, so that its members need not wait for the
        session's time-out.
        """
        try:
            while not self._stopping:
                self._run_once()
            self._close()
        except FatalKafkaError:  # the broker accepts no more requests of this consumer, so it cannot leave
            raise
        except Exception:
            if not self._closing:
                self._closing = True
                self.parts.source.close()
            raise

    def _run_once(self) -> None:
        self.turn()
        self.parts.maintenance.run(self._monotonic())

    def turn(self, longest: float | None = None) -> None:
        """Wait for sockets and answers, for `longest` seconds at most if that is given; then all parts make progress.

        While partitions leave, which may take seconds, this goes on for the others.
        """
        began, parts = self._monotonic(), self.parts
        self._lag.observe(began, began - parts.poller.woke_at - parts.polling.waited)
        parts.poller.turn(self._wait(longest))
        self.turned_at = now = self._monotonic()
        for part in self._in_turn:
            part.poll(now)

    def is_idle(self) -> bool:
        """Only a record can make work."""
        return not any(part.ready or part.busy for part in self._in_turn)

    def _wait(self, longest: float | None) -> float:
        if any(part.ready for part in self._in_turn):
            return 0.0
        if longest is not None:
            return longest
        if not any(part.busy for part in self._in_turn):
            return 0.0  # `polling` waits for records instead
        return SOON if self._monotonic() - self.parts.polling.received_at < RECENT else LATER

    # Partitions come and go. A stopping worker takes no more: it would only cancel their requests.

    def assigned(self, _partitions: Sequence[Partition]) -> None:
        if not self._stopping:
            self.parts.takeover.assigned()

    def revoked(self, partitions: Sequence[Partition]) -> None:
        parts = self.parts
        longest = REVOKE_PART * parts.source.rebalance_timeout
        seconds, until = min(REVOKE_DRAIN, self._drain_seconds, longest / 2), self._monotonic() + longest
        parts.handover.drain(partitions, parts.ownership.released(), seconds, until)
        parts.handover.await_writes(partitions, until)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.parts.handover.lose(partitions, self.parts.ownership.released())

    def _close(self) -> None:
        parts = self.parts
        log.info("stopping", in_flight=len(parts.sender.open), seconds=self._drain_seconds)
        parts.polling.stop()
        partitions = list(parts.source.partitions.values())
        parts.ownership.close()
        parts.housekeeping.close()
        parts.handover.drain(partitions, parts.ownership.released(), self._drain_seconds)
        end = self._monotonic() + STORE_DRAIN
        while parts.notes.writable and self._monotonic() < end:
            self.turn(0.01)
        parts.source.commit_now(partitions)
        self._closing = True
        for part in self._in_turn:
            part.close()
        for thread in parts.threads:
            thread.close(LEAVE_DATABASE)
        parts.transport.close()
        parts.poller.close()


def _ages(partitions: Iterable[Partition], clock: float) -> dict[TopicPartition, float]:
    """Seconds since the timestamp of each partition's first unsettled record; 0 if all are settled."""
    ages: dict[TopicPartition, float] = {}
    for partition in partitions:
        timestamp = partition.tracker.oldest_timestamp
        if timestamp is None:
            ages[partition.topic_partition] = 0.0
        elif timestamp >= 0:
            ages[partition.topic_partition] = max(0.0, clock - timestamp / 1000)
    return ages
