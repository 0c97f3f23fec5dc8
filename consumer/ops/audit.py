"""Operational events for display: changes of subscriptions by people, and actions of the service itself."""

from datetime import datetime
from typing import NamedTuple

import orjson

from consumer.config.settings import KafkaSettings
from consumer.intake.record import Record
from consumer.ops.tail import newest


class AuditEntry(NamedTuple):
    """An operational event, which happened `at` (unix seconds). `actor` None: the service itself."""

    at: float
    type: str
    subscription_id: int | None
    actor: str | None
    data: dict[str, object]


def recent(kafka: KafkaSettings, limit: int) -> list[AuditEntry]:
    """The newest operational events of this group. Raises as `tail.newest` does."""
    found = (_entry_of(record, kafka.event_source) for record in newest(kafka, kafka.operations_topic, limit))
    return [entry for entry in found if entry is not None]


def _entry_of(record: Record, source: str) -> AuditEntry | None:
    """None for a record that is not an operational event of this group."""
    try:
        event = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    match event:
        case {"source": its_source, "type": str(kind), "time": str(moment), "data": dict(data)} if its_source == source:
            try:
                at = datetime.fromisoformat(moment).timestamp()
            except (ValueError, OverflowError):
                return None
            subscription, actor = data.get("subscription_id"), data.get("actor")
            return AuditEntry(
                at,
                kind,
                subscription if isinstance(subscription, int) else None,
                actor if isinstance(actor, str) else None,
                data,
            )
    return None
