"""Signatures of requests."""

import hashlib
import hmac
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from consumer.crypto.keys import Ed25519Key, parse_secret, parse_signing_key, parse_verifying_key
from consumer.ops.receiver import verify
from tests.signatures import hexed, standard

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE_ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
# From Svix's server, `test_asymmetric_key_signing`, and its documentation of the keys.
PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
ASYMMETRIC = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
SYMMETRIC = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
KEYS = st.lists(st.binary(min_size=1, max_size=64), max_size=3)
SEEDS = st.lists(st.binary(min_size=32, max_size=32), max_size=3)


def test_published_vectors() -> None:
    """That of Svix, whose `v1a` the specification adopted, with the public key, and that of Standard Webhooks' own."""
    key = parse_signing_key(PRIVATE)
    assert isinstance(key, Ed25519Key)
    assert key.public == PUBLIC
    assert standard((), (key,), MESSAGE_ID, TIMESTAMP, BODY) == ASYMMETRIC
    both = standard((parse_secret(SECRET),), (key,), MESSAGE_ID, TIMESTAMP, BODY)
    assert both == f"{SYMMETRIC} {ASYMMETRIC}"


@given(KEYS, SEEDS, st.binary(max_size=2000), st.integers(0, 10**10))
def test_a_signature_for_each_key(secrets: list[bytes], seeds: list[bytes], body: bytes, timestamp: int) -> None:
    """`v1` for each secret, in their order, then `v1a` for each private key. Each verifies with its key only."""
    private_keys = [Ed25519Key(seed) for seed in seeds]
    words = standard(secrets, private_keys, "msg_1", timestamp, body).split(" ")
    assert [word.partition(",")[0] for word in words] == ["v1"] * len(secrets) + ["v1a"] * len(seeds) or words == [""]
    keys = [*secrets, *(parse_verifying_key(key.public) for key in private_keys)]
    for word, key in zip(words, keys, strict=False):
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(timestamp), "webhook-signature": word}
        assert verify(headers, body, [key], timestamp) is None


@given(body=st.text(), key=st.binary(min_size=1, max_size=64), moment=st.integers(0, 2**31))
@example(body="", key=bytes(64), moment=0)  # a block of SHA-256: a longer key is hashed first, this one is not
def test_libraries_make_the_same_signature(body: str, key: bytes, moment: int) -> None:
    """Those of Standard Webhooks and of Svix, for the same key, id, time and body."""
    ours = standard((key,), (), "msg_1", moment, body.encode())
    for library in (Webhook, SvixWebhook):
        assert library(key).sign("msg_1", datetime.fromtimestamp(moment, UTC), body) == ours


@given(key=st.binary(min_size=1, max_size=100), body=st.binary(max_size=2000))
def test_hex_signature_is_plain_hmac(key: bytes, body: bytes) -> None:
    """The receiver of the tutorial verifies it with the standard library only."""
    assert hexed(key, body) == hmac.new(key, body, hashlib.sha256).hexdigest()
