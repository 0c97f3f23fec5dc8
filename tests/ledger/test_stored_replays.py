"""Replays in the database: a request, its cursors, their progress, and their ends."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, event

from consumer.ledger import cursors, marks, replays
from consumer.ledger.cursors import CursorMove, KeptCursor
from consumer.ledger.replays import Replay, Request, Span
from consumer.subscriptions import repository
from models import CursorReason, Subscription
from tests.ledger.rows_kit import GROUP, URL, losing_the_answer, query, run

NOW = 100.0
SPANS = [Span("t", 0, 10, 90), Span("t", 1, 0, 5)]


@pytest.fixture
def replay(engine: Engine, sub: int) -> int:
    return replays.create(engine, GROUP, sub, 1000.5, 2000.25, None, 2.5, SPANS, NOW)


def load(engine: Engine, replay: int) -> Replay:
    found = replays.load(engine, replay)
    assert found is not None
    return found


def here(engine: Engine, sub: int) -> list[KeptCursor]:
    return cursors.of_due_keys(engine, GROUP, [("t", number, sub) for number in range(3)])


def move(engine: Engine, cursor: KeptCursor, to: int) -> None:
    """Moves a cursor, as its owner does."""
    moved = CursorMove(cursor.id, cursor.version, to, cursor.end, "", None)
    assert not cursors.save(engine, [moved], NOW)


def end(engine: Engine, sub: int) -> None:
    """Moves all cursors of a subscription to their ends."""
    for cursor in here(engine, sub):
        move(engine, cursor, cursor.end or 0)


def marked(engine: Engine) -> set[Any]:
    return set(marks.recent(engine, GROUP, None).due_keys)


def test_a_replay_begins_with_a_cursor_for_each_partition(engine: Engine, sub: int, replay: int) -> None:
    """It is read back unchanged, and the owners of its partitions are asked to look. An unknown id gives None."""
    found = load(engine, replay)
    assert (found.id, found.group, found.subscription_id, found.event_type) == (replay, GROUP, sub, None)
    assert (found.since, found.until, found.rate, found.ordered) == (1000.5, 2000.25, 2.5, False)
    assert (found.records, found.records_left, found.created_at, found.state) == (85, 85, NOW, "running")
    kept = [(each.due_key, each.replay, each.reason, each.first, each.next, each.end) for each in here(engine, sub)]
    assert kept == [
        (("t", number, sub), replay, CursorReason.REPLAY, begin, begin, stop) for _, number, begin, stop in SPANS
    ]
    assert marked(engine) == {("t", 0, sub), ("t", 1, sub)}
    assert replays.load(engine, replay + 1) is None


def test_a_replay_that_cannot_begin_leaves_nothing(engine: Engine, sub: int) -> None:
    """Request and cursors are stored in one transaction."""
    with engine.connect() as connection:
        replays.create(connection, GROUP, sub, 0.0, 1.0, None, 1.0, SPANS, NOW)
        connection.rollback()
    assert query(engine, "SELECT count(*) FROM webhook_replays") == [(0,)]
    assert here(engine, sub) == []


def test_a_replay_without_records_has_finished(engine: Engine, sub: int) -> None:
    """There is nothing to read."""
    assert load(engine, replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [], NOW)).state == "finished"


def test_workers_read_the_requests_of_replays_that_go_on(engine: Engine, sub: int, replay: int) -> None:
    """A request names the cursors that are left; a cancelled replay, a finished one and an unknown one have none."""
    other = replays.create(engine, GROUP, sub, 0.0, 1.0, "a.*", 7.0, SPANS, NOW, ordered=True)
    cancelled = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, SPANS, NOW)
    replays.cancel(engine, cancelled, NOW)
    finished = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, [], NOW)
    move(engine, next(each for each in here(engine, sub) if each.replay == replay), 90)
    assert replays.requests(engine, {replay, other, cancelled, finished, finished + 1}) == {
        replay: Request(1000.5, None, 2.5, False, 1),
        other: Request(0.0, "a.*", 7.0, True, 2),
    }
    assert replays.requests(engine, ()) == {}


def test_a_replay_states_its_progress(engine: Engine, sub: int, replay: int) -> None:
    """Progress is counted in records, and cursors that have ended and are gone count as read."""
    first, second = here(engine, sub)
    move(engine, first, 40)
    assert load(engine, replay).records_left == 55
    move(engine, second, 5)
    replays.finish(engine, NOW, {replay})
    assert [each.due_key for each in here(engine, sub)] == [("t", 0, sub)]
    assert (load(engine, replay).records_left, load(engine, replay).state) == (50, "running")


def test_a_replay_finishes_with_its_last_cursor(engine: Engine, sub: int, replay: int) -> None:
    """Its cursors are gone then. The first time stands, and other replays go on."""
    other = replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, SPANS[:1], NOW)
    for cursor in here(engine, sub):
        if cursor.replay == replay:
            move(engine, cursor, cursor.end or 0)
    losing_the_answer(engine, lambda: replays.finish(engine, 2000.0, {replay}))
    for at in (3000.0, 4000.0):
        replays.finish(engine, at, {replay})
    found = load(engine, replay)
    assert (found.state, found.finished_at, found.records_left) == ("finished", 3000.0, 0)
    assert [each.replay for each in here(engine, sub)] == [other]
    assert load(engine, other).state == "running"


def test_a_round_finishes_what_a_killed_worker_left(engine: Engine, sub: int, replay: int) -> None:
    """The position was stored, and nobody has finished the replay."""
    end(engine, sub)
    replays.finish(engine, 3000.0)
    assert (load(engine, replay).state, here(engine, sub)) == ("finished", [])


def test_a_cancelled_replay_keeps_its_place(engine: Engine, sub: int, replay: int) -> None:
    """The owners of its cursors are asked to look, then and when it goes on. It is cancelled once, and not finished."""
    move(engine, here(engine, sub)[0], 40)
    run(engine, "DELETE FROM webhook_marks")
    losing_the_answer(engine, lambda: replays.cancel(engine, replay, 97.0))
    assert marked(engine) == {("t", 0, sub), ("t", 1, sub)}
    assert not replays.cancel(engine, replay, 98.0)
    replays.finish(engine, 99.0)
    found = load(engine, replay)
    assert (found.state, found.cancelled_at, found.ended, found.records_left) == ("cancelled", 97.0, True, 55)
    run(engine, "DELETE FROM webhook_marks")
    losing_the_answer(engine, lambda: replays.resume(engine, replay))
    assert marked(engine) == {("t", 0, sub), ("t", 1, sub)}
    assert not replays.resume(engine, replay)
    assert (load(engine, replay).state, load(engine, replay).records_left) == ("running", 55)


def test_a_replay_that_has_ended_cannot_be_cancelled(engine: Engine, sub: int, replay: int) -> None:
    """Nor can an unknown one be cancelled or resumed, nor a finished one be resumed."""
    end(engine, sub)
    replays.finish(engine, 97.0)
    for number in (replay, replay + 1):
        assert not replays.cancel(engine, number, 98.0)
        assert not replays.resume(engine, number)
    assert load(engine, replay).state == "finished"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE webhook_subscriptions SET enabled = 0", "is disabled"),
        ("UPDATE webhook_subscriptions SET paused_at = created_at", "is paused"),
    ],
)
def test_a_replay_waits_for_its_subscription(engine: Engine, sub: int, replay: int, change: str, why: str) -> None:
    """It says why, as long as it has not ended."""
    run(engine, change)
    found = load(engine, replay)
    assert (found.state, f"subscription {sub} {why}" in (found.last_error or "")) == ("waiting", True)
    end(engine, sub)
    replays.finish(engine, NOW)
    assert (load(engine, replay).state, load(engine, replay).last_error) == ("finished", None)


def test_a_replay_ends_with_its_subscription(engine: Engine, sub: int, replay: int) -> None:
    """Its cursors are gone with the subscription, and the next round cancels it."""
    repository.remove(engine, sub)
    assert here(engine, sub) == []
    replays.finish(engine, 300.0)
    found = load(engine, replay)
    assert (found.state, found.cancelled_at, found.records_left) == ("cancelled", 300.0, found.records)
    assert found.last_error == f"subscription {sub} was removed"
    assert not replays.resume(engine, replay)
    assert load(engine, replay).state == "cancelled"


def test_a_replay_whose_subscription_goes_while_it_ends_is_not_finished(engine: Engine, sub: int, replay: int) -> None:
    """Its cursors go with the subscription: that they are gone does not mean that all is read."""

    @event.listens_for(engine, "after_cursor_execute")
    def removed(connection: Connection, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith("UPDATE webhook_replays"):
            connection.execute(delete(Subscription).where(Subscription.id == sub))

    replays.finish(engine, 300.0)
    event.remove(engine, "after_cursor_execute", removed)
    replays.finish(engine, 300.0)
    assert load(engine, replay).state == "cancelled"


def test_an_id_is_not_used_again(engine: Engine, sub: int, replay: int) -> None:
    """Rows and cursors of a deleted replay never belong to a later one."""
    run(engine, "DELETE FROM webhook_replays")
    number = replays.create(engine, GROUP, sub, 0.0, 1.0, "t", 0.001, [], NOW)
    assert number == replay + 1
    assert (load(engine, number).event_type, load(engine, number).rate) == ("t", 0.001)


def test_replays_are_listed_newest_first(engine: Engine, sub: int, replay: int) -> None:
    """A listing has pages, of a group or of a subscription."""
    other = repository.add(engine, URL, "user.created")
    second = replays.create(engine, "another", other, 1000.5, 2000.25, "t", 2.5, SPANS, NOW)
    third = replays.create(engine, GROUP, other, 1000.5, 2000.25, None, 2.5, [], NOW)

    def ids(**which: Any) -> list[int]:
        return [each.id for each in replays.find(engine, **which)]

    assert ids(limit=10) == [third, second, replay]
    assert (ids(limit=2), ids(limit=2, before=second)) == ([third, second], [replay])
    assert ids(limit=10, group=GROUP) == [third, replay]
    assert ids(limit=10, group=GROUP, subscription=other) == [third]
    assert replays.find(engine, limit=10, subscription=sub) == [load(engine, replay)]
