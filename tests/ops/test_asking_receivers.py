"""Validation requests over sockets: the answer is stored once, for that URL, with the requester."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, text

from consumer.config.settings import DeliverySettings
from consumer.crypto.vault import Vault
from consumer.errors import NotFound
from consumer.ledger import outbox
from consumer.ops import verification
from consumer.ops.changes import Changes, Deployment
from consumer.ops.verification import Ask, Verification
from consumer.sending.validation_request import Declined, Granted, Permission
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.endpoint_row import Rules
from consumer.subscriptions.repository import AWAITS_VERIFICATION
from consumer.subscriptions.subscribed import Subscribed
from tests.sending.conftest import Receive

ORIGIN = "events.example.com"
WHO = "cli:someone"
RULES = Rules(verification=True, origin=ORIGIN)
CONSENT = b"HTTP/1.1 200 OK\r\nAllow: POST\r\nWebHook-Allowed-Origin: %b\r\nWebHook-Allowed-Rate: %b\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"


def consent(rate: bytes = b"*", origin: bytes = ORIGIN.encode()) -> bytes:
    """The answer of a receiver that agrees."""
    return CONSENT % (origin, rate) + EMPTY


def asking(**settings: str) -> Ask:
    """Asks as a process with these settings does."""
    given = {"WEBHOOK_SECRET": "s", "WEBHOOK_ORIGIN": ORIGIN, "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8"}
    found = verification.asking(DeliverySettings.model_validate(given | settings))
    assert found is not None
    return found


def changes(engine: Engine, condition: Callable[[Subscribed], object] = lambda _: None) -> Changes:
    """Changes in the group g."""
    return Changes(Deployment(engine, "g", Vault(), RULES), WHO, condition=condition)


def verify(engine: Engine, subscription_id: int, ask: Ask | None = None, **more: Any) -> Verification:
    """Asks the receiver and stores its answer."""
    return verification.verify(changes(engine, **more), subscription_id, ask or asking())


def told(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    """The group's operational events, oldest first."""
    return [(event.type, dict(event.data)) for _, event, _ in outbox.pending(engine, "g", 100)]


def stored(engine: Engine, subscription_id: int) -> Subscribed:
    """The subscription as shown to users when verification is required."""
    found = repository.get(engine, subscription_id, rules=RULES)
    assert found is not None
    return found


def test_a_receiver_that_agrees_is_verified(engine: Engine, receive: Receive) -> None:
    """After one OPTIONS request no problem is left, the rate is the permitted one, and an event names the actor."""
    receiver = receive(consent(b"90"))
    one = repository.add(engine, receiver.url, "a", rate_limit=5.0, secrets=[("bearer", "t0ken")])
    assert stored(engine, one).state == (
        f"broken: url: it has not been verified; run: kafka-webhooks subscriptions verify {one}; "
        "its events are stored, not sent"
    )
    done = verify(engine, one)
    assert done.permission == Granted(90)
    assert done.subscription == stored(engine, one)
    assert (done.subscription.verified, done.subscription.problems) == (True, ())
    assert done.subscription.options["rate_limit"] == 1.5
    (request,) = receiver.requests
    lines = request.decode().lower().split("\r\n")
    assert lines[0] == "options /hook http/1.1"
    assert {f"webhook-request-origin: {ORIGIN}", "webhook-request-rate: 300", "authorization: bearer t0ken"} <= {*lines}
    ((kind, data),) = told(engine)
    assert (kind, data["actor"], data["subscription_id"]) == ("subscription.verified", WHO, one)
    assert data["changed"] == ["rate_limit", "verified"]
    verify(engine, one)
    assert len(told(engine)) == 1  # nothing has changed again


def test_deliveries_name_the_origin_from_then_on(engine: Engine, receive: Receive) -> None:
    """They name the deployment's configured origin; another URL has not agreed."""
    receiver = receive(consent())
    one = repository.add(engine, receiver.url, "a")

    def origin() -> str | None:
        found = repository.get_endpoint(engine, one, (b"k",), Vault(), Rules(origin=ORIGIN))
        assert found is not None
        return found[1].origin

    assert origin() is None
    verify(engine, one)
    assert origin() == ORIGIN
    changes(engine).edit(one, lambda _: {"url": f"{receiver.url}/other"})
    assert origin() is None
    assert not stored(engine, one).verified
    assert told(engine)[-1][1]["changed"] == ["url", "verified"]


@pytest.mark.parametrize(
    ("settings", "behaviour", "then", "why", "advice"),
    [
        ({}, b"HTTP/1.1 405 X\r\n" + EMPTY, "keep", "answered 405: it does not implement", "receiving.md"),
        ({}, b"HTTP/1.1 200 OK\r\n" + EMPTY, "keep", "without WebHook-Allowed-Origin", "callback"),
        ({}, b"HTTP/1.1 307 X\r\nLocation: /y\r\n" + EMPTY, "keep", "answered 307", "never followed"),
        ({}, consent(origin=b"other.example"), "keep", "permits another origin", "WEBHOOK_ORIGIN"),
        ({"WEBHOOK_TIMEOUT": "0.2s"}, b"", "hang", "no answer: time-out", "WEBHOOK_TIMEOUT"),
        ({}, b"", "reset", "no answer: the connection was closed", "listen"),
        ({"WEBHOOK_ALLOW_NETWORKS": ""}, consent(), "keep", "add its network to WEBHOOK_ALLOW_NETWORKS", None),
    ],
)
def test_a_refusal_changes_nothing(
    engine: Engine,
    receive: Receive,
    settings: dict[str, str],
    behaviour: bytes,
    then: str,
    why: str,
    advice: str | None,
) -> None:
    """The error gives the reason and a remedy. The receiver gets at most one request, and the egress rule applies."""
    receiver = receive(behaviour, then)
    one = repository.add(engine, receiver.url, "a")
    before = stored(engine, one)
    done = verify(engine, one, asking(**settings))
    assert isinstance(done.permission, Declined)
    assert why in done.permission.why
    assert (advice or "") in (done.permission.advice or "")
    assert done.subscription == stored(engine, one) == before
    assert told(engine) == []
    assert len(receiver.requests) == (0 if "WEBHOOK_ALLOW_NETWORKS" in settings else 1)


def test_only_a_subscription_that_awaits_verification_is_enabled(engine: Engine, receive: Receive) -> None:
    """A subscription disabled for another reason stays disabled."""
    receiver = receive(consent())
    waiting = changes(engine).add(receiver.url, "a", disabled=AWAITS_VERIFICATION).id
    other = changes(engine).add(receiver.url, "a", disabled="moving").id
    assert not stored(engine, waiting).enabled
    assert verify(engine, waiting).subscription.state == "enabled"
    assert verify(engine, other).subscription.state == "disabled: moving"
    assert [data["after"]["enabled"] for _, data in told(engine)] == [False, False, True, False]


def test_changes_made_meanwhile_are_not_overwritten(engine: Engine) -> None:
    """The permission is stored only if the URL is the same and the subscription exists and may be changed."""
    one = repository.add(engine, "https://example.com/a", "a")

    def meanwhile(statement: str) -> Callable[[Endpoint, int | None], Permission]:
        def ask(_endpoint: Endpoint, _rate: int | None) -> Permission:
            with engine.begin() as connection:
                connection.execute(text(statement))
            return Granted(60)

        return ask

    moved = verify(engine, one, meanwhile("UPDATE webhook_subscriptions SET url = 'https://example.com/b'"))
    assert moved.permission == Declined("its URL was changed meanwhile", "verify it again")
    assert not moved.subscription.verified

    def allow(item: Subscribed) -> None:
        if item.tenant != "*":
            raise LookupError

    owner = meanwhile("UPDATE webhook_subscriptions SET tenant = 'acme'")
    with pytest.raises(LookupError):
        verify(engine, one, owner, condition=allow)
    assert not stored(engine, one).verified
    gone = meanwhile("DELETE FROM webhook_subscriptions")
    for _ in range(2):
        with pytest.raises(NotFound):
            verify(engine, one, gone)
    assert told(engine) == []


def test_the_condition_is_checked_before_asking(engine: Engine) -> None:
    """A caller who may not change the subscription causes no request."""
    one = repository.add(engine, "https://example.com/a", "a")
    with pytest.raises(ZeroDivisionError):
        verify(engine, one, lambda *_: pytest.fail("it was asked"), condition=lambda _: 1 / 0)


def test_the_receiver_of_a_broken_subscription_is_not_asked(engine: Engine) -> None:
    """Its credentials may be unreadable, and the receiver would refuse a request without them."""
    one = repository.add(engine, "https://example.com/a", "a")
    with engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET url = 'ftp://x'"))
    send = partial(verification.ask, origin=ORIGIN, send=lambda *_: pytest.fail("it was asked"))
    answer = verify(engine, one, send).permission
    assert isinstance(answer, Declined)
    assert (answer.why, "must start with https://" in (answer.advice or "")) == (
        "not asked: the subscription is broken",
        True,
    )


def test_without_an_origin_no_receiver_is_asked() -> None:
    """The request needs an origin to name."""
    assert verification.asking(DeliverySettings.model_validate({"WEBHOOK_SECRET": "s"})) is None
