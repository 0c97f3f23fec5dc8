"""A worker's statements on a million rows are served by an index: no scan, no sort."""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from consumer.events.event import RecordId
from consumer.ledger import admin, assigned, cursors, due, given_up, marks, pauses, search, store, upkeep
from consumer.ledger.admin import DeliveryQuery
from consumer.ledger.ordering import normalise, open_ones, repair
from consumer.subscriptions import repository
from models import Status
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import GROUP, URL, find, ordered, ordering_key, parked, plans, result, run

SQLITES_OWN = "sqlite_autoindex_webhook_deliveries_"  # SQLite's name for the index of the unique constraint

LAST = "SELECT max(webhook_deliveries.id) AS max_1 FROM webhook_deliveries"


@pytest.fixture
def full(sqlite_engine: Engine) -> Engine:
    """Some rows of each kind. The plans are SQLite's: no emulator has Oracle's."""
    engine = sqlite_engine
    subs = [repository.add(engine, URL, "user.created", ordering="key") for _ in range(3)]
    for sub in subs:
        store.park(engine, GROUP, [ordered(offset, sub, b"%d" % (offset % 7)) for offset in range(100)], 96.0)
    store.record(engine, GROUP, [result(row, "delivered") for row in find(engine)[:5]])
    run(engine, "UPDATE webhook_deliveries SET status = 'held' WHERE id IN (SELECT max(id) FROM webhook_deliveries)")
    return engine


def used(
    engine: Engine, work: Callable[[], object], table: str = "webhook_deliveries", *, sorts: bool = False
) -> list[str]:
    """The plans of the statements on deliveries, or another table: none reads it whole or, unless it `sorts`, sorts."""
    found = [(sql, plan) for sql, plan in plans(engine, work) if table in sql]
    assert found
    for sql, plan in found:
        assert f"SCAN {table}" not in plan, (sql, plan)
        assert sorts or "FOR ORDER BY" not in plan, (sql, plan)
    return [plan for _, plan in found]


def test_looking_for_due_rows(full: Engine) -> None:
    """Each seek of a scan, and the first rows of a due key, come from the index in its order."""
    for plan in used(full, lambda: assigned.scan(full, GROUP, [("t", 0)], None)):
        assert "ix_webhook_deliveries_head" in plan or "ix_webhook_deliveries_order" in plan
    wants = [due.FetchRequest(("t", number, 1), 10, frozenset()) for number in range(2)]
    first, *_ = used(full, lambda: due.fetch(full, GROUP, wants, 1000.0, default_secrets=(b"k",), decrypt=in_the_clear))
    seek = "COVERING INDEX ix_webhook_deliveries_head (group_id=? AND status=? AND topic=? AND partition_no=? AND subsc"
    assert first.count(seek) == 2


def test_putting_a_key_in_order(full: Engine) -> None:
    """Each part seeks an ordering key's rows of one state, up to the offset if there is one."""
    with full.begin() as connection:
        unblock, block = used(full, lambda: normalise(connection, GROUP, [ordering_key(1)], 96.0))
        (still,) = used(full, lambda: open_ones(connection, GROUP, [ordering_key(1)]))
    of_pair = "group_id=? AND status=? AND topic=? AND partition_no=? AND order_key=? AND subscription_id=?"
    for plan in (unblock, block):
        for part in plan.split(" | "):
            if "webhook_deliveries" in part:
                assert f"ix_webhook_deliveries_order ({of_pair}" in part, part
    assert unblock.count(f"{of_pair} AND record_offset=?") == 1
    assert unblock.count(f"{of_pair} AND record_offset<?") == 2
    assert block.count(f"{of_pair} AND record_offset<?") == 3
    assert "ix_webhook_deliveries_order (group_id=? AND status=? AND topic=? AND partition_no=? AND order_key" in still


def test_looking_for_keys_out_of_order(full: Engine) -> None:
    """Each statement reads a range of ordering keys of one state."""
    for plan in used(full, lambda: repair(full, GROUP, "t", 0, 96.0)):
        first = plan.split("SEARCH webhook_deliveries ")[1]
        assert (
            "ix_webhook_deliveries_order (group_id=? AND status=? AND topic=? AND partition_no=? AND order_key>?"
            in (first)
        ), plan


@pytest.mark.parametrize(
    ("work", "index"),
    [
        (lambda engine: assigned.settled_keys(engine, GROUP, "t", 0, 50), SQLITES_OWN),
        (lambda engine: assigned.settled_keys(engine, GROUP, "t", 0, 50, 1), SQLITES_OWN),
        (
            lambda engine: assigned.open_keys(engine, GROUP, "t", 0, 100),
            "ix_webhook_deliveries_order (group_id=? AND status=?",
        ),
        (lambda engine: assigned.with_rows(engine, GROUP, [("t", 0), ("t", 1)]), "(group_id=? AND topic=? AND"),
        (lambda engine: assigned.open_topics(engine, GROUP), "INDEX ix_webhook_deliveries_"),
        (lambda engine: assigned.next_partition(engine, GROUP, "t", 0), "(group_id=? AND topic=? AND partition_no>?)"),
        (
            lambda engine: upkeep.prune(engine, "another", "t", 0, 50),
            "(group_id=? AND status=? AND topic=? AND partition_no=?",
        ),
        (
            lambda engine: upkeep.waiting(engine, GROUP, "t", 0),
            "(group_id=? AND status=? AND topic=? AND partition_no=?",
        ),
        (lambda engine: list(upkeep.purge(engine, (Status.DELIVERED,), 1e10)), "SEARCH "),
        (lambda engine: given_up.unpublished(engine, GROUP, 9), "ix_webhook_deliveries_given_up (unpublished_by=?)"),
        (
            lambda engine: search.loads(engine, [1], 10),
            "COVERING INDEX ix_webhook_deliveries_receiver (subscription_id=? AND status=?",
        ),
    ],
)
def test_assignment_and_upkeep(full: Engine, work: Callable[[Engine], object], index: str) -> None:
    """An index serves settled and open ordering keys, open topics, delivered rows, and a subscription's open rows."""
    for plan in used(full, lambda: work(full)):
        assert index in plan, plan


@pytest.mark.parametrize(
    ("work", "columns", "sorts"),
    [
        (lambda engine: cursors.of_partition(engine, GROUP, ("t", 0)), "topic=? AND partition_no=?", False),
        (lambda engine: cursors.of_due_keys(engine, GROUP, [("t", 0, 1), ("t", 1, 1)]), "topic=?", True),
        (lambda engine: cursors.prune(engine, GROUP, ("t", 0), 50), "topic=? AND partition_no=?", False),
    ],
)
def test_cursors(full: Engine, work: Callable[[Engine], object], columns: str, *, sorts: bool) -> None:
    """The cursors of a partition, and of due keys, are found by their unique key. Newer SQLites sort the latter few."""
    for plan in used(full, lambda: work(full), "webhook_cursors", sorts=sorts):
        assert f"sqlite_autoindex_webhook_cursors_1 (group_id=? AND {columns}" in plan, plan


def test_stored_deliveries_of_cursors(full: Engine) -> None:
    """The rows of their subscriptions are read, and not those of all others at higher offsets."""
    (plan,) = used(full, lambda: cursors.stored(full, GROUP, [("t", 0, 1), ("t", 0, 2)]))
    columns = "group_id=? AND status=? AND topic=? AND partition_no=? AND subscription_id=?"
    assert f"ix_webhook_deliveries_head ({columns})" in plan, plan


def test_writing(full: Engine) -> None:
    """Parking searches the unique key; results address rows by id."""
    for plan in used(full, lambda: store.park(full, GROUP, [parked(ordered(500, 1).event, 1)], 96.0)):
        assert SQLITES_OWN in plan or plan == "SCAN CONSTANT ROW", plan
    (row, *_) = find(full)
    for plan in used(full, lambda: store.record(full, GROUP, [result(row, "parked", 9000.0)])):
        assert "INTEGER PRIMARY KEY" in plan or "ix_webhook_deliveries_order" in plan, plan


def test_rows_that_follow_their_subscription(full: Engine) -> None:
    """Rows are found by subscription and state, and subscriptions by seeks that jump through the index."""
    held = used(full, lambda: upkeep.disable(full, GROUP, 2, "410"))
    assert all("ix_webhook_deliveries_receiver (subscription_id=? AND status=?)" in plan for plan in held[:1]), held
    repository.remove(full, 3)
    followed = used(full, lambda: upkeep.reconcile(full, 1000.0))
    leap = "SEARCH webhook_deliveries USING COVERING INDEX ix_webhook_deliveries_receiver (subscription_id>?)"
    assert followed[0].count(leap) == 2  # for the first subscription, and for each next one
    assert all("(subscription_id=? AND status=?)" in plan or "PRIMARY KEY" in plan for plan in followed[1:]), followed


def test_probes_of_paused_subscriptions(full: Engine) -> None:
    """A look reads an index of few rows; what is owed takes a seek for each partition and state."""
    run(full, "UPDATE webhook_subscriptions SET paused_at = '2026-01-01', probed_at = '2026-01-01' WHERE id > 1")
    look, *_ = plans(full, lambda: pauses.claim(full, GROUP, {("t", 0)}, 2e9, 3600.0))
    (count,) = plans(full, lambda: pauses.count(full))
    assert "ix_webhook_subs_probed" in look[1], look
    assert "ix_webhook_subs_probed" in count[1], count
    run(full, "UPDATE webhook_subscriptions SET probed_at = '2026-01-01' WHERE id > 1")
    whose, *rows = used(full, lambda: pauses.claim(full, GROUP, {("t", 0)}, 2e9, 3600.0))
    assert whose.count("USING INDEX ix_webhook_deliveries_receiver (subscription_id=? AND status=?)") == 2
    assert rows
    for plan in rows:
        assert "SEARCH webhook_deliveries USING INDEX ix_webhook_deliveries_head (group_id=? AND status=? AND" in plan


def test_subscriptions_are_not_scanned(full: Engine) -> None:
    """Upkeep reads only the subscriptions that have stored rows."""
    for sql, plan in plans(full, lambda: upkeep.reconcile(full, 1000.0)):
        assert "SCAN webhook_subscriptions" not in plan, (sql, plan)


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: list(admin.redeliver(engine, DeliveryQuery(group=GROUP, statuses=("parked",), since=1.0), 2.0)),
        lambda engine: list(admin.redeliver(engine, DeliveryQuery(subscription=1, event_type="user.created"), 2.0)),
        lambda engine: list(admin.adopt(engine, GROUP, "another", 2.0)),
        lambda engine: list(upkeep.ended_before(engine, (Status.EXHAUSTED,), 2.0)),
        lambda engine: search.of_replay(engine, 1, 1),
        lambda engine: search.next_of_replay(engine, 1),
        lambda engine: admin.count(engine, DeliveryQuery(event_type="user.created", since=1.0), 10),
    ],
)
def test_going_through_rows_by_id(full: Engine, work: Callable[[Engine], object]) -> None:
    """A statement on any of a million rows reads a range of the primary key; one first looks up the largest id."""
    searched = [
        (sql, part)
        for sql, plan in plans(full, lambda: work(full))
        if sql.startswith("SELECT")
        for part in plan.split(" | ")
        if re.search(r"\bwebhook_deliveries\b", part)
    ]
    assert any("PRIMARY KEY (rowid>? AND rowid<?)" in part for _, part in searched)
    for sql, part in searched:
        by_key = "INTEGER PRIMARY KEY (" in part or "ix_webhook_deliveries_order (group_id=? AND status=?" in part
        assert by_key or " ".join(sql.split()) == LAST, (sql, part)


def test_marks(full: Engine) -> None:
    """Recent marks are found by time, a refusal by its key, and a partition's refusals by the key's prefix."""
    record = RecordId("t", 0, 5, 0)
    asked: list[tuple[Callable[[], object], str]] = [
        (lambda: marks.recent(full, GROUP, None), "ix_webhook_marks_time (group_id=?"),
        (lambda: marks.refused_since(full, GROUP, record, 1, 9.0), "sqlite_autoindex_webhook_marks_1 (group_id=?"),
        (lambda: marks.prune(full, GROUP, "t", 0, 9), "sqlite_autoindex_webhook_marks_1 (group_id=?"),
        (lambda: marks.expire(full, GROUP, 9.0), "ix_webhook_marks_time (group_id=? AND marked_at<?"),
    ]
    for work, index in asked:
        marks.refused_since(full, GROUP, record, 1, 9.0)
        for sql, plan in plans(full, work):
            assert index in plan, (sql, plan)
            assert "FOR ORDER BY" not in plan, (sql, plan)
