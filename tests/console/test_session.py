"""A session is its token's for twelve hours: nobody makes one, changes one, or keeps one whose token is gone."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from consumer.api.tokens import Caller
from consumer.console.session import LIFETIME, NONCE, cookie_of, session_of

ANNE, BOB = sha256(b"anne").digest(), sha256(b"bob").digest()
CALLERS = {ANNE: Caller("anne", frozenset({"read"})), BOB: Caller("bob", frozenset({"read", "write"}), "acme")}
NOW = 1_800_000_000.0
COOKIE = cookie_of(ANNE, NOW, bytes(NONCE))


def test_a_cookie_is_its_tokens() -> None:
    """Until it has lived its time, to the second."""
    session = session_of(COOKIE, CALLERS, NOW + LIFETIME - 1)
    assert session is not None
    assert session.caller == CALLERS[ANNE]
    assert session_of(COOKIE, CALLERS, NOW + LIFETIME) is None


def test_a_session_ends_with_its_token() -> None:
    """Also if another one has the same name by now."""
    assert session_of(COOKIE, {BOB: CALLERS[BOB]}, NOW) is None
    assert session_of(COOKIE, {sha256(b"new").digest(): CALLERS[ANNE]}, NOW) is None


@given(st.integers(0, len(urlsafe_b64decode(COOKIE)) - 1), st.integers(1, 255))
def test_a_changed_cookie_is_none(place: int, change: int) -> None:
    """Whatever bit of it was changed."""
    value = bytearray(urlsafe_b64decode(COOKIE))
    value[place] ^= change
    assert session_of(urlsafe_b64encode(value).decode(), CALLERS, NOW) is None


@given(st.text() | st.binary(max_size=99).map(lambda value: urlsafe_b64encode(value).decode()))
def test_anything_else_is_no_session(cookie: str) -> None:
    """And no error."""
    assert session_of(cookie, CALLERS, NOW) is None


def test_each_session_has_its_own_form_token() -> None:
    """A form token is worth nothing in another session, of the same token either."""
    cookies = [COOKIE, cookie_of(ANNE, NOW, bytes([1]) * NONCE), cookie_of(BOB, NOW, bytes(NONCE))]
    sessions = [session_of(each, CALLERS, NOW) for each in cookies]
    assert len({session.form_token for session in sessions if session}) == 3
    assert len({*cookies}) == 3
