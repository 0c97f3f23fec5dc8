"""Compressed bodies, as a receiver sees them."""

import json
import zlib
from dataclasses import replace
from random import Random

import pytest

from consumer.events.event import Event, RecordId
from consumer.sending.exchange import SignedRequest
from consumer.sending.payloads import MOST_FORMS, render
from consumer.sending.request import build, build_batch
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Batch, Endpoint, PayloadFormat
from tests.sending.conftest import Net
from tests.signatures import hexed, standard

BODY = json.dumps({"items": [{"id": number, "name": "Ada"} for number in range(50)]}).encode()
EVENT = Event(RecordId("t", 0, 1, 2), "user.created", "msg_abc", BODY, "application/json", None, None)
ENDPOINT = Endpoint(7, "https://example.com/hook", (b"key",), gzip_above=100)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request_of(endpoint: Endpoint, event: Event = EVENT, traceparent: str | None = None) -> SignedRequest:
    if endpoint.batch is None:
        return build(prepare(endpoint), endpoint, event, 1700000000, traceparent)
    return build_batch(prepare(endpoint), endpoint, [render(endpoint, event)] * 2, 1700000000, traceparent)


@pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
@pytest.mark.parametrize("form", ["record", "standard", "cloudevents"])
def test_a_body_above_the_size_is_compressed(form: PayloadFormat, batch: Batch | None, traceparent: str | None) -> None:
    """Everything else is unchanged: the signatures cover the body before compression."""
    endpoint = replace(ENDPOINT, payload_format=form, batch=batch)
    request, plain = request_of(endpoint, traceparent=traceparent), request_of(replace(endpoint, gzip_above=None))
    body = request.body
    assert isinstance(body, bytes)
    assert len(body) < len(BODY) // 2
    assert zlib.decompress(body, wbits=31) == request.payload == plain.body == plain.payload
    assert (request.is_compressed, plain.is_compressed) == (True, False)
    headers = dict(request.headers)
    assert (headers.pop("content-encoding"), headers.pop("content-length")) == ("gzip", str(len(body)))
    assert headers.pop("traceparent", None) == traceparent
    assert headers == {name: value for name, value in plain.headers.items() if name != "content-length"}
    webhook_id = headers["webhook-id"]
    assert headers["webhook-signature"] == standard((b"key",), (), webhook_id, 1700000000, request.payload)
    assert headers["x-webhook-signature"] == hexed(b"key", request.payload)


def test_only_above_the_size() -> None:
    """A body of exactly that size is not compressed."""
    for size, is_compressed in ((len(BODY), False), (len(BODY) - 1, True), (0, True)):
        assert request_of(replace(ENDPOINT, gzip_above=size)).is_compressed is is_compressed


@pytest.mark.parametrize("body", [Random(1).randbytes(5_000), b"{}", b""])
def test_a_body_that_would_not_shrink_is_not_compressed(body: bytes) -> None:
    """It has no content-encoding header then."""
    request = request_of(replace(ENDPOINT, gzip_above=0), EVENT._replace(body=body))
    assert request.body == body
    assert "content-encoding" not in request.headers


def test_each_attempt_sends_the_same_bytes() -> None:
    """This holds even if other events were sent in between, so that a receiver can compare its logs."""
    first = request_of(ENDPOINT).body
    request_of(ENDPOINT, EVENT._replace(body=BODY + b" "))
    again = request_of(ENDPOINT).body
    assert again == first
    assert again is not first


def test_a_fanout_compresses_once() -> None:
    """All subscriptions with the same form of an event share the result, in any order. The last few forms are kept."""
    standard_form = replace(ENDPOINT, payload_format="standard")
    bodies = [request_of(endpoint).body for endpoint in (ENDPOINT, standard_form) * 3]
    assert bodies[0] is bodies[2] is bodies[4]
    assert bodies[1] is bodies[3] is bodies[5]
    incompressible = EVENT._replace(body=Random(1).randbytes(1_000))
    assert request_of(ENDPOINT, incompressible).body is request_of(ENDPOINT, incompressible).body
    for _ in range(MOST_FORMS):
        request_of(ENDPOINT, EVENT._replace(body=bytes(BODY)))


def test_a_subscriptions_own_encoding() -> None:
    """Its records are compressed already, as its own header says. They are not compressed twice."""
    request = request_of(replace(ENDPOINT, headers=(("Content-Encoding", "zstd"),)))
    assert (request.body, request.headers["content-encoding"]) == (BODY, "zstd")


def test_the_compressed_body_is_sent(net: Net) -> None:
    """The content-length is that of the compressed body."""
    receiver = net.receive()
    net.sender().response(request_of(replace(ENDPOINT, url=receiver.url)))
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert b"\r\ncontent-encoding: gzip\r\nContent-Length: %d" % len(body) in head
    assert zlib.decompress(body, wbits=31) == BODY
