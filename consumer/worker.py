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
from requests import RequestException, Response
from requests.exceptions import InvalidHeader

from consumer.database import DatabaseThread, create_engine
from consumer.delivery.fanout import Fanout
from consumer.delivery.lanes import Delivery, Lanes, OpenRecord, StoredRow
from consumer.delivery.ledger import due
from consumer.delivery.parking import Parking, StoredKeys
from consumer.delivery.recall import Recall
from consumer.delivery.retry import RetryPolicy
from consumer.delivery.settling import Settling
from consumer.errors import Undecodable
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.decode import decode
from consumer.intake.record import Partition, Record
from consumer.intake.source import Source
from consumer.matching.catalog import Broken, Catalog, find_endpoints
from consumer.matching.inbox import Inbox, Matched
from consumer.secret import parse_secret
from consumer.sending.egress import EgressPolicy
from consumer.sending.poller import Poller, raise_descriptor_limit
from consumer.sending.request import build
from consumer.sending.transport import CurlAdapter
from consumer.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.telemetry import Metrics
from consumer.vault import Vault

log = structlog.get_logger(__name__)

POLL_RECORDS = 500
GROWTH = 64  # requests that one turn starts beyond those that ended: each may be a new TLS connection of 0.65 ms
COMMIT_EVERY = 0.25  # seconds
PAUSE_AFTER = 1.0  # seconds without room, before partitions are paused: a pause drops what librdkafka has prefetched
SLOW_DATABASE = 5.0  # seconds without an answer that is said to /readyz; a call is given up after 30
FIRST_TIDY, TIDY_EVERY = 5.0, 60.0  # seconds
REVOKE_DRAIN = 5.0  # seconds for requests in flight inside a rebalance, which all members wait for
STORE_DRAIN = 5.0  # seconds for the database after that
LEAVE_DATABASE = 1.0  # seconds for a statement that still runs: what it stores counts as not settled

Place = tuple[str, int]


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
        self._clock, self._monotonic = clock, monotonic
        self._metrics = metrics
        self._drain_seconds = delivery.drain
        self.turned_at = monotonic()
        self._stopping = self._closing = self._paused = False
        self._fanout: Fanout | None = None
        self._in_flight: set[Delivery] = set()
        self._ended = 0  # requests that ended in the last turn
        self._next_commit = 0.0
        self._next_tidy = monotonic() + FIRST_TIDY
        self._tidy_below: dict[Place, int] = {}
        self._full_since: float | None = None
        self._received_at = 0.0
        self._waiting_since: float | None = None  # the oldest event waits for an answer of the database

        engine = create_engine(database)
        decrypt = Vault(database.encryption_keys).decrypt
        broken = Broken()
        secrets = tuple(map(parse_secret, delivery.secrets))
        raise_descriptor_limit()
        self._poller = Poller()
        self._transport = CurlAdapter(
            self._poller,
            egress=EgressPolicy(delivery.allow_networks, delivery.allow_http),
            timeout=delivery.timeout,
            connect_timeout=delivery.connect_timeout,
            max_connections=delivery.max_in_flight,
            proxy=delivery.proxy,
        )
        self._lookups = DatabaseThread("lookups", self._poller.post)
        self._ledger = DatabaseThread("ledger", self._poller.post)
        self._catalog = Catalog(
            lambda types, done: self._lookups.submit(
                partial(find_endpoints, engine, types, secrets, decrypt, broken=broken), done
            ),
            delivery.subscription_cache,
            monotonic,
        )
        self._inbox = Inbox(self._catalog)
        self._parking = Parking(
            engine,
            self._ledger,
            kafka.group_id,
            lambda owned, now, limit, full, taken: due(
                engine, kafka.group_id, owned, now, limit, full, secrets, decrypt, taken=taken
            ),
            monotonic,
        )
        self._lanes = Lanes(delivery.max_in_flight)
        self._settling = Settling(
            self._lanes,
            self._parking,
            RetryPolicy(delivery.retry_schedule, delivery.retry_jitter),
            metrics,
            in_memory=delivery.retry_in_memory,
            clock=clock,
            monotonic=monotonic,
        )
        self._recall = Recall(self._parking, self._lanes, self._settling, clock, monotonic)
        self._dead_letters = DeadLetters(kafka)
        self._source = Source(kafka, topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def stop(self) -> None:
        """Finish what is in flight and return from `run`. Safe to call from a signal handler or another thread."""
        self._stopping = True

    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Safe to call from another thread."""
        parts = (self._source.fault, self._catalog.fault, self._parking.fault, self._dead_letters.fault)
        reasons = [reason for reason in parts if reason]
        since = self._waiting_since
        if not reasons and since is not None and self._monotonic() - since >= SLOW_DATABASE:
            reasons.append(f"database: no answer for {self._monotonic() - since:.0f} s; events wait")
        return reasons

    def lag(self) -> dict[Place, int]:
        """Records not yet committed, by partition. Safe to call from another thread."""
        owned = list(self._source.partitions.items())
        return {place: partition.lag for place, partition in owned if partition.lag is not None}

    def run(self) -> None:
        """Consume until `stop`. FatalKafkaError when librdkafka cannot go on: start a new process."""
        while not self._stopping:
            self._round()
        self._close()

    def _round(self) -> None:
        self._intake(self._poll())
        self._dispatch()
        self._turn(self._patience())
        self._recall.look(self._source.partitions)
        self._keep_house()

    # 1. Records become events, or dead letters.

    def _poll(self) -> list[Record]:
        """New records, as many as there is room for. Without room for a second, partitions are paused and polled on."""
        room = self._inbox.room
        if room and not self._parking.full and not self._dead_letters.full:
            if self._paused:
                self._source.resume()
            self._full_since, self._paused = None, False
            return self._source.poll(min(room, POLL_RECORDS), 0.1 if self._idle() else 0.0)
        if self._full_since is None:
            self._full_since = self._monotonic()
        if not self._paused:
            if self._monotonic() - self._full_since < PAUSE_AFTER:
                return []
            self._source.pause()
            self._paused = True
        return self._source.poll(1, 0.0)

    def _intake(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._received_at = now = self._monotonic()
        types = set()
        for record in records:
            settle = record.partition.tracker.settle
            try:
                event = decode(record)
            except Undecodable as error:
                self._metrics.events["dead_lettered"] += 1
                place = record.partition.topic, record.partition.number, record.offset
                log.warning("undecodable", record=place, reason=error.reason, error=str(error))
                self._dead_letters.send(record, error.reason, str(error), partial(settle, record.offset))
                continue
            types.add(event.type)
            self._inbox.put(event, settle, now)
        self._catalog.want(types)

    # 2. Events become deliveries, queued in lanes.

    def _dispatch(self) -> None:
        now = self._monotonic()
        while True:
            if self._fanout is None:
                matched = self._inbox.next()
                if matched is None:
                    self._waiting_since = (self._waiting_since or now) if self._inbox else None
                    return
                self._waiting_since = None
                self._fanout = self._opened(matched)
            elif self._fanout.advance(self._lanes, self._settling, now):
                self._fanout = None
            else:
                return

    def _opened(self, matched: Matched) -> Fanout | None:
        event, endpoints, settle = matched
        if not endpoints:
            self._metrics.events["unmatched"] += 1
            settle(event.record.offset)
            return None
        self._metrics.events["matched"] += 1
        return Fanout(event, endpoints, OpenRecord(settle, event.record.offset, len(endpoints)))

    # 3. Deliveries are sent; their results come back as calls of `_completed`.

    def _turn(self, wait: float) -> None:
        self.turned_at = now = self._monotonic()
        self._lanes.wake(now)
        self._start()
        self._poller.turn(wait)
        self._parking.pump()
        self._dead_letters.poll()
        if now >= self._next_commit:
            self._next_commit = now + COMMIT_EVERY
            self._source.commit()
            self._metrics.commits = self._source.commits_total
            self._metrics.retention_overtaken = self._source.overtaken_total
            self._metrics.connections_opened = self._transport.connections_opened
        self._metrics.in_flight = self._lanes.in_flight

    def _start(self) -> None:
        allowance, self._ended = GROWTH + self._ended, 0
        now, timestamp = self._monotonic(), int(self._clock())
        while allowance and (delivery := self._lanes.next()) is not None:
            allowance -= 1
            lane = delivery.lane
            delivery.started_at = now
            self._in_flight.add(delivery)
            if isinstance(delivery.origin, OpenRecord):
                delivery.origin.started = True
            if isinstance(lane.prepared, RequestException):
                self._completed(delivery, lane.prepared)
                continue
            try:
                request = build(lane.prepared, lane.endpoint, delivery.event, timestamp)
            except ValueError as error:  # a stored row whose header somebody has edited
                self._completed(delivery, InvalidHeader(error))
                continue
            delivery.transfer = self._transport.submit(request, partial(self._completed, delivery))

    def _completed(self, delivery: Delivery, result: Response | RequestException) -> None:
        self._in_flight.discard(delivery)
        self._ended += 1
        self._lanes.finished(delivery.lane)
        self._settling.attempted(delivery, result)

    def _idle(self) -> bool:
        """Nothing but a record can make work, so that the wait may be Kafka's."""
        return not (
            self._in_flight
            or self._inbox
            or self._fanout
            or self._parking.busy
            or self._parking.backlog
            or self._dead_letters.pending
        )

    def _patience(self) -> float:
        """Seconds the poller may wait: records do not wake it, so it looks at Kafka again soon after the last ones."""
        if self._idle() or self._lanes.ready():
            return 0.0
        return 0.001 if self._monotonic() - self._received_at < 1.0 else 0.005

    # 4. The database is kept tidy.

    def _keep_house(self) -> None:
        now = self._monotonic()
        self._catalog.want(())  # what failed is asked for again, though nobody waits for it any more
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_EVERY
            # The marks of the last time: a minute later they are committed.
            below = {} if self._source.fault else self._tidy_below
            self._parking.keep_house(below, self._clock(), self._count_parked)
            marks = {place: partition.tracker.low_water_mark for place, partition in self._source.partitions.items()}
            self._tidy_below = {place: mark for place, mark in marks.items() if mark is not None}

    def _count_parked(self, parked: int) -> None:
        self._metrics.parked = parked

    # 5. Partitions come and go.

    def _assigned(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            self._settling.leaving.discard((partition.topic, partition.number))
            self._load(partition)
        self._recall.at_once()

    def _load(self, partition: Partition) -> None:
        """Ask which deliveries of this partition are stored; until the answer is there, none of its events goes out."""
        place = partition.topic, partition.number

        def loaded(keys: StoredKeys) -> None:
            if self._source.partitions.get(place) is partition:
                self._inbox.stored(place, keys)

        self._parking.load_stored(place, partition.tracker.low_water_mark or 0, loaded)

    def _revoked(self, partitions: Sequence[Partition]) -> None:
        if not self._closing:
            self._drain(partitions, min(REVOKE_DRAIN, self._drain_seconds))

    def _lost(self, partitions: Sequence[Partition]) -> None:
        """Others own these now and send them again: forget what is here, store and commit nothing."""
        places = self._leave(partitions)
        for delivery in self._lanes.withdraw(lambda delivery: _place(delivery) in places):
            if isinstance(delivery.origin, StoredRow):
                self._settling.rows.discard(delivery.origin.id)
        for delivery in [delivery for delivery in self._in_flight if _place(delivery) in places]:
            self._cancel(delivery)
        self._parking.forget(places)

    def _drain(self, partitions: Sequence[Partition], seconds: float) -> None:
        """Give partitions up: nothing of them is sent twice that has been sent, nothing of them is lost."""
        # 1. Start nothing more of them: what a receiver has seen in part is stored, the rest left to the next owner.
        fanout = self._fanout
        places = self._leave(partitions)
        if fanout is not None and self._fanout is None:
            fanout.abandon(self._settling)
        for delivery in self._lanes.withdraw(lambda delivery: _place(delivery) in places):
            self._settling.withdrawn(delivery)
        # 2. Wait for the requests in flight; failures are stored, not retried here.
        end = self._monotonic() + seconds
        while self._monotonic() < end and any(_place(delivery) in places for delivery in self._in_flight):
            self._turn(0.01)
        # 3. Cut off the rest: their outcome is unknown, so they are stored as attempted.
        for delivery in [delivery for delivery in self._in_flight if _place(delivery) in places]:
            self._cancel(delivery)
            self._settling.abandoned(delivery)
        # 4. Wait until all of it is stored; what is not stays unsettled, and is sent again by the next owner.
        end = self._monotonic() + STORE_DRAIN
        while self._monotonic() < end and (self._parking.backlog or self._dead_letters.pending):
            self._turn(0.01)
        self._parking.forget(places)
        # 5. Commit what is settled now.
        self._source.commit_now(partitions)

    def _leave(self, partitions: Sequence[Partition]) -> set[Place]:
        places = {(partition.topic, partition.number) for partition in partitions}
        self._settling.leaving |= places
        self._inbox.discard(places)
        if self._fanout is not None and self._fanout.event.record[:2] in places:
            self._fanout = None
        return places

    def _cancel(self, delivery: Delivery) -> None:
        self._in_flight.discard(delivery)
        self._lanes.finished(delivery.lane)
        if delivery.transfer is not None:
            self._transport.cancel(delivery.transfer)
        if isinstance(delivery.origin, StoredRow):
            self._settling.rows.discard(delivery.origin.id)

    def _close(self) -> None:
        log.info("stopping", in_flight=len(self._in_flight), seconds=self._drain_seconds)
        self._drain(list(self._source.partitions.values()), self._drain_seconds)
        self._closing = True
        self._source.close()
        self._dead_letters.close()
        self._lookups.close(LEAVE_DATABASE)
        self._ledger.close(LEAVE_DATABASE)
        self._transport.close()
        self._poller.close()


def _place(delivery: Delivery) -> Place:
    return delivery.event.record[:2]
