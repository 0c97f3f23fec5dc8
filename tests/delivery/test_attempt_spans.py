"""The span of an attempt."""

from collections.abc import Sequence

import pytest
from requests import RequestException, Response
from requests.exceptions import ConnectTimeout

from consumer.delivery.attempt_spans import attempt_begins, attempt_ends
from consumer.events.event import Event, RecordId
from consumer.subscriptions.endpoint import Endpoint
from consumer.telemetry.tracer import Attributes, Kind

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b"
SAMPLED, ANOTHER, UNSAMPLED = f"{TRACE}7-01", f"{TRACE}8-03", f"{TRACE}9-00"


class Recorder:
    """A tracer, and the only span that it starts."""

    traceparent = ""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: str | None,
        attributes: Attributes,
        *,
        links: Sequence[str] = (),
        ago: float = 0.0,
    ) -> "Recorder":
        assert not ago
        self.name, self.kind, self.parent, self.links, self.attributes = name, kind, parent, links, dict(attributes)
        return self

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        self.attributes |= attributes
        self.error = error

    def close(self) -> None:
        """Nothing to close."""


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
    """Receivers put tokens there."""
    tracer = Recorder()
    attempt_begins(tracer, Endpoint(3, url, (b"k",)), [event(SAMPLED)], 0)
    assert (tracer.name, tracer.kind, tracer.parent) == ("POST", "client", SAMPLED)
    assert tracer.attributes == {
        "http.request.method": "POST",
        "url.full": full,
        "server.address": address,
        "server.port": port,
        "webhooks.subscription.id": 3,
        "webhooks.id": "msg_1",
        "webhooks.event.type": "order.paid",
    }


def test_a_retry_says_how_many_attempts_were_made() -> None:
    """By the conventions' counter of repeated requests, which the first one does not have."""
    tracer = Recorder()
    attempt_begins(tracer, Endpoint(3, "https://example.com", (b"k",)), [event(None)], 2)
    assert tracer.attributes["http.request.resend_count"] == 2
    assert tracer.parent is None


@pytest.mark.parametrize(
    ("traceparents", "parent", "links"),
    [
        ((UNSAMPLED, SAMPLED, ANOTHER, SAMPLED), SAMPLED, [UNSAMPLED, ANOTHER]),
        ((UNSAMPLED, ANOTHER), ANOTHER, [UNSAMPLED]),
        ((None, UNSAMPLED), UNSAMPLED, []),
        ((None, None), None, []),
    ],
)
def test_a_batch_is_in_the_trace_of_its_first_sampled_event(
    traceparents: tuple[str | None, ...], parent: str | None, links: list[str]
) -> None:
    """And linked to the others, each once."""
    tracer = Recorder()
    attempt_begins(tracer, Endpoint(3, "https://example.com", (b"k",)), list(map(event, traceparents)), 0)
    assert (tracer.parent, list(tracer.links)) == (parent, links)
    assert tracer.attributes["messaging.batch.message_count"] == len(traceparents)


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
def test_whatever_is_no_2xx_is_an_error(
    result: int | RequestException | None, status: int | None, error: str | None
) -> None:
    """Named by its status or its class: an exception's text may hold a URL."""
    answer = Response()
    if isinstance(result, int):
        answer.status_code = result
    tracer = Recorder()
    attempt_begins(tracer, Endpoint(3, "https://example.com", (b"k",)), [event(None)], 0)
    attempt_ends(tracer, answer if isinstance(result, int) else result)
    assert (tracer.attributes.get("http.response.status_code"), tracer.error) == (status, error)
