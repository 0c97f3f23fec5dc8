"""Cursors in a worker: turns of those that share a partition, bounds, and what is read for them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, delete, update

from consumer.delivery.parking import BACKLOG
from consumer.errors import KafkaUnavailable
from consumer.expressions.expression import Expression
from consumer.ledger import cursors
from consumer.subscriptions import repository
from consumer.worker.catch_up import ALONE, BESIDE, LOOK_EVERY
from consumer.worker.cursor_looks import COUNT_EVERY
from consumer.worker.reading_pass import LENGTH, MOST, Pass
from models import ParkedDelivery, Subscription
from tests.delivery.store_kit import Clock
from tests.ledger.rows_kit import GROUP, URL, make_event, ordered, ordering_key, parked
from tests.worker.catch_up_kit import HERE, MANY, Rig, by, unordered

THERE = ("t", 1)


# Turns.


def test_a_pass_waits_a_moment_in_all(engine: Engine, rigs: list[Rig]) -> None:
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


def test_an_event_of_several_patterns_is_sent_once(rig: Rig) -> None:
    """A cursor gets the events of all types of its subscription, each once."""
    rig.types = dict(enumerate(["order.paid", "other", "user.created", "order.paid"]))
    several = rig.add("several", further_types=["order.*", "order.paid"])
    cursor = rig.owe(several)
    subscriber = rig.catch_up.looks.subscriber(cursor.due_key, rig.monotonic.now)
    assert subscriber is not None
    reading = Pass({cursor: subscriber}, 0, 0.0)
    reading.look(make_event(0, type="order.paid"))
    assert list(reading.owing or ()) == [cursor]
    assert by(rig.sent_in(1), several)[:4] == [0, 2, 3, 4]


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


def test_a_look_that_is_too_slow_asks_for_less(rig: Rig) -> None:
    """A database that answers for sixteen due keys at a time lets the cursors of forty move."""
    several = [rig.add(str(number)) for number in range(40)]
    for number in several:
        rig.begun(number)
    rig.most_looked = 16
    rig.catch_up.looks.look_at([(*HERE, number) for number in several])
    rig.turn(0.5, 40)
    assert rig.looked_at[:3] == [40, 20, 10]
    assert sorted(each[2] for each in rig.catch_up.looks.first(HERE)) == several


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


def test_dead_receivers_do_not_slow_one_that_catches_up(rig: Rig) -> None:
    """Hundreds of circuit breakers are open, and the cursors of these subscriptions had their turn before the other."""
    for number in range(300):
        dead = rig.add(str(number), ordering="none")
        rig.begun(dead)
        rig.lanes.lane(replace(rig.endpoint, subscription_id=dead)).breaker.trip(rig.monotonic.now, 3600.0)
    rig.assigned()
    rig.turn(0.05, 20)
    rig.owe(rig.subscription)
    sent = rig.sent_in(3)
    assert {each.lane.endpoint.subscription_id for each in sent} == {rig.subscription}
    assert len(sent) > 0.9 * 3 * 20 * ALONE.records


def test_a_pass_does_not_wait_for_a_receiver_that_is_probed(rig: Rig) -> None:
    """It may take minutes, and another cursor of the partition could read at once."""
    dead = rig.add("dead", ordering="none")
    endpoint = replace(rig.endpoint, subscription_id=dead, url=f"{URL}/dead")
    rig.lanes.lane(endpoint).breaker.trip(rig.monotonic.now, 0.0)
    rig.passes(2.0)
    cursor = rig.owe(dead)
    rig.turn(0.001, 5)
    assert (cursor.open, rig.catch_up.busy) == (2, False)


def test_a_cursor_reads_no_event_that_the_live_stream_may_still_send(rig: Rig) -> None:
    """After a crash, events before its first one may be given out again, and those of a key keep their order."""
    rig.live = 50
    rig.owe(rig.subscription, 51)
    assert rig.sent_in(2) == []
    rig.live = 60
    assert by(rig.sent_in(2), rig.subscription) == [*range(51, 60)]


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
    bound = min(cursors * 300, 400)
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


@pytest.mark.parametrize(("records", "rows"), [(30, 5), (MANY, 1)])
def test_events_behind_rows_are_stored_up_to_the_bound(
    engine: Engine, rigs: list[Rig], records: int, rows: int
) -> None:
    """Behind a stored event of its ordering key, a cursor stores a few events as far as there may be rows.

    It reads many of them again instead.
    """
    rigs.append(rig := Rig(engine, records, most_rows=5))
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.others_park(ordered(9, rig.subscription, ordering_key=ordering_key(rig.subscription)))
    rig.load_rows(10)
    rig.look()
    rig.turn(0.05)
    assert (rig.send(), len(rig.rows("id"))) == ([], rows)


def test_a_key_that_fails_does_not_stop_the_others(engine: Engine, rigs: list[Rig]) -> None:
    """Its events are stored behind the one that failed, however many: the receiver takes those of other keys."""
    rigs.append(rig := Rig(engine, 30, most_rows=5))
    failing = ordered(9, rig.subscription, ordering_key=ordering_key(rig.subscription))
    rig.keys = dict.fromkeys(range(0, 30, 2), b"another")
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.others_park(failing)
    rig.load_rows(10)
    rig.look()
    assert by(rig.sent_in(20), rig.subscription) == list(range(10, 30, 2))
    assert len(rig.rows("id")) == 1 + 10


def test_a_cursor_and_rows_behind_its_end_do_not_wait_for_each_other(engine: Engine, rigs: list[Rig]) -> None:
    """Its key has as many rows as may be stored, and these wait for the event of the cursor, which goes before them."""
    rigs.append(rig := Rig(engine, MANY, most_rows=3))
    rig.begun(rig.subscription, 10, end=11)
    rig.assigned()
    key = ordering_key(rig.subscription)
    rig.others_park(*(ordered(offset, rig.subscription, ordering_key=key) for offset in range(11, 15)))
    rig.load_rows(10)
    rig.look()
    rig.turn(0.05)
    assert sorted(offset for (offset,) in rig.rows("record_offset")) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("writes", [True, False], ids=["stored", "being stored"])
def test_a_cursor_and_rows_of_a_log_that_was_truncated_do_not_wait_for_each_other(
    engine: Engine, rigs: list[Rig], *, writes: bool
) -> None:
    """Its key has as many rows as may be stored, and the log ends before them now: what it reads goes before them."""
    rigs.append(rig := Rig(engine, 20, most_rows=5))
    rig.begun(rig.subscription)
    rig.assigned()
    rig.load_rows(0)
    rig.look()
    key = ordering_key(rig.subscription)
    rig.writes = writes
    for offset in range(10, 15):
        rig.settling.postpone(make_event(offset), rig.endpoint, rig.record(offset), key)
    rig.store()
    rig.log.records = rig.live = 8
    rig.log.restarted.add(HERE)
    rig.turn(0.05, 5)
    rig.writes = True
    rig.turn(0.05, 100)
    due_key = (*HERE, rig.subscription)
    assert not rig.backlog.is_behind(due_key, 10)
    assert sorted(offset for (offset,) in rig.rows("record_offset")) == [*range(8), *range(10, 15)]


def test_deliveries_that_wait_for_a_cursor_count_as_a_backlog(rig: Rig) -> None:
    """While the database is down, they take memory as those do that are to be stored."""
    paused = replace(rig.endpoint, paused=True)
    rig.writes = False
    for offset in range(BACKLOG - 1):  # and the cursor's own write
        assert not rig.parking.full
        rig.backlog.leaves(make_event(offset), paused, rig.record(offset))
    assert rig.parking.full
    rig.writes = True
    rig.store()
    assert (rig.parking.full, len(rig.settled)) == (False, BACKLOG - 1)


@pytest.mark.parametrize(("rows", "few"), [(5, 1), (50, 5)])
def test_restarts_add_few_rows_for_a_receiver_that_is_down(
    engine: Engine, rigs: list[Rig], rows: int, few: int
) -> None:
    """The rows from before an assignment are counted: once there are enough, a lane gets a tenth of them at a time."""
    rigs.append(rig := Rig(engine, MANY, most_rows=rows))
    unordered(rig)
    rig.others_park(*(parked(make_event(offset), rig.subscription, 2e9) for offset in range(rows)))
    rig.begun(rig.subscription, rows)
    rig.assigned()
    rig.look()
    rig.turn(0.05)
    assert rig.lanes.held == few
    with rig.engine.begin() as connection:
        connection.execute(delete(ParkedDelivery))
    rig.turn(COUNT_EVERY / 100)
    assert rig.lanes.held == rows


# Reading.


def test_nothing_is_read_while_records_can_be_offered(rig: Rig) -> None:
    """Filters have no time left in many turns."""
    rig.owe(rig.subscription)
    rig.catch_up._selector._clock = Clock(step=1.0)
    rig.turn(0.01, 20)
    (each,) = rig.catch_up._passes.values()
    assert len(each.pending) == ALONE.records


def test_a_pass_that_waits_keeps_few_records_while_others_are_read(rig: Rig) -> None:
    """Kafka returns the records of all partitions in one stream."""
    slow, fast = rig.add("slow", max_in_flight=1), rig.subscription
    rig.slow[slow] = 1.0
    rig.assigned(THERE)
    rig.owe(slow)
    rig.owe(fast, place=THERE)
    most, sent = 0, 0
    for _ in range(200):
        rig.turn(0.001, 1)
        sent += len(by(rig.send(), fast))
        most = max(most, *(len(each.pending) for each in rig.catch_up._passes.values()))
    assert sent > MOST
    assert ALONE.records < most < MOST + ALONE.records


def test_little_is_read_beside_the_live_stream(rig: Rig) -> None:
    """Each event waits for a turn of the loop, which is short until the live stream has been quiet for a second."""
    rig.owe(rig.subscription)
    rig.live_queued_at = rig.monotonic.now
    rig.turn(0.05, 10)
    beside = len(rig.send())
    rig.turn(0.1, 10)
    assert beside <= 10 * BESIDE.records
    assert len(rig.send()) > 3 * ALONE.records


def test_a_far_and_a_near_cursor_share_the_partition(rig: Rig) -> None:
    """A pass that begins at the far one would not come to the other for long."""
    near, far = rig.add("near", ordering="none"), rig.subscription
    rig.owe(near, 900_000)
    rig.owe(far)
    rig.sent_in(20)
    sent = rig.sent_in(20)
    assert len(by(sent, near)) > len(sent) // 4
    assert len(by(sent, far)) > len(sent) // 4


def test_replays_of_a_subscription_do_not_wait_for_each_other(rig: Rig) -> None:
    """One has a slow pace and a long way; the other begins further on. Each keeps its pace."""
    long, short = rig.replay(100.0, 0, 500_000), rig.replay(100.0, 900_000, 900_200)
    sent = [each.origin.replay for each in rig.sent_in(10) if not isinstance(each.origin, tuple)]
    assert sent.count(short) == 200
    assert sent.count(long) > 500


def test_slow_filters_of_a_partition_do_not_keep_another_one_from_being_read(rig: Rig) -> None:
    """Their pass has records to offer in each turn, and they take all of its time. It keeps few."""
    fast = rig.add("fast", ordering="none")
    rig.assigned(THERE)
    rig.owe(fast, place=THERE)
    for number in range(20):
        rig.owe(rig.add(f"filtered-{number}", ordering="none", event_filter="event.offset < 0"))
    rig.catch_up._selector._clock = Clock(step=50e-6)
    sent, most = 0, 0
    for _ in range(200):
        rig.turn(0.002, 1)
        sent += len(by(rig.send(), fast))
        most = max(most, *(len(each.pending) for each in rig.catch_up._passes.values()))
    assert sent > 100 * ALONE.records / 2
    assert most < MOST + ALONE.records
    assert rig.catch_up.ready  # the loop does not wait while there are records to offer


def test_members_leave_a_pass_though_one_turn_cannot_ask_all_of_them(rig: Rig) -> None:
    """A hundred receivers hang: their pass waits for them for a moment in all."""
    hanging = [rig.add(str(number), ordering="none", max_in_flight=1) for number in range(100)]
    rig.slow = dict.fromkeys(hanging, 1e9)
    rig.lanes.slots.total = 2000
    for each in hanging:
        rig.owe(each)
    rig.catch_up._selector._clock = Clock(step=1e-4 * LOOK_EVERY)
    turns = Counter[int]()  # at each position
    for _ in range(2000):
        rig.turn(0.005, 1)
        rig.send()
        turns.update(each.position for each in rig.catch_up._passes.values())
    assert max(turns.values()) < 1.0 / 0.005


def test_a_loss_is_counted_once(engine: Engine, rigs: list[Rig]) -> None:
    """Though its cursor cannot go on: an earlier event of the key waits."""
    rigs.append(rig := Rig(engine, MANY, most_rows=5))
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.others_park(*(ordered(each, rig.subscription) for each in range(4, 10)))
    rig.load_rows(0)
    rig.log.begins = 100
    rig.look()
    rig.turn(0.05, 200)
    assert rig.catch_up._losses.offsets == 90


def test_what_retention_takes_from_a_cursor_that_rests_is_lost_at_once(rig: Rig) -> None:
    """It goes on behind it. A log that begins behind the live stream is an earlier topic's, which says nothing."""
    rig.begun(rig.subscription, 10)
    rig.assigned()
    (cursor,) = rig.backlog.here((*HERE, rig.subscription))
    for live, lost in ((99, 0), (101, 90), (101, 90)):
        rig.live = live
        rig.catch_up.overtaken(HERE, 100)
        assert (rig.catch_up._losses.offsets, cursor.next) == (lost, 10 + lost)
    rig.turn(0.05)
    assert [each.next for each in cursors.of_partition(rig.engine, GROUP, HERE)] == [100]
    rig.look()
    assert by(rig.sent_in(1), rig.subscription)[0] == 100
    rig.catch_up.overtaken(HERE, 101)  # these records were read, and are on their way
    assert rig.catch_up._losses.offsets == 90


def test_deliveries_that_were_left_to_a_cursor_are_left_to_the_one_that_begins_again(rig: Rig) -> None:
    """The topic was made anew before the cursor was confirmed: their offsets must not wait for ever."""
    rig.begun(rig.subscription, 10)
    rig.assigned()
    rig.look()
    rig.writes = False
    assert rig.backlog.leaves(make_event(50), rig.endpoint, rig.record(50))
    rig.turn(0.01, 2)
    rig.log.restarted.add(HERE)
    rig.turn(0.01, 1)
    rig.writes = True
    rig.turn(0.1, 20)
    assert rig.settled == [50]


def test_an_idle_client_is_polled(rig: Rig) -> None:
    """Its statistics are queued until then."""
    rig.owe(rig.subscription, 0)
    rig.turn(0.05, 3)
    repository.pause(rig.engine, rig.subscription)
    rig.look()
    before = rig.log.reads
    rig.turn(0.5, 120)
    assert 10 <= rig.log.reads - before <= 20


def test_a_client_that_cannot_be_made_is_tried_again(rig: Rig) -> None:
    """The worker goes on, and /readyz says why subscriptions that are behind wait."""
    rig.client_fails = KafkaUnavailable("no token")
    rig.owe(rig.subscription)
    rig.turn(0.1, 10)
    assert rig.catch_up.fault == "subscriptions that are behind wait: no token"
    repository.pause(rig.engine, rig.subscription)
    rig.look()
    assert rig.catch_up.fault is None  # nobody waits for the client
    repository.resume(rig.engine, rig.subscription)
    rig.look()
    rig.client_fails = None
    assert by(rig.sent_in(6), rig.subscription)
    assert rig.catch_up.fault is None


# Filters.


def asked_offsets(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often a filter is evaluated for each offset."""
    asked = Counter[int]()
    value = Expression.value

    def count(expression: Expression, variables: Mapping[str, Any]) -> object:
        asked[variables["event.offset"]] += 1
        return value(expression, variables)

    monkeypatch.setattr(Expression, "value", count)
    return asked


def test_a_filter_is_asked_once_about_an_event_that_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is charged: asked in each turn, it would be over its budget, and its subscription rest."""
    slow = rig.add("slow", ordering="none", event_filter="event.offset >= 0", max_in_flight=1)
    rig.slow[slow] = 1e9
    rig.owe(slow)
    asked = asked_offsets(monkeypatch)
    rig.turn(0.001, 100)
    assert len(asked) > 1
    assert max(asked.values()) == 1


def test_a_filter_is_asked_once_for_each_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not again in each turn in which another member of the pass has no room."""
    slow, other = rig.add("slow", max_in_flight=1), rig.add("filtered", event_filter="event.offset < 0")
    rig.slow[slow] = 0.1
    for each in (slow, other):
        rig.owe(each)
    asked = asked_offsets(monkeypatch)
    for _ in range(100):
        rig.turn(0.004, 1)
    assert len(asked) > 1000
    assert set(asked.values()) == {1}
