"""Upkeep: rows follow their subscriptions, failing subscriptions are disabled, unneeded rows are deleted."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, event, update

from consumer.events.event import RecordId
from consumer.ledger import assigned, cursors, marks, outbox, pauses, store, upkeep
from consumer.ledger.cursors import NewCursor
from consumer.subscriptions import repository
from models import CursorReason, Status, StoredOperation
from tests.faults import refusing
from tests.ledger.rows_kit import (
    GROUP,
    URL,
    counts,
    find,
    losing_the_answer,
    make_event,
    offsets,
    operation,
    ordered,
    park,
    parked,
    query,
    result,
    run,
    statements,
    states,
)
from tests.oracle_emulator import OracleEmulator


def steps(engine: Engine) -> list[upkeep.Reconciled]:
    """The steps of one whole `reconcile`."""
    found = [upkeep.reconcile(engine, 500.0)]
    while (end := found[-1].end) is not None:
        found.append(upkeep.reconcile(engine, 500.0, end))
    return found


def told(engine: Engine, group: str = GROUP) -> list[str]:
    return [event.event_id for _, event, _ in outbox.pending(engine, group, 100)]


def failing_since(engine: Engine, sub: int) -> float | None:
    found = repository.get(engine, sub)
    assert found is not None
    return None if found.failing_since is None else found.failing_since.timestamp()


def test_a_disabled_subscription_holds_its_rows_and_enabling_resumes_them(engine: Engine, sub: int) -> None:
    """A 410 holds all rows; enabling by plain SQL makes them due. The first reason stays and is reported once."""
    other = repository.add(engine, URL, "user.created")
    park(engine, *(parked(make_event(offset), sub, 5000.0) for offset in range(3)), parked(make_event(9), other))
    losing_the_answer(engine, lambda: upkeep.disable(engine, GROUP, sub, "410 Gone", operation(1)))
    assert not upkeep.disable(engine, GROUP, sub, "again", operation(2))
    assert counts(engine) == {"parked": 1, "held": 3}
    found = [(row.enabled, row.disabled_reason) for row in repository.walk(engine)]
    assert found == [(False, "410 Gone"), (True, None)]
    assert told(engine) == ["op_1"]
    assert upkeep.reconcile(engine, 500.0) == (0, 0, 0, None)
    run(engine, "UPDATE webhook_subscriptions SET enabled = 1")
    assert upkeep.reconcile(engine, 500.0) == (0, 3, 0, None)
    assert sorted(offsets(find(engine, 500.0))) == [0, 1, 2, 9]


def test_owners_end_the_cursors_of_a_disabled_subscription_soon(engine: Engine, sub: int) -> None:
    """They are asked to look at each that has not ended, once."""
    cursors.begin(engine, GROUP, [NewCursor(("t", 3, sub), 5, CursorReason.PAUSED)], 100.0)
    for _ in range(2):
        upkeep.disable(engine, GROUP, sub, "410 Gone")
        assert marks.recent(engine, GROUP, None).due_keys == {("t", 3, sub): 1}


def test_a_paused_subscription_holds_its_rows_and_resuming_gives_them_back(engine: Engine) -> None:
    """They are due then, each key in its order, and their owner is told. One that is disabled as well stays held."""
    sub, both = (repository.add(engine, URL, "user.created", ordering="key") for _ in range(2))
    park(engine, *(ordered(offset, to) for to in (sub, both) for offset in (1, 2)), parked(make_event(9), sub, 5000.0))
    run(engine, "UPDATE webhook_subscriptions SET paused_at = CURRENT_TIMESTAMP")
    assert upkeep.reconcile(engine, 500.0) == (3, 0, 0, None)
    assert states(engine, sub) == {1: "held", 2: "blocked", 9: "held"}
    assert find(engine, 9000.0) == []
    assert upkeep.reconcile(engine, 500.0) == (0, 0, 0, None)
    assert marks.recent(engine, GROUP, None).due_keys == {}
    repository.set_enabled(engine, both, enabled=False)
    run(engine, "UPDATE webhook_subscriptions SET paused_at = NULL")
    assert upkeep.reconcile(engine, 500.0) == (0, 2, 0, None)
    assert states(engine, sub) == {1: "parked", 2: "blocked", 9: "parked"}
    assert set(states(engine, both).values()) == {"held", "blocked"}
    assert marks.recent(engine, GROUP, None).due_keys == {("t", 0, sub): 1}
    assert sorted(offsets(find(engine, 500.0))) == [1, 2, 9]


def test_a_subscription_that_only_fails_is_paused(engine: Engine, sub: int) -> None:
    """The time counts from the first note. One that recovered is not paused, and one is paused only once."""

    def pause(number: int, failing_before: float) -> bool:
        told = operation(number)
        return pauses.pause(engine, GROUP, sub, "failing", 9999.0, told, failing_before=failing_before, url=URL)

    park(engine, parked(make_event(), sub))
    upkeep.failing(engine, sub, 1000.25)
    upkeep.failing(engine, sub, 2000.0)
    assert failing_since(engine, sub) == 1000.25
    assert not pause(1, 1000.0)
    assert upkeep.recovered(engine, GROUP, sub, operation(2))
    assert not upkeep.recovered(engine, GROUP, sub, operation(3))
    assert not pause(4, 9000.0)
    upkeep.failing(engine, sub, 3000.0)
    assert counts(engine) == {"parked": 1}
    losing_the_answer(engine, lambda: pause(5, 3000.0))
    assert not pause(6, 3000.0)
    assert told(engine) == ["op_2", "op_5"]
    upkeep.failing(engine, sub, 4000.0)  # a late answer
    assert (counts(engine), failing_since(engine, sub)) == ({"held": 1}, None)


def test_a_removed_subscription_exhausts_its_rows(engine: Engine, sub: int) -> None:
    """Parked, blocked and held rows are exhausted with that reason; delivered ones stay. No event is stored."""
    held, chain = (repository.add(engine, URL, "user.created") for _ in range(2))
    park(engine, *(parked(make_event(offset), sub) for offset in range(2)))
    park(engine, parked(make_event(2), held, 200.0), *(ordered(n, chain) for n in (3, 4)))
    store.record(engine, GROUP, [result(find(engine)[0], "delivered")])
    upkeep.disable(engine, GROUP, held, "410")
    for number in (sub, held, chain):
        repository.remove(engine, number)
    park(engine, parked(make_event(5), -7), parked(make_event(6), 0))  # ids set by plain SQL
    assert upkeep.reconcile(engine, 500.0) == (0, 0, 6, None)
    assert upkeep.reconcile(engine, 500.0) == (0, 0, 0, None)
    assert states(engine) == {0: "delivered"} | dict.fromkeys((1, 2, 3, 4, 5, 6), "exhausted")
    errors = query(engine, "SELECT DISTINCT last_error FROM webhook_deliveries WHERE status = 'exhausted'")
    assert errors == [("the subscription was removed",)]
    assert told(engine) == []


def test_many_rows_follow_in_batches(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows beyond one transaction follow in later steps, so work between the steps does not wait for all."""
    monkeypatch.setattr(upkeep, "CHANGED_AT_ONCE", 10)
    park(engine, *(parked(make_event(offset), sub) for offset in range(35)))
    upkeep.disable(engine, GROUP, sub, "410")
    assert counts(engine) == {"held": 10, "parked": 25}
    assert [step.held for step in steps(engine)] == [10, 10, 5]
    repository.remove(engine, sub)
    assert [step.exhausted for step in steps(engine)] == [10, 10, 10, 5]


def test_each_step_visits_a_few_subscriptions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement finds the next subscriptions with rows, however many rows; the next step goes on behind them."""
    monkeypatch.setattr(upkeep, "SEEKS", 2)
    subs = [repository.add(engine, URL, "user.created") for _ in range(5)]
    for sub in subs:
        park(engine, *(parked(make_event(offset), sub) for offset in range(20)))
    repository.set_enabled(engine, subs[0], enabled=False)
    repository.remove(engine, subs[3])
    repository.set_enabled(engine, subs[4], enabled=False)
    sent = statements(engine, lambda: upkeep.reconcile(engine, 500.0, subs[0]))
    assert sum("min(" in sql for sql in sent) == 1
    assert not any("DISTINCT" in sql for sql in sent)
    assert steps(engine) == [(20, 0, 0, subs[1]), (0, 0, 20, subs[3]), (20, 0, 0, None)]
    repository.set_enabled(engine, subs[4], enabled=True)
    assert steps(engine) == [(0, 0, 0, subs[1]), (0, 0, 0, subs[3]), (0, 20, 0, None)]


def test_reading_begins_no_write_transaction(sqlite_engine: Engine) -> None:
    """On SQLite a write transaction locks the whole file, so none begins only to read."""
    engine = sqlite_engine
    subs = [repository.add(engine, URL, "user.created") for _ in range(2)]
    repository.set_enabled(engine, subs[1], enabled=False)
    store.park(engine, GROUP, [parked(make_event(1), subs[0])], 96.0)

    def look() -> None:
        assert not any(upkeep.reconcile(engine, 500.0))
        assert outbox.expire(engine, GROUP, 500.0) == 0
        assert upkeep.waiting(engine, GROUP, "t", 0) == 1

    sent = statements(engine, look)
    assert [sql for sql in sent if sql.startswith("BEGIN") and sql != "BEGIN DEFERRED"] == []
    assert len(sent) > 5


def test_waiting_rows_are_counted_by_partition(engine: Engine, sub: int) -> None:
    """Parked and blocked rows of one group count; held and ended ones do not."""
    by_key = repository.add(engine, URL, "user.created", ordering="key")
    rows = [parked(make_event(offset), sub) for offset in range(4)]
    store.park(engine, GROUP, [*rows, ordered(5, by_key), ordered(6, by_key), ordered(7, by_key, partition=1)], 96.0)
    store.park(engine, "another", rows, 96.0)
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE record_offset = 1")
    run(engine, "UPDATE webhook_deliveries SET status = 'delivered' WHERE record_offset = 2")
    assert [upkeep.waiting(engine, GROUP, "t", number) for number in range(3)] == [4, 1, 0]


def test_delivered_rows_below_the_committed_offset_are_pruned(engine: Engine) -> None:
    """No assignment reads them again. A payload is deleted with its last row; exhausted rows stay."""
    one, two = (repository.add(engine, URL, "user.created") for _ in range(2))
    rows = [parked(make_event(offset), number) for offset in range(3) for number in (one, two)]
    store.park(engine, GROUP, rows, 96.0)
    found = {(row.event.record.offset, row.endpoint.subscription_id): row for row in find(engine)}
    delivered = [(0, one), (0, two), (1, one), (2, one)]
    store.record(engine, GROUP, [result(found[key], "delivered") for key in delivered])
    assert upkeep.prune(engine, GROUP, "t", 0, 2, limit=2) == 2
    assert upkeep.prune(engine, GROUP, "t", 0, 2) == 1
    assert upkeep.prune(engine, GROUP, "t", 0, 2) == 0
    assert {key[0] for key in assigned.settled_keys(engine, GROUP, "t", 0, 0).keys} == {1, 2}
    assert query(engine, "SELECT record_offset FROM webhook_payloads ORDER BY 1") == [(1,), (2,)]
    assert offsets(find(engine)) == [1, 2]


def test_rows_are_locked_by_id(engine: Engine) -> None:
    """Two workers whose transactions change the same rows wait for each other in turn: no deadlock (ORA-00060)."""
    one, two = (repository.add(engine, URL, "user.created", ordering="key") for _ in range(2))
    park(engine, *(parked(make_event(offset), two) for offset in (5, 3, 7, 6)), parked(make_event(4), one))
    rows = {row.id: row for row in find(engine)}
    locked: list[list[int]] = []
    selected: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def look(_: object, __: object, sql: str, ___: object, context: Any, executemany: bool) -> None:  # noqa: FBT001 (SQLAlchemy's)
        if executemany and "b_id" in context.compiled_parameters[0]:
            locked.append([binds["b_id"] for binds in context.compiled_parameters])
        elif sql.startswith("SELECT webhook_deliveries.id ") and "ORDER BY webhook_deliveries.id" in sql:
            selected.append(sql)

    first, second, third, *_ = sorted(rows)
    store.record(engine, GROUP, [result(rows[first], "parked", 500.0), result(rows[second], "delivered")])
    assert len(selected) == 1, "of two states: one statement locks both rows before"
    assert engine.dialect.name == "sqlite" or "FOR UPDATE" in selected[0]
    store.record(engine, GROUP, [result(rows[third], "delivered")])
    assert len(selected) == 1, "of one state: its own statement goes by id"
    repository.set_enabled(engine, two, False)
    upkeep.reconcile(engine, 500.0)
    upkeep.prune(engine, GROUP, "t", 0, 9)
    for partition in (1, 0):
        cursors.begin(engine, GROUP, [NewCursor(("t", partition, two), 0, CursorReason.PAUSED)], 1.0)
    repository.remove(engine, two)
    assert len(locked) >= 3
    assert all(ids == sorted(ids) for ids in locked)


def prune(engine: Engine) -> int:
    return upkeep.prune(engine, GROUP, "t", 0, 2)


def purge(engine: Engine) -> int:
    return sum(step.deliveries for step in upkeep.purge(engine, [Status.DELIVERED], 1e10))


@pytest.mark.parametrize("work", [prune, purge])
def test_a_payload_that_a_worker_needs_meanwhile_is_kept(
    engine: Engine, emulator: OracleEmulator | None, sub: int, work: Callable[[Engine], int]
) -> None:
    """Oracle waits for the other writer and then refuses (ORA-02292), and the step starts again."""
    park(engine, *(parked(make_event(offset), sub) for offset in range(2)))
    store.record(engine, GROUP, [result(row, "delivered") for row in find(engine)])
    with refusing(engine, emulator, "DELETE FROM webhook_payloads", error=2292, times=3) as refused:
        assert work(engine) == 2
    assert len(refused) == 3
    assert query(engine, "SELECT record_offset FROM webhook_payloads") == []


def test_delivered_rows_of_a_replay_are_pruned_at_once(engine: Engine, sub: int) -> None:
    """No restart needs them, whatever the group's offset. The payload stays while the original delivery needs it."""
    store.park(engine, GROUP, [parked(make_event(9), sub, replay=1), parked(make_event(9), sub)], 96.0)
    (replayed,) = [row for row in find(engine) if row.replay]
    store.record(engine, GROUP, [result(replayed, "delivered")])
    assert upkeep.prune(engine, GROUP, "t", 0, 0) == 1
    assert [row.replay for row in find(engine)] == [0]


def test_topics_with_open_rows(engine: Engine, sub: int) -> None:
    """Exhausted rows do not count. Delivered rows and cursors do: those of a deleted topic have to be deleted."""
    for topic, partition in (("t", 0), ("t", 5), ("u", 2), ("v", 3), ("x", 4)):
        park(engine, parked(make_event(1, topic=topic, partition=partition), sub))
    park(engine, parked(make_event(1, topic="w"), sub), group="another")
    for topic, status in (("u", "exhausted"), ("v", "held"), ("x", "delivered")):
        run(engine, "UPDATE webhook_deliveries SET status = :s WHERE topic = :t", s=status, t=topic)
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked' WHERE topic = 't' AND partition_no = 0")
    owed = [NewCursor((topic, 7, sub), 5, CursorReason.PAUSED) for topic in ("t", "y")]
    cursors.begin(engine, GROUP, owed, 1.0)
    assert assigned.open_topics(engine, GROUP) == ["t", "v", "x", "y"]
    assert [assigned.next_partition(engine, GROUP, "t", after) for after in (-1, 0, 4, 5, 7)] == [0, 5, 5, 7, None]


def test_partitions_with_rows(engine: Engine, sub: int) -> None:
    """Partitions with rows of any state, with marks alone, or with cursors alone, are found."""
    for topic, partition in (("t", 0), ("t", 5), ("t", 6), ("u", 2)):
        park(engine, parked(make_event(1, topic=topic, partition=partition), sub))
    park(engine, parked(make_event(1, topic="t", partition=3), sub), group="another")
    run(engine, "UPDATE webhook_deliveries SET status = 'exhausted' WHERE partition_no = 5")
    marks.refused_since(engine, GROUP, RecordId("t", 9, 1, 0), sub, 1.0)
    cursors.begin(engine, GROUP, [NewCursor(("t", 8, sub), 0, CursorReason.PAUSED)], 1.0)
    ours = [("t", number) for number in (*range(6), *range(7, 12))]
    assert assigned.with_rows(engine, GROUP, [*ours, ("u", 1), ("v", 0)]) == {("t", 0), ("t", 5), ("t", 8), ("t", 9)}


def test_operational_events_stay_until_they_are_published(engine: Engine) -> None:
    """They come in the order of writing, each once for a group: two deployments publish to topics of their own."""
    for group, number in ((GROUP, 2), (GROUP, 1), (GROUP, 2), ("another", 1)):
        with engine.begin() as connection:
            outbox.add(connection, group, [operation(number)])
    (first, event, at), _ = outbox.pending(engine, GROUP, 10)
    assert event == operation(2)
    assert abs(at - datetime.now(UTC).timestamp()) < 60
    outbox.forget(engine, [first])
    outbox.forget(engine, [first])
    assert (told(engine), told(engine, "another")) == (["op_1"], ["op_1"])
    assert len(outbox.pending(engine, GROUP, 1)) == 1


def test_an_unreadable_operational_event_holds_up_no_other(engine: Engine) -> None:
    """Data that a person's SQL has put there and that is not a JSON object is published as a text."""
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [operation(number) for number in range(2)])
        connection.exec_driver_sql("UPDATE webhook_operations SET data = '[1]' WHERE event_id = 'op_0'")
    found = [event.data for _, event, _ in outbox.pending(engine, GROUP, 4)]
    assert found == [{"unreadable": "[1]"}, operation(1).data]


def test_unpublished_operational_events_expire(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one group written before a time are deleted, a batch at a time, without reading their data."""
    monkeypatch.setattr(outbox, "BATCH", 2)
    with engine.begin() as connection:
        outbox.add(connection, GROUP, [operation(number) for number in range(5)])
        outbox.add(connection, "another", [operation(9)])
    with engine.begin() as connection:
        old = update(StoredOperation).where(StoredOperation.event_id.not_in(["op_3", "op_4"]))
        connection.execute(old.values(created_at=datetime(2020, 1, 1, tzinfo=UTC)))
    before = datetime(2021, 1, 1, tzinfo=UTC).timestamp()
    assert [outbox.expire(engine, GROUP, before) for _ in range(3)] == [2, 1, 0]
    sent = statements(engine, lambda: outbox.expire(engine, GROUP, before))
    assert not any("webhook_operations.data" in sql for sql in sent)
    assert told(engine) == ["op_3", "op_4"]
    assert len(outbox.pending(engine, "another", 10)) == 1
