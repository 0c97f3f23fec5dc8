"""The loop: from records to committed offsets, in one thread that owns all state.

    source.poll -> decode -> catalog -> lanes -> transport -> outcome -> settled -> source.commit
                     |                                          |
                dead letters                          retry in memory, or parking (database)

An offset is settled when each of its deliveries has been delivered or stored, when its record is in the dead-letter
topic, or when nobody subscribed. Nothing else moves it; `source.commit` commits what is settled.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from consumer.config.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.crypto.keys import parse_signing_key
from consumer.crypto.vault import Vault
from consumer.database.engine import DatabaseThread, create_engine
from consumer.delivery.failing import Failing
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.notes import Notes
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Ledger, Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.delivery.slow import SlowExpressions
from consumer.errors import FatalKafkaError
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import Partition
from consumer.intake.source import Source
from consumer.intake.topics import Topics, TopicWatch
from consumer.ledger.assigned import open_topics
from consumer.ledger.due import fetch, scan
from consumer.ledger.marks import recent
from consumer.matching.budget import Budget
from consumer.matching.catalog import Catalog, EndpointCache, SubscriptionProblems, find_endpoints
from consumer.matching.destinations import rules_of
from consumer.matching.inbox import Inbox
from consumer.matching.selection import Selector
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.event_loop import Poller, raise_descriptor_limit
from consumer.sending.pool import connections
from consumer.telemetry.metrics import Metrics
from consumer.worker.clock import ClockWatch
from consumer.worker.decisions import Decisions
from consumer.worker.dispatch import Dispatch
from consumer.worker.event_publisher import EventPublisher
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


class Worker:
    """One member of the consumer group. All of it happens in the thread that calls `run`, until `stop`."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        database: DatabaseSettings,
        delivery: DeliverySettings,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._metrics = metrics
        self._drain_seconds = delivery.drain
        self.turned_at = monotonic()
        self._stopping = self._closing = False
        self._next_look = 0.0
        self._committed_at = -COMMIT_EVERY
        self._next_tidy = monotonic() + FIRST_TIDY
        self._unasked = Unasked()
        self._shared: tuple[frozenset[TopicPartition], int] | None = None  # the state by which limits are shared
        self._committed_until: float | None = None  # what was settled then is; None: all

        engine = create_engine(database)
        decrypt = Vault(database.encryption_keys).decrypt
        known, broken = EndpointCache(), SubscriptionProblems()
        secrets, rules = tuple(map(parse_signing_key, delivery.secrets)), rules_of(delivery)
        self._poller = Poller()
        self._transport = LoopAdapter(
            self._poller,
            egress=EgressPolicy(delivery.allow_networks, delivery.allow_http),
            timeout=delivery.timeout,
            connect_timeout=delivery.connect_timeout,
            max_connections=connections(delivery.max_in_flight, raise_descriptor_limit()),
            proxy=delivery.proxy,
        )
        self._lookups = DatabaseThread("lookups", self._poller.post)
        self._storing = DatabaseThread("storing", self._poller.post)
        self._taking_up = DatabaseThread("taking-up", self._poller.post)
        self._upkeep = DatabaseThread("upkeep", self._poller.post)
        self._catalog = Catalog(
            lambda keys, done: self._lookups.submit(
                partial(find_endpoints, engine, keys, secrets, decrypt, rules=rules, known=known, broken=broken), done
            ),
            delivery.subscription_cache,
            monotonic,
        )
        self._inbox = Inbox(self._catalog, lambda place, offset: self._takeover.more(place, offset))  # noqa: PLW0108 (what takes over is made below)
        self._memory = Memory()
        self._lanes = Lanes(delivery.max_in_flight)
        self._relay = OutboxRelay(
            engine, self._upkeep, kafka.group_id, EventPublisher(kafka), lambda: self._ownership.leads, clock=monotonic
        )
        self._notes = Notes(engine, self._upkeep, monotonic, self._relay.wake)
        self._dead_letters = DeadLetters(kafka)
        decisions = Decisions(kafka.group_id, self._dead_letters, self._notes, metrics, lambda: self._source.partitions)
        self._parking = Parking(
            engine,
            self._storing,
            self._taking_up,
            kafka.group_id,
            clock,
            monotonic,
            self._relay.wake,
            decisions.act,
        )
        self._housekeeping = Housekeeping(engine, self._upkeep, kafka.group_id, clock, monotonic)
        self._settling = Settling(
            self._lanes,
            self._parking,
            Failing(self._notes, kafka.group_id, delivery.disable_after),
            metrics,
            self._memory,
            schedule=delivery.retry_schedule,
            jitter=delivery.retry_jitter,
            in_memory=delivery.retry_in_memory,
            operations_topic=kafka.operations_topic,
            clock=clock,
            monotonic=monotonic,
        )
        self._budget = Budget(monotonic, SlowExpressions(self._lanes, self._settling, self._notes, clock, monotonic))
        selector = Selector(metrics, self._budget, monotonic)
        self._sender = Sender(
            self._lanes, self._settling, self._transport, self._memory, self._budget, clock, monotonic
        )
        self._dispatch = Dispatch(self._inbox, self._lanes, self._settling, selector, metrics, monotonic)
        self._topics = Topics(kafka, topics)
        self._ownership = Ownership(
            lambda: self._source.partitions, self._topics, self._dispatch, self._settling, monotonic
        )
        self._recall = Recall(
            Ledger(
                partial(scan, engine, kafka.group_id),
                partial(recent, engine, kafka.group_id),
                partial(fetch, engine, kafka.group_id, default_secrets=secrets, decrypt=decrypt, rules=rules, said={}),
                partial(open_topics, engine, kafka.group_id),
            ),
            self._taking_up,
            self._parking,
            self._lanes,
            self._settling,
            selector,
            self._memory,
            self._ownership.given_out,
            clock,
            monotonic,
        )
        self._clocks = ClockWatch(clock, monotonic)
        self._topic_watch = TopicWatch(
            kafka, self._poller.post, self._topics.learn, self._topics.consumed, clock=monotonic
        )
        self._takeover = Takeover(
            self._parking,
            self._recall,
            self._settling,
            self._inbox,
            lambda: self._source,
            monotonic,
        )
        self._source = Source(
            kafka,
            topics,
            on_assign=self._assigned,
            on_position=self._takeover.positioned,
            on_revoke=self._revoked,
            on_lost=self._lost,
            post=self._poller.post,
            meanwhile=self._meanwhile,
        )
        self._polling = Polling(
            self._source,
            self._catalog,
            self._inbox,
            self._parking,
            self._dead_letters,
            self._memory,
            metrics,
            kafka.tenant,
            monotonic,
        )
        self._handover = Handover(
            self._dispatch,
            self._lanes,
            self._settling,
            self._parking,
            self._dead_letters,
            self._sender,
            self._memory,
            self._meanwhile,
            monotonic,
        )

    def stop(self) -> None:
        """Finish what is in flight and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        parts = (
            self._source.fault,
            self._catalog.fault,
            self._parking.fault or self._recall.fault or self._notes.fault or self._housekeeping.fault,
            self._takeover.fault,
            self._dead_letters.fault,
            self._clocks.fault,
        )
        reasons = [reason for reason in parts if reason]
        since = self._dispatch.waiting_since
        if not reasons and since is not None and self._monotonic() - since >= SLOW_DATABASE:
            reasons.append(f"database: no answer for {self._monotonic() - since:.0f} s; events wait")
        return reasons

    def lag(self) -> dict[TopicPartition, int]:
        """Records not yet committed, by partition. Safe to call from another thread."""
        owned = list(self._source.partitions.items())
        return {place: partition.lag for place, partition in owned if partition.lag is not None}

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
                self._source.close()
            raise

    def _run_once(self) -> None:
        self._polling.poll(idle=self._idle())  # 1. Records become events, or dead letters.
        self._dispatch.go_on()
        self._tick(self._poll_timeout())
        self._recall.look(self._ownership.places)
        self._relay.turn()
        self._maintain()

    # 2. Events become deliveries (`dispatch`), which are sent; results come back as calls of `settling.on_result`.

    def _tick(self, wait: float) -> None:
        self.turned_at = now = self._monotonic()
        self._lanes.wake(now)
        self._sender.start()
        self._poller.turn(wait)
        if self._stopping:  # others may come and go while this one drains
            self._source.serve()
        self._parking.pump()
        self._notes.pump()
        self._dead_letters.poll()
        since = now - self._committed_at
        if since >= COMMIT_EVERY or (since >= COMMIT_REST and self._source.moved >= COMMIT_RECORDS):
            self._committed_at = now
            self._committed_until = self._source.commit()
            self._metrics.commits = self._source.commits_total
            self._metrics.retention_overtaken = self._source.overtaken_total
            self._metrics.connections_opened = self._transport.connections_opened
        self._metrics.in_flight = self._lanes.in_flight

    def _meanwhile(self, wait: float) -> None:
        """While partitions leave, which may take seconds: what has been read or stored of the others goes on."""
        self._dispatch.go_on()
        self._tick(0.0 if self._lanes.ready() or self._dispatch.pressed else wait)
        if not self._stopping:
            self._recall.look(self._ownership.places)

    def _idle(self) -> bool:
        """Nothing but a record can make work, so that the wait may be Kafka's."""
        return not (
            self._sender.open
            or self._source.opening
            or self._dispatch.busy
            or self._parking.busy
            or self._parking.backlog
            or self._notes.pending
            or self._recall.busy
            or self._dead_letters.pending
            or self._relay.busy
            or self._lanes.wakes_before(self._monotonic() + IDLE_WAIT)
        )

    def _poll_timeout(self) -> float:
        """Seconds the poller may wait: records do not wake it, so it looks at Kafka again soon after the last ones."""
        if self._idle() or self._lanes.ready() or self._dispatch.pressed:
            return 0.0
        return 0.001 if self._monotonic() - self._polling.received_at < 1.0 else 0.005

    # 3. Now and then: the clock, the share of limits, rows that nobody owns, the database kept tidy.

    def _maintain(self) -> None:
        now = self._monotonic()
        self._catalog.want(())  # what failed is asked for again, though nobody waits for it any more
        self._housekeeping.go_on()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        if (jump := self._clocks.jump()) is not None:
            log.warning("the system clock was set", seconds=round(jump, 1), meaning=self._clocks.fault)
        shared = frozenset(self._source.partitions), self._topics.revision
        if shared != self._shared:
            self._shared = shared
            self._lanes.rebound(partial(self._topics.share, shared[0]))
        self._metrics.breaker_open = sum(lane.breaker.open_until is not None for lane in self._lanes)
        self._metrics.set_aside = self._parking.set_aside
        self._metrics.expressions_left_out = len(list(self._budget))
        leads = self._ownership.leads
        if not leads:
            self._metrics.parked = 0  # whoever leads shows what the group has: so over workers both sum and maximum do
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_EVERY
            self._housekeeping.begin(
                self._ownership.places(), self._unasked_below(now), self._count_parked, leads=leads
            )
            self._parking.ask_again()
            if leads:
                self._recall.find_topics(self._ownership.adopt)
            elif self._ownership.adopted:  # there is a lower topic now, and whoever owns it leads
                self._handover.drain((), self._ownership.released(), REVOKE_DRAIN)

    def _unasked_below(self, now: float) -> dict[TopicPartition, int]:
        """Offsets below which no restart asks for deliveries."""
        found = {place: partition.tracker.low_water_mark for place, partition in self._source.partitions.items()}
        marks = {place: mark for place, mark in found.items() if mark is not None}
        return self._ownership.unasked() | self._unasked.below(marks, self._committed_until, now)

    def _count_parked(self, parked: int) -> None:
        self._metrics.parked = parked

    # 4. Partitions come and go. One that stops takes no more: what it began with them it would cut off.

    def _assigned(self, partitions: Sequence[Partition]) -> None:
        if not self._stopping:
            self._takeover.assigned(partitions)

    def _revoked(self, partitions: Sequence[Partition]) -> None:
        if not self._closing:
            longest = REVOKE_PART * self._source.rebalance_timeout
            seconds, until = min(REVOKE_DRAIN, self._drain_seconds, longest / 2), self._monotonic() + longest
            self._handover.drain(partitions, self._ownership.released(partitions), seconds, until)
            self._handover.await_writes(partitions, until)

    def _lost(self, partitions: Sequence[Partition]) -> None:
        self._handover.lose(partitions, self._ownership.released(partitions))

    def _close(self) -> None:
        log.info("stopping", in_flight=len(self._sender.open), seconds=self._drain_seconds)
        self._source.pause()
        partitions = list(self._source.partitions.values())
        self._handover.drain(partitions, self._ownership.released(partitions), self._drain_seconds)
        end = self._monotonic() + STORE_DRAIN
        while self._notes.pending and self._monotonic() < end:
            self._tick(0.01)
        self._source.commit_now(partitions)
        self._closing = True
        self._ownership.close()
        self._source.close()
        self._topic_watch.close()
        self._relay.close()
        self._dead_letters.close()
        self._lookups.close(LEAVE_DATABASE)
        for thread in (self._storing, self._taking_up, self._upkeep):
            thread.close(LEAVE_DATABASE)
        self._transport.close()
        self._poller.close()
