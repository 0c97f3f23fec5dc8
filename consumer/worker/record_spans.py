"""The spans of a record, by the semantic conventions for messaging: its processing, and the match."""

from collections.abc import Callable

from consumer.events.event import Event
from consumer.telemetry.tracer import Tracer

Settle = Callable[[int], None]  # takes the record's offset


def trace_record(tracer: Tracer, group: str, event: Event, settle: Settle, seconds: float) -> tuple[Event, Settle]:
    """Start the span of a record's processing, as of so many seconds ago; it ends when the record is settled.

    The returned event names this span as its `traceparent`, so that all later spans are its children, also those of
    stored deliveries. A record that is given up unsettled has no span; its next owner makes one.
    """
    record = event.record
    span = tracer.start(
        f"process {record.topic}",
        "consumer",
        event.traceparent,
        {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.consumer.group.name": group,
            "messaging.message.id": event.webhook_id,
            "messaging.message.body.size": len(event.body),
        },
        ago=seconds,
    )

    def settled(offset: int) -> None:
        settle(offset)
        span.end({})

    return event._replace(traceparent=span.traceparent), settled


def trace_match(tracer: Tracer, event: Event, seconds: float, matched: int, refused: int = 0) -> None:
    """Record the match of an event, which took so many seconds until now: look-up, filters, and the wait for room."""
    attributes = {"webhooks.event.type": event.type}
    counts = {"webhooks.subscriptions.matched": matched, "webhooks.subscriptions.refused": refused}
    tracer.start("match", "internal", event.traceparent, attributes, ago=seconds).end(counts)
