"""Of one subscription and key, only the first row in the log may be due; later ones wait for their turn."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.ledger import admin, assigned, ordering, store, upkeep
from consumer.ledger.rows import order_key
from consumer.subscriptions import repository
from tests.ledger.rows_kit import (
    GROUP,
    URL,
    Result,
    find,
    losing_the_answer,
    make_event,
    offsets,
    ordered,
    ordering_key,
    park,
    parked,
    query,
    result,
    run,
    states,
)


@pytest.fixture
def sub(engine: Engine) -> int:
    return repository.add(engine, URL, "user.created", ordering="key")


def mend(engine: Engine) -> list[int]:
    """How many ordering keys each step of one whole `repair` has put in order."""
    found = [ordering.repair(engine, GROUP, "t", 0, 500.0)]
    while (end := found[-1].end) is not None:
        found.append(ordering.repair(engine, GROUP, "t", 0, 500.0, end))
    return [step.ordering_keys for step in found]


def test_followers_are_fetched_with_the_first(engine: Engine, sub: int) -> None:
    """Blocked rows are fetched in order behind the first, evenly for each key, not each by a fetch of its own."""
    park(engine, *(ordered(offset, sub) for offset in (1, 2, 3, 4, 5)))
    park(engine, *(ordered(offset, sub, b"other") for offset in (7, 8, 9)))
    rows = find(engine)
    assert offsets(rows) == [1, 7, 2, 3, 4, 5, 8, 9]
    assert {row.ordering_key for row in rows} == {ordering_key(sub), ordering_key(sub, b"other")}
    assert offsets(find(engine, room=7)) == [1, 7, 2, 3, 8, 9]
    assert offsets(find(engine, room=3)) == [1, 7]
    assert offsets(find(engine, here=[rows[0].id])) == [7, 8, 9], "its followers were fetched with it"
    assert offsets(find(engine, here=[rows[2].id])) == [1, 7, 8, 9], "1 was redelivered while 2 is under way"


def test_results_of_followers_may_come_first(engine: Engine, sub: int) -> None:
    """Results of a chain may be written in any order: each names its attempt, whatever the row's state is by then."""
    park(engine, *(ordered(offset, sub) for offset in (1, 2, 3)))
    first, second, third = find(engine)
    results = [result(first, "delivered"), result(second, "delivered"), result(third, "parked", 9000.0)]
    store.record(engine, GROUP, results)
    assert states(engine) == {1: "delivered", 2: "delivered", 3: "parked"}
    assert find(engine, 8999.0) == []
    assert [row.attempt for row in find(engine, 9000.0)] == [1]


def test_followers_stop_at_a_row_that_has_to_wait(engine: Engine, sub: int) -> None:
    """Rows behind a follower that is held, or has a later due time, are not fetched."""
    park(engine, *(ordered(offset, sub) for offset in (1, 2, 4)), ordered(3, sub, next_attempt_at=2.5e9))
    assert offsets(find(engine)) == [1, 2]
    run(engine, "UPDATE webhook_deliveries SET next_attempt_at = created_at, status = 'held' WHERE record_offset = 2")
    assert offsets(find(engine)) == [1]


@pytest.mark.parametrize("end", ["delivered", "exhausted"])
def test_the_next_is_due_at_once_when_the_first_has_ended(engine: Engine, sub: int, end: Result) -> None:
    """It is due at the time that it was stored with. The ordering key is reported free only after the last."""
    park(engine, *(ordered(offset, sub) for offset in range(3)))
    for offset in range(3):
        (row,) = find(engine, 3000.0, room=1)
        assert row.event.record.offset == offset
        assert store.record(engine, GROUP, [result(row, "parked", 2500.0)]) == frozenset()
        (row,) = find(engine, 3000.0, room=1)
        free = store.record(engine, GROUP, [result(row, end)])
        assert free == ({ordering_key(sub)} if offset == 2 else frozenset())
        following = admin.find(engine, admin.DeliveryQuery(("parked",)), limit=9)
        assert [row.next_attempt_at for row in following] == ([] if offset == 2 else [100.0])


def test_a_blocked_row_keeps_its_next_attempt(engine: Engine, sub: int) -> None:
    """A row that was tried, then blocked by an earlier one, is due at its own time, not when the earlier one ends."""
    park(engine, ordered(1, sub, status="exhausted", next_attempt_at=None))
    park(engine, ordered(2, sub, attempt=1, next_attempt_at=9000.0))
    (given_up,) = admin.find(engine, admin.DeliveryQuery(("exhausted",)), limit=9)
    assert list(admin.redeliver(engine, admin.DeliveryQuery(ids=[given_up.id]), 2000.0))
    assert states(engine) == {1: "parked", 2: "blocked"}
    (row,) = find(engine, 3000.0)
    store.record(engine, GROUP, [result(row, "delivered")])
    assert states(engine)[2] == "parked"
    assert find(engine, 8999.0) == []
    assert [row.event.record.offset for row in find(engine, 9000.0)] == [2]


def test_keys_subscriptions_and_partitions_do_not_wait_for_each_other(engine: Engine, sub: int) -> None:
    """Only rows of one key, subscription, partition and group wait for each other, and those of one replay."""
    other = repository.add(engine, URL, "user.created", ordering="key")
    park(engine, ordered(1, sub), ordered(2, sub, b"b"), ordered(1, other), ordered(1, sub, partition=1))
    park(engine, parked(make_event(3), sub), parked(make_event(4), sub, replay=2))
    of_replay = ordering_key(sub)._replace(key=order_key(b"k", replay=2))
    park(engine, *(ordered(offset, sub, replay=2)._replace(ordering_key=of_replay) for offset in (6, 7)))
    park(engine, ordered(5, sub), group="another")
    assert query(engine, "SELECT count(*) FROM webhook_deliveries WHERE status = 'parked'") == [(8,)]
    assert states(engine)[7] == "blocked"
    assert [row.ordering_key for row in find(engine) if row.event.record.offset in (3, 4)] == [None, None]


def test_a_held_row_keeps_its_place(engine: Engine, sub: int) -> None:
    """Rows stored behind a held one are blocked, and once the subscription is enabled the first goes first."""
    park(engine, ordered(1, sub), ordered(2, sub))
    upkeep.disable(engine, GROUP, sub, "410")
    park(engine, ordered(3, sub))
    assert states(engine) == {1: "held", 2: "blocked", 3: "blocked"}
    repository.set_enabled(engine, sub, enabled=True)
    assert upkeep.reconcile(engine, 500.0) == (0, 1, 0, None)
    assert states(engine) == {1: "parked", 2: "blocked", 3: "blocked"}


def test_a_repetition_after_a_lost_answer_is_the_same(engine: Engine, sub: int) -> None:
    """A result written again unblocks the next row once, and reports the free ordering key again."""
    park(engine, ordered(1, sub), ordered(2, sub))
    (first, _) = find(engine)
    losing_the_answer(engine, lambda: store.record(engine, GROUP, [result(first, "delivered")]))
    assert store.record(engine, GROUP, [result(first, "delivered")]) == frozenset()
    (second,) = find(engine, 3000.0)
    assert second.event.record.offset == 2
    losing_the_answer(engine, lambda: store.record(engine, GROUP, [result(second, "delivered")]))
    assert store.record(engine, GROUP, [result(second, "delivered")]) == {ordering_key(sub)}


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE webhook_deliveries SET status = 'blocked'",
        "UPDATE webhook_deliveries SET status = 'parked'",
        "UPDATE webhook_deliveries SET status = 'blocked' WHERE record_offset = 1",
        "UPDATE webhook_deliveries SET status = 'parked' WHERE record_offset = 3",
        "DELETE FROM webhook_deliveries WHERE record_offset = 1",
    ],
)
def test_order_broken_by_hand_is_repaired(engine: Engine, sub: int, edit: str) -> None:
    """An ordering key with no due row, or with two, is put in order."""
    park(engine, *(ordered(offset, sub) for offset in (1, 2, 3)))
    run(engine, edit)
    assert sum(mend(engine)) >= 1
    first, *others = states(engine).values()
    assert (first, set(others)) == ("parked", {"blocked"})
    assert mend(engine) == [0]


@pytest.mark.parametrize("first", ["exhausted", "held", "blocked"])
def test_a_row_without_a_due_time_is_due(engine: Engine, sub: int, first: str) -> None:
    """A row blocked by hand without a time (a parked one must have one) is due in its turn, and so are the others."""
    park(engine, *(ordered(offset, sub) for offset in (1, 2, 3)), ordered(9, sub, b"other"))
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked', next_attempt_at = NULL WHERE record_offset = 2")
    assert offsets(find(engine)) == [1, 9, 2, 3]
    run(engine, "UPDATE webhook_deliveries SET status = :s WHERE record_offset = 1", s=first)
    if first != "exhausted":
        run(engine, "UPDATE webhook_deliveries SET next_attempt_at = NULL WHERE record_offset = 1")
    ordering.repair(engine, GROUP, "t", 0, 500.0)
    upkeep.reconcile(engine, 500.0)
    due_key = 2 if first == "exhausted" else 1
    assert [row.record.offset for row in admin.find(engine, admin.DeliveryQuery(("parked",)), limit=9)] == [due_key, 9]
    assert find(engine, 499.0, places=[("t", 0)])[0].event.record.offset == 9
    assert offsets(find(engine, 500.0)) == [9, *range(due_key, 4)]


def test_many_keys_and_rows_are_repaired_in_steps(engine: Engine, sub: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step covers many rows, unless they are of one key, of one subscription or of many."""
    monkeypatch.setattr(ordering, "BATCH", 10)
    park(engine, *(ordered(offset, sub, b"%d" % (offset // 2)) for offset in range(42)))
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked'")
    found = mend(engine)
    assert sum(found) == 21
    assert max(found) <= 5
    assert mend(engine) == [0, 0, 0], "ten blocked rows each, then the rest"
    check_order(engine)
    others = [repository.add(engine, URL, "user.created", ordering="key") for _ in range(25)]
    keys = [b"large %d" % number for number in range(5)]
    park(engine, *(ordered(100 + 100 * number + n, sub, key) for number, key in enumerate(keys) for n in range(25)))
    park(engine, *(ordered(1000 + n, each, keys[2]) for each in others for n in range(2)))
    run(engine, "UPDATE webhook_deliveries SET status = 'blocked' WHERE record_offset <> 1000")
    run(engine, "UPDATE webhook_deliveries SET status = 'parked' WHERE record_offset = 1001")
    assert sum(mend(engine)) >= 30
    check_order(engine)
    assert sum(mend(engine)) == 0


def test_open_keys_are_read_at_assignment(engine: Engine, sub: int) -> None:
    """Ordering keys with an open row, also a held one, are open. The result is None above the limit."""
    park(engine, ordered(1, sub, b"a"), ordered(2, sub, b"a"), ordered(3, sub, b"b"), ordered(4, sub, partition=1))
    park(engine, parked(make_event(5), sub), parked(make_event(6, key=b"c"), sub, replay=1))
    (ended,) = [row for row in find(engine) if row.ordering_key == ordering_key(sub, b"b")]
    store.record(engine, GROUP, [result(ended, "exhausted")])
    assert assigned.open_keys(engine, GROUP, "t", 0, 1) == frozenset((ordering_key(sub, b"a"),))
    upkeep.disable(engine, GROUP, sub, "410")
    assert assigned.open_keys(engine, GROUP, "t", 0, 1) == frozenset((ordering_key(sub, b"a"),))
    assert assigned.open_keys(engine, GROUP, "t", 0, 0) is None
    assert assigned.open_keys(engine, "another", "t", 0, 0) == frozenset()


def test_a_digest_stands_for_a_key_of_any_length() -> None:
    """A key of any length, also an empty one, has 32 hexadecimal digits. They are stored, so they never change."""
    assert order_key(b"") != order_key(b"\x00")
    assert {len(order_key(key)) for key in (b"", b"x" * 10**6)} == {32}
    assert order_key(b"user-1") == "d6fc1c4b4ddbb4e741457d1d873d0d46"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["park", "park", "exhaust", "delivered", "exhausted", "parked", "disable", "enable", "edit"]),
        st.integers(0, 7),
        st.integers(0, 1),
    ),
    max_size=30,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_only_the_first_open_row_of_a_key_is_due(
    new_engine: Callable[[], Engine], steps: Sequence[tuple[str, int, int]]
) -> None:
    """After each step at most one row of an ordering key is due, and it is the first of its open rows."""
    engine = new_engine()
    sub = repository.add(engine, URL, "user.created", ordering="key")
    for step, offset, key in steps:
        if step in ("park", "exhaust"):
            status = "parked" if step == "park" else "exhausted"
            park(engine, ordered(offset * 2 + key, sub, b"%d" % key, status=status))
        elif step == "disable":
            upkeep.disable(engine, GROUP, sub, "410")
        elif step == "enable":
            repository.set_enabled(engine, sub, enabled=True)
            upkeep.reconcile(engine, 200.0)
        elif step == "edit":
            run(engine, "UPDATE webhook_deliveries SET status = 'blocked' WHERE record_offset = :o", o=offset)
            ordering.repair(engine, GROUP, "t", 0, 200.0)
        else:
            for row in find(engine, 5000.0)[:1]:
                free = store.record(engine, GROUP, [result(row, step, 2000.0)])  # type: ignore[arg-type]  # one of three
                still_open = assigned.open_keys(engine, GROUP, "t", 0, 10)
                assert still_open is not None
                assert free == {row.ordering_key} - still_open
        check_order(engine)
    engine.dispose()


def check_order(engine: Engine) -> None:
    """Checks the invariant by reading all rows."""
    sql = "SELECT order_key, subscription_id, status FROM webhook_deliveries ORDER BY record_offset"
    rows = [((key, to), status) for key, to, status in query(engine, sql)]
    for one in {row[0] for row in rows}:
        open_ones = [status for each, status in rows if each == one and status in ("parked", "held", "blocked")]
        assert "blocked" not in open_ones[:1], rows
        assert "parked" not in open_ones[1:], rows
