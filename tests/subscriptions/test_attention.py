"""Subscriptions that need attention, and the event types that subscriptions name."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, update

from consumer.ledger import cursors, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.subscriptions import health, repository
from models import CursorReason, Subscription
from tests.databases import each_new_engine as new_engine  # noqa: F401 (a fixture)
from tests.ledger.rows_kit import GROUP, expire, plans, run

URL = "https://example.com/hook"
T = 1_700_000_000.0


@pytest.fixture
def subs(engine: Engine) -> list[int]:
    """Subscriptions to three types, with a password that plain SQL has put into their URLs."""
    added = [repository.add(engine, URL, name) for name in ("b", "a.*", "b", "c")]
    run(engine, "UPDATE webhook_subscriptions SET url = 'https://user:password@example.com/hook'")
    return added


def test_failing_subscriptions_are_sorted_by_start(engine: Engine, subs: list[int]) -> None:
    """The one that has failed longest comes first, working ones are left out, and no password is shown."""
    for sub, at in ((subs[0], T), (subs[2], T - 60), (subs[3], T + 60)):
        upkeep.failing(engine, sub, at)
    found = health.failing(engine, 2)
    since = datetime.fromtimestamp(T, UTC)
    assert [(each.subscription_id, each.since) for each in found] == [
        (subs[2], since - timedelta(minutes=1)),
        (subs[0], since),
    ]
    assert "password" not in found[0].url
    assert health.noticed(engine, [], 2).failing == found


def test_disabled_subscriptions_are_listed_with_their_reason(engine: Engine, subs: list[int]) -> None:
    """The newest come first."""
    for sub, reason in ((subs[0], "moved"), (subs[1], None), (subs[2], "410")):
        repository.set_enabled(engine, sub, False, reason)
    found = health.noticed(engine, [], 2).disabled
    assert [(each.subscription_id, each.reason) for each in found] == [(subs[2], "410"), (subs[1], None)]
    assert "password" not in found[0].url


def test_paused_subscriptions_are_listed_with_their_reason(engine: Engine, subs: list[int]) -> None:
    """The one that was paused first comes first; one that is disabled too is not listed."""
    for sub, at in ((subs[0], T), (subs[2], T - 60), (subs[3], T - 90)):
        repository.pause(engine, sub, f"moves {sub}")
        with engine.begin() as connection:
            since = datetime.fromtimestamp(at, UTC)
            connection.execute(update(Subscription).where(Subscription.id == sub).values(paused_at=since))
    repository.set_enabled(engine, subs[3], False, "410")
    found = health.paused(engine, 2)
    assert health.noticed(engine, [], 2).paused == found
    assert [(each.subscription_id, each.mode, each.reason) for each in found] == [
        (subs[2], "paused", f"moves {subs[2]}"),
        (subs[0], "paused", f"moves {subs[0]}"),
    ]
    assert found[1].paused_at == datetime.fromtimestamp(T, UTC)
    named = health.named(engine, subs)
    assert health.noticed(engine, subs, 2).named == named
    assert [(named[each].mode, named[each].reason) for each in subs[1:]] == [
        ("enabled", None),
        ("paused", f"moves {subs[2]}"),
        ("disabled", "410"),
    ]


def test_subscriptions_whose_backlog_expires_are_listed(engine: Engine, subs: list[int]) -> None:
    """Each is listed once, the most urgent first. Disabled ones, finished cursors, replays and later ends are not."""
    due: list[tuple[int, int, float | None, int | None]] = [
        (0, 0, T + 50, None),
        (0, 1, T + 20, 9),
        (1, 0, T + 10, 5),
        (2, 0, T + 60, None),
        (3, 0, T + 30, None),
    ]
    due += [(1, 1, None, None), (1, 2, T + 70, None)]
    for sub, partition, expires, end in due:
        new = NewCursor(("t", partition, subs[sub]), 5, CursorReason.PAUSED, end)
        cursors.begin(engine, GROUP, [new], T)
        expire(engine, subs[sub], expires, partition)
    replayed = NewCursor(("t", 3, subs[1]), 5, CursorReason.REPLAY, 9, replay=1)  # perhaps a cancelled one
    cursors.begin(engine, GROUP, [replayed], T)
    expire(engine, subs[1], T + 1, 3)
    repository.set_enabled(engine, subs[3], False)
    found = health.expiring(engine, datetime.fromtimestamp(T + 65, UTC), 9)
    assert [(each.subscription_id, each.expires.timestamp() - T) for each in found] == [(subs[0], 20), (subs[2], 60)]
    assert "password" not in found[0].url
    assert health.expiring(engine, datetime.fromtimestamp(T + 65, UTC), 1) == found[:1]


def test_subscriptions_whose_backlog_has_no_known_end_are_listed(engine: Engine, subs: list[int]) -> None:
    """Once each, of these topics. Disabled ones, finished cursors and those of replays are left out."""
    owed = [("t", 0, None), ("t", 1, None), ("t", 0, None), ("u", 0, None), ("t", 2, 5)]
    for sub, (topic, partition, end) in zip((0, 0, 1, 2, 2), owed, strict=True):
        cursors.begin(engine, GROUP, [NewCursor((topic, partition, subs[sub]), 5, CursorReason.PAUSED, end)], T)
    cursors.begin(engine, GROUP, [NewCursor(("t", 3, subs[2]), 5, CursorReason.REPLAY, 9, replay=1)], T)
    expire(engine, subs[0], T, 1)
    assert health.untimed(engine, None, 9) == subs[:3]
    assert health.untimed(engine, ["t"], 9) == subs[:2]
    assert (health.untimed(engine, [], 9), health.untimed(engine, None, 1)) == ([], subs[:1])
    expire(engine, subs[0], T)
    repository.set_enabled(engine, subs[1], False)
    assert health.untimed(engine, None, 9) == subs[2:3]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 min"), (59, "0 min"), (19_200, "5 h 20 min"), (187_200, "2 d 4 h"), (86_400, "1 d 0 h")],
)
def test_the_time_left_is_told_in_two_units(seconds: float, text: str) -> None:
    """Days and hours, or hours and minutes."""
    assert health.time_left(seconds) == text


def test_problems_are_searched_in_a_bounded_number(engine: Engine, subs: list[int]) -> None:
    """The result says how many were examined; disabled subscriptions are not."""
    run(engine, "UPDATE webhook_subscriptions SET url = 'https://example.com' WHERE id = :s", s=subs[1])
    repository.set_enabled(engine, subs[0], False)
    found = health.problematic(engine, 2)
    assert ([each.id for each in found.subscriptions], found.looked_at) == ([subs[2]], 2)


@pytest.mark.usefixtures("subs")
def test_named_types_are_counted(engine: Engine) -> None:
    """Types and patterns are counted a page at a time, in the order of their bytes."""
    assert health.named_types(engine, 10) == [("a.*", 1), ("b", 2), ("c", 1)]
    assert health.named_types(engine, 1, after="a.*") == [("b", 2)]
    assert health.named_types(engine, 10, after="c") == []


def test_an_index_finds_them(sqlite_engine: Engine) -> None:
    """An index gives them in order: no sort, no table scan."""
    for work, index in (
        (lambda: health.failing(sqlite_engine, 9), "ix_webhook_subs_failing"),
        (lambda: health.paused(sqlite_engine, 9), "ix_webhook_subs_paused"),
        (lambda: health.expiring(sqlite_engine, datetime.now(UTC), 9), "ix_webhook_cursors_expires (expires_at<?)"),
        (lambda: health.named_types(sqlite_engine, 9, after="a"), "COVERING INDEX ix_webhook_subs_match"),
    ):
        for sql, plan in plans(sqlite_engine, work):
            assert index in plan, (sql, plan)
            assert "ORDER BY" not in plan, (sql, plan)
