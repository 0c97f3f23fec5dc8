"""What the live stream leaves to cursors: each delivery is settled by a stored cursor, or becomes a row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from consumer.delivery.backlog import Backlog, rewound
from consumer.delivery.breaker import LONGEST_OPEN
from consumer.delivery.cursors import Cursor
from consumer.delivery.delivery import Lane, OpenRecord
from consumer.ledger import cursors
from consumer.ledger.cursors import CursorMove, KeptCursor, NewCursor
from consumer.ledger.rows import AttemptResult, DueKey
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from models import CursorReason
from tests.delivery.backlog_kit import Unwritten, make_backlog, tracker_of
from tests.delivery.desk_kit import Desk
from tests.delivery.lanes_kit import broken
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import GROUP, URL, make_event, parked

MOST = 3  # rows of a subscription in a partition
KEPT = KeptCursor(1, ("t", 0, 1), 0, CursorReason.BEHIND, 10, 10, None, "", None, None, 0)


class Log(Desk):
    """A Backlog on a real ledger, with one subscription."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.backlog = Backlog(self.parking, self.settling, MOST, tracker_of, {})
        self.due_key: DueKey = ("t", 0, self.subscription)

    def leaves(self, offset: int, *, paused: bool = False, ordered: bool = False) -> bool:
        """Whether the live stream leaves the event to a cursor."""
        endpoint = replace(self.endpoint, paused=paused, ordered=ordered)
        return self.backlog.leaves(make_event(offset, key=b"k"), endpoint, self.record(offset))

    def takes(self, offset: int, lane: Lane | None = None) -> bool:
        """Whether a cursor takes an event that the lane has no room for."""
        return self.backlog.takes(make_event(offset), self.endpoint, self.record(offset), lane)

    def begun(self, first: int, end: int | None = None) -> None:
        """Another process has begun a cursor."""
        new = NewCursor(self.due_key, first, CursorReason.PAUSED, end)
        cursors.begin(self.engine, GROUP, [new], self.clock.now)

    def kept(self) -> list[KeptCursor]:
        """The cursors in the database."""
        return cursors.of_due_keys(self.engine, GROUP, [self.due_key])

    def assigned(self) -> list[Cursor]:
        """The partition is assigned, and its cursors are loaded."""
        self.backlog.load(("t", 0), self.kept())
        return list(self.backlog.here(self.due_key))

    def look(self) -> None:
        """The cursors have been looked up."""
        self.backlog.merge(self.due_key, self.kept())


@pytest.fixture
def log(engine: Engine, rigs: list[Store]) -> Log:
    """A Backlog without cursors."""
    rigs.append(log := Log(engine))
    return log


def test_a_paused_subscriptions_first_event_begins_a_cursor(log: Log) -> None:
    """It is settled when the cursor is stored, and so are those after it. Events of a subscription at work stay."""
    assert not log.leaves(4)
    assert log.leaves(5, paused=True)
    assert log.leaves(6, paused=True)
    assert log.settled == []
    log.write_all()
    assert log.settled == [5, 6]
    assert log.leaves(7, paused=True)
    assert log.settled == [5, 6, 7]
    (kept,) = log.kept()
    found = kept.first, kept.next, kept.end, kept.reason, kept.timestamp, kept.identity
    assert found == (5, 5, None, CursorReason.PAUSED, 1_700_000_000_005, "topic")
    assert log.rows("id") == []


def test_only_covered_offsets_are_left(log: Log) -> None:
    """A cursor covers its own subscription's offsets of its partition, from its first to before its end."""
    log.begun(10, 20)
    log.begun(30)
    log.assigned()
    assert [offset for offset in (9, 10, 19, 20, 29, 30, 10**6) if log.leaves(offset)] == [10, 19, 30, 10**6]
    other = Endpoint(log.subscription + 1, URL, (b"key",))
    assert not log.backlog.leaves(make_event(10), other, log.record())
    assert not log.backlog.leaves(make_event(10, partition=1), log.endpoint, log.record())


def test_a_replay_takes_nothing_from_the_live_stream() -> None:
    """It sends again what the live stream has sent, or is about to send."""
    backlog = make_backlog()
    backlog.load(("t", 0), [KEPT._replace(replay=4, reason=CursorReason.REPLAY)])
    assert not backlog.leaves(make_event(12), Endpoint(1, URL, (b"key",)), OpenRecord(lambda _: None, 12, 1))
    assert not backlog.is_behind(("t", 0, 1), 12)


def test_in_each_assignment_a_cursor_is_written_before_it_settles_anything(log: Log) -> None:
    """The last owner may have ended it just now, without the knowledge of this one."""
    log.begun(10)
    log.assigned()
    assert log.leaves(12)
    assert log.settled == []
    log.write_all()
    assert log.settled == [12]
    assert [each.version for each in log.kept()] == [1]


def test_an_end_of_another_owner_stands(log: Log) -> None:
    """Deliveries below it stay left to the cursor, and the others are stored. None settles before either is written."""
    log.begun(10)
    log.assigned()
    (kept,) = log.kept()
    assert not cursors.save(log.engine, [CursorMove(kept.id, 0, 10, 12, "", None)], 1.0)
    assert [log.leaves(offset) for offset in (11, 12)] == [True, True]
    log.backlog.news.clear()
    log.write_all()
    assert (log.settled, list(log.backlog.news)) == ([], [log.due_key])
    log.look()
    log.write_all()
    assert sorted(log.settled) == [11, 12]
    assert log.rows("record_offset", "status") == [(12, "parked")]
    assert [(each.end, each.version) for each in log.kept()] == [(12, 2)]


@pytest.mark.parametrize("noticed", [True, False])
def test_what_waits_for_a_cursor_that_is_gone_is_stored(log: Log, *, noticed: bool) -> None:
    """Somebody has deleted its row, whether a write or a look notices it first."""
    log.begun(10)
    log.assigned()
    cursors.remove(log.engine, [each.id for each in log.kept()])
    assert log.leaves(11)
    if noticed:
        log.write_all()
    log.look()
    log.write_all()
    assert log.settled == [11]
    assert log.rows("record_offset") == [(11,)]
    assert not log.leaves(12)


@pytest.mark.parametrize("ended", [False, True])
def test_a_beginning_that_meets_another_owners_cursor_settles_nothing(log: Log, *, ended: bool) -> None:
    """That one was moved or ended meanwhile: its row is read, and what it does not cover begins another one."""
    log.begun(11)
    (kept,) = log.kept()
    assert not cursors.save(log.engine, [CursorMove(kept.id, 0, 12, 12 if ended else None, "", None)], 1.0)
    assert [log.leaves(offset, paused=True) for offset in (11, 12)] == [True, True]
    log.write_all()
    assert (log.settled, list(log.backlog.news)) == ([], [log.due_key])
    log.look()
    log.write_all()
    assert sorted(log.settled) == [11, 12]
    found = [(each.first, each.next, each.end) for each in log.kept()]
    assert found == ([(11, 12, 12), (12, 12, None)] if ended else [(11, 12, None)])
    assert log.rows("id") == []


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_left_to_a_removed_subscription_settles(log: Log, *, begun: bool) -> None:
    """Nobody gets it, whether its cursor is stored already or not: no cursor and no row is stored for it."""
    if begun:
        log.begun(5)
        log.assigned()
    assert repository.remove(log.engine, log.subscription)
    assert log.leaves(7, paused=True)
    log.write()
    log.backlog.drop_all(log.due_key)  # as a look does
    assert (log.parking.backlog, log.settled, log.kept(), log.rows("id")) == (0, [7], [], [])


def test_cursors_that_were_loaded_are_known(log: Log) -> None:
    """A subscription that begins in the past waits for a look only as long as its cursors are not known."""
    log.endpoint = replace(log.endpoint, starts=True)
    log.begun(5, 10)
    assert log.leaves(3)
    log.assigned()
    assert not log.leaves(12)


def test_a_look_finds_what_others_have_begun(log: Log) -> None:
    """This process's new cursor gets its id. One that is not stored yet stays, although the look has not found it."""
    assert log.leaves(5, paused=True)
    (new,) = log.backlog.here(log.due_key)
    log.look()
    assert log.backlog.here(log.due_key) == [new]
    log.write_all()
    log.begun(50)
    log.look()
    assert [each.id for each in log.backlog.here(log.due_key)] == [each.id for each in log.kept()]
    assert [each.first for each in log.backlog.here(log.due_key)] == [5, 50]
    assert not log.takes(60)
    assert log.leaves(60)


def test_rows_are_counted_before_they_are_written(log: Log) -> None:
    """At MOST open rows a cursor takes what would be stored. A row that has ended makes room for another one."""
    log.park(*(parked(make_event(offset), log.subscription) for offset in range(MOST - 1)))
    assert not log.takes(7)
    assert log.backlog.may_store(log.due_key)
    log.park(parked(make_event(8), log.subscription))
    assert not log.backlog.may_store(log.due_key)
    log.write_all()
    delivered = AttemptResult(1, 1, "delivered", None, 200, None, log.clock.now)
    log.parking.resolve(delivered, log.due_key, lambda: None)
    assert not log.backlog.may_store(log.due_key)
    log.write_all()
    assert log.backlog.may_store(log.due_key)
    log.park(parked(make_event(6), log.subscription))
    log.write_all()
    log.settled.clear()
    assert log.takes(9)
    assert log.settled == []
    log.write_all()
    assert log.settled == [9]
    assert [(each.first, each.reason) for each in log.kept()] == [(9, CursorReason.BEHIND)]
    assert not log.backlog.takes(make_event(9, partition=1), log.endpoint, log.record(), None)
    log.parking.forget([("t", 0)])
    assert log.backlog.may_store(log.due_key), "the rows of its next assignment are counted anew"


def test_queued_deliveries_may_become_rows_too(log: Log) -> None:
    """They count as rows that the subscription may have."""
    log.enqueue(*(log.delivery(offset=offset) for offset in range(MOST - 1)))
    lane = log.lanes.lane(log.endpoint)
    assert not log.takes(7, lane)
    log.enqueue(log.delivery(offset=8))
    assert log.takes(9, lane)


def test_a_receiver_that_is_down_for_a_minute_gets_no_more_rows(log: Log) -> None:
    """A breaker that has just opened stores deliveries, since they may be sent soon."""
    lane = log.lanes.lane(log.endpoint)
    now = broken(lane)
    assert not log.takes(7, lane)
    opened = 0
    while not lane.breaker.is_long_open:
        lane.breaker.failed(now, now)
        opened += 1
        now = lane.breaker.open_until or now
    assert 4 < opened < 9
    assert now >= LONGEST_OPEN
    assert log.takes(8, lane)


def test_a_new_cursor_ends_before_a_later_one(log: Log) -> None:
    """After a crash, records before another cursor's come again."""
    log.begun(30, 40)
    log.begun(50)
    log.assigned()
    assert log.leaves(12, paused=True)
    assert log.leaves(45, paused=True)
    log.write_all()
    assert [(each.first, each.end) for each in log.kept()] == [(12, 30), (30, 40), (45, 50), (50, None)]


def test_ordered_events_go_behind_an_unread_cursor(log: Log) -> None:
    """Those of its keys may come before them. A subscription without order gets them at once."""
    log.begun(10, 20)
    (cursor,) = log.assigned()
    cursor.passed(15)
    assert [log.backlog.is_behind(log.due_key, offset) for offset in (15, 16, 20, 25)] == [False, True, True, True]
    cursor.passed(20)
    assert not log.leaves(25, ordered=True)
    (cursor,) = log.assigned()
    assert not log.leaves(25)
    assert log.leaves(25, ordered=True)
    log.write_all()
    assert [(each.first, each.end) for each in log.kept()] == [(10, 20), (25, None)]


def test_deliveries_behind_an_end_are_stored_until_it_is(log: Log) -> None:
    """If they were sent, a crash would send them again: the cursor would be open, and cover them."""
    log.begun(10)
    (cursor,) = log.assigned()
    cursor.passed(15)
    cursor.meet(15)
    assert log.backlog.is_met(make_event(15), log.endpoint)
    assert not log.backlog.is_met(make_event(15, partition=1), log.endpoint)
    log.backlog.save(cursor)
    assert log.backlog.is_met(make_event(15), log.endpoint)
    log.write_all()
    assert not log.backlog.is_met(make_event(15), log.endpoint)
    assert cursor.finished


def test_one_cursor_of_a_subscription_moves_at_a_time(log: Log) -> None:
    """The first that owes events, so that these come in order; and those of replays beside it."""
    log.begun(0, 0)
    log.begun(10, 20)
    log.begun(30)
    replay = NewCursor(log.due_key, 3, CursorReason.REPLAY, 9, replay=7)
    cursors.begin(log.engine, GROUP, [replay], 1.0)
    over, first, later, again = log.assigned()
    assert over.finished
    assert log.backlog.owing(log.due_key) == [first, again]
    first.passed(20)
    log.backlog.save(first)
    log.write_all()
    assert log.backlog.owing(log.due_key) == [later, again]
    assert log.leaves(25, paused=True)
    assert log.backlog.owing(log.due_key) == [later, again], "a cursor that is not stored does not move"
    log.backlog.forget([("t", 0)])
    assert log.backlog.owing(log.due_key) == []


@pytest.mark.parametrize(
    ("cut", "expected"), [(None, (30, "r")), (50, (30, "")), (20, (20, "")), (5, (10, "")), (-2, (10, ""))]
)
def test_a_cursor_reads_the_records_of_a_log_that_was_cut(cut: int | None, expected: tuple[int, str]) -> None:
    """What it had settled from there on are other records now. It begins no earlier than before."""
    again = rewound(KEPT._replace(next=30, runs="r"), cut)
    assert (again.next, again.runs) == expected
    assert again._replace(next=30, runs="r") == KEPT._replace(next=30, runs="r")


def test_cursors_of_an_earlier_topic_are_not_taken_up() -> None:
    """Its records are gone. Cursors that do not know their topic are of this one."""
    backlog = make_backlog()
    kept = [KEPT._replace(first=first, identity=name) for first, name in ((1, "topic"), (2, None), (3, "another"))]
    assert backlog.load(("t", 0), kept) == kept[2:]
    assert [each.first for each in backlog.here(("t", 0, 1))] == [1, 2]


def test_the_first_owed_event_of_each_subscription_is_known() -> None:
    """Finished cursors owe nothing, and a replay's events were sent before."""
    backlog = make_backlog()
    assert (backlog.topics(), backlog.waiting()) == (set(), {})
    backlog.load(("t", 0), [KEPT._replace(first=each, timestamp=each * 1000) for each in (10, 20)])
    backlog.load(("u", 3), [])
    over = KEPT._replace(due_key=("v", 1, 2), end=10, timestamp=5000)
    backlog.load(("v", 1), [over, over._replace(first=5, end=None, replay=7), over._replace(end=None, timestamp=None)])
    assert backlog.topics() == {"t", "v"}
    assert backlog.waiting() == {("t", 0, 1): 10.0}


steps = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["paused", "ordered", "behind", "stored"])), max_size=30)


@given(steps, st.integers(0, 40), st.none() | st.integers(0, 10))
def test_each_offset_is_covered_by_one_cursor(steps: list[tuple[int, str]], first: int, length: int | None) -> None:
    """Whatever comes again after a crash: cursors never overlap, and a delivery that is left is covered."""
    writes = Unwritten()
    backlog = make_backlog(writes, most_rows=0)
    end = None if length is None else first + length
    backlog.load(("t", 0), [KEPT._replace(first=first, next=first, end=end)])
    left, settled = 0, list[int]()
    for offset, what in steps:
        event, record = make_event(offset, key=b"k"), OpenRecord(settled.append, offset, 1)
        endpoint = Endpoint(1, URL, (b"key",), paused=what == "paused", ordered=what == "ordered")
        if what == "stored":
            writes.write()
        elif backlog.leaves(event, endpoint, record) or (
            what == "behind" and backlog.takes(event, endpoint, record, None)
        ):
            left += 1
            (cursor,) = [each for each in backlog.here(("t", 0, 1)) if each.covers(offset)]
            assert (offset in settled) <= cursor.confirmed
    covering = backlog.here(("t", 0, 1))
    assert all(sum(each.covers(offset) for each in covering) <= 1 for offset in range(60))
    writes.write()
    assert left == len(settled) + sum(len(each.waiting) for each in covering)
