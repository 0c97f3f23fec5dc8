"""Changes of subscriptions and the operational events that they write."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from consumer.crypto.certificates import TlsIdentity
from consumer.crypto.vault import Vault
from consumer.errors import Conflict, DeliveriesOwed, InvalidSubscription, NotFound
from consumer.ledger import backlogs, cursors, marks, outbox, pauses, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.ledger.rows import DueKey
from consumer.ops.changes import Changes, Deployment
from consumer.subscriptions import repository, secrets
from consumer.subscriptions.subscribed import Mode, Subscribed
from models import CursorReason
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import make_event, parked, run

URL = "https://example.com/hooks"
WHO = "cli:someone"
NOW = datetime(2026, 7, 28, 14, tzinfo=UTC)
CHANGES: list[Callable[[Changes, int], object]] = [
    lambda by, number: by.edit(number, lambda _: {"rate_limit": 5.0}),
    lambda by, number: by.set_enabled(number, False),
    lambda by, number: by.pause(number),
    lambda by, number: by.set_mode(number, "paused", "no space"),
    lambda by, number: by.set_verified(number, URL, None),
    lambda by, number: by.rotate(number, overlap=0.0),
    lambda by, number: by.set_credential(number, "bearer", "t"),
    lambda by, number: by.remove(number, give_up=True),
]
OTHERS: list[Callable[[Changes, int], object]] = [
    Changes.remove_credentials,
    lambda by, number: by.set_tls(number, TlsIdentity(None, None, "x")),
    Changes.remove_tls,
    Changes.resume,
    lambda by, number: by.remove_secret(number, 1),
]


@pytest.fixture
def by(engine: Engine) -> Changes:
    """Changes in the group g, at NOW."""
    default = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)
    return Changes(Deployment(engine, "g", Vault(), default=default, clock=NOW.timestamp), WHO)


def told(by: Changes) -> list[tuple[str, dict[str, Any]]]:
    """The group's operational events, oldest first."""
    return [(event.type, dict(event.data)) for _, event, _ in outbox.pending(by.deployment.engine, "g", 100)]


def test_each_change_is_reported_with_its_actor(by: Changes) -> None:
    """Each event has the values before and after, and the names of the changed options."""
    added = by.add(URL, "a", tenant="acme").id
    by.edit(added, lambda _: {"rate_limit": 5.0})
    by.set_enabled(added, False, "moving")
    by.set_enabled(added, True)
    by.pause(added, "no space")
    by.resume(added)
    by.set_verified(added, URL, 90)
    by.rotate(added, overlap=3600.0)
    by.set_credential(added, "bearer", "t0ken")
    by.remove_credentials(added)
    by.remove(added, give_up=False)
    events = told(by)
    assert [kind for kind, _ in events] == [
        "subscription.created",
        "subscription.changed",
        "subscription.disabled",
        "subscription.enabled",
        "subscription.paused",
        "subscription.resumed",
        "subscription.verified",
        *["subscription.secret_rotated"] * 3,
        "subscription.removed",
    ]
    assert {(data["actor"], data["subscription_id"], data["url"]) for _, data in events} == {(WHO, added, URL)}
    created, changed, disabled, _, paused, resumed, verified, rotated, set_, unset, removed = (
        data for _, data in events
    )
    assert created["before"] is None
    assert (created["after"]["tenant"], created["after"]["enabled"]) == ("acme", True)
    assert changed["changed"] == ["rate_limit"]
    assert (changed["before"]["rate_limit"], changed["after"]["rate_limit"]) == (None, 5.0)
    assert disabled["reason"] == "moving"
    assert (paused["reason"], paused["changed"]) == ("no space", ["paused_at", "paused_reason"])
    assert resumed["before"] == paused["after"]
    assert (resumed["after"]["paused_at"], resumed["after"]["paused_reason"]) == (None, None)
    assert verified["changed"] == ["rate_limit", "verified"]
    assert (verified["before"]["verified"], verified["after"]["verified"]) == (False, True)
    assert (rotated["before"]["secrets"], rotated["after"]["secrets"]) == (0, 2)
    assert (set_["after"]["credentials"], unset["after"]["credentials"]) == (["bearer"], [])
    assert removed["after"] is None
    assert removed["before"]["rate_limit"] == 1.5
    assert "t0ken" not in str(events)


def test_a_change_without_effect_is_not_reported(by: Changes) -> None:
    """A command repeated after a lost answer writes no second event."""
    added = by.add(URL, "a").id
    for _ in range(2):
        by.edit(added, lambda _: {"rate_limit": 5.0})
        by.remove_credentials(added)
        by.remove_tls(added)
        by.pause(added)
    by.set_enabled(added, True)
    for _ in range(2):
        by.resume(added)
    kinds = [kind.removeprefix("subscription.") for kind, _ in told(by)]
    assert kinds == ["created", "changed", "paused", "resumed"]


def test_a_reason_makes_a_pause_by_failures_an_operator_s(by: Changes) -> None:
    """Without one, the pause and its probes stay, and nothing is reported; the event says that the probes end."""
    added = by.add(URL, "a").id
    upkeep.failing(by.deployment.engine, added, 1.0)
    pauses.pause(by.deployment.engine, "webhooks", added, "it failed", 9.0, failing_before=2.0, url=URL)
    assert by.pause(added).after.probed
    assert not by.pause(added, "moves").after.probed
    (_, (kind, data)) = told(by)
    assert (kind, data["reason"], data["changed"]) == ("subscription.paused", "moves", ["paused_reason", "probed"])


@pytest.mark.parametrize("before", ["enabled", "paused", "disabled", "both"])
@pytest.mark.parametrize("wanted", ["enabled", "paused", "disabled"])
def test_a_mode_is_set_whatever_it_was(by: Changes, before: str, wanted: Mode) -> None:
    """Enabled also resumes, and paused enables. Repeated, it changes and reports nothing."""
    added = by.add(URL, "a").id
    if before in {"paused", "both"}:
        by.pause(added)
    if before in {"disabled", "both"}:
        by.set_enabled(added, False)
    assert [by.set_mode(added, wanted).mode for _ in range(2)] == [wanted, wanted]
    count = len(told(by))
    by.set_mode(added, wanted)
    assert len(told(by)) == count


def test_changes_together_are_one_transaction(by: Changes) -> None:
    """If the last of them fails, none is made or reported; the condition is asked once, before the first."""
    added = by.add(URL, "a").id
    asked: list[object] = []
    one_by_one = replace(by, condition=asked.append)

    def change() -> None:
        with one_by_one.together(added) as one:
            one.pause(added)
            one.edit(added, lambda _: {"batch_size": 0})

    with pytest.raises(InvalidSubscription):
        change()
    assert len(asked) == 1
    assert by.deployment.subscription(added).mode == "enabled"
    assert [kind for kind, _ in told(by)] == ["subscription.created"]


def test_owners_are_asked_to_look_when_it_gets_its_events_or_no_longer_does(by: Changes) -> None:
    """Resumed, enabled or disabled, each place where a cursor owes it events is marked. Finished ones are not."""
    added, other = by.add(URL, "a").id, by.add(URL, "b").id
    engine = by.deployment.engine
    for group, partition, whose in (("g", 0, added), ("g", 1, added), ("h", 7, added), ("g", 2, other)):
        cursors.begin(engine, group, [NewCursor(("t", partition, whose), 5, CursorReason.PAUSED)], 100.0)
    run(engine, "UPDATE webhook_cursors SET end_offset = next_offset WHERE partition_no = 1")

    def marked(group: str = "g") -> dict[DueKey, int]:
        return marks.recent(engine, group, None).due_keys

    by.pause(added)
    by.resume(other)  # it is not paused
    by.set_enabled(other, True)
    assert (marked(), marked("h")) == ({}, {})
    by.resume(added)
    assert (marked(), marked("h")) == ({("t", 0, added): 1}, {("t", 7, added): 1})
    by.set_enabled(added, False)
    assert marked() == {("t", 0, added): 2}
    by.set_enabled(added, True)
    assert marked() == {("t", 0, added): 3}
    by.set_mode(added, "paused")
    by.set_enabled(added, False)
    assert marked() == {("t", 0, added): 4}
    by.set_enabled(added, True)  # paused still
    assert marked() == {("t", 0, added): 4}
    by.set_mode(added, "enabled")
    assert marked() == {("t", 0, added): 5}


def test_a_replaced_credential_is_reported(by: Changes) -> None:
    """Though number and kinds of the secrets are the same before and after."""
    added = by.add(URL, "a", new_secrets=[("bearer", "t")]).id
    by.set_credential(added, "bearer", "another")
    kind, data = told(by)[1]
    assert (kind, data["kind"], data["before"] == data["after"]) == ("subscription.secret_rotated", "bearer", True)


def test_a_failed_change_is_neither_made_nor_reported(by: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event and the change are one transaction, and roll back together."""
    added = by.add(URL, "a").id
    with pytest.raises(InvalidSubscription):
        by.edit(added, lambda _: {"batch_size": 0})
    with pytest.raises(InvalidSubscription):
        by.set_credential(added, "basic", "no colon")
    wrongs: list[dict[str, Any]] = [{"overlap": 367 * 86400.0}, {"overlap": 0.0, "secret": "a", "algorithm": "hmac"}]
    for wrong in wrongs:
        with pytest.raises(InvalidSubscription, match=r"^overlap: is too long|^algorithm: a given secret"):
            by.rotate(added, **wrong)
    engine = by.deployment.engine
    before = repository.get(engine, added)

    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(outbox, "add", fails)
    for change in (lambda by, _: by.add(URL, "b"), *CHANGES):
        with pytest.raises(RuntimeError):
            change(by, added)
    assert tuple(repository.walk(engine)) == (before,)
    assert [kind for kind, _ in told(by)] == ["subscription.created"]


def test_a_condition_and_a_tenant_prevent_each_change(by: Changes) -> None:
    """The condition reads the subscription in the transaction. To another tenant it does not exist, as if removed."""
    added = by.add(URL, "a", tenant="acme").id
    seen = []

    def refuse(item: Subscribed) -> None:
        seen.append(item.id)
        raise LookupError

    for change in (*CHANGES, *OTHERS):
        with pytest.raises(LookupError):
            change(Changes(by.deployment, WHO, "acme", refuse), added)
        for tenant, number in (("other", added), (None, added + 1)):
            with pytest.raises(NotFound, match=f"there is no subscription {number}"):
                change(Changes(by.deployment, WHO, tenant), number)
    assert seen == [added] * len([*CHANGES, *OTHERS])
    assert len(told(by)) == 1


def test_confidential_values_are_not_reported(by: Changes) -> None:
    """Events have only the names of headers, and no password of a URL that plain SQL wrote."""
    added = by.add(URL, "a", custom_headers='{"x-key": "s3cret"}').id
    by.edit(added, lambda _: {"custom_headers": '{"x-key": "s3cret2"}'})
    assert told(by)[1][1]["changed"] == ["custom_headers"]
    assert "x-key" in str(told(by))
    assert "s3cret" not in str(told(by))


def test_owed_deliveries_are_given_up_only_on_request(by: Changes) -> None:
    """Else the subscription stays, and the error has their number. Events that cursors owe count too."""
    added, engine = by.add(URL, "a").id, by.deployment.engine
    with engine.begin() as connection:
        store.insert_new(connection, "g", [parked(make_event(1), added)], 0.0)
    with pytest.raises(DeliveriesOwed) as refused:
        by.remove(added, give_up=False)
    assert (refused.value.owed, by.deployment.subscription(added).id) == (1, added)
    by.remove(added, give_up=True)
    with pytest.raises(NotFound):
        by.deployment.subscription(added)
    behind = by.add(URL, "a").id
    cursors.begin(engine, "g", [NewCursor(("t", 0, behind), 5, CursorReason.PAUSED)], 100.0)
    with pytest.raises(DeliveriesOwed):
        by.remove(behind, give_up=False)
    by.remove(behind, give_up=True)
    assert not backlogs.of_subscription(engine, behind)


def test_a_secret_is_removed_by_its_id(by: Changes) -> None:
    """It must belong to the subscription, and something has to sign; the listing has no text of secrets."""
    first = by.add(URL, "a", new_secrets=[("bearer", "t"), ("signing", "secret")]).id
    second = by.add(URL, "a").id
    engine = by.deployment.engine
    entries = {entry.kind: entry for entry in secrets.entries(engine, first, NOW)}
    assert (entries["signing"].signs, entries["bearer"].signs) == (True, False)
    token = entries["bearer"].id
    with pytest.raises(NotFound):
        by.remove_secret(second, token)
    with pytest.raises(Conflict):
        by.remove_secret(first, entries["signing"].id)
    by.remove_secret(first, token)
    assert [entry.kind for entry in secrets.entries(engine, first, NOW)] == ["signing"]


def test_pages_of_subscriptions_by_filter(by: Changes) -> None:
    """Filters are type, tenant, state and a part of the URL in any case, in which a percent sign is literal."""
    ids = [
        by.add(url, kind, tenant=tenant).id
        for url, kind, tenant in (
            ("https://example.com/One", "a", "x"),
            ("https://example.com/two%20", "b", "y"),
            ("https://example.com/three", "a", "y"),
        )
    ]
    by.set_enabled(ids[2], False)

    def paged(after: int | None = None, limit: int = 10, **which: Any) -> list[int]:
        found = repository.page(by.deployment.engine, after=after, limit=limit, **which)
        return [ids.index(row.id) for row in found]

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
