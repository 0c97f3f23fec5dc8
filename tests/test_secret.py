"""Signing secrets as people write them."""

from base64 import b64encode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from consumer.secret import PREFIX, parse_secret


@given(st.binary(min_size=1, max_size=80))
def test_a_prefixed_secret_is_its_base64(key: bytes) -> None:
    """`whsec_` + base64 of a key is that key, as the Standard Webhooks library reads it."""
    text = PREFIX + b64encode(key).decode()
    assert parse_secret(text) == key == Webhook(text)._whsecret


@given(st.text(min_size=1).filter(lambda text: not text.startswith(PREFIX)).filter(str.isprintable))
def test_any_other_string_is_its_utf8_bytes(text: str) -> None:
    """A secret without the prefix is used as it stands."""
    assert parse_secret(text) == text.encode()


@given(st.text().map(lambda text: PREFIX + text))
@example("whsec_")
@example("whsec_Zm9v=")
@example("whsec_Zm9vYg")
@example("whsec_Zm9v\nZm9v")
@example("whsec_-_-_")
def test_what_is_wrong_is_said_without_the_secret(text: str) -> None:
    """A key comes out, or a ValueError of one line that repeats nothing of the secret."""
    try:
        assert parse_secret(text)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert len(text) < len(PREFIX) + 3 or text.removeprefix(PREFIX) not in message


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_Zm9vYg", "whsec_a b", "whsec_Zm9v*Zm9v", "whsec_-_-_", "\udcff"])
def test_a_secret_that_is_none_is_refused(text: str) -> None:
    """Empty keys, base64 that is none, and bytes that are no UTF-8 cannot be secrets."""
    with pytest.raises(ValueError, match=r"secret|base64|follows"):
        parse_secret(text)
