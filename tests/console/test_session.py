"""A session belongs to its token for twelve hours: it cannot be forged, changed, or outlive its token."""

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


def test_a_cookie_names_its_token() -> None:
    """It does until its lifetime ends, to the second."""
    session = session_of(COOKIE, CALLERS, NOW + LIFETIME - 1)
    assert session is not None
    assert session.caller == CALLERS[ANNE]
    assert session_of(COOKIE, CALLERS, NOW + LIFETIME) is None


def test_a_session_ends_with_its_token() -> None:
    """It ends even if another token now has the same name."""
    assert session_of(COOKIE, {BOB: CALLERS[BOB]}, NOW) is None
    assert session_of(COOKIE, {sha256(b"new").digest(): CALLERS[ANNE]}, NOW) is None


@given(st.integers(0, len(urlsafe_b64decode(COOKIE)) - 1), st.integers(1, 255))
def test_a_changed_cookie_is_invalid(place: int, change: int) -> None:
    """This holds for every bit."""
    value = bytearray(urlsafe_b64decode(COOKIE))
    value[place] ^= change
    assert session_of(urlsafe_b64encode(value).decode(), CALLERS, NOW) is None


@given(st.text() | st.binary(max_size=99).map(lambda value: urlsafe_b64encode(value).decode()))
def test_anything_else_is_no_session(cookie: str) -> None:
    """It is not an error."""
    assert session_of(cookie, CALLERS, NOW) is None


def test_each_session_has_its_own_form_token() -> None:
    """A form token is invalid in another session, even of the same token. It is no part of the cookie."""
    cookies = [COOKIE, cookie_of(ANNE, NOW, bytes([1]) * NONCE), cookie_of(BOB, NOW, bytes(NONCE))]
    sessions = [session_of(each, CALLERS, NOW) for each in cookies]
    tokens = [urlsafe_b64decode(session.form_token) for session in sessions if session]
    assert len({*tokens}) == 3
    assert not any(token in urlsafe_b64decode(cookie) for token, cookie in zip(tokens, cookies, strict=True))
    assert len({*cookies}) == 3
