"""Deliveries that were given up, as records of the exhausted topic: the event as it was, and headers of ours. Pure."""

from consumer.events.event import Event, RecordId, extra_of
from consumer.http.urls import redact_url
from consumer.intake.record import AssignedPartition, Record, Unreadable
from consumer.kafka.producer import Headers, Purpose
from consumer.ledger.admin import StoredDetail
from consumer.ledger.rows import AttemptFailure, NewDelivery

OURS = "exhausted-"  # the prefix of the headers that a record has besides its event's
PURPOSE = Purpose("exhausted topic", "KAFKA_EXHAUSTED_TOPIC", "deliveries that were given up")


def render(found: StoredDetail) -> tuple[Record, Headers]:
    """The event as the record that it was, and the headers that say what became of its delivery."""
    (item, event), place = found, found.event.record
    told: dict[str, object] = {
        **place._asdict(),
        "group": item.group,
        "subscription": item.subscription_id,
        "url": redact_url(item.url),  # plain SQL may have stored a password
        "replay": item.replay,
        "reason": item.last.error if item.last else None,
        "status": item.last.status if item.last else None,
        "attempts": item.attempt,
        "at": int(item.updated_at * 1000),
        "webhook-id": event.webhook_id,
        "event-type": event.type,
        "content-type": event.content_type or None,
        "traceparent": event.traceparent,
        "tenant": event.tenant,
    }
    own = None if event.headers is None else list(event.headers.items())
    partition = AssignedPartition(*place.topic_partition)
    record = Record(partition, place.offset, place.timestamp, event.key, event.body, own)
    return record, [(OURS + name, str(value).encode()) for name, value in told.items() if value is not None]


def parse(record: Record, group: str) -> NewDelivery | None:
    """The delivery of a record; None if it is another group's, was too large to be whole, or is none of a worker."""
    if record.headers is None or isinstance(record.headers, Unreadable):
        return None
    own = {name: value for name, value in record.headers if not name.startswith(OURS)}
    ours = ((name.removeprefix(OURS), value or b"") for name, value in record.headers if name.startswith(OURS))
    told = {name: value.decode(errors="replace") for name, value in ours}
    if told.get("group") != group or "sha256" in told:
        return None
    try:
        event = Event(
            RecordId(told["topic"], *(int(told[name]) for name in RecordId._fields[1:])),
            told["event-type"],
            told["webhook-id"],
            record.value or b"",
            told.get("content-type", ""),
            record.key,
            told.get("traceparent"),
            own or None,
            told.get("tenant"),
            extra_of(record.key, own),
        )
        status = int(told["status"]) if "status" in told else None
        last = AttemptFailure(told["reason"], status, None, int(told["at"]) / 1000) if "reason" in told else None
        to, made, replay = (int(told["subscription"]), told["url"]), int(told["attempts"]), int(told["replay"])
    except (KeyError, ValueError):
        return None
    return NewDelivery(event, *to, made, "exhausted", None, None, last, replay=replay)
