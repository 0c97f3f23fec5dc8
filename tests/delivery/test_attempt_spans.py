"""The span of an attempt."""

import pytest
from requests import RequestException, Response
from requests.exceptions import ConnectTimeout

from consumer.delivery.attempt_reports import attempt_begins, attempt_ends
from consumer.events.event import Event, RecordId
from consumer.subscriptions.endpoint import Endpoint
from tests.span_recorder import SpanRecorder

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b"
SAMPLED, ANOTHER, UNSAMPLED = f"{TRACE}7-01", f"{TRACE}8-03", f"{TRACE}9-00"


def event(traceparent: str | None) -> Event:
    return Event(RecordId("t", 0, 7, 1), "order.paid", "msg_1", b'{"card": 1}', "", b"key", traceparent)


@pytest.mark.parametrize(
    ("url", "full", "address", "port"),
    [
        ("https://example.com/hook", "https://example.com/hook", "example.com", 443),
        ("https://example.com:8443/hook?token=t#f", "https://example.com:8443/hook", "example.com", 8443),
        ("http://[::1]/a#token", "http://[::1]/a", "::1", 80),
    ],
)
def test_the_receiver_is_named_without_its_query(url: str, full: str, address: str, port: int) -> None:
    """URLs in spans have no query string, since receivers put tokens there."""
    tracer = SpanRecorder()
    for attempts in (0, 2):
        attempt_begins(tracer, Endpoint(3, url, (b"k",)), [event(SAMPLED)], attempts)
    span, again = tracer.spans
    assert again.attributes == span.attributes | {"http.request.resend_count": 2}, "of repeated requests"
    assert (span.name, span.kind, span.parent) == ("POST", "client", SAMPLED)
    assert span.attributes == {
        "http.request.method": "POST",
        "url.full": full,
        "server.address": address,
        "server.port": port,
        "webhooks.subscription.id": 3,
        "webhooks.id": "msg_1",
        "webhooks.event.type": "order.paid",
    }


@pytest.mark.parametrize(
    ("traceparents", "parent", "links"),
    [
        ((UNSAMPLED, SAMPLED, ANOTHER, SAMPLED), SAMPLED, [UNSAMPLED, ANOTHER]),
        ((UNSAMPLED, ANOTHER), ANOTHER, [UNSAMPLED]),
        ((None, UNSAMPLED), UNSAMPLED, []),
        (("", UNSAMPLED), UNSAMPLED, []),
        ((None, None), None, []),
    ],
)
def test_a_batch_is_in_the_trace_of_its_first_sampled_event(
    traceparents: tuple[str | None, ...], parent: str | None, links: list[str]
) -> None:
    """It is linked to the other events, once to each."""
    tracer = SpanRecorder()
    attempt_begins(tracer, Endpoint(3, "https://example.com", (b"k",)), list(map(event, traceparents)), 0)
    (span,) = tracer.spans
    assert (span.parent, span.links) == (parent, links)
    assert span.attributes["messaging.batch.message_count"] == len(traceparents)


@pytest.mark.parametrize(
    ("result", "status", "error"),
    [
        (200, 200, None),
        (204, 204, None),
        (302, 302, "302"),
        (410, 410, "410"),
        (503, 503, "503"),
        (ConnectTimeout("https://user:password@example.com"), None, "ConnectTimeout"),
        (None, None, "cancelled"),
    ],
)
def test_every_status_but_2xx_is_an_error(
    result: int | RequestException | None, status: int | None, error: str | None
) -> None:
    """The error is named by its status or exception class: an exception's text may hold a URL."""
    answer = Response()
    if isinstance(result, int):
        answer.status_code = result
    tracer = SpanRecorder()
    attempt_begins(tracer, Endpoint(3, "https://example.com", (b"k",)), [event(None)], 0)
    (span,) = tracer.spans
    attempt_ends(span, answer if isinstance(result, int) else result)
    assert (span.attributes.get("http.response.status_code"), span.error) == (status, error)
