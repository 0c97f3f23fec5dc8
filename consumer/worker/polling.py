"""Polls Kafka at all times: turns records into events or dead letters, and has settled offsets committed."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import structlog

from consumer.delivery.limits import Memory
from consumer.delivery.parking import Parking
from consumer.errors import RegistryUnavailable, Tombstone, Undecodable
from consumer.events.event import Event, in_trace
from consumer.intake.commits import is_commit_due
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.decode import Mapped, RecordLog, bug, decode, decoded, traceparent_of
from consumer.intake.record import AssignedPartition, Record
from consumer.intake.source import Source
from consumer.loop.part import RECORDS_WAIT, Part
from consumer.matching.catalog import Catalog
from consumer.matching.inbox import Inbox, Settle
from consumer.schemas.translation import Translation
from consumer.telemetry.metrics import Metrics
from consumer.telemetry.tracer import Attributes, Tracer

log = structlog.get_logger(__name__)

MOST_RECORDS = 500  # of one poll
PAUSE_AFTER = 1.0  # seconds without room, before partitions are paused: a pause drops prefetched records


class Polling(Part):
    """Takes records in, as many as there is room for.

    `received_at`: when the last records came (monotonic seconds). `waited`: seconds that the last poll waited for them.
    `committed_until`: offsets settled before that time (monotonic seconds) are known to be committed; None: all.
    """

    def __init__(
        self,
        source: Source,
        catalog: Catalog,
        inbox: Inbox,
        parking: Parking,
        dead_letters: DeadLetters,
        memory: Memory,
        metrics: Metrics,
        tenant_name: str,
        mapped: Mapped | None,
        is_idle: Callable[[], bool],
        monotonic: Callable[[], float],
        group: str = "",
        tracer: Tracer | None = None,
        translation: Translation | None = None,
    ) -> None:
        """`is_idle`: whether only a record can make work, so that a poll may wait for one. Spans name the `group`.

        `tenant_name` and `mapped` as in `decode`. Without a `translation`, values are decoded as they come.
        """
        self._source = source
        self._catalog = catalog
        self._inbox = inbox
        self._parking = parking
        self._dead_letters = dead_letters
        self._memory = memory
        self._metrics = metrics
        self._tenant_name = tenant_name
        self._mapped = mapped
        self._monotonic = monotonic
        self._log = RecordLog(monotonic)
        self._is_idle = is_idle
        self._group = group
        self._tracer = tracer
        self._translation = translation
        self._paused = self._stopped = False
        self._full_since: float | None = None
        self._committed_at = -inf
        self.committed_until: float | None = None
        self.received_at = self.waited = 0.0

    @property
    def busy(self) -> bool:
        """Assigned partitions wait until their records may be read."""
        return self._source.opening

    @property
    def fault(self) -> str | None:
        """Why records cannot be read, or offsets not be committed."""
        return self._source.fault

    def stop(self) -> None:
        """Take in no more records, and stay in the group."""
        self._source.pause()
        self._stopped = True

    def close(self) -> None:
        """Leave the group."""
        self._source.close()

    def poll(self, now: float) -> None:
        """Commit if a commit is due, then take in records; waits for them a little if the worker is idle.

        Takes no records inside a rebalance.
        """
        if is_commit_due(now - self._committed_at, lambda: self._source.moved):
            self._committed_at = now
            self.committed_until = self._source.commit()
        self.waited = 0.0
        self._log.poll()
        if self._source.rebalancing:
            return
        if self._stopped:  # other members may come and go while this one drains
            self._source.serve()
            return
        if self._is_idle():
            began = self._monotonic()
            records = self._records(RECORDS_WAIT)
            self.waited = self._monotonic() - began
        else:
            records = self._records(0.0)
        if self._translation is not None:
            records = self._translation.admit(records, self._room())
        if records:
            self._take_in(records)

    def event_of(self, record: Record) -> Event | None:
        """The event of a record that a cursor reads; None: it is a tombstone.

        RegistryUnavailable: its schema is not known yet; the registry is asked. Undecodable: it was dead-lettered when
        it was first read, or mappings, schemas or KAFKA_TENANT have changed since.
        """
        if self._translation is not None and not self._translation.knows(record):
            raise RegistryUnavailable("the schema is not known yet")
        try:
            return decoded(self._event_of, record)
        except Tombstone:
            return None

    @property
    def may_bury(self) -> bool:
        """There is room for another dead letter."""
        return not self._dead_letters.full

    def bury(self, record: Record, error: Undecodable, on_stored: Callable[[], None]) -> None:
        """Send a record that a cursor cannot decode to the dead-letter topic, unless it is there already."""
        if self._dead_letters.send_once(record, error.reason, str(error), on_stored):
            self._note_buried(record, error)

    def _event_of(self, record: Record) -> Event:
        read = record if self._translation is None else self._translation.json_of(record)
        return decode(read, self._tenant_name, self._mapped)

    def _take_in(self, records: Sequence[Record]) -> None:
        self.received_at = now = self._monotonic()
        keys = set()
        plain, tenant_name, mapped = self._translation is None, self._tenant_name, self._mapped
        for record in records:
            try:
                event = decode(record, tenant_name, mapped) if plain else self._event_of(record)
            except Tombstone:
                self._metrics.events["tombstone"] += 1
                record.partition.tracker.settle(record.offset)
                continue
            except Undecodable as error:
                self._bury(record, error, now)
                continue
            except Exception as error:  # noqa: BLE001 (raised, it would end each worker that reads the record)
                self._bury(record, bug(record, error), now)
                continue
            keys.add((event.type, event.tenant))
            size = event.size
            settle = self._hold(record.partition, size)
            if self._tracer is not None:
                if (parent := self._tracer.unsampled(event.traceparent)) is None:
                    about: Attributes = {
                        "messaging.message.id": event.webhook_id,
                        "messaging.message.body.size": len(event.body),
                    }
                    parent, settle = self._traced(self._tracer, record, event.traceparent, about, settle, now)
                if parent is not event.traceparent:
                    event = in_trace(event, parent)
            self._inbox.put(event, size, settle, now)
        self._catalog.want(keys)

    def _records(self, wait: float) -> Sequence[Record]:
        """New records, for which it waits so many seconds at most.

        If there is no room for PAUSE_AFTER seconds, pauses the partitions and polls on.
        """
        room = self._room()
        if self._translation is not None:
            room = min(room, self._translation.room)
        if room > 0:
            if self._paused:
                self._source.resume()
            self._full_since, self._paused = None, False
            return self._source.poll(min(room, MOST_RECORDS), wait)
        if self._full_since is None:
            self._full_since = self._monotonic()
        if not self._paused:
            if self._monotonic() - self._full_since < PAUSE_AFTER:
                return ()
            self._source.pause()
            self._paused = True
        return self._source.poll(1, 0.0)

    def _room(self) -> int:
        """How many more records may be turned into events."""
        if self._parking.full or self._dead_letters.full:
            return 0
        return min(self._inbox.room, self._memory.room)

    def _bury(self, record: Record, error: Undecodable, arrived: float) -> None:
        self._note_buried(record, error)
        settle = self._hold(record.partition, record.size)
        if self._tracer is not None:
            about = {"messaging.message.body.size": len(record.value or b"")}
            parent = traceparent_of(record)
            _, settle = self._traced(self._tracer, record, parent, about, settle, arrived, error.reason)
        self._dead_letters.send(record, error.reason, str(error), partial(settle, record.offset))

    def _note_buried(self, record: Record, error: Undecodable) -> None:
        self._metrics.events["dead_lettered"] += 1
        self._log.write(logging.WARNING, "undecodable", record, error.reason, reason=error.reason, error=str(error))

    def _traced(
        self,
        tracer: Tracer,
        record: Record,
        parent: str | None,
        about: Attributes,
        settle: Settle,
        arrived: float,
        reason: str | None = None,
    ) -> tuple[str, Settle]:
        """Start the span of a record's processing, by the semantic conventions; it ends when the record is settled.

        Returns its `traceparent`, by which all later spans are its children, also those of stored deliveries, and the
        function that settles the record. With a `reason`, the span ends as failed. A record that is given up unsettled
        has no span; its next owner makes one.
        """
        topic, number = record.partition.topic_partition
        attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(number),
            "messaging.kafka.offset": record.offset,
            "messaging.consumer.group.name": self._group,
            **about,
        }
        ago = self._monotonic() - arrived
        span = tracer.start(f"process {topic}", "consumer", parent, attributes, ago=ago)

        def settled(offset: int) -> None:
            settle(offset)
            span.end({}, reason)

        return span.traceparent, settled

    def _hold(self, partition: AssignedPartition, size: int) -> Settle:
        """Count a record in memory; returns the function that settles it."""
        if partition.owned:  # unlike the last records of a log that began again in the same poll
            self._memory.hold(partition, size)
        return partial(self._settled, partition, size)

    def _settled(self, partition: AssignedPartition, size: int, offset: int) -> None:
        partition.tracker.settle(offset)
        self._memory.release(partition, size)
