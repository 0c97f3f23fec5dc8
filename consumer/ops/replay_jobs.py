"""Runs the background replays of the group, in every API process that knows Kafka.

A process claims a replay with a lease in the database. Each transaction of the replay renews it; after it has expired,
another process goes on. A process that has lost its lease can store nothing more.
"""

import time
from collections.abc import Callable
from threading import Event, Thread

import structlog
from sqlalchemy.exc import SQLAlchemyError

from consumer.config.settings import KafkaSettings
from consumer.errors import ReplayEnded, WebhooksError
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.ledger import replays
from consumer.ledger.replays import Replay
from consumer.ops.bounded import reason_of
from consumer.ops.changes import Deployment
from consumer.ops.events import ReadEvent
from consumer.ops.replay import Choice, Hold, Progress, run
from consumer.ops.replay_request import cancel
from consumer.subscriptions import repository

log = structlog.get_logger(__name__)

LEASE = 30.0  # seconds without a transaction after which another process goes on
AGAIN = 30.0  # seconds after an error until the replay is tried again
LOOK_EVERY = 2.0  # seconds between two looks for replays
MOST = 4  # replays at once in this process: each has a thread, a Kafka client and 16 MB of records
_CLOSING = 10.0  # seconds for the transactions under way


class ReplayJobs:
    """Runs replays from `start` to `close`, each in a thread. Errors are noted with the replay and logged once."""

    def __init__(
        self,
        registry: Deployment,
        kafka: KafkaSettings,
        read_event: ReadEvent = decode,
        *,
        clock: Callable[[], float] = time.time,
        most: int = MOST,
        every: float = LOOK_EVERY,
    ) -> None:
        """`clock` gives unix seconds. `every`: seconds between two looks. Sends no request yet."""
        self._registry, self._kafka, self._clock = registry, kafka, clock
        self._read_event = read_event
        self._most, self._every = most, every
        self._stopping = Event()
        self._running: list[Thread] = []
        self._fault: str | None = None
        self._thread = Thread(target=self._watch, name="replays", daemon=True)

    def start(self) -> None:
        """Begin to look for replays."""
        self._thread.start()

    def close(self, timeout: float = _CLOSING) -> None:
        """Stop the replays between two transactions and free their leases, so that other processes go on at once."""
        self._stopping.set()
        end = time.monotonic() + timeout
        for thread in (self._thread, *self._running):
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _watch(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self._look()
                self._fault = None
            except Exception as error:
                fault = reason_of(error) or type(error).__name__
                if fault != self._fault:
                    log.exception("replays cannot be looked up; they wait", reason=fault)
                self._fault = fault

    def _look(self) -> None:
        """Begin replays without a lease, as long as there is room."""
        self._running = [each for each in self._running if each.is_alive()]
        while len(self._running) < self._most and not self._stopping.is_set():
            now = self._clock()
            claimed = replays.claim(self._registry.engine, self._registry.group, now, now + LEASE)
            if claimed is None:
                return
            thread = Thread(target=self._work, args=(claimed,), name=f"replay-{claimed.id}", daemon=True)
            self._running.append(thread)
            thread.start()

    def _work(self, replay: Replay) -> None:
        """Run a replay, and note the error that stops it. Raises nothing."""
        hold = Hold(replay.lease_until or 0.0, LEASE)
        problem: str | None = None
        try:
            self._run(replay, hold)
        except ReplayEnded as error:
            log.info("a replay is no longer run here", replay=replay.id, reason=str(error))
        except (WebhooksError, SQLAlchemyError) as error:
            problem = reason_of(error)
            if problem != replay.last_error:
                log.warning("a replay has stopped; this process tries it again", replay=replay.id, reason=problem)
        except Exception as error:
            problem = f"{type(error).__name__}; the log of the API has the details"
            if problem != replay.last_error:
                log.exception("a replay has failed; it is tried again", replay=replay.id)
        try:
            until = None if problem is None else self._clock() + AGAIN
            replays.release(self._registry.engine, replay.id, hold.until, until, problem)
        except SQLAlchemyError as error:
            log.warning("the lease of a replay is not released; it expires", replay=replay.id, reason=reason_of(error))

    def _run(self, replay: Replay, hold: Hold) -> None:
        registry = self._registry
        receiver = repository.get(registry.engine, replay.subscription_id, registry.vault, registry.rules)
        if receiver is None or replay.damage is not None:
            reason = replay.damage or f"subscription {replay.subscription_id} was removed"
            if cancel(registry.engine, None, replay.id, self._clock(), reason):
                log.warning("a replay is cancelled", replay=replay.id, reason=reason)
            return
        if not receiver.enabled:
            raise WebhooksError(f"subscription {receiver.id} is disabled; once it is enabled, the replay goes on")
        choice = Choice(receiver, self._read_event, replay.event_type)
        done = Progress(0, replay.matched, 0, finished=False)
        with LogReader(self._kafka) as reader:
            stopped = self._stopping.is_set
            for step in run(registry.engine, replay, choice, reader, stopped, hold=hold, clock=self._clock):
                done = step
            log.info(
                "a replay has stored all its deliveries" if done.finished else "a replay is left to another process",
                replay=replay.id,
                stored=done.matched,
                undecodable=done.undecodable,
                filter_errors=choice.filter_errors,
                removed=reader.removed_total,
            )
