"""Reports attempts, in the log and as operational events, without the secrets of their subscriptions."""

from collections.abc import Sequence

from requests import PreparedRequest, RequestException, Response

from consumer.delivery.delivery import Delivery, StoredRow
from consumer.http.urls import redact_url
from consumer.ledger.rows import Failure, OperationalEvent
from consumer.sending.masking import secrets_in


def exhausted(delivery: Delivery, failure: Failure) -> OperationalEvent:
    """The operational event of a delivery that is given up."""
    event, endpoint = delivery.event, delivery.lane.endpoint
    data = {
        "subscription_id": endpoint.subscription_id,
        "url": redact_url(endpoint.url),
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        **event.record._asdict(),
        "attempts": delivery.attempts,
        "error": failure.error,
        "status": failure.status,
    }
    identity = f"exhausted-{event.webhook_id}-{endpoint.subscription_id}-{delivery.attempts}"
    if isinstance(delivery.origin, StoredRow):  # a replay's row may have another row's event and number of attempts
        identity += f"-{delivery.origin.id}"
    return OperationalEvent("delivery.exhausted", identity, data)


def secrets_of(delivery: Delivery, result: Response | RequestException) -> Sequence[str]:
    """The secrets that the request carried."""
    endpoint = delivery.sent_to or delivery.lane.endpoint
    request = result.request
    return secrets_in(endpoint, request) if isinstance(request, PreparedRequest) else ()


def fields(delivery: Delivery, took: float, size: int) -> dict[str, object]:
    """Fields of the log event of an attempt that took so many seconds, one of `size` deliveries in a batch."""
    event = delivery.event
    found: dict[str, object] = {
        "topic": event.record.topic,
        "partition": event.record.partition,
        "offset": event.record.offset,
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        "subscription": delivery.lane.endpoint.subscription_id,
        "attempt": delivery.attempts,
        "seconds": round(took, 4),
    }
    return found if delivery.lane.batch is None else found | {"batch": size}
