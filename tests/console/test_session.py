"""A session belongs to its token for twelve hours: it cannot be forged, changed, or outlive its token."""

from base64 import urlsafe_b64decode
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from consumer.api.tokens import Caller
from consumer.console.session import LARGEST, LIFETIME, PAUSE, Throttle, cookie_of, opened, sealed, session_of
from consumer.ledger.request_keys import KEPT

ANNE, BOB = sha256(b"anne").digest(), sha256(b"bob").digest()
CALLERS = {ANNE: Caller("anne", frozenset({"read"})), BOB: Caller("bob", frozenset({"read", "write"}), "acme")}
NOW = 1_800_000_000.0
COOKIE = cookie_of(ANNE, NOW)


def test_a_cookie_names_its_token() -> None:
    """It does until its lifetime ends, to the second."""
    session = session_of(COOKIE, CALLERS, NOW + LIFETIME - 1)
    assert session is not None
    assert session.caller == CALLERS[ANNE]._replace(way="console")
    assert session.caller.actor == "console:anne"
    assert session_of(COOKIE, CALLERS, NOW + LIFETIME) is None


def test_a_session_ends_with_its_token() -> None:
    """It ends even if another token now has the same name."""
    assert session_of(COOKIE, {BOB: CALLERS[BOB]}, NOW) is None
    assert session_of(COOKIE, {sha256(b"new").digest(): CALLERS[ANNE]}, NOW) is None


@given(st.integers(0, len(COOKIE) - 1), st.characters(categories=["L", "N"]))
def test_a_changed_cookie_is_invalid(place: int, change: str) -> None:
    """Another text is not a session, or it is the same one: a session that has ended cannot come back in it."""
    session = session_of(COOKIE[:place] + change + COOKIE[place + 1 :], CALLERS, NOW)
    assert session in {None, session_of(COOKIE, CALLERS, NOW)}
    assert session is None or change == COOKIE[place] or place >= len(COOKIE.rstrip("=")) - 1


@given(st.text() | st.text().map(lambda text: COOKIE[:16] + text))
def test_anything_else_is_no_session(cookie: str) -> None:
    """It is not an error."""
    assert session_of(cookie, CALLERS, NOW) is None


@given(
    st.dictionaries(
        st.text(max_size=9), st.text(max_size=5000) | st.none() | st.booleans() | st.integers(0, 9), max_size=3
    )
)
def test_what_a_session_is_told_fits_into_a_cookie(told: dict[str, object]) -> None:
    """Long texts lose their ends. Another session cannot read it."""
    one, other = (session_of(cookie_of(ANNE, NOW), CALLERS, NOW) for _ in range(2))
    assert one is not None
    assert other is not None
    cookie = sealed(one, told)
    assert len(cookie) <= LARGEST
    found = opened(one, cookie)
    assert found is not None
    assert {name: str(told[name]).startswith(str(value)) for name, value in found.items()} == dict.fromkeys(told, True)
    assert opened(other, cookie) is None
    assert opened(one, cookie[:-9]) is None


def test_a_pause_is_one_address_s_own() -> None:
    """Addresses whose pause is over are forgotten."""
    throttle = Throttle()
    for number in range(100):
        throttle.wrong(f"192.0.2.{number}", NOW + number)
    assert throttle.wait("192.0.2.99", NOW + 100) == PAUSE - 1
    assert throttle.wait("192.0.2.1", NOW + 100) <= 0
    assert len(throttle._until) == PAUSE


def test_sign_outs_are_kept_as_long_as_sessions() -> None:
    """An idempotency key, beside which they are kept, is removed later."""
    assert KEPT > LIFETIME


def test_each_session_has_its_own_form_token() -> None:
    """A form token is invalid in another session, even of the same token. It is no part of the cookie."""
    cookies = [COOKIE, cookie_of(ANNE, NOW), cookie_of(BOB, NOW)]
    sessions = [session_of(each, CALLERS, NOW) for each in cookies]
    tokens = [urlsafe_b64decode(session.form_token) for session in sessions if session]
    assert len({*tokens}) == 3
    assert not any(token in urlsafe_b64decode(cookie[16:]) for token, cookie in zip(tokens, cookies, strict=True))
    assert len({*cookies}) == 3
