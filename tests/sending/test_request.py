"""The request of a delivery."""

import pytest
from requests.exceptions import InvalidURL, MissingSchema

from consumer import __version__
from consumer.endpoint import Endpoint
from consumer.event import Event, RecordId
from consumer.sending.request import build, prepare
from consumer.sending.signing import hex_signature, standard_signature

ENDPOINT = Endpoint(7, "https://example.com/hook?a=b", (b"new", b"old"))
EVENT = Event(RecordId("t", 0, 1, 2), "user.created", "msg_abc", b'{"id": 123}', "application/json", None, None)


def test_headers_and_body() -> None:
    """Each header of the contract is there, over the record's bytes."""
    request = build(prepare(ENDPOINT), ENDPOINT, EVENT, 1700000000)
    assert request.method == "POST"
    assert request.url == ENDPOINT.url
    assert request.body == EVENT.body
    assert dict(request.headers) == {
        "user-agent": f"kafka-webhooks/{__version__}",
        "content-length": "11",
        "content-type": "application/json",
        "webhook-id": "msg_abc",
        "webhook-timestamp": "1700000000",
        "webhook-signature": standard_signature((b"new", b"old"), "msg_abc", 1700000000, EVENT.body),
        "x-webhook-signature": hex_signature(b"new", EVENT.body),
        "x-webhook-event": "user.created",
    }


def test_one_delivery_leaves_no_trace_in_the_next() -> None:
    """The prepared request is copied: a header of one event is not sent with another."""
    prepared = prepare(ENDPOINT)
    traced = EVENT._replace(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert build(prepared, ENDPOINT, traced, 1).headers["traceparent"] == traced.traceparent
    assert "traceparent" not in build(prepared, ENDPOINT, EVENT, 1).headers
    assert "webhook-id" not in prepared.headers


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://exa mple.com:port"])
def test_nonsense_urls_are_refused_when_prepared(url: str) -> None:
    """A url that is none is an error of requests, once, before anything is sent."""
    with pytest.raises(InvalidURL):
        prepare(Endpoint(1, url, (b"k",)))


def test_a_url_without_a_scheme() -> None:
    """`example.com/hook` is no url."""
    with pytest.raises(MissingSchema):
        prepare(Endpoint(1, "example.com/hook", (b"k",)))
