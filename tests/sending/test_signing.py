"""The signatures that receivers verify."""

import hashlib
import hmac
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from consumer.secret import parse_secret
from consumer.sending.signing import hex_signature, standard_signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_published_vector() -> None:
    """The vector that the Standard Webhooks libraries share."""
    signature = standard_signature(
        (parse_secret(SECRET),), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(body=st.text().map(str), keys=st.lists(st.binary(min_size=1, max_size=64), min_size=1, max_size=3))
def test_library_verifies_each_valid_secret(body: bytes, keys: list[bytes]) -> None:
    """The reference library accepts the header with any of the secrets it was signed with."""
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": standard_signature(keys, "msg_1", now, orjson.dumps(body.decode())),
    }
    for key in keys:
        assert Webhook(key).verify(orjson.dumps(body.decode()).decode(), headers) == body.decode()


def test_library_refuses_a_changed_body() -> None:
    """A signature is bound to its bytes."""
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": standard_signature((parse_secret(SECRET),), "msg_1", now, b'{"a":1}'),
    }
    assert Webhook(SECRET).verify('{"a":1}', headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify('{"a":2}', headers)


@given(key=st.binary(min_size=1, max_size=100), body=st.binary(max_size=2000))
def test_hex_signature_is_plain_hmac(key: bytes, body: bytes) -> None:
    """A receiver of the tutorial verifies with the standard library alone."""
    assert hex_signature(key, body) == hmac.new(key, body, hashlib.sha256).hexdigest()
