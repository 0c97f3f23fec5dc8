"""The loop: from records to committed offsets, in one thread that owns all state.

    polling ──▶ inbox ──▶ dispatch ──▶ lanes ──▶ sender ──▶ settling ──▶ polling commits
       │          ▲                      ▲                     │
       ▼       catalog                 recall ◀── database ◀── parking
    dead letters

An offset is settled when each of its deliveries has succeeded or is stored, when no subscription matches or filters
have refused the event, or when its record is in the dead-letter topic. Only settled offsets are committed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from itertools import islice
from math import inf

import structlog

from consumer.errors import FatalKafkaError
from consumer.events.event import TopicPartition
from consumer.intake.record import AssignedPartition
from consumer.ledger.rows import DueKey
from consumer.telemetry.logs import LogFile
from consumer.telemetry.metrics import LoopLag, Readings
from consumer.worker.ownership import STORE_DRAIN
from consumer.worker.wiring import WorkerParts

log = structlog.get_logger(__name__)

LEAVE_DATABASE = 1.0  # seconds for statements that still run at the end; their deliveries count as unsettled
# Seconds that the poller waits at most while a part is busy, because records do not wake it: SOON within RECENT seconds
# of the last record, LATER after that.
SOON, LATER, RECENT = 0.001, 0.005, 1.0
MOST_SHOWN = 20  # failing subscriptions that have a metric each


class Worker:
    """One member of the consumer group. All of it runs in the thread that calls `run`, until `stop`."""

    def __init__(
        self, wire: Callable[["Worker"], WorkerParts], turned: Callable[[float], None] = lambda _: None
    ) -> None:
        """`wire` makes the parts and joins the group; it raises SettingsError if Kafka refuses a setting.

        The parts use this loop to talk to parts that are made after them. `turned` gets the time of each turn.
        """
        self.parts = parts = wire(self)
        self._in_turn = parts.in_turn
        self._poller, self._polling = parts.poller, parts.polling
        self._monotonic = parts.monotonic
        self.turned_at = self._monotonic()
        self._turned = turned
        self._lag = LoopLag()
        self._stopping = self._closing = False

    def stop(self) -> None:
        """Finish open requests and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        return list(dict.fromkeys(fault for part in self._in_turn if (fault := part.fault)))

    def readings(self) -> Readings:
        """The values of gauges. Safe to call from another thread."""
        parts, clock, monotonic = self.parts, self.parts.clock(), self._monotonic()
        owned = list(parts.source.partitions.values())
        waiting = {key: at for key, at in parts.backlog.waiting().items() if parts.catch_up.looks.is_wanted(key)}
        next_at, failing = parts.parking.due_keys.next_at, parts.failing.failing_since(clock)
        return Readings(
            in_flight=parts.lanes.slots.in_flight,
            parked=parts.maintenance.parked,
            breaker_open=parts.maintenance.breakers_open,
            set_aside=parts.parking.set_aside,
            expressions_left_out=len(parts.budget),
            commits=parts.source.commits.total,
            connections_opened=parts.transport.connections_opened,
            retention_overtaken=parts.source.health.overtaken,
            lag={each.topic_partition: each.lag for each in owned if each.lag is not None},
            stalled={each.topic_partition: monotonic - since for each, since in parts.source.stalls.since().items()},
            held_back={each.topic_partition: each.held[1] if each.held else 0 for each in owned},
            attempts_dropped=0 if parts.attempt_log is None else parts.attempt_log.dropped,
            answers_dropped=0 if parts.attempt_log is None else parts.attempt_log.answers_dropped,
            unpublished=0 if parts.exhausted_relay is None else parts.exhausted_relay.pending,
            log_lines_dropped=LogFile.dropped,
            oldest_unsettled=_ages(owned, clock),
            next_attempt=None if next_at is None else max(0.0, next_at - clock),
            paused=parts.housekeeping.paused,
            behind=len({due_key[2] for due_key in waiting}),
            backlog_seconds_left=_left(waiting, parts.topics.retentions, clock),
            backlog_lost=parts.losses.offsets,
            failing=len(failing),
            failing_longest={key: max(0.0, clock - since) for key, since in islice(failing.items(), MOST_SHOWN)},
            certificates={
                (expiry.subscription_id, expiry.part): expiry.not_after.timestamp() - clock
                for expiry in parts.housekeeping.expiring
            },
            queue_ages={
                queue: 0.0 if since is None else max(0.0, monotonic - since)
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
                "storing": parts.parking.storing.backoff,
                "loading": parts.parking.loading.backoff,
                "taking-up": parts.recall.looks.backoff,
                "notes": parts.notes.writes.backoff,
                "housekeeping": parts.housekeeping.backoff,
            },
            loop_lag=self._lag,
            turn_age=max(0.0, monotonic - self.turned_at),
            ready=not self.reasons(),
        )

    def run(self) -> None:
        """Consume until `stop`. FatalKafkaError: Kafka's client cannot go on; start a new process.

        Before any other exception is raised, the worker leaves the group, so that its members need not wait for the
        session's time-out.
        """
        stalls = self.parts.source.stalls
        try:
            while not self._stopping and stalls.outlived is None:
                self._run_once()
            self._close()
        except FatalKafkaError:  # the broker accepts no more requests of this consumer, so it cannot leave
            raise
        except Exception:
            if not self._closing:
                self._closing = True
                self.parts.source.close()
            raise
        if stalls.outlived is not None and not self._stopping:
            raise stalls.outlived

    def _run_once(self) -> None:
        self.turn()
        self.parts.maintenance.run(self._monotonic())

    def turn(self, longest: float | None = None) -> None:
        """Wait for sockets and answers, for `longest` seconds at most if that is given; then poll all parts.

        While partitions leave, which may take seconds, turns go on for the others.
        """
        began = self._monotonic()
        self._lag.observe(began, began - self._poller.woke_at - self._polling.waited)
        self._poller.turn(self._wait(longest))
        self.turned_at = now = self._monotonic()
        self._turned(now)
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
        return SOON if self._monotonic() - self._polling.received_at < RECENT else LATER

    # What the source and the inbox report.

    def assigned(self, _partitions: Sequence[AssignedPartition]) -> None:
        """The group has assigned partitions."""
        self.parts.takeover.assigned()

    def positioned(self, partition: AssignedPartition) -> None:
        """The committed offset of an assigned partition is known."""
        self.parts.takeover.positioned(partition)

    def reached_end(self, topic_partition: TopicPartition, offset: int) -> None:
        """The partition's stored deliveries are known only below this offset."""
        self.parts.takeover.more(topic_partition, offset)

    def revoked(self, partitions: Sequence[AssignedPartition]) -> None:
        """The group waits for this worker to give partitions up."""
        self.parts.handover.revoke(partitions)

    def lost(self, partitions: Sequence[AssignedPartition]) -> None:
        """Other workers own these partitions now."""
        self.parts.handover.lose(partitions)

    def _close(self) -> None:
        parts = self.parts
        parts.polling.stop()
        partitions = list(parts.source.partitions.values())
        parts.ownership.close()
        parts.housekeeping.close()
        parts.handover.stop(partitions)
        end, relay = self._monotonic() + STORE_DRAIN, parts.exhausted_relay
        while self._monotonic() < end and (
            parts.notes.writable or (relay is not None and relay.busy and relay.fault is None)
        ):
            self.turn(0.01)
        parts.source.commit_now(partitions)
        self._closing = True
        for part in self._in_turn:
            part.close()
        *others, last = parts.threads
        end = self._monotonic() + LEAVE_DATABASE
        for thread in others:
            thread.close(max(0.0, end - self._monotonic()))
        # Else Oracle keeps the sessions until it notices. On the thread, since a database that hangs does not answer.
        last.submit(parts.disconnect, lambda _: None)
        last.close(LEAVE_DATABASE)
        parts.transport.close()
        parts.poller.close()


def _ages(partitions: Iterable[AssignedPartition], clock: float) -> dict[TopicPartition, float]:
    """Seconds since the timestamp of each partition's first unsettled record; 0 if all are settled."""
    ages: dict[TopicPartition, float] = {}
    for partition in partitions:
        timestamp = partition.tracker.oldest_timestamp
        if timestamp is None:
            ages[partition.topic_partition] = 0.0
        elif timestamp >= 0:
            ages[partition.topic_partition] = max(0.0, clock - timestamp / 1000)
    return ages


def _left(waiting: Mapping[DueKey, float], retentions: Mapping[str, float], clock: float) -> dict[DueKey, float]:
    """Seconds until retention removes the first event that due keys wait for, for the MOST_SHOWN most urgent ones."""
    left = ((at + retentions.get(due_key[0], inf) - clock, due_key) for due_key, at in waiting.items())
    return {due_key: max(0.0, seconds) for seconds, due_key in nsmallest(MOST_SHOWN, left) if seconds < inf}
