"""Stored deliveries return to their lanes: when they are due and may go, to their owner, once, and all of them."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event

from consumer.database.job import BACK_OFF
from consumer.database.statements import PARTS
from consumer.delivery.delivery import Delivery, StoredRow
from consumer.delivery.parking import BACKLOG
from consumer.delivery.recall import EARLY, LOOK_EVERY, Recall
from consumer.errors import DatabaseTooSlow
from consumer.events.event import Event
from consumer.ledger import admin, backlogs, cursors, rows
from consumer.ledger.assigned import SEEKS
from consumer.ledger.cursors import NewCursor
from consumer.ledger.due import POSTPONED, fetch, postpone
from consumer.ledger.rows import AttemptFailure, DueKey, NewDelivery
from consumer.ledger.store import UNWANTED
from consumer.matching.selection import FILTER_TOO_LARGE, PAUSE, Selector
from consumer.subscriptions import repository
from consumer.telemetry.metrics import Metrics
from models import CursorReason
from tests.crypto.vaults import in_the_clear
from tests.delivery.desk_kit import Desk, response
from tests.delivery.store_kit import NOW, Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL, make_event, ordering_key, parked, run

FAILURE = AttemptFailure("boom", 503, None, NOW - 60)
HERE, THERE = ("t", 0), ("t", 1)
SOON = 0.125  # seconds until the next look


class Bench(Desk):
    """A Recall on a real ledger, with one subscription; the worker owns partition 0 and has read all of it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.endpoint = replace(self.endpoint, ordered=True)
        self.places: Collection[tuple[str, int]] = [HERE]
        self.given_out = 10**9  # records below this offset are fanned out
        self.read_to = 10**9  # the subscription's cursor has read the records below this offset
        self.marked: list[DueKey] = []
        self.recall = Recall(
            engine,
            GROUP,
            partial(fetch, engine, GROUP, default_secrets=DEFAULT, decrypt=in_the_clear),
            self.thread,
            self.parking,
            self.lanes,
            self.settling,
            self.taken_up,
            Selector(Metrics(), self.budget, self.monotonic),
            self.memory,
            is_behind=lambda _due_key, offset, _replay, _key: self.read_to < offset,
            partitions=lambda: self.places,
            given_out=lambda _: lambda offset: offset < self.given_out,
            on_marked=self.marked.extend,
            clock=self.clock,
            monotonic=self.monotonic,
        )
        self.due_key: DueKey = (*HERE, self.subscription)
        self.due_keys = self.parking.due_keys

    def new(
        self, offset: int, *, due: float = 0.0, key: bytes | None = None, partition: int = 0, **more: object
    ) -> NewDelivery:
        """A waiting delivery, due this many seconds after the start."""
        event = make_event(offset, partition=partition, key=key)
        ordered = None if key is None else ordering_key(self.subscription, key, partition)
        row = parked(event, self.subscription, NOW + due, first=FAILURE, last=FAILURE, ordering_key=ordered)
        return row._replace(**more)  # type: ignore[arg-type]  # a test's shorthand

    def store(self, *rows: NewDelivery) -> None:
        """This process stores these rows."""
        self.park(*rows)
        self.write_all(0.0)

    def find(self, *rows: NewDelivery) -> None:
        """Another process has stored these rows, and this one is assigned the partition: it scans."""
        self.others_park(*rows)
        self.recall.within(0.0)

    def begin(self) -> None:
        """Begin a look; `answer` ends it."""
        self.monotonic.now += 1
        self.recall.poll(0.0)

    def look(self, seconds: float = 0.0) -> list[int]:
        """Advance the clocks, look once and handle the answer, if any. Returns the offsets of the rows taken up."""
        self.passes(seconds)
        self.lanes.wake(self.monotonic.now)
        before = set(self.taken_up)
        self.recall.poll(0.0)
        if self.recall.busy:
            self.answer()
        queued = (delivery for lane in self.lanes for delivery in lane.queue)
        return [
            delivery.event.record.offset
            for delivery in queued
            if isinstance(delivery.origin, StoredRow) and delivery.origin.id not in before
        ]

    def delivered(self, delivery: Delivery) -> None:
        """The delivery's request has ended with 200."""
        self.end(delivery, response(200))

    def sql(self, statement: str, **binds: object) -> None:
        """Somebody changes rows by SQL."""
        run(self.engine, statement, **binds)

    def due_by_sql(self, seconds: float, subscription: int = 0) -> None:
        """Somebody changes by SQL when rows are due, of one subscription or of all."""
        due = datetime.fromtimestamp(NOW + seconds, UTC).replace(tzinfo=None)
        statement = "UPDATE webhook_deliveries SET next_attempt_at = :due WHERE :one IN (0, subscription_id)"
        self.sql(statement, due=due, one=subscription)

    def next(self) -> Delivery:
        """The next delivery that may start."""
        delivery = self.lanes.next(self.monotonic.now)
        assert delivery is not None
        return delivery

    def lane_breaks(self) -> float:
        """Open the receiver's breaker. Returns the seconds until it lets a request through."""
        lane, now = self.lanes.lane(self.endpoint), self.monotonic.now
        for _ in range(10):
            lane.breaker.failed(now, now)
        assert self.opens_in is not None
        return self.opens_in


@pytest.fixture
def bench(engine: Engine, rigs: list[Store]) -> Bench:
    """A Recall on an empty database, which was scanned once."""
    rigs.append(bench := Bench(engine))
    assert bench.look() == []
    return bench


def test_a_row_that_this_process_stores_comes_when_it_is_due(bench: Bench) -> None:
    """No scan is needed. The row comes with its attempts."""
    bench.store(bench.new(7, due=3.0), bench.new(8, due=4.0))
    assert bench.look(2.875) == []
    assert not bench.recall.busy
    assert bench.look(SOON) == [7]
    delivery = bench.next()
    assert isinstance(delivery.origin, StoredRow)
    assert (delivery.event.record.offset, delivery.attempts) == (7, 1)
    assert delivery.first is not None
    assert delivery.first.error == "boom"
    assert bench.look(0.875) == []
    assert bench.look(SOON) == [8]


def test_a_refused_row_comes_back_alone(bench: Bench) -> None:
    """This holds after a restart too: the row has its last status."""
    bench.sql("UPDATE webhook_subscriptions SET batch_size = 10, batch_wait_ms = 0")
    statuses = (503, 422, None, 503)
    bench.store(*(bench.new(offset, last=FAILURE._replace(status=each)) for offset, each in enumerate(statuses)))
    assert bench.look(0.1) == [0, 1, 2, 3]
    carried = [[each.event.record.offset for each in bench.next().batch()] for _ in range(2)]
    assert carried == [[0, 2, 3], [1]]


def test_rows_that_others_store_or_mark_due_are_found_by_a_scan(bench: Bench) -> None:
    """It runs every five seconds, over the owned partitions. A new assignment does not wait for it."""
    bench.others_park(bench.new(1), bench.new(2, partition=1))
    assert bench.look(LOOK_EVERY - 0.125) == []
    assert bench.look(SOON) == []  # the scan: now the due key is known
    assert bench.look(SOON) == [1]
    bench.places = [HERE, THERE]
    bench.recall.within(0.0)
    bench.look(SOON)
    assert bench.look(SOON) == [2]


def test_due_keys_are_scanned_once_and_then_slowly(bench: Bench) -> None:
    """However many there are: a mass outage must not cause an unceasing stream of statements."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    due_keys = [(*HERE, 1000 + number) for number in range(5 * SEEKS)]
    bench.find(*(bench.new(due_key[2], due=3600.0, subscription_id=due_key[2]) for due_key in due_keys))
    event.listen(bench.engine, "before_cursor_execute", count)
    for _ in range(20):
        bench.look(0.1)
    assert set(bench.due_keys) == set(due_keys)
    step = 1 + 2 + SEEKS // PARTS  # BEGIN, two leaps, and the due times
    assert statements <= 6 * (step + 3)
    for changed_by_hand in (True, False):
        if changed_by_hand:
            bench.due_by_sql(0.0, 1000)
        statements = 0
        for _ in range(600):
            bench.look(0.1)
        assert statements <= 13 * step + 100
        assert bench.due_keys[due_keys[0]] != NOW + 3600


def test_rows_that_others_mark_are_found_soon_however_many_due_keys_there_are(bench: Bench) -> None:
    """A redelivered row does not wait for the scan, and is found again if marked again. Other partitions' are not."""
    rows = (bench.new(number, due=3600.0, subscription_id=number) for number in range(2, 3 * SEEKS))
    bench.find(*(row._replace(event=make_event(row.subscription_id, topic="s")) for row in rows))
    bench.places = [("s", 0), HERE]  # a scan reads the due keys of the first partition before
    for _ in range(20):
        bench.look(0.1)
    assert len(bench.due_keys) == 3 * SEEKS - 2
    bench.others_park(bench.new(1, due=3600.0), bench.new(2, due=3600.0, partition=1))
    for _ in range(2):
        list(admin.redeliver(bench.engine, admin.DeliveryQuery(subscription=bench.subscription), NOW))
        found: list[int] = []
        for _ in range(60):
            if not found:
                found = bench.look(0.1)
        assert found == [1]
        assert (*THERE, bench.subscription) not in bench.due_keys
        bench.lanes.finished(bench.next().lane)  # it is not sent, and all rows are due much later
        bench.taken_up.remove(*bench.taken_up)
        bench.due_by_sql(9000.0)
        bench.due_keys.clear()


def test_marks_of_cursors_are_passed_on_once(bench: Bench) -> None:
    """The cursor of a resumed subscription need not wait for its turn. Marks of others' partitions are not ours."""
    owed = (NewCursor((*place, bench.subscription), 5, CursorReason.PAUSED) for place in (HERE, THERE))
    cursors.begin(bench.engine, GROUP, [*owed], NOW)
    for number in range(1, 3):
        with bench.engine.begin() as connection:
            backlogs.look_at(connection, bench.subscription)
        for _ in range(60):
            bench.look(0.1)
        assert bench.marked == [bench.due_key] * number


def test_a_due_key_has_one_read_at_a_time_and_is_put_back(bench: Bench) -> None:
    """While the read is under way, no other starts. The due key's remaining rows are read when they are due."""
    bench.store(bench.new(1), bench.new(2, due=30.0))
    assert bench.due_keys == {bench.due_key: NOW}
    bench.begin()
    assert (bench.due_keys, bench.recall.busy) == ({}, True)
    bench.begin()
    bench.answer()
    assert bench.posted.empty()
    assert bench.due_keys == {bench.due_key: NOW + 30}
    assert bench.look(28.5) == []
    assert bench.look(1.5) == [2]


def test_a_row_in_memory_is_not_taken_up_again(bench: Bench) -> None:
    """It is queued, open, or its result is not written yet, however often its due key is due."""
    bench.store(bench.new(1))
    assert bench.look(SOON) == [1]
    for _ in range(3):
        bench.due_keys[bench.due_key] = 0.0
        assert bench.look(LOOK_EVERY) == []
    delivery = bench.next()
    bench.due_keys[bench.due_key] = 0.0
    assert bench.look(SOON) == []
    bench.lanes.finished(delivery.lane)
    assert bench.lanes.held == 0


def test_a_row_taken_up_during_the_read_is_not_taken_up_again(bench: Bench) -> None:
    """The read began before the row was here."""
    bench.store(bench.new(1))
    bench.begin()
    ((row,),) = bench.rows("id")
    bench.taken_up.add(row, bench.due_key, make_event(1))
    bench.answer()
    assert bench.lanes.held == 0


def test_rows_of_a_partition_that_left_during_the_read_are_not_taken_up(bench: Bench) -> None:
    """Another worker owns them. Due keys of partitions that are not owned are not read."""
    bench.store(bench.new(1))
    bench.begin()
    bench.places = []
    bench.answer()
    assert (len(bench.taken_up), bench.lanes.held, bench.memory.held) == (0, 0, 0)
    bench.due_keys[bench.due_key] = 0.0
    bench.recall.poll(0.0)
    assert not bench.recall.busy


def test_an_ordered_row_waits_until_the_log_is_fanned_out_up_to_it(bench: Bench) -> None:
    """The log may bring an earlier record of its key that was not settled before a crash. A row without a key goes."""
    bench.given_out = 5
    bench.store(bench.new(5, key=b"k"), bench.new(6), bench.new(4, key=b"l"))
    assert sorted(bench.look(SOON)) == [4, 6]
    assert bench.due_keys == {bench.due_key: NOW + SOON + EARLY}, "it is not read at every look: it may take long"
    assert bench.look(EARLY) == []
    bench.given_out = 6
    assert bench.look(EARLY) == [5]


def test_an_ordered_row_waits_while_an_earlier_one_of_its_key_is_being_written(bench: Bench) -> None:
    """When the database has both, it decides which is first."""
    bench.store(bench.new(4, key=b"k"), bench.new(9, key=b"l"))
    bench.park(bench.new(3, key=b"k"))
    assert bench.look(SOON) == [9]
    bench.write()
    assert bench.look(SOON) == [3]
    assert bench.rows("record_offset", "status") == [(4, "blocked"), (9, "parked"), (3, "parked")]


def test_later_rows_of_its_key_do_not_hold_an_ordered_row(bench: Bench) -> None:
    """They go behind it. Under a steady flow one is nearly always being written, so the key would never go on."""
    bench.store(bench.new(4, key=b"k"))
    bench.park(bench.new(5, key=b"k"))
    assert bench.look(SOON) == [4]


def test_later_rows_of_a_key_come_with_the_first(bench: Bench) -> None:
    """They form a chain behind it, in order, up to the first row that may not come yet."""
    bench.given_out = 4
    bench.store(*(bench.new(offset, key=b"k") for offset in (1, 2, 3, 4, 5)), bench.new(6, key=b"l"))
    assert bench.look(SOON) == [1]
    assert len(bench.taken_up) == 3
    for offset in (1, 2, 3):
        delivery = bench.next()
        assert delivery.event.record.offset == offset
        assert delivery.ordering_key is not None
        assert bench.lanes.next(bench.monotonic.now) is None
        bench.lanes.finished(delivery.lane)
        bench.lanes.go_on(delivery.lane, delivery.ordering_key)
    bench.given_out = 10
    assert bench.look(EARLY) == [6], "4 is blocked until the results of those before it are written"


def test_an_ordered_row_waits_for_earlier_events_of_a_cursor(bench: Bench) -> None:
    """They may be of its key, and go before it. A row without a key, or before the cursor's position, comes at once."""
    bench.read_to = 4
    bench.store(*(bench.new(offset, key=b"%d" % offset) for offset in (3, 4, 5)), bench.new(6))
    assert bench.look(SOON) == [3, 4, 6]
    bench.read_to = 5
    assert bench.look(EARLY) == [5]


@pytest.mark.parametrize("again", [(1,), (0, 1), (1, 0)])
@pytest.mark.parametrize("live", [False, True])
def test_a_redelivery_goes_before_later_deliveries_of_its_key(
    bench: Bench, again: tuple[int, ...], *, live: bool
) -> None:
    """Only the delivery of its key that is under way is before it, of those in memory: rows taken up, or new ones."""
    rows = [bench.new(offset, key=b"k") for offset in range(7)]
    bench.store(*(row._replace(status="exhausted") for row in rows[:2]), *(() if live else rows[2:]))
    for row in rows[2:5] if live else ():
        lane, offset = bench.lanes.lane(bench.endpoint), row.event.record.offset
        bench.enqueue(Delivery(row.event, lane, bench.record(offset), row.ordering_key))
    bench.look(SOON)
    bench.others_park(*rows[5:])  # they are blocked behind the redelivery, and come with it unless they are here
    sent = [bench.next()]
    for offset in again:
        list(admin.redeliver(bench.engine, admin.DeliveryQuery(ids=[offset + 1]), NOW))
        bench.look(LOOK_EVERY)
        bench.look(SOON)
    while len(sent) < len(again) + 5:
        bench.delivered(sent[-1])
        bench.write_all(0.0)
        bench.look(EARLY)
        sent.append(bench.next())
        assert bench.lanes.next(bench.monotonic.now) is None
    assert [each.event.record.offset for each in sent] == [2, *sorted(again), 3, 4, 5, 6]


def test_a_row_of_a_chain_that_does_not_fit_holds_the_rows_behind_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller row that would fit must not overtake it."""
    rows = [bench.new(offset, key=b"k") for offset in (1, 2, 3)]
    rows[1] = rows[1]._replace(event=rows[1].event._replace(body=b"x" * 1000))
    bench.store(*rows)
    monkeypatch.setattr("consumer.delivery.lanes.LANE_BYTES", 500)
    assert bench.look(SOON) == [1]
    assert len(bench.taken_up) == 1


def test_a_failing_database_loses_no_due_key(bench: Bench) -> None:
    """Due keys with a failed read are due again after the back-off. `fault` gives the reason."""
    bench.store(bench.new(1), bench.new(2, due=50.0))
    with bench.without():
        bench.monotonic.now += 0.1
        bench.recall.poll(0.0)
        bench.answer()
        assert "the tables are missing or old" in str(bench.recall.fault)
        bench.recall.poll(0.0)
        assert not bench.recall.busy
    assert bench.look(BACK_OFF[0] * 1.1) == [1]
    assert bench.recall.fault is None
    assert bench.look(49.9) == [2]


@pytest.mark.parametrize("way", ["scan", "fetch"])
def test_a_look_that_is_too_slow_asks_for_less(bench: Bench, way: str) -> None:
    """It would be too slow again. The database answers for a few due keys at a time, and all of them are found."""
    asked: list[int] = []

    def answer(*arguments: Any) -> None:
        if "UNION ALL" in arguments[2] and "leap" not in arguments[2]:
            asked.append(arguments[2].count("UNION ALL") + 1)
            if asked[-1] > 8:
                raise DatabaseTooSlow("DPY-4024: call timeout")

    event.listen(bench.engine, "before_cursor_execute", answer)
    if way == "scan":
        due_keys = {(*HERE, 1000 + number) for number in range(60)}
        bench.find(*(bench.new(due_key[2], due=3600.0, subscription_id=due_key[2]) for due_key in due_keys))
    else:
        others = [repository.add(bench.engine, URL, "user.created") for _ in range(40)]
        due_keys = {(*HERE, number) for number in others}
        bench.store(*(bench.new(offset, subscription_id=number) for offset, number in enumerate(others)))
    found: set[DueKey] = set()
    for _ in range(60):
        bench.look(0.5)
        found |= set(bench.due_keys) if way == "scan" else {due_key for _, due_key in bench.taken_up.due_keys()}
    assert max(asked) == 32
    assert found == due_keys
    assert bench.recall.fault is None


def test_an_unreadable_row_is_reported_and_retried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row beside it comes. The unreadable one is retried after a minute; once it is read, the fault is gone."""
    bench.store(bench.new(1), bench.new(2))
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
    other = repository.add(bench.engine, URL, "user.created")
    bench.sql("UPDATE webhook_subscriptions SET url = 'ftp://x' WHERE id = :id", id=other)
    postponings, locked = 0, True

    def postpone_or_fail(*arguments: Any) -> None:
        nonlocal postponings
        postponings += 1
        if locked:
            raise DatabaseTooSlow("DPY-4024: timed out")
        postpone(*arguments)

    monkeypatch.setattr("consumer.delivery.recall.postpone", postpone_or_fail)
    bench.others_park(*(bench.new(offset, subscription_id=other) for offset in range(2)))
    for offset in range(2, 9):
        bench.store(bench.new(offset))
        assert bench.look(LOOK_EVERY) == [offset]
    assert bench.recall.fault == "database: DPY-4024: timed out; stored deliveries cannot be postponed"
    bench.look(POSTPONED)
    assert postponings == 2
    locked = False
    bench.look(POSTPONED)
    assert postponings == 3
    assert not bench.recall.fault
    due = bench.seconds("next_attempt_at")
    assert due[:2] == [(round(bench.clock.now - NOW + POSTPONED),)] * 2


def test_rows_behind_an_open_breaker_are_not_read(bench: Bench) -> None:
    """When the breaker lets a request through, only two of the due rows are read: the probe and the next one."""
    bench.store(*(bench.new(offset) for offset in range(10)))
    seconds = bench.lane_breaks()
    bench.recall._next_scan = float("inf")
    bench.monotonic.now += seconds / 2
    bench.recall.poll(0.0)
    assert not bench.recall.busy
    assert bench.due_keys == {bench.due_key: NOW}
    assert bench.look(seconds / 2 + 0.01) == [0, 1]
    assert bench.next().event.record.offset == 0
    assert bench.lanes.next(bench.monotonic.now) is None


def test_no_more_rows_come_than_the_lane_takes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those due first come first, the others when there is room again. None is forgotten."""
    for module in ("delivery", "lanes"):
        monkeypatch.setattr(f"consumer.delivery.{module}.LANE_DELIVERIES", 3)
    bench.store(*(bench.new(offset, due=-float(offset)) for offset in range(8)))
    came = bench.look(SOON)
    assert came == [7, 6, 5]
    for _ in range(5):
        assert bench.look(SOON) == []
        assert not bench.recall.busy
        delivery = bench.next()
        bench.lanes.finished(delivery.lane)
        came += bench.look(SOON)
    assert came == [7, 6, 5, 4, 3, 2, 1, 0]


def test_many_due_keys_are_read_at_once(bench: Bench) -> None:
    """A lane with much room does not use up the limit of one look: the others' rows come too."""
    others = [repository.add(bench.engine, URL, "user.created") for _ in range(10)]
    bench.store(*(bench.new(offset, subscription_id=number) for offset, number in enumerate(others)))
    assert bench.look(SOON) == list(range(10))


def test_the_room_of_a_subscription_is_computed_once_in_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an open breaker it may have a due key in each of a thousand partitions. There are ten looks a second."""
    bench.lane_breaks()
    bench.due_keys.update({("t", number, bench.subscription): 0.0 for number in range(1000)})
    asked: list[int] = []
    room = bench.lanes.room

    def ask(number: int, now: float) -> int:
        asked.append(number)
        return room(number, now)

    monkeypatch.setattr(bench.lanes, "room", ask)
    bench.look(SOON)
    assert asked == [bench.subscription]
    assert len(bench.due_keys) == 1000


def test_no_due_rows_are_read_while_the_database_does_not_keep_up(bench: Bench) -> None:
    """They might have to be stored again, so they wait where they are."""
    bench.store(bench.new(1))
    bench.park(*(bench.new(offset + 10) for offset in range(BACKLOG)))
    bench.begin()
    assert not bench.recall.busy


def chosen(bench: Bench, event_filter: str, *bodies: bytes, key: bytes | None = None) -> None:
    """Rows with these bodies and a pending filter, of a subscription that now has this filter."""
    repository.edit(bench.engine, bench.subscription, {"event_filter": event_filter})
    rows = [bench.new(offset, key=key, attempt=0, first=None, last=None) for offset in range(1, 1 + len(bodies))]
    pending = (row._replace(event=row.event._replace(body=body)) for row, body in zip(rows, bodies, strict=True))
    bench.find(*(row._replace(filter_pending=True) for row in pending))


@pytest.mark.parametrize("key", [None, b"k"])
def test_a_pending_filter_runs_before_the_row_is_sent(bench: Bench, key: bytes | None) -> None:
    """A matching row is sent. Any other row ends without an attempt, ordered or not, and its key's later rows go on."""
    chosen(bench, "data.n % 2 == 1", *(b'{"n":%d}' % number for number in range(1, 5)), key=key)
    came: list[int] = []
    most = 0  # rows at once
    for _ in range(20):
        bench.look(1.0)
        most = max(most, len(bench.taken_up))
        while (delivery := bench.lanes.next(bench.monotonic.now)) is not None:
            came.append(delivery.event.record.offset)
            bench.delivered(delivery)
        bench.write_all(0.0)
    assert (came, most) == ([1, 3], 4)
    assert bench.rows("record_offset", "status", "attempt", "last_error") == [
        (1, "delivered", 1, None),
        (2, "delivered", 0, UNWANTED),
        (3, "delivered", 1, None),
        (4, "delivered", 0, UNWANTED),
    ]
    assert not bench.taken_up


def test_a_row_whose_filter_could_not_be_asked_holds_the_later_rows_of_its_key(bench: Bench) -> None:
    """They would overtake it: its filter went over its budget after the rows were chosen."""
    chosen(bench, "data.n > 0", b'{"n":1}', key=b"k")
    bench.find(bench.new(2, key=b"k"))
    bench.look(1.0)
    bench.begin()
    while not bench.budget.is_over(bench.subscription):
        bench.budget.charge(bench.subscription, 1.0)
    bench.answer()
    assert (bench.lanes.held, len(bench.taken_up)) == (0, 0)
    bench.look(PAUSE)
    assert bench.next().event.record.offset == 1


@pytest.mark.parametrize("key", [None, b"k"])
def test_an_event_too_large_for_the_filter_is_given_up(bench: Bench, key: bytes | None) -> None:
    """It ends once, with this reason. Its key's next delivery goes then, not at the next repair of the order."""
    large = b'{"l":[%b]}' % b",".join([b"1"] * 5000)
    chosen(bench, "data.l.map(x, x).size() == 0", large, b'{"l":[]}', key=key)
    came: list[int] = []
    for _ in range(5):
        came += bench.look(1.0)
        bench.write_all(0.0)
    assert came == [2]
    assert bench.rows("record_offset", "status", "attempt", "last_error") == [
        (1, "exhausted", 1, FILTER_TOO_LARGE),
        (2, "parked", 0, None),
    ]
    assert len(bench.taken_up) == 1
