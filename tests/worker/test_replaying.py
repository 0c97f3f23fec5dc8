"""Replays in a worker: which of their cursors run, what they send, at which pace, and how much of a lane they take."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, update

from consumer.delivery.delivery import LANE_DELIVERIES, Delivery
from consumer.ledger import cursors, replays
from consumer.ledger.cursors import NewCursor
from consumer.ledger.replays import Request, Span
from consumer.ledger.rows import order_key
from consumer.worker.feeder import REPLAYS_PART
from consumer.worker.replaying import PACE, Replays
from models import CursorReason, Subscription
from tests.ledger.rows_kit import GROUP, make_event
from tests.worker.catch_up_kit import FAST, HERE, Rig

REQUEST = Request(0.0, None, 10.0, False, 1)


@pytest.fixture
def rig(engine: Engine) -> Iterator[Rig]:
    rig = Rig(engine)
    yield rig
    assert rig.thread.close(20)


@given(
    rate=st.floats(0.01, 1000),
    cursors=st.integers(1, 5),
    others=st.integers(0, 20),
    steps=st.lists(st.floats(0, 20), max_size=30),
)
def test_a_worker_takes_its_share_of_the_pace(rate: float, cursors: int, others: int, steps: list[float]) -> None:
    """It is that of its cursors among all that are left. At first half a second's deliveries go at once, or one."""
    known, now, sent = Replays(), 0.0, 0
    share = rate * cursors / (cursors + others)
    for step in (0.0, *steps):
        now += step
        known.learn({7: cursors}, {7: REQUEST._replace(rate=rate, cursors=cursors + others)}, now)
        while known.rests_until(7, now) <= now and sent < 1000:
            known.took(7, now)
            sent += 1
        assert sent <= share * now + max(1.0, share * PACE) + 1e-6
        assert known.rests_until(7, now) > now or sent == 1000


def test_a_replay_sends_the_events_that_it_asks_for(rig: Rig) -> None:
    """Its type or pattern narrows the subscription's, and so does its beginning, wherever its cursors begin."""
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(event_type="*"))
    rig.types = dict.fromkeys(range(0, 100, 2), "order.paid")
    since = make_event(50).record.timestamp / 1000
    spans = [Span(*HERE, 0, 100)]
    replays.create(rig.engine, GROUP, rig.subscription, since, 9.0, "order.*", FAST, spans, 1.0)
    rig.look()
    sent = rig.sent_in(3)
    assert [each.event.record.offset for each in sent] == list(range(50, 100, 2))
    (found,) = replays.find(rig.engine, limit=1)
    assert (found.state, found.records_left) == ("finished", 0)
    assert cursors.of_partition(rig.engine, GROUP, HERE) == []
    assert rig.backlog.here((*HERE, rig.subscription)) == ()


def test_a_replay_has_its_pace(rig: Rig) -> None:
    """It sends so many a second, with a burst of half a second, and nothing is lost or repeated."""
    number = rig.replay(rate=40.0, end=100)
    sent = [each.event.record.offset for each in rig.sent_in(1)]
    assert 30 <= len(sent) <= 61
    sent += [each.event.record.offset for each in rig.sent_in(4)]
    assert sent == list(range(100))
    found = replays.load(rig.engine, number)
    assert found is not None
    assert found.state == "finished"


def test_nobody_waits_for_the_pace_of_a_replay(rig: Rig) -> None:
    """A subscription that is behind, in the same pass, gets its events while a replay rests."""
    owed = NewCursor((*HERE, rig.subscription), 0, CursorReason.BEHIND)
    cursors.begin(rig.engine, GROUP, [owed], 1.0)
    number = rig.replay(rate=0.5)
    sent: list[Delivery] = []
    for _ in range(100):
        rig.turn(0.0, 1)
        sent += rig.send()
    by_replay = [each for each in sent if each.origin.replay == number]  # type: ignore[union-attr]  # no row is sent
    assert len(by_replay) == 1
    assert len(sent) - len(by_replay) > 1000


def test_a_replay_leaves_most_of_a_lane_to_new_events(rig: Rig) -> None:
    """While nothing is sent it fills a quarter, however many replays there are; then it goes on."""
    for _ in range(2):
        rig.replay()
    rig.turn(0.01)
    lane = rig.lanes.lane(rig.endpoint)
    assert lane.held == LANE_DELIVERIES // REPLAYS_PART
    assert len(rig.send(100)) == 100
    rig.turn(0.01)
    assert lane.held == LANE_DELIVERIES // REPLAYS_PART


@pytest.mark.parametrize("ordered", [True, False])
def test_a_replay_has_an_order_of_its_own(rig: Rig, *, ordered: bool) -> None:
    """In order, its deliveries have the ordering key of its own; else they have none."""
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(ordering="key"))
    number = rig.replay(end=10, ordered=ordered)
    rig.turn(0.01)
    sent = rig.sent_in(1)
    assert [each.event.record.offset for each in sent] == list(range(10))
    keys = {each.ordering_key and each.ordering_key.key for each in sent}
    assert keys == ({order_key(b"k", number)} if ordered else {None})
    assert order_key(b"k", number) not in {order_key(b"k"), order_key(b"k", number + 1)}


def test_a_cancelled_replay_sends_no_more(rig: Rig) -> None:
    """Once its owner has looked. What is in the lane is sent; resumed, it sends the rest, even if nobody says so."""
    number = rig.replay()
    rig.turn(0.01)
    assert replays.cancel(rig.engine, number, 2.0)
    rig.look()
    sent = rig.sent_in(2)
    assert len(sent) == LANE_DELIVERIES // REPLAYS_PART
    assert not rig.catch_up.busy
    assert replays.resume(rig.engine, number)
    sent += rig.all_of(4000 - len(sent))
    assert sorted(each.event.record.offset for each in sent) == list(range(4000))


def test_other_replays_go_on_when_one_is_cancelled(rig: Rig) -> None:
    """They read the same records in the same pass."""
    cancelled, other = (rig.replay(end=3000) for _ in range(2))
    rig.turn(0.01, 10)
    assert replays.cancel(rig.engine, cancelled, 2.0)
    rig.look()
    ended = [each for each in rig.backlog.here((*HERE, rig.subscription)) if each.replay == cancelled]
    (stands,) = (each.read_to for each in ended)
    sent = rig.sent_in(1)
    rig.log.sought.clear()
    sent += rig.all_of(3000 - len(sent), other)
    assert {each.event.record.offset for each in sent if each.origin.replay == other} == set(range(3000))  # type: ignore[union-attr]  # no row is sent
    assert stands not in rig.log.sought


def test_a_cancelled_replay_skips_nothing(rig: Rig) -> None:
    """A look at another partition has told that it is cancelled, while a pass still reads for it."""
    number = rig.replay()
    rig.turn(0.01, 5)
    sent = rig.send(100)
    assert rig.catch_up.busy
    rig.catch_up._replays.learn({number: 1}, {}, rig.monotonic.now)
    sent += rig.sent_in(1)
    assert len(sent) == LANE_DELIVERIES // REPLAYS_PART
    assert not rig.backlog.here((*HERE, rig.subscription))[0].read_all
    rig.look()
    sent += rig.all_of(4000 - len(sent))
    assert sorted(each.event.record.offset for each in sent) == list(range(4000))


def test_a_replay_waits_for_its_subscription(rig: Rig) -> None:
    """Nothing is sent while it is disabled; once it is enabled, the replay goes on by itself."""
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(enabled=0))
    rig.replay(end=10)
    assert rig.sent_in(2) == []
    with rig.engine.begin() as connection:
        connection.execute(update(Subscription).values(enabled=1))
    assert len(rig.sent_in(8)) == 10


def test_stored_deliveries_of_a_replay_wait_for_earlier_events_of_it(rig: Rig) -> None:
    """Those that its cursor has still to read, after a crash; the live stream's cursors do not count, nor one's end."""
    number = rig.replay(begin=10, end=100)
    due_key = (*HERE, rig.subscription)
    assert [rig.backlog.is_behind(due_key, offset, number) for offset in (10, 11)] == [False, True]
    assert not rig.backlog.is_behind(due_key, 11)
    assert not rig.backlog.is_behind(due_key, 11, number + 1)


def test_what_is_known_of_replays() -> None:
    """One that was not looked up does not run, and has not ended; one that is cancelled has."""
    known = Replays()
    assert (known.has_ended(7), known.wants(7, make_event(1)), known.is_ordered(7)) == (False, True, False)
    known.learn({7: 1, 8: 1, 9: 0}, {7: REQUEST, 9: REQUEST}, 0.0)
    assert [known.has_ended(each) for each in (0, 7, 8, 9)] == [False, False, True, False]
    known.forget(8)
    assert not known.has_ended(8)
