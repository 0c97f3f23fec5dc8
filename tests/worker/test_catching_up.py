"""Cursors in a worker: turns of those that share a partition, what one that is slow, refused or gone does to others."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine, delete, update
from sqlalchemy.exc import IntegrityError

from consumer.delivery.delivery import Delivery
from consumer.errors import DatabaseUnavailable
from consumer.events.event import Event
from consumer.ledger import cursors
from consumer.ledger.cursors import CursorMove
from consumer.matching.selection import FilterResult
from consumer.subscriptions import repository
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker.cursor_looks import COUNT_EVERY
from consumer.worker.reading_pass import LENGTH
from models import ParkedDelivery, Subscription
from tests.ledger.rows_kit import GROUP, make_event, ordered, ordering_key, parked
from tests.worker.catch_up_kit import HERE, Rig

THERE = ("t", 1)
MANY = 1_000_000  # records


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    """The ones that the test makes; their threads are closed."""
    made: list[Rig] = []
    yield made
    assert all(rig.thread.close(20) for rig in made)


@pytest.fixture
def rig(engine: Engine, rigs: list[Rig]) -> Rig:
    """A worker that owns a partition of many records, and one subscription whose events have no order."""
    rigs.append(rig := Rig(engine, MANY))
    unordered(rig)
    return rig


def unordered(rig: Rig) -> None:
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(ordering="none"))
    rig.endpoint = replace(rig.endpoint, ordered=False)


def by(sent: Collection[Delivery], subscription: int) -> list[int]:
    """The offsets that a subscription was sent."""
    return [each.event.record.offset for each in sent if each.lane.endpoint.subscription_id == subscription]


# Turns.


def test_a_pass_waits_a_quarter_of_a_second_in_all(engine: Engine, rigs: list[Rig]) -> None:
    """A receiver that takes ten events a second keeps its lane full, and others of the partition get their turn."""
    rigs.append(rig := Rig(engine, MANY, most_rows=10))
    rig.log.at_once = 1
    slow = rig.add("slow", max_in_flight=1)
    rig.slow[slow] = 0.1
    rig.owe(slow, 10_000)
    rig.sent_in(1)
    rig.owe(rig.subscription)
    assert by(rig.sent_in(2), rig.subscription)


def test_a_pass_ends_after_seconds_however_few_records_there_are(rig: Rig) -> None:
    """A cursor that is further behind gets its turn, though no lane is full and the pass is not long."""
    rig.log.at_once = 1
    rig.owe(rig.add("near"), 10_000)
    rig.sent_in(1)
    behind = rig.add("behind")
    rig.owe(behind)
    sent = rig.sent_in(11)
    assert by(sent, behind)
    assert len(sent) < LENGTH


def test_a_changed_url_is_used_within_seconds(rig: Rig) -> None:
    """Each pass begins with subscriptions that were looked up lately, though nobody has told of the change."""
    rig.log.at_once = 1
    rig.owe(rig.subscription)
    rig.sent_in(1)
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(url="https://new.example/"))
    rig.sent_in(10)
    assert {each.lane.endpoint.url for each in rig.sent_in(1)} == {"https://new.example/"}


def test_nothing_is_sent_to_a_subscription_that_was_looked_up_long_ago(rig: Rig) -> None:
    """Its secrets or its url may be others now: once no look is answered, its events wait."""
    rig.log.at_once = 1
    rig.owe(rig.subscription)
    rig.look_seconds = 3600.0
    rig.sent_in(15)
    assert rig.sent_in(2) == []
    assert not rig.catch_up.busy


def test_slow_looks_do_not_stop_catching_up(rig: Rig) -> None:
    """A subscription may be used for five seconds after a look has answered, however long that took."""
    rig.log.at_once = 1
    rig.owe(rig.subscription)
    rig.look_seconds = 3.5
    rig.sent_in(10)
    assert all(rig.sent_in(1) for _ in range(30))


def test_a_slow_cursor_does_not_slow_other_partitions(rig: Rig) -> None:
    """While its pass waits with all that may be pending, another partition is read as fast as ever."""
    slow, fast = rig.add("slow", max_in_flight=1), rig.subscription
    rig.slow[slow] = 0.04
    rig.assigned(THERE)
    rig.owe(slow)
    rig.owe(fast, place=THERE)
    rig.sent_in(4)
    assert len(by(rig.sent_in(1), fast)) > 900


def test_a_cursor_reads_no_event_that_the_live_stream_may_still_send(rig: Rig) -> None:
    """After a crash, events before its first one may be given out again, and those of a key keep their order."""
    rig.live = 50
    rig.owe(rig.subscription, 51)
    assert rig.sent_in(2) == []
    rig.live = 51
    assert rig.sent_in(2)


def test_a_partition_that_leaves_is_read_no_more(rig: Rig) -> None:
    """The reader drops it at once, and not in a later turn of the loop."""
    rig.owe(rig.subscription)
    rig.turn(0.01, 2)
    assert list(rig.log.positions) == [HERE]
    rig.catch_up.stop([HERE])
    assert (rig.log.positions, rig.catch_up.busy) == ({}, False)


# Bounds.


@pytest.mark.parametrize("cursors", [1, 3])
def test_cursors_whose_positions_are_not_saved_wait(engine: Engine, rigs: list[Rig], cursors: int) -> None:
    """A crash would send their events again: not many more than so many of one cursor, and of all together."""
    rigs.append(rig := Rig(engine, MANY, most_rows=10))
    unordered(rig)
    for each in (rig.subscription, *(rig.add(str(number), ordering="none") for number in range(1, cursors))):
        rig.owe(each)
    rig.writes = False
    sent = len(rig.sent_in(10))
    bound = min(cursors * 200, 400)
    assert bound <= sent <= bound + cursors * 20
    rig.writes = True
    assert len(rig.sent_in(2)) > 100


def test_what_is_queued_counts_as_if_it_were_sent(rig: Rig) -> None:
    """The positions cannot be saved any more: what a crash then sends again is bounded all the same."""
    cursor = rig.owe(rig.subscription)
    rig.writes = False
    rig.turn(0.05, 20)
    assert cursor.open == 500
    assert len(rig.sent_in(5)) == 500


def test_events_behind_rows_are_stored_up_to_the_bound(engine: Engine, rigs: list[Rig]) -> None:
    """Behind a stored event of its ordering key, a cursor stores events as far as the subscription may have rows."""
    rigs.append(rig := Rig(engine, MANY, most_rows=5))
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.others_park(ordered(9, rig.subscription, ordering_key=ordering_key(rig.subscription)))
    rig.parking.load_stored(HERE, 10, lambda _settled: None)
    rig.store()
    rig.parking.poll(0.0)
    rig.answer()
    rig.look()
    rig.turn(0.05)
    assert (rig.send(), len(rig.rows("id"))) == ([], 5)


def test_restarts_add_no_rows_for_a_receiver_that_is_down(engine: Engine, rigs: list[Rig]) -> None:
    """The rows from before an assignment are counted: once there are enough, a lane gets one event at a time."""
    rigs.append(rig := Rig(engine, MANY, most_rows=5))
    unordered(rig)
    rig.others_park(*(parked(make_event(offset), rig.subscription, 2e9) for offset in range(5)))
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.look()
    rig.turn(0.05)
    assert rig.lanes.held == 1
    with rig.engine.begin() as connection:
        connection.execute(delete(ParkedDelivery))
    rig.turn(COUNT_EVERY / 100)
    assert rig.lanes.held == 5


# What others change.


def test_a_removed_subscription_leaves_nothing_unsaved(rig: Rig) -> None:
    """What has settled of its cursor can never be saved, and does not count against other cursors."""
    removed = rig.add("removed", ordering="none")
    rig.owe(removed)
    rig.turn(0.01, 10)
    assert repository.remove(rig.engine, removed)
    assert rig.send(90)
    rig.turn(1.1, 10)
    rig.send()
    rig.turn(1.1, 2)
    assert (rig.catch_up._feeder.unsaved, rig.backlog.here((*HERE, removed))) == (0, ())


def test_what_is_left_to_a_removed_subscription_settles(rig: Rig) -> None:
    """A look finds that it is gone: nobody gets the event, and it is not stored."""
    rig.owe(rig.subscription, MANY)
    rig.backlog.leaves(make_event(MANY), rig.endpoint, rig.record(MANY))
    assert repository.remove(rig.engine, rig.subscription)
    rig.look()
    assert (rig.settled, rig.parking.backlog) == ([MANY], 1)
    rig.store()
    assert rig.rows("id") == []


def test_events_of_an_earlier_assignment_release_no_memory(rig: Rig) -> None:
    """They were released when the partition left, and may settle after it has come again."""
    rig.owe(rig.subscription)
    rig.turn(0.01, 5)
    rig.catch_up.forget([HERE])
    assert rig.memory.held == 0
    rig.assigned()
    rig.look()
    rig.turn(0.01, 5)
    rig.catch_up.stop([HERE])
    assert rig.memory.held > 0
    rig.send()
    assert rig.memory.held == 0


def test_refused_rows_stop_their_cursors_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """These wait with what they have sent, and others are sent their events as long as their positions are stored."""
    refused = [rig.add(name, ordering="none") for name in ("refused", "too")]
    ids, save = {rig.owe(each).id for each in refused}, cursors.save

    def refuse(engine: Engine, moves: Sequence[CursorMove], now: float) -> frozenset[int]:
        if any(each.id in ids for each in moves):
            raise IntegrityError("UPDATE", {}, Exception("refused"))
        return save(engine, moves, now)

    monkeypatch.setattr(cursors, "save", refuse)
    rig.owe(rig.subscription)
    rig.sent_in(5)
    sent = rig.sent_in(2)
    assert [by(sent, each) for each in refused] == [[], []]
    assert len(by(sent, rig.subscription)) > 1000

    def fail(*_: object) -> frozenset[int]:
        raise DatabaseUnavailable("down")

    monkeypatch.setattr(cursors, "save", fail)
    rig.sent_in(2)
    assert rig.catch_up._feeder.unsaved >= 400, "in an outage all of them count"


def test_the_end_of_a_disabled_subscriptions_cursor_is_stored(rig: Rig) -> None:
    """It is owed the events from before, even if the end is decided while the position is being saved."""
    repository.pause(rig.engine, rig.subscription)
    rig.live = 10
    cursor = rig.owe(rig.subscription)
    rig.backlog.leaves(make_event(9), replace(rig.endpoint, paused=True), rig.record(9))  # begins to save it
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(enabled=0))
    rig.look()
    assert (cursor.end, cursor.is_saving) == (10, True)
    rig.turn(0.3, 10)
    assert (cursor.end, cursor.ending, rig.settled) == (10, False, [9])
    assert [each.end for each in cursors.of_partition(rig.engine, GROUP, HERE)] == [10]


def test_a_cursor_that_does_not_move_says_when_its_next_record_expires(rig: Rig) -> None:
    """Also one that began after the topic's retention was known; its row is written once."""
    rig.retentions["t"] = 3600.0
    rig.turn(1.0, 3)
    repository.pause(rig.engine, rig.subscription)
    rig.backlog.leaves(make_event(9), replace(rig.endpoint, paused=True), rig.record(9))
    rig.turn(1.0, 20)
    (kept,) = cursors.of_partition(rig.engine, GROUP, HERE)
    assert kept.expires == round(make_event(9).record.timestamp / 1000 + 3600)
    rig.turn(1.0, 20)
    assert cursors.of_partition(rig.engine, GROUP, HERE) == [kept]


def test_an_event_that_waits_when_its_cursor_meets_the_live_stream_is_the_live_streams(
    engine: Engine, rigs: list[Rig]
) -> None:
    """The cursor ends before it, and does not take it once there is room."""
    rigs.append(rig := Rig(engine, MANY, most_rows=10))
    unordered(rig)
    cursor = rig.owe(rig.subscription)
    rig.turn(times=2)  # the lane is full, and a later event waits
    rig.live = cursor.read_to
    rig.turn(0.01, 1)
    assert (cursor.end, cursor.read_all) == (rig.live, True)
    assert max(by(rig.send(5) + rig.sent_in(2), rig.subscription)) == rig.live - 1


def test_an_astray_cursor_is_not_read(rig: Rig) -> None:
    """Another owner has moved it: nothing is sent until its row has been read again, and then what is owed."""
    cursor = rig.owe(rig.subscription)
    assert cursor.id is not None
    cursors.save(rig.engine, [CursorMove(cursor.id, 0, 500, None, "", None)], 1.0)
    rig.backlog.leaves(make_event(9), rig.endpoint, rig.record(9))  # saves it
    rig.store()
    assert cursor.astray
    rig.look_seconds = 1.0
    rig.turn(0.05, 10)
    assert (rig.log.sought, rig.send()) == ([], [])
    assert by(rig.sent_in(5), rig.subscription)[:3] == [500, 501, 502]


def test_an_answer_of_an_earlier_assignment_is_ignored(rig: Rig) -> None:
    """It does not know the cursors that another owner has begun meanwhile: these stay, and are looked up again."""
    due_key = (*HERE, rig.subscription)
    rig.look_seconds = 1.0
    rig.look()
    rig.catch_up.forget([HERE])
    rig.begun(rig.subscription)
    rig.assigned()
    rig.monotonic.now += 1.0
    rig.looked()
    assert [each.first for each in rig.backlog.here(due_key)] == [0]
    assert rig.sent_in(4)


def test_stored_deliveries_are_not_sent_by_a_cursor_that_a_look_did_not_know(rig: Rig) -> None:
    """It was begun after the look had read the rows: these are read for it before it moves."""
    rig.begun(rig.subscription, 50, end=90)
    rig.others_park(parked(make_event(105), rig.subscription, 2e9))
    rig.assigned()
    rig.look_seconds = 1.0
    rig.catch_up.looks.poll(rig.monotonic.now)
    rig.backlog.leaves(make_event(100), replace(rig.endpoint, paused=True), rig.record(100))
    rig.store()
    sent = by(rig.sent_in(5), rig.subscription)
    assert {104, 106} < set(sent)
    assert 105 not in sent


def test_a_cursor_beyond_the_log_begins_again(engine: Engine, rigs: list[Rig]) -> None:
    """It does not meet the live stream before the log is known to have its position."""
    rigs.append(rig := Rig(engine, 10))
    cursor = rig.owe(rig.subscription)
    assert cursor.id is not None
    cursors.save(rig.engine, [CursorMove(cursor.id, 0, 1000, None, "", None)], 1.0)
    rig.catch_up.forget([HERE])
    rig.assigned()
    rig.log.answers = False
    rig.look()
    rig.turn(0.05)
    assert [each.end for each in rig.backlog.here((*HERE, rig.subscription))] == [None]
    rig.log.answers = True
    rig.log.restarted.add(HERE)
    assert by(rig.sent_in(10), rig.subscription) == list(range(10))


# Filters.


def test_a_filter_is_asked_once_for_each_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again in each turn in which another member of the pass has no room."""
    slow, other = rig.add("slow", max_in_flight=1), rig.add("filtered", event_filter="event.offset < 0")
    rig.slow[slow] = 0.1
    for each in (slow, other):
        rig.owe(each)
    asked = Counter[int]()
    ask = rig.catch_up._selector.ask

    def count(endpoint: Endpoint, event: Event) -> FilterResult:
        asked[event.record.offset] += endpoint.subscription_id == other
        return ask(endpoint, event)

    monkeypatch.setattr(rig.catch_up._selector, "ask", count)
    for _ in range(50):
        rig.turn(0.004, 1)
    assert len(asked) > 1000
    assert set(asked.values()) == {1}
