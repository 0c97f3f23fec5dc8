"""Parsing signing secrets."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from consumer.crypto.keys import (
    PREFIX,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    Algorithm,
    Ed25519Key,
    algorithm_of,
    generate,
    parse_secret,
    parse_signing_key,
    parse_verifying_key,
    receiver_key,
    weakness,
)

# RFC 8032, section 7.1, test 1: private key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
            "655141438e7a100b"
        ),
    ),
]


@pytest.mark.parametrize("length", [1, 23, 24, 64, 65])
def test_a_secret_of_another_length_than_the_specifications_is_weak(length: int) -> None:
    """Standard Webhooks, "Signature scheme", requires 24 to 64 bytes."""
    why = None if 24 <= length <= 64 else f"has {length} bytes; Standard Webhooks wants 24 to 64"
    assert weakness(PREFIX + b64encode(b"x" * length).decode()) == weakness("x" * length) == why


@given(st.binary(min_size=1, max_size=80))
def test_a_prefixed_secret_is_its_base64(key: bytes) -> None:
    """The key of `whsec_` + base64 is the decoded base64, as in the Standard Webhooks library."""
    text = PREFIX + b64encode(key).decode()
    assert parse_secret(text) == key == Webhook(text)._whsecret


@given(st.text(min_size=1).filter(lambda text: not text.startswith((PREFIX, '"', "'"))).filter(str.isprintable))
def test_any_other_string_is_its_utf8_bytes(text: str) -> None:
    """A secret without the prefix is used unchanged."""
    assert parse_secret(text) == text.encode()


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_Zm9vYg", "whsec_a b", "whsec_Zm9v*Zm9v", "whsec_-_-_", "\udcff"])
def test_an_invalid_secret_is_refused(text: str) -> None:
    """Empty keys, invalid base64 and text that has no UTF-8 are refused, without a part of the secret."""
    with pytest.raises(ValueError, match=r"secret|base64|follows") as caught:
        parse_secret(text)
    assert len(text) < 7 or text[6:] not in str(caught.value)


def encoded(prefix: str, key: bytes) -> str:
    return prefix + b64encode(key).decode()


@pytest.mark.parametrize(
    ("before", "text"),
    [
        ('"', "quotation mark"),
        ("'", "quotation mark"),
        ("\ufeff", "byte order mark"),
        (" ", "start"),
        ("KEY=", "start"),
    ],
)
@pytest.mark.parametrize("secret", [encoded(PREFIX, b"k" * 24), encoded(PRIVATE_PREFIX, b"k" * 32)])
def test_text_before_a_secret_is_refused(before: str, secret: str, text: str) -> None:
    """As a part of the key it would sign with a key that no receiver has. The error contains no part of the secret."""
    with pytest.raises(ValueError, match=text) as caught:
        parse_signing_key(before + secret)
    assert secret[10:20] not in str(caught.value)


@pytest.mark.parametrize("before", ['"', "'", "\ufeff"])
def test_a_quoted_plain_secret_is_refused(before: str) -> None:
    """Quotation marks and byte order marks are refused without a prefix as well; inside a secret they are its bytes."""
    with pytest.raises(ValueError, match="mark"):
        parse_secret(f"{before}plain")
    assert parse_secret(f"plain{before}") == f"plain{before}".encode()


@pytest.mark.parametrize(("private", "public", "message", "signature"), RFC_8032)
def test_published_vectors_of_ed25519(private: str, public: str, message: str, signature: str) -> None:
    """The vectors of RFC 8032 hold for a private key of 32 bytes, and for one followed by its public key."""
    seed, behind = bytes.fromhex(private), bytes.fromhex(public)
    for text in (encoded(PRIVATE_PREFIX, seed), encoded(PRIVATE_PREFIX, seed + behind)):
        key = parse_signing_key(text)
        assert isinstance(key, Ed25519Key)
        assert key.sign(bytes.fromhex(message)).hex() == signature
        assert key.public == encoded(PUBLIC_PREFIX, behind) == receiver_key(text)
        for either in (key.public, text):  # one's own receiver may be given either key
            parse_verifying_key(either).verify(bytes.fromhex(signature), bytes.fromhex(message))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (encoded(PRIVATE_PREFIX, bytes(31)), "31 bytes; a private key has 32 or 64"),
        (encoded(PRIVATE_PREFIX, bytes(65)), "65 bytes"),
        (encoded(PRIVATE_PREFIX, bytes(64)), "not its public key"),
        (PRIVATE_PREFIX, "nothing follows whsk_"),
        (PRIVATE_PREFIX + "hidden", "not base64"),
        (encoded(PUBLIC_PREFIX, bytes(32)), "public key, which verifies and cannot sign"),
    ],
)
def test_keys_that_cannot_sign_are_refused(text: str, problem: str) -> None:
    """A private key of another length, one with the wrong public half and a public key are refused."""
    with pytest.raises(ValueError, match=problem) as caught:
        parse_signing_key(text)
    assert "hidden" not in str(caught.value)
    assert text[5:] not in str(caught.value) or text == PRIVATE_PREFIX


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (encoded(PUBLIC_PREFIX, bytes(31)), "31 bytes; a public key has 32"),
        (PUBLIC_PREFIX + "hidden", "not base64"),
        (encoded(PRIVATE_PREFIX, bytes(31)), "31 bytes; a private key"),
        ("", "empty"),
    ],
)
def test_keys_that_cannot_verify_are_refused(text: str, problem: str) -> None:
    """A public key of another length, invalid base64 and an empty secret are refused."""
    with pytest.raises(ValueError, match=problem):
        parse_verifying_key(text)


@pytest.mark.parametrize("algorithm", ["hmac", "ed25519"])
def test_a_new_secret(algorithm: Algorithm) -> None:
    """A new secret has the requested algorithm, in the specification's format, and is different each time."""
    text = generate(algorithm)
    assert text != generate(algorithm)
    assert algorithm_of(text) == algorithm
    assert weakness(text) is None
    key = parse_signing_key(text)
    if isinstance(key, bytes):
        assert len(key) == 32
        assert receiver_key(text) == text == encoded(PREFIX, key)
        assert parse_verifying_key(text) == key
    else:
        assert text.startswith(PRIVATE_PREFIX + b64encode(key.seed).decode()[:42])
        assert len(text) == len(encoded(PRIVATE_PREFIX, bytes(64)))
        assert receiver_key(text) == key.public
