"""Storing deliveries: none counts as stored before its commit, and none is forgotten meanwhile."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from math import inf
from queue import SimpleQueue
from typing import Any, NoReturn, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, insert, text
from structlog.testing import capture_logs

from consumer.database.engine import DatabaseThread
from consumer.database.job import BACK_OFF, Batch
from consumer.delivery.known_rows import RowsReading
from consumer.delivery.parking import BACKLOG_BYTES, STORE_BATCH
from consumer.errors import DatabaseUnavailable
from consumer.ledger import cursors
from consumer.ledger import store as ledger
from consumer.ledger.assigned import Settled
from consumer.ledger.cursors import CursorMove, NewCursor
from consumer.ledger.rows import AttemptResult, NewDelivery, OrderingKey
from consumer.subscriptions import repository
from models import CursorReason, Payload
from tests.databases import on_oracle
from tests.delivery.store_kit import REFUSED_AFTER, Store
from tests.ledger import rows_kit
from tests.ledger.rows_kit import BOOM, GROUP, make_event, ordering_key
from tests.oracle_emulator import Call, OracleEmulator, OracleError
from tests.waiting import eventually

HERE, HEAD = ("t", 0), ("t", 0, 1)
KEY, OTHER, UNSEEN = (ordering_key(1, key) for key in (b"k", b"l", b"m"))
TOPICS = (f"refused-{number}" for number in count())
RECORD_1 = {
    "group_id": GROUP,
    "topic": "t",
    "partition_no": 0,
    "record_offset": 1,
    "record_ts": 1_700_000_000_001,
    "event_type": "user.created",
    "webhook_id": "msg_1",
}


def parked(offset: int = 0, subscription: int = 1, *, topic: str = "t", **more: object) -> NewDelivery:
    """A delivery to store, after one attempt."""
    row = rows_kit.parked(make_event(offset, topic=topic), subscription, 500.0)
    return row._replace(**more)  # type: ignore[arg-type]  # a test's shorthand


def ordered(offset: int, key: bytes = b"k", **more: object) -> NewDelivery:
    """The same, with a key and in order."""
    return rows_kit.ordered(offset, 1, key, attempt=1, **more)  # type: ignore[arg-type]  # fields of the row


def ended(row: int, key: OrderingKey | None = None) -> AttemptResult:
    """The success of a stored delivery's second attempt."""
    return AttemptResult(row, 1, "delivered", None, 200, None, 600.0, key)


def unseen(store: Store, key: OrderingKey = KEY) -> tuple[bool, float]:
    """Whether the key has rows, and the first offset of a row that is being written."""
    return key in store.parking.ordering_keys, store.parking.ordering_keys.first_unseen(key, RowsReading())


def poison(offset: int, topic: str = "t") -> NewDelivery:
    """A row that every database refuses: parked, but never due."""
    return parked(offset, topic=topic, next_attempt_at=None)


def test_a_delivery_is_settled_when_its_transaction_is_committed(store: Store) -> None:
    """It is not settled when it is handed over or when the write begins. When it is, other connections see the row."""
    seen: list[list[tuple[object, ...]]] = []
    store.parking.park(parked(7), lambda: seen.append(store.rows("record_offset")))
    store.parking.poll(0.0)
    assert (store.parking.backlog, seen) == (1, [])
    store.answer()
    assert seen == [[(7,)]]
    assert (store.parking.backlog, store.parking.busy) == (0, False)


def test_while_another_process_holds_the_lock_nothing_is_settled(store: Store) -> None:
    """The write waits for the other writer of the record; the loop does not. Later deliveries go with the next batch.

    SQLite locks the whole file, Oracle the key.
    """
    begun: list[object] = []
    with store.engine.connect() as rival:
        rival.execute(insert(Payload).values(**RECORD_1))
        event.listen(store.engine, "before_cursor_execute", lambda *call: begun.append(call[2]))
        store.park(parked(1))
        store.parking.poll(0.0)
        eventually(lambda: begun)
        store.park(parked(2))
        store.parking.poll(0.0)
        assert store.posted.empty()
        assert (store.parking.backlog, store.settled) == (2, [])
        rival.rollback()
    store.answer()
    assert store.settled == [1]
    store.write()
    assert store.settled == [1, 2]


def test_one_batch_is_written_at_a_time(store: Store) -> None:
    """A transaction takes at most STORE_BATCH deliveries, in order."""
    store.park(*map(parked, range(STORE_BATCH + 3)))
    store.write()
    assert store.settled == list(range(STORE_BATCH))
    assert len(store.rows("id")) == STORE_BATCH
    store.write()
    assert store.settled == list(range(STORE_BATCH + 3))


def loses_nothing(store: Store, outage: AbstractContextManager[object]) -> None:
    """Three writes fail. The batch stays whole and in order; `fault` gives the reason until a write succeeds."""
    store.park(*map(parked, range(5)))
    with outage, capture_logs() as logs:
        for _ in range(3):
            store.write()
            store.monotonic.now += BACK_OFF[1]
        assert (store.parking.backlog, store.settled) == (5, [])
        assert str(store.parking.fault).startswith("database: ")
    assert [line["event"] for line in logs] == ["could not store deliveries; their offsets wait"]
    with capture_logs() as logs:
        store.write()
    assert (store.settled, store.parking.backlog, store.parking.fault) == ([0, 1, 2, 3, 4], 0, None)
    assert [line["event"] for line in logs] == ["the database answers again"]
    assert [row for (row,) in store.rows("record_offset")] == [0, 1, 2, 3, 4]


def test_a_database_without_its_tables_loses_nothing(store: Store) -> None:
    """A migration has not run yet, or a DBA works on the schema."""
    loses_nothing(store, store.without())


@on_oracle
@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("INSERT INTO webhook_payloads", {"drop": "before"}),  # ORA-03113, DPY-4011: its server process died
        ("INSERT INTO webhook_deliveries", {"drop": "before"}),
        ("INSERT INTO webhook_deliveries", {"drop": "after"}),
        ("^COMMIT$", {"drop": "before"}),
        ("^COMMIT$", {"drop": "after"}),  # it is written, and only the answer is lost
        ("^COMMIT$", {"error": OracleError(1089, "immediate shutdown or close in progress")}),
        ("INSERT INTO webhook_deliveries", {"error": OracleError(1012, "not logged on")}),
        ("INSERT INTO webhook_deliveries", {"error": OracleError(60, "deadlock detected")}),
        ("INSERT INTO webhook_payloads", {"error": OracleError(1653, "unable to extend table")}),
        ("^CONNECT$", {"error": OracleError(12514, "listener does not know of the service")}),
        ("^CONNECT$", {"drop": "before"}),  # a listener that is down
    ],
)
def test_an_oracle_that_fails_loses_nothing(
    store: Store, emulator: OracleEmulator, statement: str, fault: dict[str, Any]
) -> None:
    """Wherever the session breaks, a batch is written as a whole, once, and settled by the next session's answer."""
    if statement == "^CONNECT$":
        store.engine.dispose()
    emulator.inject(statement, **fault, times=3)
    loses_nothing(store, nullcontext())


@on_oracle
@pytest.mark.parametrize(
    "how", [{"error": OracleError(600, "internal error code, arguments: [13013]")}, {"drop": "before"}]
)
def test_a_delivery_that_ends_each_session_does_not_hold_the_others(
    store: Store, emulator: OracleEmulator, how: dict[str, Any]
) -> None:
    """The server dies of one value each time, and other sessions live on: the delivery is set aside, and named.

    It is stored once the server is mended, and handed on if it is refused for long.
    """

    def kills(call: Call) -> bool:
        return "INSERT INTO webhook_deliveries" in call.sql and any(7 in row for row in call.rows)

    fault = emulator.inject(kills, **how, times=10**9)
    store.park(*map(parked, range(10)))
    for _ in range(30):
        if store.parking.backlog > store.parking.set_aside:
            store.monotonic.now += BACK_OFF[1]
            store.write()
    assert sorted(store.settled) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert store.parking.set_aside == 1
    assert "topic t, partition 0, offset 7, subscription 1" in str(store.parking.fault)
    for seconds in (0, REFUSED_AFTER):
        store.clock.now += seconds
        store.monotonic.now += 60
        store.write()
    assert [item.event.record.offset for item, *_ in store.refused] == [7]
    fault.times = 0


@on_oracle
def test_a_call_that_exceeds_its_timeout_ends(store: Store) -> None:
    """DPY-4024, here behind a rival's lock. The connection is discarded, since the answer may still arrive."""
    rival = store.engine.connect()
    rival.execute(insert(Payload).values(**RECORD_1))
    event.listen(store.engine, "connect", lambda connection, _: setattr(connection, "call_timeout", 500))
    store.park(parked(1))
    store.write()
    assert any(part in str(store.parking.fault) for part in ("DPY-4024", "previous socket timeout"))
    rival.rollback()
    rival.close()
    while store.parking.backlog:  # the abandoned session may hold the lock for a moment yet
        store.monotonic.now += 60
        store.write()
    assert store.rows("record_offset") == [(1,)]
    assert store.parking.fault is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(refused=st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_row_that_the_database_refuses_does_not_hold_the_others(store: Store, refused: list[bool]) -> None:
    """Batches halve until each refused row is alone. It is set aside and stays unsettled, and `fault` names it."""
    topic = next(TOPICS)
    store.settled.clear()
    store.park(*(poison(offset, topic) if bad else parked(offset, topic=topic) for offset, bad in enumerate(refused)))
    writes = 0
    while store.parking.backlog > store.parking.set_aside:
        store.write()
        writes += 1
        assert writes < 10 + 12 * sum(refused), "no back-off between them"
    good = [offset for offset, bad in enumerate(refused) if not bad]
    assert sorted(store.settled) == good
    assert sorted(row for row, name in store.rows("record_offset", "topic") if name == topic) == good
    assert store.parking.set_aside == sum(refused)
    if any(refused):
        assert "ck_webhook_deliveries_due" in str(store.parking.fault).lower()
        assert "INSERT" not in str(store.parking.fault), "only the driver's message"
        assert f"topic {topic}, partition 0, offset {refused.index(True)}, subscription 1" in str(store.parking.fault)
    store.parking.forget({(topic, 0)})
    assert (store.parking.backlog, store.parking.fault) == (0, None)
    store.parking._batch = Batch(STORE_BATCH)


def test_a_refused_row_is_retried_less_and_less_often(store: Store) -> None:
    """In the end about once a minute, in turn with new rows. It is stored as soon as the database accepts it."""
    store.park(poison(1), poison(2))
    for _ in range(3):
        store.write()
    assert store.parking.set_aside == 2
    written = 0
    for second in range(600):
        if second % 60 == 0:
            store.park(parked(10 + second))
        store.parking.poll(0.0)
        if store.parking._writing:
            store.answer()
            written += 1
        store.monotonic.now += 1
    assert store.settled == [10 + 60 * minute for minute in range(10)]
    assert 10 + 2 * 10 <= written <= 10 + 2 * 16
    for each in store.parking._aside:
        record = each.pending.item.event.record  # type: ignore[union-attr]  # a new delivery
        each.pending = each.pending._replace(item=parked(record.offset))
    for _ in range(2):
        store.monotonic.now += 60
        store.write()
    assert store.settled[-2:] == [1, 2]
    assert (store.parking.set_aside, store.parking.fault, store.parking.backlog) == (0, None, 0)


def test_a_refused_row_keeps_its_keys_later_rows_behind_it(store: Store) -> None:
    """They are stored, and none of them is taken up before the refused row."""
    for row in (ordered(1, next_attempt_at=None), ordered(2)):
        store.park(row)
        store.write()
    assert (store.parking.set_aside, store.rows("record_offset")) == (1, [(2,)])
    assert unseen(store) == (True, 1)


@on_oracle
def test_a_locked_row_does_not_keep_others_from_being_stored(store: Store) -> None:
    """Another session's UPDATE of it is not committed. The call times out, and only that row is set aside."""
    store.others_park(parked(0))
    event.listen(store.engine, "connect", lambda connection, _: setattr(connection, "call_timeout", 500))
    store.engine.dispose()
    with store.engine.connect() as rival:
        rival.connection.dbapi_connection.call_timeout = 0  # type: ignore[union-attr]  # the connection is open
        rival.execute(text("UPDATE webhook_deliveries SET next_attempt_at = CURRENT_TIMESTAMP"))
        result = AttemptResult(1, 1, "delivered", None, 200, None, 600.0)
        store.parking.resolve(result, HEAD, lambda: store.settled.append(0))
        store.park(*(parked(offset, 2) for offset in range(1, 20)))
        writes = 0
        while store.parking.backlog > store.parking.set_aside:
            store.write()
            store.monotonic.now += BACK_OFF[1]
            writes += 1
            assert writes < 100  # a busy machine exceeds the limit of a call, too
        assert sorted(store.settled) == list(range(1, 20))
        assert "row 1, subscription 1" in str(store.parking.fault)
        rival.rollback()
    while store.parking.backlog:
        store.monotonic.now += 60
        store.write()
        writes += 1
        assert writes < 100
    assert store.settled[-1] == 0
    assert store.parking.fault is None


def test_deliveries_of_a_partition_that_has_left_are_not_stored(store: Store) -> None:
    """The next owner reads them again. They are neither written nor settled, unless their write is under way."""
    store.park(parked(1), parked(2, event=make_event(2, partition=1)))
    store.parking.forget({HERE})
    store.write()
    assert (store.settled, store.rows("record_offset")) == ([2], [(2,)])
    store.park(parked(3))
    with store.without():
        store.parking.poll(0.0)
        store.parking.forget({HERE})
        store.parking.forget({("t", 1)})
        store.answer()
    assert (store.parking.backlog, store.settled, store.rows("record_offset")) == (0, [2], [(2,)])
    store.monotonic.now += BACK_OFF[1]
    store.park(parked(4))
    store.parking.poll(0.0)
    store.parking.forget({HERE})
    store.answer()
    assert (store.settled, store.rows("record_offset")) == ([2, 4], [(2,), (4,)])


def test_large_bodies_fill_the_backlog_before_their_number_does(store: Store) -> None:
    """Waiting bodies take memory. When they are written or forgotten, there is room again."""
    rows = [parked(event=make_event(offset, body=bytes(BACKLOG_BYTES // 4))) for offset in range(4)]
    for make_room in (store.write, lambda: store.parking.forget({HERE})):
        for row in rows:
            assert not store.parking.full
            store.park(row)
        assert store.parking.full
        make_room()
        assert not store.parking.full


def test_a_batch_that_fails_half_way_is_repeated_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """New rows are already committed when a later statement of the batch fails. The repetition adds no duplicates."""
    store.others_park(parked(1))
    store.park(parked(2))
    store.parking.resolve(ended(1), HEAD, lambda: store.settled.append(1))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "record", _unavailable)
        store.write()
        assert store.rows("record_offset", "status") == [(1, "parked"), (2, "parked")]
        assert store.settled == []
    store.monotonic.now += 1
    store.write()
    assert store.settled == [2, 1]
    assert store.rows("record_offset", "status") == [(1, "delivered"), (2, "parked")]


def _unavailable(*_: object) -> NoReturn:
    raise DatabaseUnavailable("ORA-03113: end-of-file on communication channel")


def test_a_partition_is_loaded_when_the_database_answers(store: Store) -> None:
    """It loads rows in any state from the offset on. A failed read is repeated before the next partition's."""
    store.others_park(parked(1), parked(5), parked(6)._replace(status="exhausted"))
    loaded: list[tuple[str, Settled]] = []
    store.parking.load_stored(("t", 0), 5, lambda keys: loaded.append(("t0", keys)))
    store.parking.load_stored(("t", 1), 0, lambda keys: loaded.append(("t1", keys)))
    assert (store.parking.busy, store.posted.empty()) == (True, True)
    with store.without():
        store.parking.poll(0.0)
        store.answer()
        assert (loaded, store.parking.busy) == ([], True)
        assert "the tables are missing or old" in str(store.parking.fault)
        store.parking.poll(0.0)
        assert store.posted.empty()
    store.monotonic.now += BACK_OFF[0] * 1.01
    for _ in range(2):
        store.parking.poll(0.0)
        store.answer()
    stamp = 1_700_000_000_000
    first = Settled({(5, stamp + 5, 1), (6, stamp + 6, 1)}, None)
    assert loaded == [("t0", first), ("t1", Settled(set(), None))]
    assert (store.parking.busy, store.parking.fault) == (False, None)


def test_a_partition_is_loaded_with_its_cursors(store: Store) -> None:
    """Before any of its records is matched; a later look-up of more rows does not repeat them."""
    subscription = repository.add(store.engine, rows_kit.URL, "user.created")
    new = [NewCursor((*place, subscription), 5, CursorReason.PAUSED) for place in (HERE, ("t", 1))]
    cursors.begin(store.engine, GROUP, new, 1.0)
    loaded: list[Settled] = []
    for more in (False, True):
        store.parking.load_stored(HERE, 0, loaded.append, more=more)
        store.parking.poll(0.0)
        store.answer()
    assert [each.cursors for each in loaded] == [tuple(cursors.of_partition(store.engine, GROUP, HERE)), ()]
    assert len(loaded[0].cursors) == 1


def test_new_cursors_of_a_partition_that_has_left_are_not_stored(store: Store) -> None:
    """Nor are their positions: the next owner reads the events again. A write that is under way ends."""
    subscription = repository.add(store.engine, rows_kit.URL, "user.created")
    done: list[str] = []

    def begin(partition: int, first: int) -> None:
        new = NewCursor(("t", partition, subscription), first, CursorReason.BEHIND)
        store.parking.begin(new, lambda: done.append(f"{partition} {first}"), lambda: done.append("astray"))

    begin(0, 1)
    store.parking.poll(0.0)
    for partition in (0, 1):
        begin(partition, 2)
    move = CursorMove(1, 0, 9, None, "", None)
    store.parking.move(move, ("t", 0, subscription), lambda: done.append("moved"), lambda: done.append("astray"))
    store.parking.forget([HERE])
    store.answer()
    store.write_all()
    assert done == ["0 1", "1 2"]
    kept = [each for place in (HERE, ("t", 1)) for each in cursors.of_partition(store.engine, GROUP, place)]
    assert [(each.due_key[1], each.first, each.next) for each in kept] == [(0, 1, 1), (1, 2, 2)]


def test_a_cursor_that_the_database_refuses_does_not_hold_deliveries(store: Store) -> None:
    """It is set aside, and the deliveries that wait for it wait."""
    done: list[str] = []
    receiver = repository.add(store.engine, "https://one.example", "t")
    store.parking.begin(
        NewCursor((*HERE, receiver), 5, cast("CursorReason", "odd")), lambda: done.append("begun"), lambda: None
    )
    store.park(parked(7))
    with capture_logs() as logs:
        while not store.settled:
            store.write()
    assert (store.settled, done, store.parking.set_aside) == ([7], [], 1)
    assert [line["cursor_from"] for line in logs if "cursor_from" in line] == [5]


def test_written_rows_have_a_due_key(store: Store) -> None:
    """It is due with its first row. It is not added before the commit, nor for rows that have left or ended."""
    due_keys = store.parking.due_keys
    store.park(parked(1, next_attempt_at=900.0), parked(2, next_attempt_at=700.0))
    store.park(parked(3, 2, status="exhausted", next_attempt_at=None))
    assert due_keys == {}
    store.write()
    assert due_keys == {HEAD: 700.0}
    store.parking.resolve(AttemptResult(1, 1, "parked", 600.0, 500, BOOM, 500.0), HEAD, lambda: None)
    store.parking.resolve(ended(2), ("t", 0, 5), lambda: None)
    store.write()
    assert due_keys == {HEAD: 600.0}
    store.park(parked(4, 3))
    store.parking.poll(0.0)
    store.parking.forget({HERE})
    store.answer()
    assert store.parking.due_keys == {}


def test_an_ordered_row_makes_its_due_key_due_at_once(store: Store) -> None:
    """When a key's first row ends, the next becomes due. The database has decided which row is first."""
    store.park(ordered(1, next_attempt_at=10**10))
    store.write()
    assert store.parking.due_keys.pop(HEAD) == 0.0
    store.parking.resolve(ended(1, KEY), HEAD, lambda: None)
    store.write()
    assert store.parking.due_keys == {HEAD: 0.0}


def test_an_ordering_key_is_known_from_handover_until_its_last_row_ends(store: Store) -> None:
    """Meanwhile the key's new deliveries are stored behind it. No row is sent while an earlier one is being written."""
    assert unseen(store) == (False, inf)
    store.park(ordered(1))
    assert unseen(store) == (True, 1)
    store.write()
    assert unseen(store) == (True, inf)
    store.park(ordered(2))
    store.write()
    for row in (1, 2):
        assert unseen(store) == (True, inf)
        store.parking.resolve(ended(row, KEY), HEAD, lambda: None)
        store.write()
    assert unseen(store) == (False, inf)


def test_a_given_up_delivery_frees_its_key_once_it_is_stored(store: Store) -> None:
    """Before that, a crash would bring it back from the log, behind deliveries that had overtaken it.

    It does not free deliveries of the key handed over after it: these hold the key until they are stored.
    """
    store.park(ordered(1, status="exhausted", next_attempt_at=None))
    assert unseen(store) == (True, 1)
    store.write()
    assert unseen(store) == (False, inf)
    store.park(ordered(2, status="exhausted", next_attempt_at=None))
    store.parking.poll(0.0)
    store.park(ordered(3))
    store.answer()
    assert unseen(store) == (True, 3)
    store.write()
    assert unseen(store) == (True, inf)


def test_a_read_for_a_partition_that_has_left_is_discarded(store: Store) -> None:
    """The read may be under way or not. It is repeated if the partition comes back."""
    told: list[str] = []
    store.others_park(ordered(1))
    store.parking.load_stored(HERE, 0, lambda _: told.append("first"))
    store.parking.load_stored(("t", 1), 0, lambda _: told.append("other"))
    store.parking.poll(0.0)
    store.parking.forget([HERE])
    store.parking.load_stored(HERE, 0, lambda _: told.append("again"))
    store.answer()
    assert (told, KEY in store.parking.ordering_keys) == ([], False)
    store.write()
    store.write()
    assert (told, KEY in store.parking.ordering_keys) == (["other", "again"], True)
    assert not store.parking.busy


def test_the_ordering_keys_of_a_partition_come_and_go_with_it(store: Store) -> None:
    """They are loaded with the settled records. Keys of other partitions are not."""
    store.others_park(ordered(1), ordered(2), ordered(3, b"l"))
    store.parking.load_stored(HERE, 9, lambda _: None)
    assert KEY not in store.parking.ordering_keys
    store.write()
    assert [key in store.parking.ordering_keys for key in (KEY, OTHER, UNSEEN)] == [True, True, False]
    assert KEY._replace(partition=1) not in store.parking.ordering_keys
    store.parking.forget({HERE})
    assert KEY not in store.parking.ordering_keys


def test_with_too_many_ordering_keys_all_count_as_stored(store: Store) -> None:
    """They are read again at each housekeeping, until they are few enough to be known."""
    store.parking.ordering_keys.most = 1
    store.others_park(ordered(1), ordered(2, b"l"))
    store.parking.load_stored(HERE, 0, lambda _: None)
    store.write()
    assert UNSEEN in store.parking.ordering_keys
    ledger.record(store.engine, GROUP, [ended(2, OTHER)])
    store.parking.ask_again()
    store.write()
    assert [key in store.parking.ordering_keys for key in (KEY, OTHER, UNSEEN)] == [True, False, False]


def test_a_row_written_while_ordering_keys_are_read_stays_known(store: Store) -> None:
    """The read may have begun before the row was committed, and may be answered after it."""
    posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
    ordering_keys = store.parking.ordering_keys
    store.parking.loading._submit = DatabaseThread("reads", posted.put).submit
    ordering_keys.loaded(HERE, None, RowsReading())
    store.parking.ask_again()
    store.parking.poll(0.0)
    answer = posted.get(timeout=60)
    store.park(ordered(1))
    store.write()
    answer()
    assert (ordering_keys.unknown, KEY in ordering_keys, OTHER in ordering_keys) == ({}, True, False)


def test_rereading_ordering_keys_reads_no_more_than_the_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many partitions have too many keys: the reads of each minute are on the thread that stores deliveries."""
    asked: list[tuple[int, int]] = []

    def open_keys(_engine: Engine, _group: str, _topic: str, partition: int, most: int) -> None:
        asked.append((partition, most))

    monkeypatch.setattr("consumer.ledger.assigned.open_keys", open_keys)
    store.parking.ordering_keys.most = 10
    for _ in range(2):
        store.parking.ask_again()
        for partition in range(4):
            if not asked[3:]:
                store.parking.load_stored(("t", partition), 0, lambda _: None)
            store.write()
    assert asked == [*((partition, 10) for partition in range(4)), *((partition, 2) for partition in range(4))]


def refuse(store: Store) -> None:
    """The database refuses a delivery at offset 1, alone too."""
    store.park(poison(1))
    store.write()
    assert store.parking.set_aside == 1


@pytest.fixture
def refused(store: Store) -> Store:
    """The database has refused a delivery until its time was over."""
    refuse(store)
    store.monotonic.now += 60
    store.write()
    assert (store.refused, store.settled) == ([], [])
    store.clock.now += REFUSED_AFTER
    store.monotonic.now += 60
    return store


def test_a_delivery_that_is_refused_for_long_is_handed_on(refused: Store) -> None:
    """It is not tried again, and is settled as if stored once the caller says so."""
    assert "topic t, partition 0, offset 1, subscription 1" in str(refused.parking.fault)
    refused.write()
    ((item, error, settle),) = refused.refused
    assert item.event.record.offset == 1
    assert "ck_webhook_deliveries_due" in str(error).lower()
    refused.monotonic.now += 600
    refused.parking.poll(0.0)
    assert (refused.parking.storing.busy, refused.settled, refused.parking.set_aside) == (False, [], 1)
    settle()
    settle()
    assert (refused.settled, refused.parking.backlog, refused.parking.fault) == ([1], 0, None)
    assert refused.parking._bytes == 0


def test_one_of_a_partition_that_has_left_is_the_next_owners(refused: Store) -> None:
    """It is not settled here, even if it was handed on. The next owner finds since when it is refused."""
    refused.parking.poll(0.0)
    refused.parking.forget({HERE})
    refused.answer()
    assert (refused.refused, refused.parking.set_aside) == ([], 0)
    refuse(refused)
    refused.monotonic.now += 60
    refused.write()
    ((_, _, settle),) = refused.refused
    refused.parking.forget({HERE})
    settle()
    assert (refused.settled, refused.parking.set_aside, refused.parking._bytes) == ([], 0, 0)


def test_a_delivery_that_is_handed_on_frees_its_key(store: Store) -> None:
    """As after a stored delivery that was given up. Its due key is due at once."""
    store.park(ordered(1, next_attempt_at=None))
    for _ in range(3):
        store.write()
        store.monotonic.now += 60
        store.clock.now += REFUSED_AFTER
    ((_, _, settle),) = store.refused
    assert unseen(store) == (True, 1)
    settle()
    assert unseen(store) == (False, inf)
    assert store.parking.due_keys == {HEAD: 0.0}


def test_no_delivery_is_handed_on_while_the_database_is_away(refused: Store) -> None:
    """An outage is not a refusal: the database may accept the delivery after it."""
    with refused.without():
        refused.write()
        assert (refused.refused, refused.settled, refused.parking.set_aside) == ([], [], 1)


def test_the_result_of_an_attempt_that_is_refused_stays_here(store: Store) -> None:
    """It holds no offset, and its row is in the database: it is tried again for as long as that takes."""
    store.others_park(parked(0))
    store.parking.resolve(AttemptResult(1, 1, "parked", None, 500, BOOM, 600.0), HEAD, lambda: None)
    for _ in range(4):
        store.write()
        store.monotonic.now += 60
        store.clock.now += REFUSED_AFTER
    assert (store.refused, store.parking.set_aside) == ([], 1)
    store.parking.forget({HERE})
