"""Adding, listing and removing subscriptions, and what is refused."""

import re

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select

from consumer.errors import InvalidSubscription
from consumer.matching import subscriptions
from consumer.matching.catalog import find_endpoints
from consumer.sending.egress import EgressPolicy
from consumer.vault import Vault
from models import Subscription, SubscriptionSecret

URL = "https://example.com/hook"


def test_what_was_added_is_listed_until_it_is_removed(engine: Engine) -> None:
    """Ids grow; removing twice says so the second time."""
    first = subscriptions.add(engine, URL, "user.created")
    second = subscriptions.add(engine, URL, "user.deleted", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    listed = subscriptions.list_all(engine)
    assert [(row.id, row.url, row.event_type, row.enabled, row.secrets) for row in listed] == [
        (first, URL, "user.created", True, 0),
        (second, URL, "user.deleted", True, 1),
    ]
    assert listed[0].created_at is not None
    assert listed[0].created_at.tzinfo is not None
    assert subscriptions.remove(engine, first)
    assert not subscriptions.remove(engine, first)
    assert [row.id for row in subscriptions.list_all(engine)] == [second]


def test_a_secret_is_stored_encrypted_and_signs(engine: Engine) -> None:
    """With a key the table holds no secret that a reader of the database could use; the look-up gives its bytes."""
    vault = Vault(Fernet.generate_key().decode())
    added = subscriptions.add(engine, URL, "t", "a secret of their own", vault=vault)
    with engine.connect() as connection:
        stored = connection.execute(select(SubscriptionSecret.secret)).scalar_one()
    assert stored.startswith("fernet:")
    assert "secret of" not in stored
    (endpoint,) = find_endpoints(engine, ["t"], (b"default",), vault.decrypt)["t"]
    assert (endpoint.subscription_id, endpoint.secrets) == (added, (b"a secret of their own",))
    assert "secret of" not in repr(endpoint)


@pytest.mark.parametrize(
    ("url", "event_type", "what"),
    [
        ("", "t", "must start with https://"),
        ("example.com/hook", "t", "must start with https://"),
        ("ftp://example.com", "t", "must start with https://"),
        ("https://", "t", "no host"),
        ("https://example.com:99999/", "t", "malformed"),
        ("https://example.com/ü", "t", "visible ASCII"),
        ("https://example.com/" + "x" * 2048, "t", "2068 characters; at most 2048"),
        (URL, "", "event type is empty"),
        (URL, "user created", "visible ASCII"),
        (URL, "user.créated", "visible ASCII"),
        (URL, "user.created\n", "visible ASCII"),
        (URL, "t" * 256, "256 characters; at most 255"),
    ],
)
def test_what_cannot_work_is_refused(engine: Engine, url: str, event_type: str, what: str) -> None:
    """The error says what would work, and no row is made."""
    with pytest.raises(InvalidSubscription, match=re.escape(what)):
        subscriptions.add(engine, url, event_type)
    assert subscriptions.list_all(engine) == ()


def test_the_egress_policy_is_asked() -> None:
    """A literal private address is refused before anything is sent, where a policy is given."""
    subscriptions.validate("https://10.0.0.1/", "t")
    with pytest.raises(InvalidSubscription, match="WEBHOOK_ALLOW_NETWORKS"):
        subscriptions.validate("https://10.0.0.1/", "t", EgressPolicy())


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_no base64!", "x" * 1001])
def test_a_secret_that_cannot_sign_is_refused(engine: Engine, secret: str) -> None:
    """Not stored, and its text is not repeated."""
    with pytest.raises(InvalidSubscription) as caught:
        subscriptions.add(engine, URL, "t", secret)
    assert "no base64!" not in str(caught.value)
    assert subscriptions.list_all(engine) == ()


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_what_is_accepted_fits_its_columns(path: str, event_type: str) -> None:
    """Whatever validation lets through is visible ASCII, bytes and characters being the same, and short enough."""
    url = f"https://example.com/{path}"
    try:
        subscriptions.validate(url, event_type)
    except InvalidSubscription:
        return
    assert url.isascii()
    assert event_type.isascii()
    assert len(event_type) <= 255


def test_the_longest_that_is_accepted_is_matched(engine: Engine) -> None:
    """A url of 2,048 and an event type of 255 characters go in and come back whole."""
    url, event_type = "https://example.com/".ljust(2048, "x"), "t" * 255
    added = subscriptions.add(engine, url, event_type)
    (endpoint,) = find_endpoints(engine, [event_type], (b"k",), Vault().decrypt)[event_type]
    assert (endpoint.subscription_id, endpoint.url) == (added, url)


def test_a_subscription_added_by_sql_is_listed(engine: Engine) -> None:
    """Rows of plain SQL and of older programs, without a creation time, are shown like all others."""
    with engine.begin() as connection:
        connection.execute(insert(Subscription), {"url": "nonsense", "event_type": "t", "created_at": None})
    (row,) = subscriptions.list_all(engine)
    assert (row.url, row.created_at, row.enabled) == ("nonsense", None, True)
