"""Adding, listing, disabling and removing subscriptions, and refusing invalid ones."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from consumer.crypto.vault import Vault
from consumer.errors import InvalidSubscription
from consumer.ledger import pauses
from consumer.matching.catalog import find_endpoints
from consumer.subscriptions import repository
from consumer.subscriptions.subscribed import Subscribed
from models import Subscription
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import run

URL = "https://example.com/hook"
T = datetime.fromtimestamp(50, UTC)


def set_by_sql(engine: Engine, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(**values))


def shown(engine: Engine, subscription_id: int) -> Subscribed:
    found = repository.get(engine, subscription_id)
    assert found is not None
    return found


def test_a_subscription_is_listed_until_it_is_removed(engine: Engine) -> None:
    """Ids grow, and removing a subscription again reports that it is absent."""
    first = repository.add(engine, URL, "user.created")
    second = repository.add(engine, URL, "user.deleted", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    listed = tuple(repository.walk(engine))
    assert [(row.id, row.url, row.event_type, row.enabled, row.secrets) for row in listed] == [
        (first, URL, "user.created", True, 0),
        (second, URL, "user.deleted", True, 1),
    ]
    assert listed[0].created_at is not None
    assert listed[0].created_at.tzinfo is not None
    assert repository.remove(engine, first)
    assert not repository.remove(engine, first)
    assert [row.id for row in repository.walk(engine)] == [second]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_a_walk_goes_page_by_page(engine: Engine, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A walk yields each subscription once, by id and with all its secrets, or only those selected."""
    monkeypatch.setattr(repository, "_PAGE", 2)
    for number in range(count):
        given = [("signing", f"secret {n}") for n in range(number % 3)]
        event_type, tenant = "ab"[number % 2], "xyz"[number % 3]
        repository.add(engine, f"{URL}/{number}", event_type, secrets=given, tenant=tenant)
    if count > 3:
        repository.remove(engine, 3)
        repository.set_enabled(engine, 4, False)
    there = [number for number in range(count) if number != 2 or count <= 3]
    enabled = [number for number in there if number != 3]

    def walked(**which: Any) -> list[int]:
        return [row.id - 1 for row in repository.walk(engine, **which)]

    assert [(row.url, row.secrets) for row in repository.walk(engine)] == [(f"{URL}/{n}", n % 3) for n in there]
    assert walked(event_type="a") == [number for number in there if number % 2 == 0]
    assert walked(tenant="y") == [number for number in there if number % 3 == 1]
    assert walked(event_type="b", tenant="y") == [number for number in there if number == 1]
    assert walked(state="enabled") == enabled
    assert walked(state="disabled") == [number for number in there if number == 3]
    assert repository.count_enabled(engine) == len(enabled)


def test_enabling_clears_the_reason_and_the_failures(engine: Engine) -> None:
    """A subscription disabled with a reason matches nothing; enabled, it has neither a reason nor failures."""
    added = repository.add(engine, URL, "t")
    set_by_sql(engine, failing_since=T)
    assert repository.set_enabled(engine, added, enabled=False, reason="moving")
    row = shown(engine, added)
    assert (row.enabled, row.disabled_reason, row.failing_since) == (False, "moving", T)
    assert find_endpoints(engine, [("t", None)], (), Vault().decrypt)["t", None] == ()
    assert repository.set_enabled(engine, added, enabled=True, reason="not kept")
    row = shown(engine, added)
    assert (row.enabled, row.disabled_reason, row.failing_since) == (True, None, None)


def test_disabling_again_keeps_the_reason_until_there_is_another(engine: Engine) -> None:
    """The first reason stays until another is given. A reason left over in an enabled row does not count."""
    added = repository.add(engine, URL, "t")
    run(engine, "UPDATE webhook_subscriptions SET disabled_reason = 'left over'")
    told = []
    for reason in (None, None, "moving", None, "", "gone"):
        assert repository.set_enabled(engine, added, enabled=False, reason=reason)
        row = shown(engine, added)
        assert not row.enabled
        told.append(row.disabled_reason)
    assert told == [None, None, "moving", "moving", "moving", "gone"]


def test_a_pause_keeps_its_time_until_it_ends(engine: Engine) -> None:
    """A new reason replaces the old one, and ends probes; without one, both stay. Resumed, nothing of it is left."""
    added = repository.add(engine, URL, "t")
    set_by_sql(engine, paused_reason="left over", failing_since=T, probed_at=T)
    told = []
    for reason in (None, "moving", None, "", "gone"):
        assert repository.pause(engine, added, reason)
        row = shown(engine, added)
        told.append((row.paused_at, row.paused_reason))
        assert (row.enabled, row.mode, row.failing_since) == (True, "paused", None)
        assert (pauses.count(engine), row.probed) == ((0, False) if reason or len(told) == 1 else (1, True))
        set_by_sql(engine, failing_since=T, paused_at=T, probed_at=T)  # now failures have paused it
        assert (pauses.count(engine), shown(engine, added).probed) == (1, True)
    repository.set_enabled(engine, added, enabled=False)
    assert (pauses.count(engine), shown(engine, added).probed) == (0, False)
    repository.set_enabled(engine, added, enabled=True)
    assert [reason for _, reason in told] == [None, "moving", "moving", "moving", "gone"]
    assert {at for at, _ in told[1:]} == {T}
    assert told[0][0] is not None
    assert shown(engine, added).state == "paused since 1970-01-01T00:00:50Z, and probed: gone"
    assert repository.resume(engine, added)
    row = shown(engine, added)
    assert (row.mode, row.paused_at, row.paused_reason, row.failing_since) == ("enabled", None, None, None)
    with engine.connect() as connection:
        assert connection.scalar(select(Subscription.probed_at)) is None


def test_a_pause_and_the_disabled_state_are_independent(engine: Engine) -> None:
    """A disabled subscription stays disabled if it is paused, and enabling it leaves the pause. Both are shown."""
    added = repository.add(engine, URL, "t")
    repository.set_enabled(engine, added, enabled=False, reason="moving")
    repository.pause(engine, added, "no space")
    row = shown(engine, added)
    assert (row.enabled, row.mode) == (False, "disabled")
    assert re.fullmatch(r"disabled: moving; paused since \S+Z: no space", row.state)
    repository.set_enabled(engine, added, enabled=True)
    assert shown(engine, added).mode == "paused"
    set_by_sql(engine, event_filter="1 +")
    assert re.fullmatch(r"paused since \S+Z: no space; broken: event_filter: .*", shown(engine, added).state)


def test_each_state_has_its_own_subscriptions(engine: Engine) -> None:
    """A paused one is not listed or counted as enabled, and one that is disabled too is listed as disabled."""
    enabled, paused, disabled, both = (repository.add(engine, URL, "t") for _ in range(4))
    for each in (paused, both):
        repository.pause(engine, each)
    for each in (disabled, both):
        repository.set_enabled(engine, each, enabled=False)
    states: tuple[repository.State, ...] = ("enabled", "paused", "disabled")
    listed = [[row.id for row in repository.walk(engine, state=state)] for state in states]
    assert listed == [[enabled], [paused], [disabled, both]]
    assert repository.count_enabled(engine) == 1


def test_an_unknown_subscription_is_neither_shown_nor_switched(engine: Engine) -> None:
    """`get` returns None, the others False; a reason that is too long is refused first."""
    assert repository.get(engine, 7) is None
    assert not repository.set_enabled(engine, 7, enabled=True)
    assert not repository.pause(engine, 7)
    assert not repository.resume(engine, 7)
    for refused in (partial(repository.set_enabled, enabled=False), repository.pause):
        with pytest.raises(InvalidSubscription, match="the reason has 1001 characters; at most 1000"):
            refused(engine, 7, reason="x" * 1001)


def test_a_subscription_added_by_sql_is_listed(engine: Engine) -> None:
    """Rows of plain SQL and of older programs, without a creation time, are listed too, whatever their ids."""
    rows = [{"id": each, "url": "nonsense", "event_type": "t", "created_at": None} for each in (-7, 0, 5)]
    with engine.begin() as connection:
        connection.execute(insert(Subscription), rows)
    listed = [(row.id, row.url, row.created_at, row.enabled) for row in repository.walk(engine)]
    assert listed == [(each, "nonsense", None, True) for each in (-7, 0, 5)]
    assert repository.count_enabled(engine) == 3


def test_an_edit_changes_only_the_named_options(engine: Engine) -> None:
    """All else stays, in this subscription and others; None sets the column's default."""
    first, other = (repository.add(engine, URL, "t", rate_limit=2, tenant="acme", topics="a") for _ in range(2))
    assert repository.set_enabled(engine, first, enabled=False, reason="moving")
    before, untouched = repository.walk(engine)
    assert repository.edit(engine, first, {"rate_limit": 3.5, "tenant": None, "topics": None, "ordering": "key"})
    after = repository.get(engine, first)
    changed = {"rate_limit": 3.5, "tenant": "*", "topics": None, "ordering": "key"}
    assert after == replace(before, options={**before.options, **changed}, problems=())  # the tenant had been a problem
    assert repository.get(engine, other) == untouched
    assert not repository.edit(engine, 7, {"topics": None})


def test_an_edit_with_an_invalid_result_changes_nothing(engine: Engine) -> None:
    """The whole result is checked, so an edit that leaves a value of plain SQL broken is refused too."""
    added = repository.add(engine, URL, "t", batch_size=5, batch_wait_ms=100)
    before = repository.get(engine, added)
    for changes, said in (
        ({"batch_size": None}, "batch_wait_ms: needs batch_size"),
        ({"url": None}, "url: is required"),
        ({"url": "https://10.0.0.1:99999"}, "url: the URL is malformed"),
        ({"timeout_seconds": 5, "colour": 1}, "there is no option colour"),
    ):
        with pytest.raises(InvalidSubscription, match=said):
            repository.edit(engine, added, changes)
        assert repository.get(engine, added) == before
    with engine.begin() as connection:
        connection.execute(update(Subscription).values(event_filter="1 +"))
    with pytest.raises(InvalidSubscription, match="event_filter: Syntax error"):
        repository.edit(engine, added, {"timeout_seconds": 5})
    assert repository.edit(engine, added, {"timeout_seconds": 5, "event_filter": None})


def test_concurrent_edits_are_all_kept(sqlite_engine: Engine) -> None:
    """Each edit waits for the one before and starts from its result."""
    added = repository.add(sqlite_engine, URL, "t")
    wanted: list[dict[str, Any]] = [{"topics": "a"}, {"rate_limit": 5}, {"timeout_seconds": 3}, {"tenant": "acme"}]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda changes: repository.edit(sqlite_engine, added, changes), wanted)) == [True] * 4
    row = repository.get(sqlite_engine, added)
    assert row is not None
    assert all(row.options.items() >= changes.items() for changes in wanted)


def test_a_subscription_is_found_by_url_type_and_tenant(engine: Engine) -> None:
    """All three must match, and the first of several is returned."""
    first, _, third = (repository.add(engine, URL, "t", tenant=tenant) for tenant in ("*", "*", "acme"))
    assert repository.find(engine, URL, ["t"]) == first
    assert repository.find(engine, URL, ["t"], "acme") == third
    assert repository.find(engine, URL, ["t"], "other") is None
    assert repository.find(engine, URL, ["T"]) is None
    assert repository.find(engine, URL + "/", ["t"]) is None


def test_credentials_are_counted_and_not_shown(engine: Engine) -> None:
    """A listing shows the number of signing secrets and the kinds of other credentials."""
    secrets = [("signing", "a-secret"), ("bearer", "a-token"), ("header", "X-A: b"), ("header", "X-B: c")]
    repository.add(engine, URL, "t", "first-secret", secrets=secrets)
    (row,) = repository.walk(engine)
    assert (row.secrets, row.credentials) == (2, ("bearer", "header"))
    assert not any(word in repr(row) for word in ("secret'", "a-token", "X-A"))


@pytest.mark.parametrize("moment", ["'garbage'", "1700000000", "x'00'"])
def test_an_invalid_time_keeps_no_other_row_from_being_listed(sqlite_engine: Engine, moment: str) -> None:
    """SQLite stores any value in any column."""
    first, second = (repository.add(sqlite_engine, URL, "t") for _ in range(2))
    run(sqlite_engine, f"UPDATE webhook_subscriptions SET created_at = {moment} WHERE id = :id", id=first)  # noqa: S608 (a test's own words)
    listed = {item.id: item.created_at for item in repository.walk(sqlite_engine)}
    assert listed[first] is None
    assert listed[second] is not None
