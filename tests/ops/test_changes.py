"""Changes of subscriptions and the operational events that they write."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.crypto.vault import Vault
from consumer.errors import InvalidSubscription
from consumer.ledger import outbox
from consumer.ops import changes
from consumer.ops.changes import Registry
from consumer.subscriptions import repository, secrets
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)

URL = "https://example.com/hooks"
WHO = "cli:someone"
NOW = datetime(2026, 7, 28, 14, tzinfo=UTC)


def registry(engine: Engine) -> Registry:
    """A registry whose group is g."""
    return Registry(engine, "g", Vault(), default=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",))


def told(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    """The group's operational events, oldest first."""
    return [(event.type, dict(event.data)) for _, event, _ in outbox.pending(engine, "g", 100)]


def test_each_change_is_reported_with_its_actor(engine: Engine) -> None:
    """Each event has the values before and after, and the names of the changed options."""
    held = registry(engine)
    added = changes.add(held, WHO, URL, "a", tenant="acme").id
    changes.edit(held, WHO, added, lambda _: {"rate_limit": 5.0})
    changes.set_enabled(held, WHO, added, False, "moving")
    changes.set_enabled(held, WHO, added, True)
    changes.set_verified(held, WHO, added, 90)
    changes.rotate(held, WHO, added, overlap=timedelta(hours=1), now=NOW)
    changes.set_credential(held, WHO, added, "bearer", "t0ken", NOW)
    changes.remove_credentials(held, WHO, added)
    changes.remove(held, WHO, added)
    events = told(engine)
    assert [kind for kind, _ in events] == [
        "subscription.created",
        "subscription.changed",
        "subscription.disabled",
        "subscription.enabled",
        "subscription.verified",
        *["subscription.secret_rotated"] * 3,
        "subscription.removed",
    ]
    assert {(data["actor"], data["subscription_id"], data["url"]) for _, data in events} == {(WHO, added, URL)}
    created, changed, disabled, _, verified, rotated, set_, unset, removed = (data for _, data in events)
    assert created["before"] is None
    assert (created["after"]["tenant"], created["after"]["enabled"]) == ("acme", True)
    assert changed["changed"] == ["rate_limit"]
    assert (changed["before"]["rate_limit"], changed["after"]["rate_limit"]) == (None, 5.0)
    assert disabled["reason"] == "moving"
    assert verified["changed"] == ["rate_limit", "verified"]
    assert (verified["before"]["verified"], verified["after"]["verified"]) == (False, True)
    assert (rotated["before"]["secrets"], rotated["after"]["secrets"]) == (0, 2)
    assert (set_["after"]["credentials"], unset["after"]["credentials"]) == (["bearer"], [])
    assert removed["after"] is None
    assert removed["before"]["rate_limit"] == 1.5
    assert "t0ken" not in str(events)


def test_a_change_without_effect_is_not_reported(engine: Engine) -> None:
    """A command repeated after a lost answer writes no second event."""
    held = registry(engine)
    added = changes.add(held, WHO, URL, "a").id
    for _ in range(2):
        changes.edit(held, WHO, added, lambda _: {"rate_limit": 5.0})
        changes.remove_credentials(held, WHO, added)
    changes.set_enabled(held, WHO, added, True)
    assert [kind for kind, _ in told(engine)] == ["subscription.created", "subscription.changed"]


def test_a_failed_change_is_neither_made_nor_reported(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event and the change are one transaction, and roll back together."""
    held = registry(engine)
    added = changes.add(held, WHO, URL, "a").id
    with pytest.raises(InvalidSubscription):
        changes.edit(held, WHO, added, lambda _: {"batch_size": 0})
    with pytest.raises(InvalidSubscription):
        changes.set_credential(held, WHO, added, "basic", "no colon", NOW)
    before = repository.get(engine, added)

    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(outbox, "add", fails)
    with pytest.raises(RuntimeError):
        changes.add(held, WHO, URL, "b")
    with pytest.raises(RuntimeError):
        changes.edit(held, WHO, added, lambda _: {"rate_limit": 5.0})
    with pytest.raises(RuntimeError):
        changes.set_enabled(held, WHO, added, False)
    with pytest.raises(RuntimeError):
        changes.set_verified(held, WHO, added, None)
    with pytest.raises(RuntimeError):
        changes.rotate(held, WHO, added, overlap=timedelta(0), now=NOW)
    with pytest.raises(RuntimeError):
        changes.remove(held, WHO, added)
    assert tuple(repository.walk(engine)) == (before,)
    assert [kind for kind, _ in told(engine)] == ["subscription.created"]


def test_a_condition_prevents_a_change(engine: Engine) -> None:
    """Its exception rolls back the transaction, in which it reads the subscription."""
    held = registry(engine)
    added = changes.add(held, WHO, URL, "a").id
    seen = []

    def refuse(item: repository.Subscribed) -> None:
        seen.append(item.id)
        raise LookupError

    with pytest.raises(LookupError):
        changes.remove(held, WHO, added, refuse)
    with pytest.raises(LookupError):
        changes.edit(held, WHO, added, lambda _: {"rate_limit": 5.0}, refuse)
    assert seen == [added, added]
    assert len(told(engine)) == 1


def test_confidential_values_are_not_reported(engine: Engine) -> None:
    """Events have only the names of headers, and no password of a URL that plain SQL wrote."""
    held = registry(engine)
    added = changes.add(held, WHO, URL, "a", custom_headers='{"x-key": "s3cret"}').id
    changes.edit(held, WHO, added, lambda _: {"custom_headers": '{"x-key": "s3cret2"}'})
    assert told(engine)[1][1]["changed"] == ["custom_headers"]
    assert "x-key" in str(told(engine))
    assert "s3cret" not in str(told(engine))


def test_an_absent_subscription_is_reported(engine: Engine) -> None:
    """Each change reports it and writes nothing."""
    held = registry(engine)
    assert changes.edit(held, WHO, 1, lambda _: {}) is None
    assert changes.set_enabled(held, WHO, 1, True) is None
    assert changes.set_verified(held, WHO, 1, None) is None
    assert changes.remove(held, WHO, 1) is None
    assert changes.rotate(held, WHO, 1, overlap=timedelta(0), now=NOW) is None
    assert changes.set_credential(held, WHO, 1, "bearer", "t", NOW) is False
    assert changes.remove_credentials(held, WHO, 1) is None
    assert told(engine) == []


def test_a_secret_is_removed_by_its_id(engine: Engine) -> None:
    """It must belong to the subscription; the listing has no text of secrets."""
    held = registry(engine)
    first = changes.add(held, WHO, URL, "a", new_secrets=[("bearer", "t"), ("signing", "secret")]).id
    second = changes.add(held, WHO, URL, "a").id
    entries = {entry.kind: entry for entry in secrets.entries(engine, first, NOW)}
    assert (entries["signing"].signs, entries["bearer"].signs) == (True, False)
    token = entries["bearer"].id
    assert changes.remove_secret(held, WHO, second, token, lambda _: None) is False
    assert changes.remove_secret(held, WHO, first, token, lambda _: None) is True
    assert [entry.kind for entry in secrets.entries(engine, first, NOW)] == ["signing"]


def test_pages_of_subscriptions_by_filter(engine: Engine) -> None:
    """Filters are type, tenant, state and a part of the URL in any case, in which a percent sign is literal."""
    held = registry(engine)
    ids = [
        changes.add(held, WHO, url, kind, tenant=tenant).id
        for url, kind, tenant in (
            ("https://example.com/One", "a", "x"),
            ("https://example.com/two%20", "b", "y"),
            ("https://example.com/three", "a", "y"),
        )
    ]
    changes.set_enabled(held, WHO, ids[2], False)

    def paged(after: int | None = None, limit: int = 10, **which: Any) -> list[int]:
        return [ids.index(row.id) for row in repository.page(engine, after=after, limit=limit, **which)]

    assert paged() == [0, 1, 2]
    assert paged(limit=2) == [0, 1]
    assert paged(after=ids[0], limit=1) == [1]
    assert paged(event_type="a") == [0, 2]
    assert paged(tenant="y") == [1, 2]
    assert paged(state="enabled") == [0, 1]
    assert paged(state="disabled") == [2]
    assert paged(state="failing") == []
    assert paged(url="ONE") == [0]
    assert paged(url="%") == [1]
    assert paged(url="_") == []
    assert paged(url="example.com", tenant="y", event_type="a", state="disabled") == [2]
