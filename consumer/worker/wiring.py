"""Builds a worker: each part is constructed here, and given the parts that it uses.

Where two parts need each other, the first gets a function that returns the second, which is made later.
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
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.memory import Memory
from consumer.delivery.notes import Notes
from consumer.delivery.parking import Parking
from consumer.delivery.recall import Ledger, Recall
from consumer.delivery.sender import Sender
from consumer.delivery.settling import Settling
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.decode import Mapped
from consumer.intake.source import Source
from consumer.intake.topics import Topics, TopicWatch
from consumer.ledger.assigned import scan, with_due_rows
from consumer.ledger.due import fetch, postpone
from consumer.ledger.marks import recent
from consumer.loop.poller import Poller, raise_descriptor_limit
from consumer.matching.catalog import Catalog, EndpointCache, SubscriptionProblems, find_endpoints
from consumer.matching.destinations import rules_of
from consumer.matching.inbox import Inbox
from consumer.matching.selection import Budget, Selector
from consumer.schemas.conversion import Decode, SchemaId
from consumer.schemas.translation import Translation, in_threads
from consumer.sending.adapter import LoopAdapter
from consumer.sending.egress import EgressPolicy
from consumer.sending.pool import connections, fitting
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Tracer
from consumer.worker.attempt_log import AttemptLog
from consumer.worker.clock import ClockWatch
from consumer.worker.committer import Committer
from consumer.worker.dispatch import Dispatch
from consumer.worker.event_publisher import EventPublisher
from consumer.worker.handover import Handover
from consumer.worker.housekeeping import Housekeeping
from consumer.worker.maintenance import Maintenance
from consumer.worker.outbox_relay import OutboxRelay
from consumer.worker.ownership import Ownership
from consumer.worker.parts import Parts
from consumer.worker.polling import Polling
from consumer.worker.refusals import Refusals
from consumer.worker.takeover import Takeover
from consumer.worker.worker import Worker

log = structlog.get_logger(__name__)


def build_worker(
    kafka: KafkaSettings,
    names: Sequence[str],
    database: DatabaseSettings,
    delivery: DeliverySettings,
    metrics: Metrics,
    *,
    mapped: Mapped | None = None,
    tracer: Tracer | None = None,
    load_schema: Callable[[SchemaId], Decode] | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Worker:
    """A member of the consumer group; it joins now, and works when it runs. SettingsError: Kafka refuses a setting.

    `names` as in KAFKA_TOPICS; `mapped` decodes records of topics with a mapping. Without a `tracer`, nothing is
    traced. `load_schema` asks the registry, and blocks; without it, values are decoded as they come. `clock` gives unix
    seconds, `monotonic` seconds that only go forward.
    """
    engine, group = create_engine(database), kafka.group_id
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
    poller = Poller()
    transport = LoopAdapter(
        poller,
        egress=EgressPolicy(delivery.allow_networks, delivery.allow_http),
        timeout=delivery.timeout,
        connect_timeout=delivery.connect_timeout,
        max_connections=connections(slots, limit),
        proxy=delivery.proxy,
    )
    lookups, storing, taking_up, upkeep = threads = [
        DatabaseThread(name, poller.post) for name in ("lookups", "storing", "taking-up", "upkeep")
    ]

    # From events to lanes.
    find = partial(
        find_endpoints,
        engine,
        default_secrets=secrets,
        decrypt=decrypt,
        rules=rules,
        known=EndpointCache(),
        broken=SubscriptionProblems(),
    )
    catalog = Catalog(
        lambda keys, done: lookups.submit(partial(find, keys), done), delivery.subscription_cache, monotonic
    )
    inbox = Inbox(catalog, lambda topic_partition, offset: takeover.more(topic_partition, offset))  # noqa: PLW0108 (made below)
    lanes, memory = Lanes(slots), Memory()
    rows = TakenUp(memory)
    translation = None
    if load_schema is not None:
        translation = Translation(
            in_threads(load_schema, poller.post),
            memory,
            source=lambda: source,
            stands_aside=inbox.stands_aside,
            monotonic=monotonic,
        )
    dead_letters = DeadLetters(kafka)

    # Ownership of partitions.
    topics = Topics(kafka, names)
    topic_watch = TopicWatch(kafka, poller.post, topics.learn, topics.consumed, clock=monotonic)
    ownership = Ownership(lambda: source.partitions, topics, monotonic)

    # Stored deliveries, and operational events.
    relay = OutboxRelay(engine, upkeep, group, EventPublisher(kafka), lambda: ownership.leads, clock=monotonic)
    notes = Notes(engine, upkeep, monotonic, relay.wake)
    refusals = Refusals(group, kafka.operations_topic, dead_letters, notes, metrics, lambda: source.partitions)
    parking = Parking(
        engine,
        writer=storing,
        reader=taking_up,
        group=group,
        clock=clock,
        monotonic=monotonic,
        on_operation=relay.wake,
        on_refused=refusals.give_up,
        refused_after=delivery.refused_after,
    )

    # From lanes to results, and from results to next steps.
    attempt_log = AttemptLog(kafka, kafka.attempts_topic) if kafka.attempts_topic else None
    failing = Failing(notes, group, delivery.disable_after)
    settling = Settling(
        lanes,
        parking,
        failing,
        metrics,
        rows,
        schedule=delivery.retry_schedule,
        jitter=delivery.retry_jitter,
        in_memory=delivery.retry_in_memory,
        operations_topic=kafka.operations_topic,
        owns=ownership.owns,
        report=None if attempt_log is None else attempt_log.report,
        clock=clock,
        monotonic=monotonic,
    )
    budget = Budget(monotonic)
    selector = Selector(metrics, budget, monotonic)
    sender = Sender(lanes, settling, transport, memory, budget, clock=clock, monotonic=monotonic, tracer=tracer)
    dispatch = Dispatch(inbox, lanes, settling, selector, metrics, monotonic, tracer)

    # The stored deliveries of assigned partitions.
    def first_waiting(topic_partition: TopicPartition) -> int | None:
        first = dispatch.first_offset(topic_partition)
        if first is None and translation is not None:  # records there come after all events of their partition
            return translation.first_offset(topic_partition)
        return first

    ledger = Ledger(
        partial(scan, engine, group),
        partial(recent, engine, group),
        partial(with_due_rows, engine, group),
        partial(fetch, engine, group, default_secrets=secrets, decrypt=decrypt, rules=rules, said={}),
        partial(postpone, engine),
    )
    recall = Recall(
        ledger,
        taking_up,
        parking,
        lanes,
        settling,
        rows,
        selector,
        memory,
        partitions=ownership.topic_partitions,
        given_out=lambda topic_partition: ownership.given_out(topic_partition, first_waiting(topic_partition)),
        clock=clock,
        monotonic=monotonic,
    )
    takeover = Takeover(parking, recall, inbox, source=lambda: source, owns=ownership.owns)
    source = Source(
        kafka,
        names,
        on_assign=lambda partitions: worker.assigned(partitions),  # noqa: PLW0108 (the worker is made last)
        on_position=takeover.positioned,
        on_revoke=lambda partitions: worker.revoked(partitions),  # noqa: PLW0108
        on_lost=lambda partitions: worker.lost(partitions),  # noqa: PLW0108
        post=poller.post,
        meanwhile=lambda seconds: worker.turn(seconds),  # noqa: PLW0108
    )
    polling = Polling(
        source,
        catalog,
        inbox,
        parking,
        dead_letters,
        memory,
        metrics,
        tenant_name=kafka.tenant,
        mapped=mapped,
        is_idle=lambda: worker.is_idle(),  # noqa: PLW0108
        monotonic=monotonic,
        group=group,
        tracer=tracer,
        translation=translation,
    )
    handover = Handover(
        dispatch,
        lanes,
        settling,
        parking,
        dead_letters,
        sender,
        memory,
        turn=lambda seconds: worker.turn(seconds),  # noqa: PLW0108
        monotonic=monotonic,
        translation=translation,
    )
    housekeeping = Housekeeping(engine, upkeep, group, clock=clock, monotonic=monotonic)
    clocks, committer = ClockWatch(clock, monotonic), Committer(source)
    parts = Parts(
        poller=poller,
        threads=threads,
        transport=transport,
        memory=memory,
        lanes=lanes,
        settling=settling,
        inbox=inbox,
        budget=budget,
        topics=topics,
        source=source,
        ownership=ownership,
        handover=handover,
        maintenance=Maintenance(
            source, topics, lanes, parking, committer, ownership, handover, housekeeping, clocks, monotonic
        ),
        failing=failing,
        polling=polling,
        takeover=takeover,
        catalog=catalog,
        dispatch=dispatch,
        sender=sender,
        parking=parking,
        notes=notes,
        dead_letters=dead_letters,
        committer=committer,
        recall=recall,
        relay=relay,
        housekeeping=housekeeping,
        clocks=clocks,
        topic_watch=topic_watch,
        attempt_log=attempt_log,
        translation=translation,
    )
    worker = Worker(parts, drain=delivery.drain, clock=clock, monotonic=monotonic)
    return worker
