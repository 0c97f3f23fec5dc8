"""Reports attempts: as spans, in the log, and as operational events. No report has a payload, a header or a secret.

Spans go by the semantic conventions for HTTP clients.
"""

from collections.abc import Sequence
from functools import lru_cache

from requests import PreparedRequest, RequestException, Response

from consumer.delivery.delivery import Delivery, StoredRow
from consumer.events.event import Event
from consumer.http.urls import parse_target, redact_url
from consumer.ledger.rows import AttemptFailure, OperationalEvent
from consumer.sending.trace import secrets_in
from consumer.subscriptions.endpoint import Endpoint
from consumer.telemetry.tracer import SAMPLED, Attributes, Tracer, TraceSpan


def attempt_begins(tracer: Tracer, endpoint: Endpoint, events: Sequence[Event], attempts: int) -> TraceSpan:
    """The span of a request that carries these events, after so many attempts.

    A batch belongs to the trace of its first sampled event and is linked to the others.
    """
    attributes = {**_receiver(endpoint.url, endpoint.method), "webhooks.subscription.id": endpoint.subscription_id}
    if attempts:
        attributes["http.request.resend_count"] = attempts
    if len(events) == 1:
        event = events[0]
        attributes |= {"webhooks.id": event.webhook_id, "webhooks.event.type": event.type}
        return tracer.start(endpoint.method, "client", event.traceparent, attributes)
    attributes["messaging.batch.message_count"] = len(events)
    parents = [event.traceparent for event in events if event.traceparent]  # an edited row may have an empty one
    parent = next((each for each in parents if each[-1] in SAMPLED), parents[0] if parents else None)
    links = [each for each in dict.fromkeys(parents) if each != parent]
    return tracer.start(endpoint.method, "client", parent, attributes, links=links)


def attempt_ends(span: TraceSpan, result: Response | RequestException | None) -> None:
    """End the span with the request's result; None: it was cancelled. Any result but a 2xx is an error."""
    if isinstance(result, Response):
        status = result.status_code
        span.end({"http.response.status_code": status}, None if 200 <= status < 300 else str(status))  # noqa: PLR2004 (2xx)
    else:
        span.end({}, "cancelled" if result is None else type(result).__name__)


@lru_cache(1024)
def _receiver(url: str, method: str) -> Attributes:
    """The attributes of a method and a valid URL. Its query is left out: receivers put tokens there."""
    target = parse_target(url)
    return {
        "http.request.method": method,
        "url.full": redact_url(url).partition("?")[0].partition("#")[0],
        "server.address": target.host,
        "server.port": target.port,
    }


def exhausted(delivery: Delivery, failure: AttemptFailure) -> OperationalEvent:
    """The operational event of a delivery that is given up."""
    event, endpoint, origin = delivery.event, delivery.lane.endpoint, delivery.origin
    more = {"attempts": delivery.attempts, "error": failure.error, "status": failure.status}
    data = about_delivery(event, endpoint.subscription_id, endpoint.url) | more
    identity = f"exhausted-{event.webhook_id}-{endpoint.subscription_id}-{delivery.attempts}"
    if isinstance(origin, StoredRow):  # a replay's row may have another row's event and number of attempts
        identity += f"-{origin.id}"
    return OperationalEvent("delivery.exhausted", identity, data)


def about_delivery(event: Event, subscription_id: int, url: str) -> dict[str, object]:
    """The data of an operational event about a delivery."""
    return {
        "subscription_id": subscription_id,
        "url": redact_url(url),
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        **event.record._asdict(),
    }


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
