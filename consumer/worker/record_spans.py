"""The spans of a record, by the semantic conventions for messaging: its processing, and the match."""

from collections.abc import Callable

from consumer.events.event import Event
from consumer.intake.decode import traceparent_of
from consumer.intake.record import Record
from consumer.telemetry.tracer import Attributes, Tracer

Settle = Callable[[int], None]  # takes the record's offset


def trace_record(tracer: Tracer, group: str, event: Event, settle: Settle, seconds: float) -> tuple[Event, Settle]:
    """Start the span of a record's processing, as of so many seconds ago; it ends when the record is settled.

    The returned event names this span as its `traceparent`, so that all later spans are its children, also those of
    stored deliveries. A record that is given up unsettled has no span; its next owner makes one.
    """
    about: Attributes = {"messaging.message.id": event.webhook_id, "messaging.message.body.size": len(event.body)}
    record = event.record
    attributes = {**_of_record(group, record.topic, record.partition, record.offset), **about}
    span = tracer.start(f"process {record.topic}", "consumer", event.traceparent, attributes, ago=seconds)

    def settled(offset: int) -> None:
        settle(offset)
        span.end({})

    return event._replace(traceparent=span.traceparent), settled


def trace_dead_letter(
    tracer: Tracer, group: str, record: Record, reason: str, settle: Settle, seconds: float
) -> Settle:
    """Start the span of a record that is no event, as of so many seconds ago; it ends when the dead letter is stored.

    It ends as failed, with `reason` as its `error.type`. Returns the function that settles the record.
    """
    topic, partition = record.partition.topic_partition
    size = {"messaging.message.body.size": len(record.value or b"")}
    attributes = _of_record(group, topic, partition, record.offset) | size
    span = tracer.start(f"process {topic}", "consumer", traceparent_of(record), attributes, ago=seconds)

    def settled(offset: int) -> None:
        settle(offset)
        span.end({}, reason)

    return settled


def trace_match(tracer: Tracer, event: Event, seconds: float, matched: int, refused: int = 0) -> None:
    """Record the match of an event, which took so many seconds until now: look-up, filters, and the wait for room."""
    attributes = {"webhooks.event.type": event.type}
    counts = {"webhooks.subscriptions.matched": matched, "webhooks.subscriptions.refused": refused}
    tracer.start("match", "internal", event.traceparent, attributes, ago=seconds).end(counts)


def _of_record(group: str, topic: str, partition: int, offset: int) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
        "messaging.consumer.group.name": group,
    }
