"""A replay's position in the log moves with the rows that it stores."""

from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from consumer.errors import ReplayEnded, WebhooksError
from consumer.ledger import replays, search, store
from consumer.ledger.replays import Replay, Span
from consumer.subscriptions import repository
from tests.ledger.rows_kit import GROUP, URL, find, losing_the_answer, make_event, parked, query, run

NOW = 100.0
SPANS = [Span("t", 0, 10, 90), Span("t", 1, 0, 5)]


@pytest.fixture
def replay(engine: Engine, sub: int) -> int:
    return replays.create(engine, GROUP, sub, 1000.5, 2000.25, None, 2.5, SPANS)


def load(engine: Engine, replay: int) -> Replay:
    found = replays.load(engine, replay)
    assert found is not None
    return found


def test_a_new_replay_is_read_back_unchanged(engine: Engine, sub: int, replay: int) -> None:
    """Nothing is read or stored yet; an unknown id gives None."""
    found = load(engine, replay)
    assert (found.id, found.group, found.subscription_id, found.event_type) == (replay, GROUP, sub, None)
    assert (found.since, found.until, found.rate, found.spans) == (1000.5, 2000.25, 2.5, tuple(SPANS))
    assert (found.matched, found.finished_at) == (0, None)
    assert replays.load(engine, replay + 1) is None


def test_rows_and_positions_move_together(engine: Engine, sub: int, replay: int) -> None:
    """A step repeated after a lost answer changes nothing, even if the rows were sent and deleted meanwhile."""
    rows = [parked(make_event(offset), sub, attempt=0, replay=replay) for offset in (11, 12)]

    def step() -> None:
        replays.advance(engine, replay, GROUP, rows, {("t", 0): 13, ("t", 1): 5}, 96.0)

    losing_the_answer(engine, step)
    step()
    assert (load(engine, replay).spans, load(engine, replay).matched) == ((Span("t", 0, 13, 90), Span("t", 1, 5, 5)), 2)
    assert [(row.event.record.offset, row.replay) for row in find(engine)] == [(11, replay), (12, replay)]
    run(engine, "DELETE FROM webhook_deliveries")
    step()
    assert (find(engine), load(engine, replay).matched) == ([], 2)


def test_a_replay_that_two_processes_run_stores_nothing_twice(engine: Engine, sub: int, replay: int) -> None:
    """The slower process ends, and the faster one stores only the rows of later records.

    Rows that the other process has stored may be sent and deleted by now.
    """

    def step(*offsets: int) -> None:
        rows = [parked(make_event(offset), sub, attempt=0, replay=replay) for offset in offsets]
        replays.advance(engine, replay, GROUP, rows, {("t", 0): offsets[-1] + 1}, 96.0)

    step(10, 11, 12)
    run(engine, "DELETE FROM webhook_deliveries")
    with pytest.raises(ReplayEnded, match=f"another process runs replay {replay}"):
        step(10, 11)
    step(10, 11, 12, 13, 14)
    assert [row.event.record.offset for row in find(engine)] == [13, 14]
    assert (load(engine, replay).spans[0].begin, load(engine, replay).matched) == (15, 5)
    replays.finish(engine, replay, 97.0)
    with pytest.raises(ReplayEnded, match=f"another process has finished replay {replay}"):
        step(10, 11, 12, 13, 14, 15)
    assert (len(find(engine)), load(engine, replay).matched) == (2, 5)


def test_rows_stored_between_two_statements_of_a_step_undo_the_step(
    engine: Engine, sub: int, replay: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positions that it has read are outdated, so its rows could be rows that were sent and deleted meanwhile."""

    def insert_new(connection: Connection, *arguments: Any) -> None:
        connection.execute(text("UPDATE webhook_replays SET matched = 3"))
        store.insert_new(connection, *arguments)

    monkeypatch.setattr(replays, "insert_new", insert_new)
    with pytest.raises(ReplayEnded, match=f"another process runs replay {replay}"):
        replays.advance(engine, replay, GROUP, [parked(make_event(11), sub, replay=replay)], {("t", 0): 12}, 96.0)
    assert (find(engine), load(engine, replay).spans) == ([], tuple(SPANS))


def test_a_step_that_fails_leaves_nothing(engine: Engine, sub: int, replay: int) -> None:
    """A crash between the rows and the position leaves neither."""

    def crash(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE webhook_replays"):
            raise KeyboardInterrupt

    event.listen(engine, "before_cursor_execute", crash)
    rows = [parked(make_event(11), sub, replay=replay)]
    with pytest.raises(KeyboardInterrupt):
        replays.advance(engine, replay, GROUP, rows, {("t", 0): 12}, 96.0)
    event.remove(engine, "before_cursor_execute", crash)
    assert query(engine, "SELECT count(*) FROM webhook_deliveries") == [(0,)]
    assert load(engine, replay).spans == tuple(SPANS)


@pytest.mark.parametrize(
    "change", ["UPDATE webhook_subscriptions SET enabled = 0", "DELETE FROM webhook_subscriptions"]
)
def test_a_disabled_or_removed_subscription_gets_nothing(engine: Engine, sub: int, replay: int, change: str) -> None:
    """Neither rows nor positions move, so that a later run goes on from there."""
    run(engine, change)
    with pytest.raises(WebhooksError, match=f"subscription {sub} was disabled or removed"):
        replays.advance(engine, replay, GROUP, [parked(make_event(11), sub, replay=replay)], {("t", 0): 12}, 96.0)
    assert query(engine, "SELECT count(*) FROM webhook_deliveries") == [(0,)]
    assert (load(engine, replay).spans, load(engine, replay).matched) == (tuple(SPANS), 0)


def test_the_last_due_time_of_a_replay_is_known(engine: Engine, sub: int, replay: int) -> None:
    """It is the latest of its own rows that wait for their first attempt."""
    assert search.last_of_replay(engine, replay) is None
    rows = [
        (1, replay, 0, 100.25),
        (2, replay, 0, 101.5),
        (3, replay, 1, 900.0),
        (4, replay + 1, 0, 800.0),
        (5, 0, 0, 7.0),
    ]
    store.park(
        engine,
        GROUP,
        [parked(make_event(offset), sub, at, attempt=attempt, replay=of) for offset, of, attempt, at in rows],
        96.0,
    )
    assert search.last_of_replay(engine, replay) == 101.5


def test_a_deleted_replay_stores_nothing(engine: Engine, sub: int, replay: int) -> None:
    """A step of a replay whose row was deleted fails."""
    run(engine, "DELETE FROM webhook_replays")
    with pytest.raises(WebhooksError, match="replay 1 was deleted"):
        replays.advance(engine, replay, GROUP, [parked(make_event(11), sub, replay=replay)], {}, 96.0)
    assert query(engine, "SELECT count(*) FROM webhook_deliveries") == [(0,)]


def test_a_replay_ends_once_and_its_id_is_not_reused(engine: Engine, sub: int, replay: int) -> None:
    """The first end time stands, and rows of a deleted replay never belong to a later one."""
    replays.finish(engine, replay, 3000.0)
    replays.finish(engine, replay, 4000.0)
    assert load(engine, replay).finished_at == 3000.0
    run(engine, "DELETE FROM webhook_replays")
    assert replays.create(engine, GROUP, sub, 0.0, 1.0, "t", 0.001, []) == replay + 1
    assert (load(engine, replay + 1).event_type, load(engine, replay + 1).rate) == ("t", 0.001)


def test_a_replayed_event_does_not_wait_for_its_key(engine: Engine, sub: int, replay: int) -> None:
    """Replays are unordered: the parked delivery of the same record is another delivery."""
    store.park(engine, GROUP, [parked(make_event(11), sub)], 96.0)
    replays.advance(engine, replay, GROUP, [parked(make_event(11), sub, replay=replay)], {}, 96.0)
    assert [(row.replay, row.ordering_key) for row in find(engine)] == [(0, None), (replay, None)]


def test_replays_are_listed_newest_first(engine: Engine, sub: int, replay: int) -> None:
    """A listing has pages, of a group or of a subscription."""
    other = repository.add(engine, URL, "user.created")
    second = replays.create(engine, "another", other, 1000.5, 2000.25, "t", 2.5, SPANS)
    third = replays.create(engine, GROUP, other, 1000.5, 2000.25, None, 2.5, [])

    def ids(**which: Any) -> list[int]:
        return [each.id for each in replays.find(engine, **which)]

    assert ids(limit=10) == [third, second, replay]
    assert (ids(limit=2), ids(limit=2, before=second)) == ([third, second], [replay])
    assert ids(limit=10, group=GROUP) == [third, replay]
    assert ids(limit=10, group=GROUP, subscription=other) == [third]
    assert replays.find(engine, limit=10, subscription=sub) == [load(engine, replay)]


@pytest.mark.parametrize("positions", ["[1]", "{}", '[["t", 0, 0]]', '[["t", 0, 0, "5"]]'])
def test_a_replay_with_damaged_positions_hides_no_other(engine: Engine, sub: int, replay: int, positions: str) -> None:
    """It is listed and claimed like the others, without spans, and its error says why."""
    others = [replays.create(engine, GROUP, sub, 0.0, 1.0, None, 1.0, SPANS, background=True) for _ in range(2)]
    run(engine, "UPDATE webhook_replays SET positions = :p WHERE id = :id", p=positions, id=others[0])
    damaged, fine = load(engine, others[0]), load(engine, others[1])
    assert (damaged.spans, damaged.last_error, damaged.damage) == ((), damaged.damage, damaged.last_error)
    assert "positions are not a JSON array" in (damaged.damage or "")
    assert (fine.spans, fine.last_error, fine.damage) == (tuple(SPANS), None, None)
    assert [each.id for each in replays.find(engine, limit=9)] == [*reversed(others), replay]
    claimed = [replays.claim(engine, GROUP, NOW, NOW + 30) for _ in range(3)]
    assert [each and each.id for each in claimed] == [*others, None]


def test_a_replay_states_its_progress(engine: Engine, replay: int) -> None:
    """Progress is counted in records, of those that existed when it began."""
    assert (load(engine, replay).record_count, load(engine, replay).left) == (85, 85)
    replays.advance(engine, replay, GROUP, [], {("t", 0): 40}, 96.0)
    found = load(engine, replay)
    assert (found.record_count, found.left, found.state(NOW)) == (85, 55, "unfinished")
    replays.finish(engine, replay, 97.0)
    assert load(engine, replay).state(NOW) == "finished"


def test_a_cancelled_replay_stores_no_more(engine: Engine, sub: int, replay: int) -> None:
    """Stored rows stay. It is cancelled once, and does not finish."""
    replays.advance(engine, replay, GROUP, [parked(make_event(11), sub, replay=replay)], {("t", 0): 12}, 96.0)
    losing_the_answer(engine, lambda: replays.cancel(engine, replay, 97.0))
    assert not replays.cancel(engine, replay, 98.0)
    with pytest.raises(WebhooksError, match=f"replay {replay} was cancelled"):
        replays.advance(engine, replay, GROUP, [parked(make_event(12), sub, replay=replay)], {("t", 0): 13}, 98.0)
    replays.finish(engine, replay, 99.0)
    found = load(engine, replay)
    assert (found.state(NOW), found.cancelled_at, found.finished_at, found.matched) == ("cancelled", 97.0, None, 1)
    assert len(find(engine)) == 1


def test_a_finished_replay_cannot_be_cancelled(engine: Engine, replay: int) -> None:
    """A finished or unknown replay cannot be cancelled."""
    replays.finish(engine, replay, 97.0)
    assert not replays.cancel(engine, replay, 98.0)
    assert not replays.cancel(engine, replay + 1, 98.0)
    assert load(engine, replay).state(NOW) == "finished"
