"""Deliveries that the database will not store: their records go to the dead-letter topic, so that the offsets move."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from consumer.delivery.attempt_reports import about_delivery
from consumer.delivery.failing import Notes
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import DeadLetters
from consumer.intake.record import AssignedPartition, Record
from consumer.ledger import outbox
from consumer.ledger.rows import NewDelivery, OperationalEvent, in_transaction
from consumer.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

REASON = "not_stored"  # of the dead letter


@dataclass(frozen=True)
class Refusals:
    """Used on the loop's thread."""

    group: str
    operations_topic: str
    dead_letters: DeadLetters
    notes: Notes
    metrics: Metrics
    partitions: Callable[[], Mapping[TopicPartition, AssignedPartition]]

    def give_up(self, item: NewDelivery, error: Exception, settle: Callable[[], None]) -> None:
        """Dead-letter the record of a delivery, and `settle` the delivery once the dead letter is acknowledged.

        A partition that has been revoked is the next owner's, which meets the same refusal.
        """
        event = item.event
        partition = self.partitions().get(event.record.topic_partition)
        if partition is not None:
            headers = None if event.headers is None else list(event.headers.items())
            record = Record(partition, event.record.offset, event.record.timestamp, event.key, event.body, headers)
            detail = f"subscription {item.subscription_id}: {error}"
            self.dead_letters.send(record, REASON, detail, partial(self._stored, item, str(error), settle))

    def _stored(self, item: NewDelivery, error: str, settle: Callable[[], None]) -> None:
        operation = dead_lettered(item, error)
        self.metrics.deliveries["dead_lettered"] += 1
        log.error("a delivery could not be stored; its record is on the dead-letter topic", **operation.data)
        if item.event.record.topic != self.operations_topic:  # no event about the delivery of an event
            write = partial(outbox.add, group=self.group, operations=[operation])
            self.notes.add(lambda engine: in_transaction(engine, write))
        settle()


def dead_lettered(item: NewDelivery, error: str) -> OperationalEvent:
    """The operational event of a delivery that the database would not store."""
    event, last = item.event, item.last.error if item.last else None
    data = about_delivery(event, item.subscription_id, item.url)
    data |= {"attempts": item.attempt, "last_error": last, "error": error}
    return OperationalEvent("delivery.dead_lettered", f"dead-lettered-{event.webhook_id}-{item.subscription_id}", data)
