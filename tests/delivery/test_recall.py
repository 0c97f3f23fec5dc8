"""Stored deliveries return to their lanes: when they are due and may go, to their owner, once, and all of them."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, text

from consumer.database.job import BACK_OFF
from consumer.database.statements import PARTS
from consumer.delivery.delivery import Delivery, OpenRecord, StoredRow
from consumer.delivery.failing import Failing
from consumer.delivery.known_rows import TakenUp
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.outcome import Delivered
from consumer.delivery.parking import BACKLOG
from consumer.delivery.recall import EARLY, LOOK_EVERY, Recall
from consumer.delivery.settling import Settling
from consumer.errors import DatabaseTooSlow
from consumer.events.event import Event
from consumer.ledger import admin, rows
from consumer.ledger import store as ledger
from consumer.ledger.assigned import SEEKS
from consumer.ledger.due import POSTPONED, fetch, postpone
from consumer.ledger.rows import AttemptFailure, DueKey, NewDelivery, OrderingKey, order_key
from consumer.ledger.store import UNWANTED
from consumer.matching.selection import FILTER_TOO_LARGE, PAUSE, Budget, Selector
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.telemetry.metrics import Metrics
from tests.crypto.vaults import in_the_clear
from tests.delivery.store_kit import DEFAULT, GROUP, NOW, URL, Store, make_event

FAILURE = AttemptFailure("boom", 503, None, NOW - 60)
HERE, THERE = ("t", 0), ("t", 1)


class Bench:
    """A Recall on a real ledger, with one subscription; the worker owns partition 0 and has read all of it."""

    def __init__(self, engine: Engine) -> None:
        self.store = Store(engine)
        self.lanes = Lanes(100)
        self.memory = Memory()
        self.taken_up = TakenUp(self.memory)
        self.settling = Settling(
            self.lanes,
            self.store.parking,
            Failing(self.store.notes, GROUP, 0.0),
            Metrics(),
            self.taken_up,
            schedule=(5.0,),
            jitter=0.0,
            in_memory=0.0,
            operations_topic="operations",
            owns=lambda topic_partition: topic_partition in self.places,
            clock=self.store.clock,
            monotonic=self.store.monotonic,
        )
        self.places: Collection[tuple[str, int]] = [HERE]
        self.given_out = 10**9  # records below this offset are fanned out
        self.budget = Budget(self.store.monotonic)
        self.recall = Recall(
            engine,
            GROUP,
            partial(fetch, engine, GROUP, default_secrets=DEFAULT, decrypt=in_the_clear),
            self.store.thread,
            self.store.parking,
            self.lanes,
            self.settling,
            self.taken_up,
            Selector(Metrics(), self.budget, self.store.monotonic),
            self.memory,
            lambda: self.places,
            lambda _: lambda offset: offset < self.given_out,
            self.store.clock,
            self.store.monotonic,
        )
        self.subscription = repository.add(engine, URL, "user.created", ordering="key")
        self.due_key: DueKey = (*HERE, self.subscription)

    def row(self, offset: int, *, due: float = 0.0, key: bytes | None = None, partition: int = 0) -> NewDelivery:
        """A waiting delivery, due this many seconds after the start."""
        made = make_event(offset, partition=partition, key=key)
        ordering_key = None if key is None else OrderingKey(self.subscription, "t", partition, order_key(key))
        return NewDelivery(made, self.subscription, URL, 1, "parked", NOW + due, FAILURE, FAILURE, ordering_key)

    def others_store(self, *rows: NewDelivery) -> None:
        """Another process stores these rows."""
        ledger.park(self.store.engine, GROUP, rows, NOW)

    def store_here(self, *rows: NewDelivery) -> None:
        """This process stores these rows."""
        for row in rows:
            self.store.parking.park(row, lambda: None)
        self.store.write_all(0.0)

    def look(self, seconds: float = 0.0) -> list[int]:
        """Advance the clocks, look once and handle the answer, if any. Returns the offsets of the rows taken up."""
        self.store.clock.now += seconds
        self.store.monotonic.now += seconds
        self.lanes.wake(self.store.monotonic.now)
        before = set(self.taken_up)
        self.recall.poll(0.0)
        if self.recall.busy:
            self.store.answer()
        queued = (delivery for lane in self.lanes for delivery in lane.queue)
        return [
            delivery.event.record.offset
            for delivery in queued
            if isinstance(delivery.origin, StoredRow) and delivery.origin.id not in before
        ]

    def delivered(self, delivery: Delivery) -> None:
        """The delivery's request has ended with 200."""
        self.lanes.finished(delivery.lane)
        self.settling._delivered(delivery, Delivered(200), self.store.clock.now, 0.0, 1)

    def finished(self) -> None:
        """The delivery that was taken up is not sent, and all rows are due much later."""
        self.lanes.finished(self.next().lane)
        for row in list(self.taken_up):
            self.taken_up.remove(row)
        self.due_by_sql(9000.0)

    def due_by_sql(self, seconds: float, subscription: int = 0) -> None:
        """Somebody changes by SQL when rows are due, of one subscription or of all."""
        due = datetime.fromtimestamp(NOW + seconds, UTC).replace(tzinfo=None)
        statement = "UPDATE webhook_deliveries SET next_attempt_at = :due WHERE :one IN (0, subscription_id)"
        with self.store.engine.begin() as connection:
            connection.execute(text(statement), {"due": due, "one": subscription})

    def next(self) -> Delivery:
        """The next delivery that may start."""
        delivery = self.lanes.next(self.store.monotonic.now)
        assert delivery is not None
        return delivery

    def lane_breaks(self) -> float:
        """Open the receiver's breaker. Returns the seconds until it lets a request through."""
        lane = self.lanes.lane(Endpoint(self.subscription, URL, DEFAULT, ordered=True))
        now = self.store.monotonic.now
        for _ in range(10):
            lane.breaker.failed(now, now)
        assert lane.breaker.open_until is not None
        return lane.breaker.open_until - now


@pytest.fixture
def bench(engine: Engine) -> Iterator[Bench]:
    """A Recall on an empty database."""
    result = Bench(engine)
    yield result
    assert result.store.thread.close(20)


def test_a_row_that_this_process_stores_comes_when_it_is_due(bench: Bench) -> None:
    """No scan is needed. The row comes with its attempts."""
    assert bench.look() == []  # the first scan
    bench.store_here(bench.row(7, due=3.0), bench.row(8, due=4.0))
    assert bench.look(2.875) == []
    assert not bench.recall.busy
    assert bench.look(0.125) == [7]
    delivery = bench.next()
    assert isinstance(delivery.origin, StoredRow)
    assert (delivery.event.record.offset, delivery.attempts) == (7, 1)
    assert delivery.first is not None
    assert delivery.first.error == "boom"
    assert bench.look(0.875) == []
    assert bench.look(0.125) == [8]


def test_a_refused_row_comes_back_alone(bench: Bench) -> None:
    """This holds after a restart too: the row has its last status."""
    with bench.store.engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET batch_size = 10, batch_wait_ms = 0"))
    refused = FAILURE._replace(status=422)
    unanswered = FAILURE._replace(status=None)
    rows = [bench.row(offset) for offset in range(4)]
    bench.others_store(rows[0], rows[1]._replace(last=refused), rows[2]._replace(last=unanswered), rows[3])
    bench.look()
    assert bench.look(0.1) == [0, 1, 2, 3]
    carried = [[each.event.record.offset for each in bench.next().batch()] for _ in range(2)]
    assert carried == [[0, 2, 3], [1]]


def test_rows_that_others_store_or_mark_due_are_found_by_a_scan(bench: Bench) -> None:
    """It runs every five seconds, over the owned partitions. A new assignment does not wait for it."""
    assert bench.look() == []
    bench.others_store(bench.row(1), bench.row(2, partition=1))
    assert bench.look(LOOK_EVERY - 0.125) == []
    assert bench.look(0.125) == []  # the scan: now the due key is known
    assert bench.look(0.125) == [1]
    bench.places = [HERE, THERE]
    bench.recall.within(0.0)
    bench.look(0.125)
    assert bench.look(0.125) == [2]


def test_due_keys_are_scanned_once_and_then_slowly(bench: Bench) -> None:
    """However many there are: a mass outage must not cause an unceasing stream of statements."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    due_keys = [(*HERE, 1000 + number) for number in range(5 * SEEKS)]
    bench.others_store(
        *(bench.row(due_key[2], due=3600.0)._replace(subscription_id=due_key[2]) for due_key in due_keys)
    )
    event.listen(bench.store.engine, "before_cursor_execute", count)
    for _ in range(20):
        bench.look(0.1)
    assert set(bench.store.parking.due_keys) == set(due_keys)
    step = 1 + 2 + SEEKS // PARTS  # BEGIN, two leaps, and the due times
    assert statements <= 6 * (step + 3)
    for changed_by_hand in (True, False):
        if changed_by_hand:
            bench.due_by_sql(0.0, 1000)
        statements = 0
        for _ in range(600):
            bench.look(0.1)
        assert statements <= 13 * step + 100
        assert bench.store.parking.due_keys[due_keys[0]] != NOW + 3600
    bench.recall.within(0.0)
    statements = 0
    for _ in range(20):
        bench.look(0.1)
    assert statements > 5 * step


def test_rows_that_others_mark_are_found_soon_however_many_due_keys_there_are(bench: Bench) -> None:
    """A redelivered row does not wait for the scan, and is found again if marked again. Other partitions' are not."""
    rows = (bench.row(number, due=3600.0)._replace(subscription_id=number) for number in range(2, 3 * SEEKS))
    bench.others_store(*(row._replace(event=make_event(row.subscription_id, topic="s")) for row in rows))
    bench.places = [("s", 0), HERE]  # a scan reads the due keys of the first partition before
    for _ in range(20):
        bench.look(0.1)
    assert len(bench.store.parking.due_keys) == 3 * SEEKS - 2
    bench.others_store(bench.row(1, due=3600.0), bench.row(2, due=3600.0, partition=1))
    for _ in range(2):
        list(admin.redeliver(bench.store.engine, admin.DeliveryQuery(subscription=bench.subscription), NOW))
        found: list[int] = []
        for _ in range(60):
            if not found:
                found = bench.look(0.1)
        assert found == [1]
        assert (*THERE, bench.subscription) not in bench.store.parking.due_keys
        bench.finished()
        bench.store.parking.due_keys.clear()


def test_a_due_key_has_one_read_at_a_time_and_is_put_back(bench: Bench) -> None:
    """While the read is under way, no other starts. The due key's remaining rows are read when they are due."""
    bench.look()
    bench.store_here(bench.row(1), bench.row(2, due=30.0))
    due_keys = bench.store.parking.due_keys
    assert due_keys == {bench.due_key: NOW}
    bench.store.monotonic.now += 1
    bench.recall.poll(0.0)
    assert (due_keys, bench.recall.busy) == ({}, True)
    bench.store.monotonic.now += 1
    bench.recall.poll(0.0)
    bench.store.answer()
    assert bench.store.posted.empty()
    assert due_keys == {bench.due_key: NOW + 30}
    assert bench.look(28.5) == []
    assert bench.look(1.5) == [2]


def test_a_row_in_memory_is_not_taken_up_again(bench: Bench) -> None:
    """It is queued, open, or its result is not written yet, however often its due key is due."""
    bench.look()
    bench.store_here(bench.row(1))
    assert bench.look(0.125) == [1]
    for _ in range(3):
        bench.store.parking.due_keys[bench.due_key] = 0.0
        assert bench.look(LOOK_EVERY) == []
    delivery = bench.next()
    bench.store.parking.due_keys[bench.due_key] = 0.0
    assert bench.look(0.125) == []
    bench.lanes.finished(delivery.lane)
    assert bench.lanes.held == 0


def test_a_row_taken_up_during_the_read_is_not_taken_up_again(bench: Bench) -> None:
    """The read began before the row was here."""
    bench.look()
    bench.store_here(bench.row(1))
    bench.store.monotonic.now += 1
    bench.recall.poll(0.0)
    ((row,),) = bench.store.rows("id")
    bench.taken_up.add(row, bench.due_key, make_event(1))
    bench.store.answer()
    assert bench.lanes.held == 0


def test_rows_of_a_partition_that_left_during_the_read_are_not_taken_up(bench: Bench) -> None:
    """Another worker owns them. Due keys of partitions that are not owned are not read."""
    bench.look()
    bench.store_here(bench.row(1))
    bench.store.monotonic.now += 1
    bench.recall.poll(0.0)
    bench.places = []
    bench.store.answer()
    assert (len(bench.taken_up), bench.lanes.held, bench.memory.held) == (0, 0, 0)
    bench.store.parking.due_keys[bench.due_key] = 0.0
    bench.recall.poll(0.0)
    assert not bench.recall.busy


def test_an_ordered_row_waits_until_the_log_is_fanned_out_up_to_it(bench: Bench) -> None:
    """The log may bring an earlier record of its key that was not settled before a crash. A row without a key goes."""
    bench.given_out = 5
    bench.look()
    bench.store_here(bench.row(5, key=b"k"), bench.row(6), bench.row(4, key=b"l"))
    assert sorted(bench.look(0.125)) == [4, 6]
    assert bench.look(EARLY) == []
    bench.given_out = 6
    assert bench.look(EARLY) == [5]


def test_rows_that_may_not_go_yet_are_not_read_at_every_look(bench: Bench) -> None:
    """Reading the log up to them may take long, or the database may refuse earlier deliveries of their key."""
    bench.given_out = 5
    bench.look()
    bench.store_here(bench.row(5, key=b"k"))
    assert bench.look(0.125) == []
    assert bench.store.parking.due_keys == {bench.due_key: NOW + 0.125 + EARLY}


def test_an_ordered_row_waits_while_an_earlier_one_of_its_key_is_being_written(bench: Bench) -> None:
    """When the database has both, it decides which is first."""
    bench.look()
    bench.store_here(bench.row(4, key=b"k"), bench.row(9, key=b"l"))
    bench.store.parking.park(bench.row(3, key=b"k"), lambda: None)
    assert bench.look(0.125) == [9]
    bench.store.write()
    assert bench.look(0.125) == [3]
    assert bench.store.rows("record_offset", "status") == [(4, "blocked"), (9, "parked"), (3, "parked")]


def test_later_rows_of_its_key_do_not_hold_an_ordered_row(bench: Bench) -> None:
    """They go behind it. Under a steady flow one is nearly always being written, so the key would never go on."""
    bench.look()
    bench.store_here(bench.row(4, key=b"k"))
    bench.store.parking.park(bench.row(5, key=b"k"), lambda: None)
    assert bench.look(0.125) == [4]


def test_later_rows_of_a_key_come_with_the_first(bench: Bench) -> None:
    """They form a chain behind it, in order, up to the first row that may not come yet."""
    bench.given_out = 4
    bench.look()
    bench.store_here(*(bench.row(offset, key=b"k") for offset in (1, 2, 3, 4, 5)), bench.row(6, key=b"l"))
    assert bench.look(0.125) == [1]
    assert len(bench.taken_up) == 3
    for offset in (1, 2, 3):
        delivery = bench.next()
        assert delivery.event.record.offset == offset
        assert delivery.ordering_key is not None
        assert bench.lanes.next(bench.store.monotonic.now) is None
        bench.lanes.finished(delivery.lane)
        bench.lanes.go_on(delivery.lane, delivery.ordering_key)
    bench.given_out = 10
    assert bench.look(EARLY) == [6], "4 is blocked until the results of those before it are written"


@pytest.mark.parametrize("again", [(1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("live", [False, True])
def test_a_redelivery_goes_before_later_deliveries_of_its_key(
    bench: Bench, again: tuple[int, ...], *, live: bool
) -> None:
    """Only the delivery of its key that is under way is before it, of those in memory: rows taken up, or new ones."""
    bench.look()
    rows = [bench.row(offset, key=b"k") for offset in range(7)]
    bench.store_here(*(row._replace(status="exhausted") for row in rows[:2]), *(() if live else rows[2:]))
    if live:
        lane = bench.lanes.lane(Endpoint(bench.subscription, URL, DEFAULT, ordered=True))
        for row in rows[2:5]:
            record = OpenRecord(lambda _: None, row.event.record.offset, 1)
            bench.lanes.enqueue(Delivery(row.event, lane, record, row.ordering_key), bench.store.monotonic.now)
    bench.look(0.125)
    bench.others_store(*rows[5:])  # they are blocked behind the redelivery, and come with it unless they are here
    sent = [bench.next()]
    for offset in again:
        list(admin.redeliver(bench.store.engine, admin.DeliveryQuery(ids=[offset + 1]), NOW))
        bench.look(LOOK_EVERY)
        bench.look(0.125)
    while len(sent) < len(again) + 5:
        bench.delivered(sent[-1])
        bench.store.write_all(0.0)
        bench.look(EARLY)
        sent.append(bench.next())
        assert bench.lanes.next(bench.store.monotonic.now) is None
    assert [each.event.record.offset for each in sent] == [2, *sorted(again), 3, 4, 5, 6]


def test_a_row_of_a_chain_that_does_not_fit_holds_the_rows_behind_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller row that would fit must not overtake it."""
    bench.look()
    rows = [bench.row(offset, key=b"k") for offset in (1, 2, 3)]
    rows[1] = rows[1]._replace(event=rows[1].event._replace(body=b"x" * 1000))
    bench.store_here(*rows)
    monkeypatch.setattr("consumer.delivery.lanes.LANE_BYTES", 500)
    assert bench.look(0.125) == [1]
    assert len(bench.taken_up) == 1


def test_a_failing_database_loses_no_due_key(bench: Bench) -> None:
    """Due keys with a failed read are due again after the back-off. `fault` gives the reason."""
    bench.look()
    bench.store_here(bench.row(1), bench.row(2, due=50.0))
    with bench.store.without():
        bench.store.monotonic.now += 0.1
        bench.recall.poll(0.0)
        bench.store.answer()
        assert "the tables are missing or old" in str(bench.recall.fault)
        bench.recall.poll(0.0)
        assert not bench.recall.busy
    assert bench.look(BACK_OFF[0] * 1.1) == [1]
    assert bench.recall.fault is None
    assert bench.look(49.9) == [2]


def test_an_unreadable_row_is_reported_and_retried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row beside it comes. The unreadable one is retried after a minute; once it is read, the fault is gone."""
    bench.look()
    bench.store_here(bench.row(1), bench.row(2))
    whole = rows.event_of

    def refuse(row: Any) -> Event:
        if row.record_offset == 2:
            raise ValueError("no text")
        return whole(row)

    monkeypatch.setattr("consumer.ledger.due.event_of", refuse)
    assert bench.look(0.1) == [1]
    assert bench.recall.fault == "database: no text; a stored delivery cannot be read: row 2"
    monkeypatch.undo()
    assert bench.look(POSTPONED + LOOK_EVERY) == [2]
    assert bench.recall.fault is None


def test_a_row_that_cannot_be_postponed_holds_up_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another session has locked it, so that each try takes half a minute. There is one try a minute for all rows."""
    other = repository.add(bench.store.engine, URL, "user.created")
    with bench.store.engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET url = 'ftp://x' WHERE id = :id"), {"id": other})
    bench.look()
    postponings, locked = 0, True

    def postpone_or_fail(*arguments: Any) -> None:
        nonlocal postponings
        postponings += 1
        if locked:
            raise DatabaseTooSlow("DPY-4024: timed out")
        postpone(*arguments)

    monkeypatch.setattr("consumer.delivery.recall.postpone", postpone_or_fail)
    bench.others_store(*(bench.row(offset)._replace(subscription_id=other) for offset in range(2)))
    for offset in range(2, 9):
        bench.store_here(bench.row(offset))
        assert bench.look(LOOK_EVERY) == [offset]
    assert bench.recall.fault == "database: DPY-4024: timed out; stored deliveries cannot be postponed"
    bench.look(POSTPONED)
    assert postponings == 2
    locked = False
    bench.look(POSTPONED)
    assert postponings == 3
    assert not bench.recall.fault
    due = bench.store.seconds("next_attempt_at")
    assert due[:2] == [(round(bench.store.clock.now - NOW + POSTPONED),)] * 2


def test_rows_behind_an_open_breaker_are_not_read(bench: Bench) -> None:
    """When the breaker lets a request through, only two of the due rows are read: the probe and the next one."""
    bench.look()
    bench.store_here(*(bench.row(offset) for offset in range(10)))
    seconds = bench.lane_breaks()
    bench.recall._next_scan = float("inf")
    bench.store.monotonic.now += seconds / 2
    bench.recall.poll(0.0)
    assert not bench.recall.busy
    assert bench.store.parking.due_keys == {bench.due_key: NOW}
    assert bench.look(seconds / 2 + 0.01) == [0, 1]
    assert bench.next().event.record.offset == 0
    assert bench.lanes.next(bench.store.monotonic.now) is None


def test_no_more_rows_come_than_the_lane_takes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those due first come first, the others when there is room again. None is forgotten."""
    for module in ("delivery", "lanes"):
        monkeypatch.setattr(f"consumer.delivery.{module}.LANE_DELIVERIES", 3)
    bench.look()
    bench.store_here(*(bench.row(offset, due=-float(offset)) for offset in range(8)))
    came = bench.look(0.125)
    assert came == [7, 6, 5]
    for _ in range(5):
        assert bench.look(0.125) == []
        assert not bench.recall.busy
        delivery = bench.next()
        bench.lanes.finished(delivery.lane)
        came += bench.look(0.125)
    assert came == [7, 6, 5, 4, 3, 2, 1, 0]


def test_many_due_keys_are_read_at_once(bench: Bench) -> None:
    """A lane with much room does not use up the limit of one look: the others' rows come too."""
    bench.look()
    rows = [bench.row(offset)._replace(subscription_id=number) for offset, number in enumerate(subscribed(bench, 10))]
    bench.store_here(*rows)
    assert bench.look(0.125) == list(range(10))


def subscribed(bench: Bench, number: int) -> list[int]:
    """The ids of this many more subscriptions."""
    return [repository.add(bench.store.engine, URL, "user.created") for _ in range(number)]


def test_the_room_of_a_subscription_is_computed_once_in_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an open breaker it may have a due key in each of a thousand partitions. There are ten looks a second."""
    bench.lane_breaks()
    bench.store.parking.due_keys.update({("t", number, bench.subscription): 0.0 for number in range(1000)})
    asked: list[int] = []
    room = bench.lanes.room

    def ask(number: int, now: float) -> int:
        asked.append(number)
        return room(number, now)

    monkeypatch.setattr(bench.lanes, "room", ask)
    bench.look(0.125)
    assert asked == [bench.subscription]
    assert len(bench.store.parking.due_keys) == 1000


def test_no_due_rows_are_read_while_the_database_does_not_keep_up(bench: Bench) -> None:
    """They might have to be stored again, so they wait where they are."""
    bench.look()
    bench.store_here(bench.row(1))
    record = OpenRecord(lambda _: None, 0, BACKLOG)
    endpoint = Endpoint(bench.subscription, URL, DEFAULT)
    for offset in range(BACKLOG):
        bench.settling.postpone(make_event(offset + 10), endpoint, record, None)
    bench.store.monotonic.now += 1
    bench.recall.poll(0.0)
    assert not bench.recall.busy


def chosen(bench: Bench, event_filter: str, *offsets: int, key: bytes | None = None) -> None:
    """Rows with a pending filter, of a subscription that now has this filter."""
    repository.edit(bench.store.engine, bench.subscription, {"event_filter": event_filter})
    rows = [bench.row(offset, key=key) for offset in offsets]
    untried = [row._replace(attempt=0, first=None, last=None, filter_pending=True) for row in rows]
    bench.others_store(
        *(row._replace(event=row.event._replace(body=b'{"n":%d}' % row.event.record.offset)) for row in untried)
    )


@pytest.mark.parametrize("key", [None, b"k"])
def test_a_pending_filter_runs_before_the_row_is_sent(bench: Bench, key: bytes | None) -> None:
    """A matching row is sent. Any other row ends without an attempt, ordered or not, and its key's later rows go on."""
    chosen(bench, "data.n % 2 == 1", 1, 2, 3, 4, key=key)
    came: list[int] = []
    most = 0  # rows at once
    for _ in range(20):
        bench.look(1.0)
        most = max(most, len(bench.taken_up))
        while (delivery := bench.lanes.next(bench.store.monotonic.now)) is not None:
            came.append(delivery.event.record.offset)
            bench.delivered(delivery)
        bench.store.write_all(0.0)
    assert (came, most) == ([1, 3], 4)
    assert bench.store.rows("record_offset", "status", "attempt", "last_error") == [
        (1, "delivered", 1, None),
        (2, "delivered", 0, UNWANTED),
        (3, "delivered", 1, None),
        (4, "delivered", 0, UNWANTED),
    ]
    assert not bench.taken_up


def test_a_row_whose_filter_could_not_be_asked_holds_the_later_rows_of_its_key(bench: Bench) -> None:
    """They would overtake it: its filter went over its budget after the rows were chosen."""
    chosen(bench, "data.n > 0", 1, key=b"k")
    bench.others_store(bench.row(2, key=b"k"))
    bench.look(1.0)
    bench.store.monotonic.now += 1.0
    bench.recall.poll(0.0)
    while not bench.budget.is_over(bench.subscription):
        bench.budget.charge(bench.subscription, 1.0)
    bench.store.answer()
    assert (bench.lanes.held, len(bench.taken_up)) == (0, 0)
    bench.look(PAUSE)
    assert bench.next().event.record.offset == 1


@pytest.mark.parametrize("key", [None, b"k"])
def test_an_event_too_large_for_the_filter_is_given_up(bench: Bench, key: bytes | None) -> None:
    """It ends once, with this reason. Its key's next delivery goes then, not at the next repair of the order."""
    chosen(bench, "data.l.map(x, x).size() == 0")
    large, small = (
        row._replace(attempt=0, first=None, last=None, filter_pending=True)
        for row in (bench.row(1, key=key), bench.row(2, key=key))
    )
    large = large._replace(event=large.event._replace(body=b'{"l":[%b]}' % b",".join([b"1"] * 5000)))
    bench.others_store(large, small._replace(event=small.event._replace(body=b'{"l":[]}')))
    came: list[int] = []
    for _ in range(5):
        came += bench.look(1.0)
        bench.store.write_all(0.0)
    assert came == [2]
    assert bench.store.rows("record_offset", "status", "attempt", "last_error") == [
        (1, "exhausted", 1, FILTER_TOO_LARGE),
        (2, "parked", 0, None),
    ]
    assert len(bench.taken_up) == 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=1, max_size=12),
    outages=st.sets(st.integers(0, 40)),
    most=st.integers(1, 5),
)
def test_every_row_comes_once_and_not_before_it_is_due(
    bench: Bench, rows: list[tuple[bool, int]], outages: set[int], most: int
) -> None:
    """This process or others store it; lanes have little room, and the database fails now and then."""
    with bench.store.engine.begin() as connection:
        connection.execute(text("DELETE FROM webhook_deliveries"))
    begun = bench.store.clock.now
    due_at = {}
    for offset, (here, due) in enumerate(rows):
        due_at[offset] = begun + due
        row = bench.row(offset)._replace(next_attempt_at=begun + due)
        (bench.store_here if here else bench.others_store)(row)
    came: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("delivery", "lanes"):
            patch.setattr(f"consumer.delivery.{module}.LANE_DELIVERIES", most)
        for turn in range(200):
            if turn in outages:
                with bench.store.without():
                    found = bench.look(0.25)
            else:
                found = bench.look(0.25)
            assert all(due_at[offset] <= bench.store.clock.now for offset in found)
            came += found
            while (delivery := bench.lanes.next(bench.store.monotonic.now)) is not None:
                bench.lanes.finished(delivery.lane)
            if len(came) == len(rows):
                break
    assert sorted(came) == list(range(len(rows)))
    for each in list(bench.taken_up):
        bench.taken_up.remove(each)
    bench.store.parking.due_keys.clear()
