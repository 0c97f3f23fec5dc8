"""The parts of a worker: each is named here alone, constructed, and given the parts that it uses.

Where two parts need each other, the first one talks to the second through the loop.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from consumer.config.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.crypto.keys import parse_signing_key
from consumer.crypto.vault import Vault
from consumer.database.engine import DatabaseThread, create_engine
from consumer.database.job import ThreadJob
from consumer.delivery.backlog import Backlog
from consumer.delivery.failing import Failing, Notes
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling, at_once
from consumer.intake.cursor_reader import CursorReader
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.decode import Mapped
from consumer.intake.source import Source
from consumer.intake.topics import ClusterView, Counts, Ends, Retentions, TopicWatch
from consumer.ledger import replays
from consumer.ledger.due import fetch, fetch_to_probe
from consumer.loop.part import Part, beside
from consumer.loop.poller import Poller, Wait, raise_descriptor_limit
from consumer.matching.catalog import Catalog, EndpointCache, SubscriptionProblems, find_endpoints
from consumer.matching.destinations import rules_of
from consumer.matching.inbox import Inbox
from consumer.matching.selection import Budget, Selector
from consumer.matching.subscribers import find_subscribers
from consumer.schemas.translation import Translation, in_threads
from consumer.schemas.wire_format import Decode, SchemaId
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.pool import connections, fitting
from consumer.sending.transfer import Transport
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Tracer
from consumer.worker.attempt_log import AttemptLog
from consumer.worker.catch_up import CatchUp
from consumer.worker.cursor_client import CursorClient
from consumer.worker.cursor_looks import LookUp, look_up
from consumer.worker.dispatch import Dispatch
from consumer.worker.exhausted_relay import ExhaustedRelay, exhausted_topic
from consumer.worker.feeder import Feeder
from consumer.worker.housekeeping import Housekeeping
from consumer.worker.losses import Losses
from consumer.worker.maintenance import Maintenance
from consumer.worker.outbox_relay import OutboxRelay, operations_topic
from consumer.worker.ownership import Handover, Ownership, Takeover
from consumer.worker.polling import Polling
from consumer.worker.probes import Probes
from consumer.worker.refusals import Refusals
from consumer.worker.replaying import Replays

if TYPE_CHECKING:
    from consumer.worker.worker import Worker

log = structlog.get_logger(__name__)


class WorkerParts:
    """The parts of a worker; `in_turn` are those that the loop polls, in this order."""

    poller: Wait
    transport: Transport

    def __init__(
        self,
        kafka: KafkaSettings,
        names: Sequence[str],
        database: DatabaseSettings,
        delivery: DeliverySettings,
        metrics: Metrics,
        loop: "Worker",
        *,
        mapped: Mapped | None = None,
        tracer: Tracer | None = None,
        load_schema: Callable[[SchemaId], Decode] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join the consumer group. SettingsError: Kafka refuses a setting.

        `names` as in KAFKA_TOPICS; `loop` is not ready yet, and only called later. `mapped` decodes records of topics
        with a mapping. Without a `tracer`, nothing is traced. `load_schema` asks the registry, and blocks; without it,
        values are decoded as they come. `clock` gives unix seconds, `monotonic` seconds that only go forward.
        """
        engine, group = create_engine(database), kafka.group_id
        self.clock, self.monotonic, self.disconnect = clock, monotonic, engine.dispose
        decrypt = Vault(database.encryption_keys).decrypt
        secrets, rules = tuple(map(parse_signing_key, delivery.secrets)), rules_of(delivery)
        limit = raise_descriptor_limit()
        slots = fitting(delivery.max_in_flight, limit)
        if slots < delivery.max_in_flight:
            log.warning(
                "fewer requests are open at once than WEBHOOK_MAX_IN_FLIGHT says: this process may open too few files",
                requests=slots,
                open_files=limit,
                change="raise the limit of open files (ulimit -n)",
            )
        poller = self.poller = Poller()
        post = poller.post
        self.transport = LoopAdapter(
            poller,
            egress=EgressPolicy(delivery.allow_networks, delivery.allow_http),
            timeout=delivery.timeout,
            connect_timeout=delivery.connect_timeout,
            max_connections=connections(slots, limit),
            proxy=delivery.proxy,
        )
        lookups, storing, taking_up, upkeep = self.threads = [
            DatabaseThread(name, post) for name in ("lookups", "storing", "taking-up", "upkeep")
        ]

        # Clients of Kafka. The last one joins the group.
        self.dead_letters = DeadLetters(kafka)
        self.attempt_log = AttemptLog(kafka, kafka.attempts_topic) if kafka.attempts_topic else None
        operations, given_up = operations_topic(kafka), exhausted_topic(kafka)
        self.topics = ClusterView(kafka, names)
        self.topic_watch = TopicWatch(kafka, post, self._learn, self.topics.consumed, clock=monotonic)
        self.source = Source(
            kafka,
            names,
            on_assign=loop.assigned,
            on_position=loop.positioned,
            on_revoke=loop.revoked,
            on_lost=loop.lost,
            post=post,
            meanwhile=loop.turn,
        )
        self.ownership = Ownership(self.source.partitions, self.topics, monotonic)

        # From records to events to lanes.
        find = partial(
            find_endpoints,
            engine,
            default_secrets=secrets,
            decrypt=decrypt,
            rules=rules,
            known=EndpointCache(),
            broken=SubscriptionProblems(),
        )
        self.catalog = Catalog(
            lambda keys, done: lookups.submit(partial(find, keys), done), delivery.subscription_cache, monotonic
        )
        self.inbox = Inbox(self.catalog, loop.reached_end)
        self.lanes, self.memory = Lanes(slots), Memory()
        rows = TakenUp(self.memory)
        self.translation: Translation | None = None
        if load_schema is not None:
            self.translation = Translation(
                in_threads(load_schema, post),
                self.memory,
                source=self.source,
                stands_aside=self.inbox.stands_aside,
                monotonic=monotonic,
            )

        # Stored deliveries, and operational events.
        self.relay, self.exhausted_relay = (
            OutboxRelay(engine, upkeep, group, operations, kafka.event_source, self.ownership.leads, clock=monotonic),
            None
            if given_up is None
            else ExhaustedRelay(engine, upkeep, group, given_up, self.ownership.leads, monotonic),
        )
        self.notes = Notes(engine, upkeep, monotonic, self.relay.wake)
        refusals = Refusals(
            group, kafka.operations_topic, self.dead_letters, self.notes, metrics, lambda: self.source.partitions
        )
        self.parking = Parking(
            engine,
            writer=storing,
            reader=taking_up,
            group=group,
            clock=clock,
            monotonic=monotonic,
            on_operation=self.relay.wake,
            on_refused=refusals.give_up,
            refused_after=delivery.refused_after,
        )

        # From lanes to results, and from results to next steps.
        self.failing = Failing(self.notes, group, delivery.pause_after)
        self.budget, replaying = Budget(monotonic), Replays()
        self.settling = Settling(
            self.lanes,
            self.parking,
            self.failing,
            metrics,
            rows,
            self.budget,
            schedule=delivery.retry_schedule,
            jitter=delivery.retry_jitter,
            in_memory=delivery.retry_in_memory,
            operations_topic=kafka.operations_topic,
            owns=self.ownership.owns,
            report=None if self.attempt_log is None else self.attempt_log.report,
            report_answer=None if self.attempt_log is None else self.attempt_log.report_answer,
            once_reported=at_once if self.attempt_log is None else self.attempt_log.once_written,
            clock=clock,
            monotonic=monotonic,
        )
        selector = Selector(metrics, self.budget, monotonic)
        self.sender = Sender(
            self.lanes,
            self.settling,
            self.transport,
            self.memory,
            clock=clock,
            monotonic=monotonic,
            tracer=tracer,
        )
        self.backlog = Backlog(
            self.parking, self.settling, delivery.backlog_rows, self.ownership.tracker_of, self.topics.retentions
        )
        self.topic_watch.ask_retention(self.backlog.topics)
        self.dispatch = dispatch = Dispatch(
            self.inbox, self.lanes, self.settling, selector, self.backlog, metrics, monotonic, self.translation, tracer
        )
        self.polling = Polling(
            self.source,
            self.catalog,
            self.inbox,
            self.parking,
            self.dead_letters,
            self.memory,
            metrics,
            tenant_name=kafka.tenant,
            mapped=mapped,
            is_idle=loop.is_idle,
            monotonic=monotonic,
            group=group,
            tracer=tracer,
            translation=self.translation,
        )

        # The stored deliveries of assigned partitions.
        self.recall = Recall(
            engine,
            group,
            partial(fetch, engine, group, default_secrets=secrets, decrypt=decrypt, rules=rules, said={}),
            taking_up,
            self.parking,
            self.lanes,
            self.settling,
            rows,
            selector,
            self.memory,
            is_behind=lambda due_key, offset, of, key: (
                not replaying.has_ended(of) and self.backlog.is_behind(due_key, offset, of, key)
            ),
            partitions=self.ownership.topic_partitions,
            given_out=lambda partition: self.ownership.given_out(partition, dispatch.first_offset(partition)),
            on_marked=lambda due_keys: self.catch_up.looks.look_at(due_keys),  # noqa: PLW0108 (it is made below)
            clock=clock,
            monotonic=monotonic,
        )

        # Subscriptions that are behind read the log at positions of their own.
        self.losses = Losses(group, self.notes)
        self.catch_up = CatchUp(
            self.backlog,
            Feeder(self.backlog, self.lanes, self.settling, selector, self.memory, replaying),
            replaying,
            partial(look_up, engine, group, partial(find_subscribers, engine, secrets, decrypt, rules=rules)),
            ThreadJob[LookUp](taking_up.submit, "could not look for cursors", monotonic),
            CursorClient(
                partial(beside, partial(CursorReader, kafka, monotonic), post=post, name="cursors"), monotonic
            ),
            self.polling,
            selector,
            self.memory,
            self.catalog,
            owns=self.ownership.owns,
            given_out=lambda partition: self.ownership.given_out(partition, dispatch.first_offset(partition)),
            live_at=partial(self.ownership.live_at, untouched=dispatch.untouched),
            settled_to=self.ownership.settled_to,
            live_queued_at=lambda: dispatch.queued_at,
            waits_since=lambda: self.inbox.oldest,
            subscription_cache=delivery.subscription_cache,
            retentions=self.topics.retentions,
            losses=self.losses,
            finish_replays=lambda ids: self.notes.add(lambda engine: replays.finish(engine, clock(), ids)),
        )

        # Partitions come and go, and regular work.
        self.takeover = Takeover(self.source, self.ownership, self.parking, self.recall, self.inbox, self.catch_up)
        self.handover = Handover(
            self.source,
            self.ownership,
            dispatch,
            self.lanes,
            self.settling,
            self.parking,
            self.dead_letters,
            self.sender,
            self.memory,
            self.catch_up,
            turn=loop.turn,
            monotonic=monotonic,
            drain=delivery.drain,
        )
        self.housekeeping = Housekeeping(
            engine,
            upkeep,
            group,
            self.losses.give_up,
            clock=clock,
            monotonic=monotonic,
            publishes=given_up is not None,
            keep=kafka.keep_exhausted,
        )
        self.maintenance = Maintenance(
            self.source,
            self.topics,
            self.lanes,
            self.parking,
            self.polling,
            self.ownership,
            self.handover,
            self.housekeeping,
            self.catch_up,
            clock,
            monotonic,
        )
        in_turn: tuple[Part | None, ...] = (
            self.translation,
            self.polling,
            self.catalog,
            dispatch,
            self.sender,
            self.parking,
            self.notes,
            self.dead_letters,
            self.recall,
            self.catch_up,
            Probes(
                engine,
                group,
                delivery.resume_probe,
                partial(fetch_to_probe, engine, group, default_secrets=secrets, decrypt=decrypt, rules=rules),
                taking_up,
                self.recall,
                self.parking.ordering_keys,
                self.failing,
                self.catch_up.looks.probe,
                self.ownership.topic_partitions,
                clock,
                monotonic,
            ),
            self.relay,
            self.exhausted_relay,
            self.housekeeping,
            self.maintenance,
            self.topic_watch,
            self.attempt_log,
        )
        self.in_turn = tuple(part for part in in_turn if part is not None)

    def _learn(self, counts: Counts, now: float, ends: Ends, retentions: Retentions) -> None:
        self.topics.learn(counts, now, ends, retentions)
        self.source.look_for_stalls(ends)
