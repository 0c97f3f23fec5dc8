"""Building the request of a delivery, and of a batch; compressed bodies."""

import json
import zlib
from base64 import b64encode
from dataclasses import replace
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth
from requests.exceptions import InvalidHeader, InvalidURL

from consumer import __version__
from consumer.crypto.credentials import BearerAuth, parse_basic
from consumer.crypto.keys import Ed25519Key
from consumer.events.event import Event, RecordId
from consumer.expressions.expression import compile_projection
from consumer.http.header_rules import header_lines
from consumer.sending.exchange import SignedRequest
from consumer.sending.payloads import MOST_FORMS, Unrenderable, render
from consumer.sending.request import build, build_batch
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Batch, Endpoint, PayloadFormat
from tests.sending.conftest import Net
from tests.signatures import hexed, standard

ENDPOINT = Endpoint(7, "https://example.com/hook?a=b", (b"new", b"old"))
EVENT = Event(RecordId("t", 0, 1, 2), "user.created", "msg_abc", b'{"id": 123}', "application/json", None, None)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request_of(endpoint: Endpoint, event: Event = EVENT, timestamp: int = 1700000000) -> PreparedRequest:
    return build(prepare(endpoint), endpoint, event, timestamp)


def batch_of(endpoint: Endpoint, *events: Event, timestamp: int = 1700000000) -> PreparedRequest:
    payloads = [render(endpoint, event) for event in events]
    return build_batch(prepare(endpoint), endpoint, payloads, timestamp)


def headers_of(webhook_id: str, body: bytes) -> dict[str, str]:
    """The headers of the contract, computed over the body."""
    return {
        "user-agent": f"kafka-webhooks/{__version__}",
        "content-length": str(len(body)),
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": "1700000000",
        "webhook-signature": standard((b"new", b"old"), (), webhook_id, 1700000000, body),
        "x-webhook-signature": hexed(b"old", body),
        "x-webhook-event": "user.created",
    }


def test_headers_and_body() -> None:
    """Each header of the contract is present and computed over the record's bytes."""
    request = request_of(ENDPOINT)
    assert (request.method, request.url, request.body) == ("POST", ENDPOINT.url, EVENT.body)
    assert dict(request.headers) == headers_of("msg_abc", EVENT.body)


def test_one_delivery_leaves_no_trace_in_the_next() -> None:
    """The prepared request is copied, so no header of one event is sent with another."""
    prepared = prepare(ENDPOINT)
    before = dict(prepared.request.headers)
    traced = EVENT._replace(traceparent=TRACEPARENT)
    assert build(prepared, ENDPOINT, traced, 1).headers["traceparent"] == TRACEPARENT
    assert "traceparent" not in build(prepared, ENDPOINT, EVENT, 1).headers
    assert dict(prepared.request.headers) == before
    assert prepared.request.body is None


@pytest.mark.parametrize("own", [None, TRACEPARENT])
def test_the_traceparent_of_an_attempt_replaces_the_events(own: str | None) -> None:
    """Each request of a fan-out has its own. The signature is the same, since it does not cover headers."""
    prepared, event = prepare(ENDPOINT), EVENT._replace(traceparent=own)
    attempts = [f"{TRACEPARENT[:-4]}{number}-01" for number in range(2)]
    requests = [build(prepared, ENDPOINT, event, 1, attempt) for attempt in attempts]
    requests.append(build_batch(prepared, ENDPOINT, [render(ENDPOINT, event)], 1, attempts[0]))
    for request, expected in zip(requests, [*attempts, attempts[0]], strict=True):
        assert request.lines is not None
        assert request.lines.count(b"traceparent: ") == 1
        assert request.headers["traceparent"] == expected
    assert build(prepared, ENDPOINT, event, 1).headers.get("traceparent") == own
    assert len({request.headers["webhook-signature"] for request in requests[:2]}) == 1


def test_a_request_is_a_complete_prepared_request() -> None:
    """`requests` and its plug-ins can use all of it: a copy, hooks and cookies."""
    request = request_of(ENDPOINT)
    assert all(hasattr(request, name) for name in vars(PreparedRequest()))
    assert not hasattr(request, "another")
    assert dict(request.copy().headers) == dict(request.headers)


@pytest.mark.parametrize("kind", get_args(PayloadFormat))
def test_the_signatures_cover_the_bytes_sent(kind: PayloadFormat) -> None:
    """In every format, the signature and the length are those of the bytes that are sent."""
    request = request_of(replace(ENDPOINT, payload_format=kind, projection=compile_projection("data.id")))
    assert isinstance(request.body, bytes)
    assert (kind in {"record", "cloudevents-binary"}) == (request.body == b"123")
    signature = standard(ENDPOINT.secrets, (), "msg_abc", 1700000000, request.body)
    assert request.headers["webhook-signature"] == signature
    assert request.headers["x-webhook-signature"] == hexed(b"old", request.body)
    assert request.headers["content-length"] == str(len(request.body))
    assert request.headers["content-type"] == (
        "application/cloudevents+json" if kind == "cloudevents" else "application/json"
    )


def test_a_cloud_event_in_binary_mode() -> None:
    """Its attributes are headers beside ours, also with a trace and in a compressed request; others get none."""
    binary = replace(ENDPOINT, payload_format="cloudevents-binary", gzip_above=1)
    endpoints = (ENDPOINT, binary, replace(binary, gzip_above=None), ENDPOINT)
    plain, compressed, request, again = (request_of(each) for each in endpoints)
    ours = dict(plain.headers)
    more = {name: value for name, value in request.headers.items() if name not in ours}
    assert more == {
        "ce-specversion": "1.0",
        "ce-id": "msg_abc",
        "ce-source": "t",
        "ce-type": "user.created",
        "ce-time": "1970-01-01T00:00:00.002Z",
    }
    assert {**request.headers} == {**ours, **more}
    assert more.items() <= dict(compressed.headers).items()
    assert dict(again.headers) == ours


# Signatures.


def test_the_hex_header_can_have_another_name_and_a_prefix() -> None:
    """As `sha256=…` in `X-Hub-Signature-256`, for receivers that look for it there."""
    request = request_of(replace(ENDPOINT, hex_header="X-Hub-Signature-256", hex_prefix="sha256="))
    assert request.headers["x-hub-signature-256"] == "sha256=" + hexed(b"old", EVENT.body)
    assert "X-Hub-Signature-256" in list(request.headers)
    assert "x-webhook-signature" not in request.headers


@pytest.mark.parametrize(
    "endpoint",
    [replace(ENDPOINT, hex_header=None), replace(ENDPOINT, secrets=(), private_keys=(Ed25519Key(bytes(32)),))],
)
def test_no_hex_header(endpoint: Endpoint) -> None:
    """None is sent if it is switched off or there is no symmetric secret."""
    assert "x-webhook-signature" not in request_of(endpoint).headers
    assert "x-webhook-signature" not in batch_of(replace(endpoint, batch=Batch(9, 1.0)), EVENT).headers


# The subscription's own headers and credentials.


def test_custom_headers() -> None:
    """They are sent unchanged. One of them may be the user agent."""
    request = request_of(replace(ENDPOINT, headers=(("X-Team", "blue"), ("User-Agent", "theirs/1"))))
    assert request.headers["x-team"] == "blue"
    assert "X-Team" in list(request.headers)
    assert request.headers["user-agent"] == "theirs/1"
    assert [name.lower() for name in request.headers].count("user-agent") == 1


@given(st.sampled_from(("webhook-id", "Webhook-Timestamp", "WEBHOOK-SIGNATURE", "content-type", "X-Webhook-Event")))
def test_our_headers_take_precedence_over_custom_ones(name: str) -> None:
    """Even if a custom header of that name gets past the validation of headers."""
    request = request_of(replace(ENDPOINT, headers=((name, "theirs"),)))
    assert dict(request.headers.lower_items()) == dict(request_of(ENDPOINT).headers.lower_items())


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        (parse_basic("user:pass:wörd"), "Basic " + b64encode("user:pass:wörd".encode()).decode()),
        (HTTPBasicAuth("user", "password"), "Basic " + b64encode(b"user:password").decode()),
        (BearerAuth("a-token"), "Bearer a-token"),
    ],
)
def test_credentials(auth: AuthBase, header: str) -> None:
    """An auth object of `requests` is applied once for all requests to an endpoint."""
    prepared = prepare(replace(ENDPOINT, auth=auth))
    assert prepared.request.headers["authorization"] == header
    request = build(prepared, ENDPOINT, EVENT, 1)
    assert f"Authorization: {header}\r\n".encode() in header_lines(request.headers)


def test_credentials_take_precedence_over_a_custom_header() -> None:
    """If both set `Authorization`, the credentials apply."""
    endpoint = replace(ENDPOINT, auth=BearerAuth("a"), headers=(("authorization", "b"),))
    assert request_of(endpoint).headers["authorization"] == "Bearer a"


# Batches.


BATCHING = replace(ENDPOINT, batch=Batch(10, 1.0))


def test_a_batch_is_one_request() -> None:
    """It is an array with an id of its own, signed like any body. It has no traceparent, since its events differ."""
    other = EVENT._replace(webhook_id="msg_def", body=b"[1]", traceparent=TRACEPARENT)
    request = batch_of(BATCHING, EVENT, other)
    webhook_id = request.headers["webhook-id"]
    assert request.body == b'[{"id": 123},[1]]'
    assert dict(request.headers) == headers_of(webhook_id, request.body)
    assert len(webhook_id) == len("msg_") + 32
    assert webhook_id not in {"msg_abc", "msg_def"}


def test_a_batch_of_several_types_has_no_event_header() -> None:
    """`x-webhook-event` is sent if all events have the same type."""
    assert "x-webhook-event" not in batch_of(BATCHING, EVENT, EVENT._replace(type="user.deleted")).headers


@given(st.lists(st.from_regex("msg_[0-9a-f]{1,4}", fullmatch=True), min_size=1, max_size=4), st.data())
def test_the_id_of_a_batch(ids: list[str], data: st.DataObject) -> None:
    """It is the same for the same events in the same order, at each attempt, and different for any others."""

    def of(members: list[str], timestamp: int = 1) -> str:
        events = [EVENT._replace(webhook_id=each) for each in members]
        return str(batch_of(BATCHING, *events, timestamp=timestamp).headers["webhook-id"])

    others = data.draw(st.permutations(ids) | st.just([*ids, "msg_0"]) | st.just(["".join(ids)]))
    assert of(ids, 5) == of(ids)
    assert (of(others) == of(ids)) == (others == ids)


@pytest.mark.parametrize(
    "event",
    [
        *(EVENT._replace(webhook_id="msg_é"), EVENT._replace(webhook_id="a\x00")),
        *(EVENT._replace(type="a\r\nb"), EVENT._replace(type="é")),
    ],
)
def test_an_event_with_an_invalid_header_value_cannot_join_a_batch(event: Event) -> None:
    """An id or a type that no header can hold is refused alone, before the batch is built."""
    with pytest.raises(Unrenderable, match="visible ASCII"):
        render(BATCHING, event)


# Compressed bodies.

LONG = json.dumps({"items": [{"id": number, "name": "Ada"} for number in range(50)]}).encode()
LONG_EVENT = EVENT._replace(body=LONG)
GZIPPING = replace(ENDPOINT, secrets=(b"key",), gzip_above=100)


def compressed_of(endpoint: Endpoint, event: Event = LONG_EVENT, traceparent: str | None = None) -> SignedRequest:
    template, at = prepare(endpoint), 1700000000
    if endpoint.batch is None:
        return build(template, endpoint, event, at, traceparent)
    return build_batch(template, endpoint, [render(endpoint, event)] * 2, at, traceparent)


@pytest.mark.parametrize("traceparent", [None, TRACEPARENT])
@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
@pytest.mark.parametrize("form", ["record", "standard", "cloudevents"])
def test_a_body_above_the_size_is_compressed(form: PayloadFormat, batch: Batch | None, traceparent: str | None) -> None:
    """Everything else is unchanged: the signatures cover the body before compression."""
    endpoint = replace(GZIPPING, payload_format=form, batch=batch)
    request, plain = compressed_of(endpoint, traceparent=traceparent), compressed_of(replace(endpoint, gzip_above=None))
    body = request.body
    assert isinstance(body, bytes)
    assert len(body) < len(LONG) // 2
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
    for size, is_compressed in ((len(LONG), False), (len(LONG) - 1, True), (0, True)):
        assert compressed_of(replace(GZIPPING, gzip_above=size)).is_compressed is is_compressed


@pytest.mark.parametrize("body", [Random(1).randbytes(5_000), b"{}", b""])
def test_a_body_that_would_not_shrink_is_not_compressed(body: bytes) -> None:
    """It has no content-encoding header then."""
    request = compressed_of(replace(GZIPPING, gzip_above=0), LONG_EVENT._replace(body=body))
    assert request.body == body
    assert "content-encoding" not in request.headers


def test_each_attempt_sends_the_same_bytes() -> None:
    """This holds even if other events were sent in between, so that a receiver can compare its logs."""
    first = compressed_of(GZIPPING).body
    compressed_of(GZIPPING, LONG_EVENT._replace(body=LONG + b" "))
    again = compressed_of(GZIPPING).body
    assert again == first
    assert again is not first


def test_a_fanout_compresses_once() -> None:
    """All subscriptions with the same form of an event share the result, in any order. The last few forms are kept."""
    standard_form = replace(GZIPPING, payload_format="standard")
    bodies = [compressed_of(endpoint).body for endpoint in (GZIPPING, standard_form) * 3]
    assert bodies[0] is bodies[2] is bodies[4]
    assert bodies[1] is bodies[3] is bodies[5]
    incompressible = LONG_EVENT._replace(body=Random(1).randbytes(1_000))
    assert compressed_of(GZIPPING, incompressible).body is compressed_of(GZIPPING, incompressible).body
    for _ in range(MOST_FORMS):
        compressed_of(GZIPPING, LONG_EVENT._replace(body=bytes(LONG)))


def test_a_subscriptions_own_encoding() -> None:
    """Its records are compressed already, as its own header says. They are not compressed twice."""
    request = compressed_of(replace(GZIPPING, headers=(("Content-Encoding", "zstd"),)))
    assert (request.body, request.headers["content-encoding"]) == (LONG, "zstd")


def test_the_compressed_body_is_sent(net: Net) -> None:
    """The content-length is that of the compressed body."""
    receiver = net.receive()
    net.sender().response(compressed_of(replace(GZIPPING, url=receiver.url)))
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert b"\r\ncontent-encoding: gzip\r\nContent-Length: %d" % len(body) in head
    assert zlib.decompress(body, wbits=31) == LONG


# URLs.


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:s3cret@host:99999/", "https://user:s3cret@/hook", "http//user:s3cret@host"),
        *("//user:s3cret@host", "https://user:s3cret/x@host/", "https://user:[s3cret]@host/"),
        *("https://user:s3cret@[::1/", "https://s3cret%zz/", "https://*.example/s3cret", "https://.example/s3cret"),
        *("https://a:1 s3cret@host/", "https://[v1.s3cret]/"),
    ],
)
def test_an_error_does_not_quote_the_url(url: str) -> None:
    """`requests` quotes it whole: a password in it would be logged, stored as `last_error` and published."""
    with pytest.raises(InvalidURL, match="the URL") as caught:
        prepare(Endpoint(1, url, (b"k",), auth=HTTPBasicAuth("bob", "word")))
    for piece in ("s3cret", "user", "bob", "word"):
        assert piece not in str(caught.value).replace("user name or password", "")


def test_an_error_does_not_quote_a_header() -> None:
    """Its value may be a secret."""
    with pytest.raises(InvalidHeader) as caught:
        prepare(Endpoint(1, "https://example.com/", (b"k",), headers=(("X-Key", "s3cret\n"),)))
    assert "s3cret" not in str(caught.value)
