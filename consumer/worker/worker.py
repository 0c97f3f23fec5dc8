"""The loop: from records to committed offsets, in one thread that owns all state.

    polling ──▶ inbox ──▶ dispatch ──▶ lanes ──▶ sender ──▶ settling ──▶ committer
       │          ▲                      ▲                     │
       ▼       catalog                 recall ◀── database ◀── parking
    dead letters

An offset is settled when each of its deliveries has succeeded or is stored, when no subscription matches or filters
have refused the event, when its record is in the dead-letter topic, or by an operator's decision. Only settled offsets
are committed.
"""

from collections.abc import Callable, Sequence

import structlog

from consumer.errors import FatalKafkaError
from consumer.intake.record import Partition
from consumer.loop.part import Part
from consumer.telemetry.metrics import LoopLag, Readings
from consumer.worker.handover import REVOKE_DRAIN, STORE_DRAIN
from consumer.worker.parts import Parts
from consumer.worker.readings import readings

log = structlog.get_logger(__name__)

REVOKE_PART = 0.7  # of the group's rebalance time-out: a member that takes longer is expelled and cannot commit
LEAVE_DATABASE = 1.0  # seconds for a statement that still runs at the end; its deliveries count as unsettled
# Seconds that the poller waits at most while a part is busy, because records do not wake it: SOON within RECENT seconds
# of the last record, LATER after that.
SOON, LATER, RECENT = 0.001, 0.005, 1.0


class Worker:
    """One member of the consumer group. All of it runs in the thread that calls `run`, until `stop`."""

    def __init__(
        self, parts: Parts, *, drain: float, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        """`drain`: seconds that requests in flight get to end when the worker stops. `clock` gives unix seconds."""
        self.parts = parts
        self.turned_at = monotonic()
        self._in_turn: Sequence[Part] = (
            *(() if parts.translation is None else (parts.translation,)),
            parts.polling,
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
        """Finish open requests and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        return list(dict.fromkeys(fault for part in self._in_turn if (fault := part.fault)))

    def readings(self) -> Readings:
        """The values of gauges. Safe to call from another thread."""
        turn_age = max(0.0, self._monotonic() - self.turned_at)
        return readings(
            self.parts, self._lag, turn_age, ready=not self.reasons(), clock=self._clock(), monotonic=self._monotonic()
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
        """Wait for sockets and answers, for `longest` seconds at most if that is given; then poll all parts.

        While partitions leave, which may take seconds, turns go on for the others.
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
