"""Signatures in the form of other services, checked by the libraries that these publish, or by their documentation."""

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier

from consumer.events.event import Event, RecordId
from consumer.sending.payloads import render
from consumer.sending.request import build, build_batch
from consumer.sending.signing import prepare
from consumer.subscriptions.endpoint import Batch, Endpoint
from consumer.subscriptions.signature_template import PRESETS, parse_signature_template

SECRET, NOW = "a secret of the receiver", 1700000000
BODY = '{"id": "ü"}'.encode()
EVENT = Event(RecordId("t", 0, 1, 2), "order.created", "msg_abc", BODY, "application/json", None, None)
Headers = Mapping[str, str]


def endpoint_of(template: str, *secrets: bytes) -> Endpoint:
    """The oldest secret comes last."""
    parsed = parse_signature_template(template)
    return Endpoint(7, "https://a.example", secrets or (b"new", SECRET.encode()), signature_template=parsed)


def headers_of(template: str) -> Headers:
    endpoint = endpoint_of(template)
    headers: Headers = build(prepare(endpoint), endpoint, EVENT, NOW).headers
    return headers


def digest(signed: bytes, kind: str = "sha256", key: str = SECRET) -> bytes:
    return hmac.digest(key.encode(), signed, kind)


def by_stripe(headers: Headers, body: bytes) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], SECRET))
    except stripe.SignatureVerificationError:
        return False


def by_slack(headers: Headers, body: bytes) -> bool:
    clock: Any = SimpleNamespace(now=lambda: NOW + 1)
    return SignatureVerifier(SECRET, clock=clock).is_valid_request(body, dict(headers))


def by_paddle(headers: Headers, body: bytes) -> bool:
    """As in "Verify webhook signatures" of its documentation: its library installs a package named `tests`."""
    timestamp, _, given = headers["paddle-signature"].partition(";")
    signed = timestamp.removeprefix("ts=").encode() + b":" + body
    return hmac.compare_digest(f"h1={digest(signed).hex()}", given)


def by_github(headers: Headers, body: bytes) -> bool:
    """As in "Validating webhook deliveries" of its documentation."""
    expected = "sha256=" + hmac.new(SECRET.encode(), msg=body, digestmod=hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, headers["x-hub-signature-256"])


def by_shopify(headers: Headers, body: bytes) -> bool:
    """As in "Verify webhook deliveries" of its documentation."""
    return hmac.compare_digest(b64encode(digest(body)).decode(), headers["x-shopify-hmac-sha256"])


CHECKS: dict[str, Callable[[Headers, bytes], bool]] = {
    "stripe": by_stripe,
    "github": by_github,
    "shopify": by_shopify,
    "slack": by_slack,
    "paddle": by_paddle,
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_receiver_of_another_service_takes_it(name: str) -> None:
    """Its own check passes, and refuses another body. The other signatures are there too."""
    headers = headers_of(name)
    assert CHECKS[name](headers, BODY)
    assert not CHECKS[name](headers, BODY + b" ")
    assert {"webhook-signature", "x-webhook-signature"} <= {name.lower() for name in headers}


def test_the_free_form() -> None:
    """Any header, digest and encoding; what is signed may have the time and the id."""
    given = (
        '{"header": "X-Sig", "value": "id={id}, t={timestamp}, s={signature}", "signed": "{id}|{timestamp}|{body}",'
        ' "digest": "sha512", "encoding": "base64", "timestamp_header": "X-Time"}'
    )
    headers = headers_of(given)
    signature = b64encode(digest(b"msg_abc|1700000000|" + BODY, "sha512")).decode()
    assert headers["x-sig"] == f"id=msg_abc, t=1700000000, s={signature}"
    assert headers["x-time"] == "1700000000"
    assert headers_of('{"header": "X-Sig"}')["x-sig"] == digest(BODY).hex()


def test_a_batch_is_signed_as_a_whole() -> None:
    """With the id of the batch. Without a secret for HMAC there is no such header."""
    endpoint = endpoint_of('{"header": "X-Sig", "signed": "{id}.{body}"}')
    batch = Endpoint(
        7, "https://a.example", endpoint.secrets, batch=Batch(2, 1.0), signature_template=endpoint.signature_template
    )
    request = build_batch(prepare(batch), batch, [render(batch, EVENT), render(batch, EVENT)], NOW)
    headers: Headers = request.headers
    body = request.body
    assert isinstance(body, bytes)
    assert headers["x-sig"] == digest(headers["webhook-id"].encode() + b"." + body).hex()
    alone = Endpoint(7, "https://a.example", (), signature_template=endpoint.signature_template)
    assert "x-sig" not in build(prepare(alone), alone, EVENT, NOW).headers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("stripes", "is neither stripe, github"),
        ("[]", "is not a JSON object of texts"),
        ('{"header": 1}', "is not a JSON object of texts"),
        ('{"value": "{signature}"}', "lacks header"),
        ('{"header": "X-A", "colour": "red"}', "has colour; there are header, value"),
        ('{"header": "X A"}', "not a valid header name"),
        ('{"header": "webhook-id"}', "may not set webhook-id"),
        ('{"header": "Authorization"}', "another purpose"),
        ('{"header": "X-A", "timestamp_header": "Host"}', "may not set Host"),
        ('{"header": "X-\u212aey"}', "not a valid header name"),
        ('{"header": "X-A", "timestamp_header": "x-a"}', "twice"),
        ('{"header": "X-A", "digest": "md5"}', "another digest"),
        ('{"header": "X-A", "encoding": "base32"}', "another encoding"),
        ('{"header": "X-A", "signed": "{timestamp}"}', "does not end with {body}"),
        ('{"header": "X-A", "signed": "{body}{body}"}', "does not end with {body}"),
        ('{"header": "X-A", "signed": "{url}{body}"}', "something else than body, timestamp, id"),
        ('{"header": "X-A", "value": "t={timestamp}"}', "without {signature}"),
        ('{"header": "X-A", "value": "{signature}\\r\\nX-B: 1"}', "visible ASCII only"),
    ],
)
def test_bad_templates(text: str, why: str) -> None:
    """They are refused when the subscription is made."""
    with pytest.raises(ValueError, match=why):
        parse_signature_template(text)
