"""Cursors and the live stream: where they meet. Cursors and the database: what others change, or it refuses."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError

from consumer.delivery.cursors import EXPIRY_STEP, Cursor
from consumer.delivery.delivery import Delivery
from consumer.errors import DatabaseUnavailable
from consumer.events.event import TopicPartition
from consumer.intake.offsets import OffsetTracker, encode
from consumer.ledger import cursors
from consumer.ledger.cursors import CursorMove, KeptCursor
from consumer.matching.subscribers import find_subscribers
from consumer.subscriptions import repository
from models import CursorReason, ParkedDelivery, Subscription
from models.cursor import RUNS_LENGTH
from tests.crypto.vaults import in_the_clear
from tests.ledger.rows_kit import DEFAULT, GROUP, make_event, parked
from tests.worker.catch_up_kit import HERE, MANY, Rig, by, unordered

# Meeting the live stream.


def test_a_cursor_does_not_meet_the_live_stream_below_what_it_has_settled(rig: Rig) -> None:
    """Its earlier owner sent these events: the live stream, which has come less far, would send them again."""
    rig.begun(rig.subscription, 100)
    (kept,) = cursors.of_partition(rig.engine, GROUP, HERE)
    runs = encode(100, [(101, 200)], None, RUNS_LENGTH)
    cursors.save(rig.engine, [CursorMove(kept.id, 0, 100, None, runs, None)], 1.0)
    rig.assigned()
    rig.live, rig.log.at_once = 150, 30
    rig.look()
    rig.turn(0.01, 3)
    (cursor,) = rig.backlog.here((*HERE, rig.subscription))
    assert cursor.read_to == rig.live
    assert rig.backlog.leaves(make_event(160), rig.endpoint, rig.record(160))
    rig.live = 400
    assert by(rig.sent_in(5), rig.subscription) == [100, *range(200, cursor.end or 0)]
    assert cursor.finished


def test_an_end_that_another_cursor_decides_forgets_what_was_settled_behind_it() -> None:
    """Else the position would be behind the end, and the database would refuse it for ever."""
    runs = encode(5, [(7, 20)])
    cursor = Cursor(KeptCursor(1, (*HERE, 1), 0, CursorReason.PAUSED, 5, 5, None, runs, None, None, 0), lambda _: None)
    cursor.meet(10)
    assert cursor.take(5, 0)
    cursor.settle(5)
    cursor.passed(30)
    assert (cursor.next, cursor.read_all) == (10, True)


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


def test_a_pause_begins_behind_a_cursor_that_met_where_it_began(rig: Rig) -> None:
    """Until the end is stored, the two would be one row: the event is stored as a row."""
    paused = replace(rig.endpoint, paused=True)
    rig.log.records = rig.live = 10
    cursor = rig.owe(rig.subscription, 10)
    rig.writes = False
    rig.turn(0.01, 3)
    assert (cursor.first, cursor.end) == (10, 10)
    assert not rig.backlog.leaves(make_event(10), paused, rig.record(10))
    assert rig.backlog.is_met(make_event(10), paused)
    rig.writes = True
    rig.turn(1.0, 3)
    assert rig.backlog.leaves(make_event(10), paused, rig.record(10))
    rig.turn(1.0, 3)
    assert [(each.first, each.end) for each in cursors.of_partition(rig.engine, GROUP, HERE)] == [(10, None)]


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


# The database.


def test_a_look_does_not_bring_a_finished_cursor_back(rig: Rig) -> None:
    """It has read the row before the last save: its events would be sent again."""
    rig.log.records = rig.live = 500
    rig.settled_to = MANY
    cursor = rig.owe(rig.subscription)
    sent: list[Delivery] = []
    while len(sent) < 430:
        rig.turn(0.01, 1)
        sent += rig.send(10)
    rig.look_seconds = 3.0
    rig.catch_up.looks.look_at([cursor.due_key])
    while rig.backlog.here(cursor.due_key):
        rig.turn(0.01, 1)
        sent += rig.send(10)
    assert by(sent + rig.sent_in(10), rig.subscription) == list(range(500))


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


def test_an_event_that_settles_after_its_partition_has_left_moves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request was open when the partition was lost. Its topic's identity is not known here any more."""
    rig.slow[rig.subscription] = 1.0
    rig.owe(rig.subscription)
    rig.sent_in(0)
    rig.turn(0.05, 3)
    rig.send()
    rig.catch_up.forget([HERE])
    monkeypatch.setattr(rig.backlog, "_tracker_of", dict[TopicPartition, OffsetTracker]().__getitem__)
    assert rig.sent_in(3)
    assert rig.catch_up._feeder.unsaved == 0


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


def test_a_cursor_that_does_not_move_says_when_its_next_record_expires(rig: Rig) -> None:
    """Also one that began after the topic's retention was known; its row is written once."""
    rig.retentions["t"] = 3600.0
    rig.turn(1.0, 3)
    repository.pause(rig.engine, rig.subscription)
    rig.backlog.leaves(make_event(9), replace(rig.endpoint, paused=True), rig.record(9))
    rig.turn(1.0, 20)
    (kept,) = cursors.of_partition(rig.engine, GROUP, HERE)
    assert kept.expires == (make_event(9).record.timestamp / 1000 + 3600) // EXPIRY_STEP * EXPIRY_STEP
    rig.turn(1.0, 20)
    assert cursors.of_partition(rig.engine, GROUP, HERE) == [kept]


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


def test_deliveries_that_no_cursor_covers_any_more_are_stored_before_their_filter_is_asked(rig: Rig) -> None:
    """They are left to a cursor before that; its earlier owner had ended it."""
    filtered = rig.add("filtered", ordering="none", event_filter="event.offset < 0")
    rig.live = 0
    rig.begun(filtered, 10)
    rig.assigned()
    rig.look(filtered)
    (cursor,) = rig.backlog.here((*HERE, filtered))
    endpoint = find_subscribers(rig.engine, DEFAULT, in_the_clear, [filtered])[filtered].endpoint
    assert endpoint is not None
    assert not cursors.save(rig.engine, [CursorMove(cursor.id or 0, 0, 20, 20, "", None)], 1.0)
    assert rig.backlog.leaves(make_event(50), endpoint, rig.record(50))
    rig.turn(0.1, 20)
    with rig.engine.connect() as connection:
        stored = connection.execute(select(ParkedDelivery.record_offset, ParkedDelivery.filter_pending)).all()
    assert stored == [(50, 1)]


def test_a_new_cursor_whose_row_is_gone_begins_again(rig: Rig) -> None:
    """Another owner had ended the row, and it was deleted before it was looked at: what was left must not wait."""
    key = (*HERE, rig.subscription)
    rig.begun(rig.subscription, 11)
    (kept,) = cursors.of_partition(rig.engine, GROUP, HERE)
    assert not cursors.save(rig.engine, [CursorMove(kept.id, 0, 12, 12, "", None)], 1.0)
    assert rig.backlog.leaves(make_event(11), replace(rig.endpoint, paused=True), rig.record(11))
    rig.store()
    assert cursors.remove(rig.engine, [kept.id])
    rig.look()
    rig.turn(0.1, 20)
    assert rig.settled == [11]
    assert [each.confirmed for each in rig.backlog.here(key)] == [True]
