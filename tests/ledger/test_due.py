"""Finding due rows by partition and subscription: all that are due, and no others."""

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, insert, text
from structlog.testing import capture_logs

from consumer.crypto.vault import Owner
from consumer.database.statements import PARTS
from consumer.errors import DatabaseRefused
from consumer.ledger import due, rows, store
from consumer.ledger.assigned import SEEKS, scan
from consumer.ledger.due import LATER, POSTPONED, Fetched, FetchRequest, fetch, postpone
from consumer.ledger.rows import AttemptFailure, DueKey
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint_row import Rules
from models import Subscription
from tests.ledger.rows_kit import (
    DEFAULT,
    GROUP,
    PLACES,
    URL,
    make_event,
    offsets,
    ordered,
    parked,
    query,
    run,
    statements,
)

NOW = 1_700_000_000.0
FAILURE = AttemptFailure("boom", 503, None, NOW - 5)
Row = tuple[DueKey, int, float]  # due key, offset, seconds until it is due


def park(engine: Engine, *rows: Row, group: str = GROUP) -> None:
    """Parks rows, each after one attempt."""
    stored = (
        parked(make_event(offset, topic=topic, partition=partition), subscription, NOW + due)
        for (topic, partition, subscription), offset, due in rows
    )
    store.park(engine, group, [row._replace(first=FAILURE, last=FAILURE) for row in stored], NOW)


def taken(
    engine: Engine, wants: Mapping[DueKey, int], *here: int, now: float = NOW, most_bytes: int = 10**9
) -> Fetched:
    """Fetches up to so many rows of each due key, and postpones the faulty ones."""
    found = fetch(
        engine,
        GROUP,
        [FetchRequest(due_key, room, frozenset(here)) for due_key, room in wants.items()],
        now,
        default_secrets=DEFAULT,
        decrypt=decrypt,
        most_bytes=most_bytes,
    )
    if found.faulty:
        postpone(engine, found.faulty, now + POSTPONED)
    return found


def decrypt(stored: str, _owner: Owner) -> str:
    """Takes stored text as the secret, except `unusable`."""
    if stored == "unusable":
        raise ValueError(stored)
    return stored


def subscribed(engine: Engine, number: int = 1) -> list[DueKey]:
    """The due keys of so many subscriptions in one partition."""
    return [("t", 0, repository.add(engine, URL, "user.created")) for _ in range(number)]


def walked(engine: Engine, places: Collection[tuple[str, int]], most: int) -> dict[DueKey, float]:
    """The due keys of consecutive scans, each starting where the last one ended."""
    due_keys, after = dict[DueKey, float](), None
    while True:
        part = scan(engine, GROUP, sorted(places), after, most)
        assert len(part.due_keys) <= most
        due_keys |= part.due_keys
        if part.end is None:
            return due_keys
        assert after is None or part.end > after
        after = part.end


SUBSCRIPTIONS = [-7, 0, 1, 2, 3]  # zero and below: ids set by plain SQL
HEADS = st.tuples(st.sampled_from(["t", "u"]), st.integers(0, 1), st.sampled_from(SUBSCRIPTIONS))
ROWS = st.lists(st.tuples(HEADS, st.integers(-3, 3)), max_size=25)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, most=st.integers(1, 8))
def test_a_scan_finds_each_due_key_with_its_first_due_time(
    engine: Engine, rows: list[tuple[DueKey, int]], most: int
) -> None:
    """A scan covers the requested partitions of this group, whatever its limit of seeks."""
    run(engine, "DELETE FROM webhook_deliveries")
    numbered = [(due_key, offset, float(due)) for offset, (due_key, due) in enumerate(rows)]
    park(engine, *numbered)
    park(engine, (("t", 0, 9), 0, 0.0), group="another")
    expected: dict[DueKey, float] = {}
    for due_key, _, after in numbered:
        if due_key[:2] in PLACES:
            expected[due_key] = min(NOW + after, expected.get(due_key, NOW + after))
    assert walked(engine, PLACES, most) == expected
    assert walked(engine, PLACES, SEEKS) == expected


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, rooms=st.dictionaries(HEADS, st.integers(1, 4), max_size=6), here=st.sets(st.integers(0, 24)))
def test_rows_come_in_the_order_in_which_they_are_due(
    engine: Engine, rows: list[tuple[DueKey, int]], rooms: dict[DueKey, int], here: set[int]
) -> None:
    """A fetch takes the earliest due rows that are not in memory, up to its room, and says when the next one is due."""
    run(engine, "DELETE FROM webhook_deliveries")
    if not tuple(repository.walk(engine)):
        with engine.begin() as connection:
            rows_of_all = [{"id": number, "url": URL, "event_type": "user.created"} for number in SUBSCRIPTIONS]
            connection.execute(insert(Subscription), rows_of_all)
    numbered = [(due_key, offset, float(due)) for offset, (due_key, due) in enumerate(rows)]
    park(engine, *numbered)
    ids = dict(map(tuple, query(engine, "SELECT record_offset, id FROM webhook_deliveries")))
    found = taken(engine, rooms, *(ids[offset] for offset in here if offset in ids))
    expected: list[int] = []
    later: dict[DueKey, float] = {}
    for due_key, room in rooms.items():
        waiting = sorted((due, ids[offset], offset) for which, offset, due in numbered if which == due_key)
        others = [(due, offset) for due, _, offset in waiting if offset not in here]
        due = [offset for due, offset in others[:room] if due <= 0]
        expected += due
        if len(others) > len(due):
            later[due_key] = NOW + others[len(due)][0]
    assert offsets(found.rows) == expected
    assert found.next_due == later
    for row in found.rows:
        assert (row.attempt, row.first, row.last) == (1, FAILURE, FAILURE)


def test_a_fetched_row_is_ready_to_send(engine: Engine) -> None:
    """It has its subscription as of now, and its ordering key. Its pending filter is evaluated before an attempt."""
    number = repository.add(engine, URL, "user.created", "own secret", ordering="key", rate_limit=2.0)
    new = ordered(3, number, attempt=2, next_attempt_at=NOW, first=FAILURE, last=FAILURE, schedule_start=1)
    store.park(engine, GROUP, [new], NOW)
    (row,) = taken(engine, {("t", 0, number): 1}).rows
    assert (row.event, row.ordering_key) == (new.event, new.ordering_key)
    assert (row.attempt, row.schedule_start, row.replay) == (2, 1, 0)
    assert (row.endpoint.secrets, row.endpoint.ordered, row.endpoint.rate_limit) == ((b"own secret",), True, 2.0)
    pending = [parked(make_event(4 + tried), number, NOW, attempt=tried, filter_pending=True) for tried in (0, 1)]
    store.park(engine, GROUP, pending, NOW)
    rows = taken(engine, {("t", 0, number): 3}).rows
    assert [(each.attempt, each.filter_pending) for each in rows] == [(2, False), (0, True), (1, False)]


def test_rows_of_disabled_paused_or_removed_subscriptions_are_skipped(engine: Engine) -> None:
    """Their due keys are checked again later, because upkeep will hold or exhaust the rows. Other rows are fetched."""
    off, on, paused = subscribed(engine, 3)
    gone = ("t", 0, 99)
    park(engine, (off, 1, 0.0), (on, 2, 0.0), (gone, 3, 0.0), (paused, 4, 0.0))
    repository.set_enabled(engine, off[2], enabled=False)
    run(engine, "UPDATE webhook_subscriptions SET paused_at = CURRENT_TIMESTAMP WHERE id = :id", id=paused[2])
    found = taken(engine, {off: 5, on: 5, gone: 5, paused: 5})
    assert offsets(found.rows) == [2]
    assert found.next_due == dict.fromkeys((off, gone, paused), NOW + LATER)
    run(engine, "UPDATE webhook_subscriptions SET paused_at = NULL")
    assert offsets(taken(engine, {paused: 5}).rows) == [4]


def test_unsignable_rows_are_postponed_and_hold_up_no_other(engine: Engine) -> None:
    """They are postponed by a minute, in the database: another worker would read the same secret."""
    broken, fine = subscribed(engine, 2)
    run(engine, "INSERT INTO webhook_secrets (subscription_id, secret) VALUES (:id, 'unusable')", id=broken[2])
    park(engine, (broken, 1, 0.0), (fine, 2, 0.0))
    found = taken(engine, {broken: 5, fine: 5})
    assert offsets(found.rows) == [2]
    assert found.next_due == {broken: NOW + POSTPONED}
    assert list(found.faulty.values()) == [broken]
    assert scan(engine, GROUP, PLACES, None).due_keys[broken] == NOW + POSTPONED


def test_a_locked_row_is_not_waited_for(engine: Engine) -> None:
    """The other rows are postponed at once. SQLite has no locks of rows."""
    (due_key,) = subscribed(engine)
    park(engine, (due_key, 1, 0.0), (due_key, 2, 0.0))
    locked, free = sorted(row.id for row in taken(engine, {due_key: 5}).rows)
    with engine.connect() as other:
        if engine.dialect.name == "oracle":
            other.execute(text("SELECT id FROM webhook_deliveries WHERE id = :id FOR UPDATE"), {"id": locked})
            with pytest.raises(DatabaseRefused, match="rows locked by another session: 1"):
                postpone(engine, [locked, free], NOW + POSTPONED)
        else:
            postpone(engine, [free], NOW + POSTPONED)
    assert [row.id for row in taken(engine, {due_key: 5}).rows] == [locked]
    postpone(engine, [locked, free, free + 1000], NOW + POSTPONED)
    assert not taken(engine, {due_key: 5}).rows


def test_a_fault_is_logged_when_it_changes(engine: Engine) -> None:
    """A fault is logged once, not at each fetch of its rows, and again after it was repaired and has come back."""
    (due_key,) = subscribed(engine)
    park(engine, (due_key, 1, 0.0))
    said: dict[int, str] = {}
    faults = [Rules(lambda _, why=why: why) for why in ("no", "no", "never", None, "never")]  # type: ignore[misc]
    with capture_logs() as logs:
        for minute, rules in enumerate(faults):
            wants, now = [FetchRequest(due_key, 5, frozenset())], NOW + minute * POSTPONED
            fetch(engine, GROUP, wants, now, default_secrets=DEFAULT, decrypt=decrypt, rules=rules, said=said)
    assert [entry["reasons"] for entry in logs] == [
        {due_key[2]: f"url: {why}; its events are stored, not sent"} for why in ("no", "never", "never")
    ]


@pytest.mark.parametrize("read", ["event_of", "last_of"])
def test_an_unreadable_row_is_postponed_and_holds_up_no_other(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """A row for which the driver raises does not keep others, of its subscription too, from being fetched."""
    one, two = subscribed(engine, 2)
    park(engine, (one, 1, 0.0), (one, 2, 0.0), (two, 3, 0.0))
    whole = getattr(rows, read)

    def refuse(row: Any) -> object:
        if row.record_offset == 2:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return whole(row)

    monkeypatch.setattr(due, read, refuse)
    found = taken(engine, {one: 5, two: 5})
    assert sorted(offsets(found.rows)) == [1, 3]
    assert list(found.unreadable.values()) == ["'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"]
    assert found.next_due == {one: NOW + POSTPONED, two: NOW + POSTPONED}
    assert list(found.faulty.values()) == [one]
    monkeypatch.undo()
    assert [sorted(offsets(taken(engine, {one: 5}, now=NOW + late).rows)) for late in (0, POSTPONED)] == [[1], [1, 2]]


def test_a_row_with_an_error_and_no_time_of_its_attempt_is_fetched(engine: Engine) -> None:
    """Migrated rows and rows given up without an attempt have none: the time of their last change stands for it."""
    (due_key,) = subscribed(engine)
    park(engine, (due_key, 1, 0.0))
    run(engine, "UPDATE webhook_deliveries SET last_attempt_at = NULL")
    found = taken(engine, {due_key: 5})
    assert [row.last for row in found.rows] == [FAILURE._replace(at=NOW)]
    assert not found.faulty


@pytest.mark.parametrize(
    ("column", "value"), [("attempt", "three"), ("schedule_start", 1.5), ("last_status", "x"), ("last_error", b"x")]
)
def test_a_value_of_a_wrong_type_is_a_fault_of_its_row(sqlite_engine: Engine, column: str, value: object) -> None:
    """SQLite keeps it. Fetched, the row would end each worker that has sent it, after each request."""
    (due_key,) = subscribed(sqlite_engine)
    park(sqlite_engine, (due_key, 1, 0.0), (due_key, 2, 0.0))
    run(sqlite_engine, f"UPDATE webhook_deliveries SET {column} = :v WHERE record_offset = 1", v=value)  # noqa: S608 (a name)
    found = taken(sqlite_engine, {due_key: 5})
    assert offsets(found.rows) == [2]
    (why,) = found.unreadable.values()
    assert "is of the wrong type" in why


def test_large_bodies_are_fetched_in_parts(engine: Engine) -> None:
    """At least one row is fetched; a due key with more is due at once. A record's body counts once."""
    one, two = subscribed(engine, 2)
    big = (make_event(offset, body=bytes(1000)) for offset in range(3))
    store.park(engine, GROUP, [parked(each, due_key[2], NOW) for each in big for due_key in (one, two)], NOW)
    small = taken(engine, {one: 5, two: 5}, most_bytes=10)
    assert offsets(small.rows) == [0]
    assert small.next_due == {one: NOW, two: NOW}
    whole = taken(engine, {one: 5, two: 5}, most_bytes=3000)
    assert (len(whole.rows), whole.next_due) == (6, {})


def test_only_parked_rows_are_fetched(engine: Engine) -> None:
    """Held, blocked and exhausted rows are not fetched."""
    (due_key,) = subscribed(engine)
    park(engine, *((due_key, offset, 0.0) for offset in range(4)))
    for offset, status in enumerate(("held", "blocked", "exhausted")):
        run(engine, "UPDATE webhook_deliveries SET status = :s WHERE record_offset = :o", s=status, o=offset)
    assert offsets(taken(engine, {due_key: 9}).rows) == [3]


@pytest.mark.parametrize("column", ["subscription_id", "partition_no"])
def test_a_text_in_place_of_a_number_holds_up_no_other_row(sqlite_engine: Engine, column: str) -> None:
    """SQLite keeps a text in any column: its row is not found, and the others are."""
    due_keys = subscribed(sqlite_engine, 3)
    park(sqlite_engine, *((each, offset, 0.0) for offset, each in enumerate(due_keys)))
    with sqlite_engine.begin() as connection:
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        tables = ("webhook_deliveries", "webhook_payloads")[: 2 if column == "partition_no" else 1]
        for table in tables:
            connection.execute(text(f"UPDATE {table} SET {column} = 'text' WHERE record_offset = 1"))  # noqa: S608 (names)
    assert sorted(scan(sqlite_engine, GROUP, PLACES, None).due_keys) == [due_keys[0], due_keys[2]]


def test_many_due_keys_take_few_statements(engine: Engine) -> None:
    """A statement finds the due keys of a partition, and one the first rows of PARTS due keys, however many wait."""
    due_keys = subscribed(engine, 400)
    park(engine, *((each, offset, 0.0) for offset, each in enumerate(due_keys)))

    def fetch_all() -> None:
        found = walked(engine, PLACES, SEEKS)
        assert sorted(found) == due_keys
        assert len(taken(engine, dict.fromkeys(found, 5)).rows) == 400

    on_deliveries = [each for each in statements(engine, fetch_all) if "webhook_deliveries" in each]
    assert len(on_deliveries) <= 2 * 400 / PARTS + 10, on_deliveries


def test_no_place_of_a_statement_is_null(engine: Engine) -> None:
    """A statement has places for 1, 2, 4, 8 … due keys. Oracle plans by the values that the first execution has."""
    due_keys = subscribed(engine, 5)
    park(engine, *((each, offset, 0.0) for offset, each in enumerate(due_keys)))
    bound: list[Any] = []

    @event.listens_for(engine, "before_cursor_execute")
    def look(*arguments: Any) -> None:
        sql, binds = arguments[2:4]
        if "UNION ALL" in sql:
            bound.append(list(binds.values() if isinstance(binds, dict) else binds))

    assert len(taken(engine, dict.fromkeys(due_keys, 5)).rows) == 5
    assert bound
    assert all(None not in binds for binds in bound)


@pytest.mark.parametrize("places", [[], [("t", 0)]])
def test_an_empty_database_costs_one_statement(engine: Engine, places: list[tuple[str, int]]) -> None:
    """If the group has no due row at all, one statement says so, however many partitions are owned."""
    seen = statements(engine, lambda: scan(engine, GROUP, places * 100, None))
    assert sum("webhook_deliveries" in statement for statement in seen) == 1
