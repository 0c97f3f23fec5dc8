"""The fan-out of one event to very many subscriptions: a cursor that advances at the pace of the lanes."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.backlog import Backlog
from consumer.delivery.delivery import LANE_DELIVERIES, QUEUE_SECONDS, Delivery, OpenRecord
from consumer.delivery.lanes import ALONE, Lanes
from consumer.expressions.expression import compile_filter
from consumer.ledger.cursors import KeptCursor
from consumer.ledger.rows import OrderingKey, order_key
from consumer.matching.selection import TURN, Selector
from consumer.subscriptions.endpoint import BrokenFilter, Endpoint, Selection
from consumer.telemetry.metrics import Metrics
from consumer.worker.dispatch import LEAVING, LOOK_EVERY, Fanout
from models import CursorReason
from tests.delivery.backlog_kit import Unwritten, make_backlog
from tests.delivery.store_kit import Clock
from tests.ledger.rows_kit import URL, make_event

MANY = 10_000


def endpoints(number: int) -> tuple[Endpoint, ...]:
    """This many subscriptions, from 1 on."""
    return tuple(Endpoint(subscription, URL, (b"key",)) for subscription in range(1, number + 1))


def fanout(
    targets: tuple[Endpoint, ...],
    settled: list[int] | None = None,
    body: bytes = b"{}",
    selector: Selector | None = None,
    key: bytes | None = None,
    backlog: Backlog | None = None,
) -> Fanout:
    """An event of record 0 for these subscriptions."""
    record = OpenRecord((list[int]() if settled is None else settled).append, 0, len(targets))
    event, selector = make_event(body=body, key=key), selector or Selector(Metrics())
    return Fanout(event, targets, record, selector, backlog or make_backlog(), event.size)


def choosy(number: int, event_filter: str) -> tuple[Endpoint, ...]:
    """This many subscriptions, from 1 on, with this filter."""
    selection = Selection(filter=compile_filter(event_filter))
    return tuple(Endpoint(each, URL, (b"key",), selection=selection) for each in range(1, number + 1))


def fill(lanes: Lanes, endpoint: Endpoint, number: int, now: float = 0.0) -> None:
    """Queue this many deliveries of other records to one subscription."""
    lane = lanes.lane(endpoint)
    for _ in range(number):
        lanes.enqueue(Delivery(make_event(1), lane, OpenRecord(lambda _: None, 1, 1)), now)


def started(lanes: Lanes) -> Iterator[Delivery]:
    """All deliveries that may start, in as many turns of the loop as it takes."""
    nothing = False
    while not nothing:
        lanes.wake(0.0)
        nothing = True
        while (delivery := lanes.next(0.0)) is not None:
            nothing = False
            yield delivery


def ids(lanes: Lanes) -> list[int]:
    """The subscriptions whose deliveries of record 0 may start."""
    return [each.lane.endpoint.subscription_id for each in started(lanes) if each.event.record.offset == 0]


def test_waiting_subscriptions_cost_no_memory() -> None:
    """The cursor stops where the room ended: ten thousand subscriptions that must wait take a few bytes."""
    targets = endpoints(MANY)
    lanes, settling, backlog = Lanes(10), Unwritten(room=0), make_backlog()
    fill(lanes, targets[0], LANE_DELIVERIES)
    tracemalloc.start()
    try:
        waiting = [fanout(targets, backlog=backlog) for _ in range(100)]
        for each in waiting:
            assert not each.advance(lanes, settling.settling, 0.0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.position for each in waiting] == [0] * 100
    assert used / 100 < 2000


def test_a_very_low_rate_keeps_no_record_unsettled() -> None:
    """One request in 100 s: others are stored. Stored ones are taken up shortly before it is time, then new ones."""
    lanes, settling = Lanes(10), Unwritten()
    targets = (Endpoint(1, URL, (b"key",), rate_limit=0.01),)
    for offset in range(3):
        assert fanout(targets).advance(lanes, settling.settling, 0.0)
        assert ids(lanes) == ([1] if offset == 0 else [])
    assert settling.stored == [1, 1]
    rooms = [lanes.room(1, 100.0 - seconds) for seconds in (2.1 * QUEUE_SECONDS, 1.9 * QUEUE_SECONDS)]
    assert rooms == [0, 1]
    held = []
    for seconds in (1.1 * QUEUE_SECONDS, 0.9 * QUEUE_SECONDS):
        assert fanout(targets).advance(lanes, settling.settling, 100.0 - seconds)
        held.append(lanes.held)
    assert (held, settling.stored) == ([0, 1], [1] * 3)


def test_an_unsignable_delivery_is_stored() -> None:
    """A subscription without a usable secret gets the event later."""
    lanes, settling, settled = Lanes(10), Unwritten(), list[int]()
    each = fanout((Endpoint(1, URL, (), fault="its secret cannot be read"), Endpoint(2, URL, (b"key",))), settled)
    assert each.advance(lanes, settling.settling, 0.0)
    assert (settling.stored, ids(lanes)) == ([1], [2])


def test_an_ordered_delivery_goes_behind_the_stored_ones_of_its_key() -> None:
    """Only that delivery, and only for an ordered subscription, is stored with its key, to be sent after them."""
    ordered, plain = (Endpoint(number, URL, (b"key",), ordered=number == 1) for number in (1, 2))
    ordering_key = OrderingKey(1, "t", 0, order_key(b"k"))
    lanes, settling = Lanes(10), Unwritten()
    settling.parking.ordering_keys.began(ordering_key, 0)
    assert fanout((ordered, plain), key=b"k").advance(lanes, settling.settling, 0.0)
    assert (settling.stored, [each.ordering_key for each in settling.rows], ids(lanes)) == ([1], [ordering_key], [2])
    for other in (b"l", None):
        assert fanout((ordered,), key=other).advance(lanes, settling.settling, 0.0)
    assert (settling.stored, ids(lanes)) == ([1], [1, 1])


def test_a_full_lane_stores_an_ordered_delivery_with_its_key() -> None:
    """It is behind its key's deliveries in memory. The store must know it to keep the next ones behind it."""
    endpoint = Endpoint(1, URL, (b"key",), ordered=True)
    lanes, settling = Lanes(10), Unwritten()
    fill(lanes, endpoint, LANE_DELIVERIES)
    assert fanout((endpoint,), key=b"k").advance(lanes, settling.settling, ALONE)
    assert [each.ordering_key for each in settling.rows] == [OrderingKey(1, "t", 0, order_key(b"k"))]


@pytest.mark.parametrize("started", [False, True])
def test_abandoned_it_stores_the_rest_only_if_a_receiver_may_have_seen_it(*, started: bool) -> None:
    """If a delivery was started, the others are stored. If none was, the next owner sends all of them."""
    targets = endpoints(4)
    lanes, settling, settled = Lanes(LANE_DELIVERIES * 2), Unwritten(), list[int]()
    fill(lanes, targets[1], LANE_DELIVERIES)
    each = fanout(targets, settled)
    assert not each.advance(lanes, settling.settling, 0.0)
    each.record.started = started
    each.abandon(lanes, settling.settling)
    assert settling.stored == ([2, 3, 4] if started else [])
    if started:
        settling.write()
        assert settled == []
        each.record.settle_one()
        assert settled == [0]


def test_abandoned_it_stores_no_more_than_the_database_takes() -> None:
    """It goes on when there is room again. The record is settled with the last stored delivery, and not before."""
    settling, settled = Unwritten(), list[int]()
    each = fanout(endpoints(100), settled)
    each.record.started = True
    for room, stored in ((40, 40), (40, 40), (80, 80), (200, 100)):
        settling.room = room
        assert each.abandon(Lanes(10), settling.settling) is (stored == 100)
        assert settling.stored == list(range(1, stored + 1))
        settling.write()
        assert settled == ([0] if stored == 100 else [])


@pytest.mark.parametrize(
    ("targets", "step", "least", "most"),
    [
        (endpoints(LOOK_EVERY * 9), LEAVING / 2.5, LOOK_EVERY * 2, LOOK_EVERY * 2),
        (choosy(100, "data.n == 1"), 0.1, 5, 20),
    ],
    ids=["many", "slow filters"],
)
def test_abandoned_it_watches_the_clock(targets: tuple[Endpoint, ...], step: float, least: int, most: int) -> None:
    """A very large rest, or slow filters, would hold up all other receivers. What is not stored stays unsettled."""
    settling, settled = Unwritten(), list[int]()
    each = fanout(targets, settled, b'{"n": 1}', Selector(Metrics(), None, Clock(step=step)))
    each.record.started = True
    each.abandon(Lanes(10), settling.settling)
    assert least <= len(settling.stored) <= most
    assert settling.stored == list(range(1, len(settling.stored) + 1))
    settling.write()
    assert settled == []


def test_filtered_deliveries_are_settled_at_once() -> None:
    """They are neither queued nor stored. The record waits for the other deliveries only, if there are any."""
    lanes, settling, settled = Lanes(100), Unwritten(), list[int]()
    plain, refusing, wanting = endpoints(1), choosy(3, "data.n > 1"), choosy(5, "data.n == 1")
    each = fanout((*plain, *refusing[1:], *wanting[3:]), settled, b'{"n": 1}')
    assert each.advance(lanes, settling.settling, 0.0)
    begun = list(started(lanes))
    assert [delivery.lane.endpoint.subscription_id for delivery in begun] == [1, 4, 5]
    assert (each.refused, each.record.open, settling.stored) == (2, 3, [])
    for delivery in begun:
        assert settled == []
        assert isinstance(delivery.origin, OpenRecord)
        delivery.origin.settle_one()
    assert settled == [0]
    nobody = fanout(refusing, settled, b'{"n": 1}')
    assert nobody.advance(lanes, settling.settling, 0.0)
    assert (nobody.refused, settled) == (3, [0, 0])


def test_topics_take_a_part_of_a_turn() -> None:
    """Refusing one subscription by topic is little work; refusing ten thousand is not."""
    elsewhere = Selection(topics=frozenset(("elsewhere",)))
    targets = tuple(Endpoint(each, URL, (b"key",), selection=elsewhere) for each in range(1, MANY + 1))
    selector = Selector(Metrics(), None, Clock(step=TURN / 100))
    each = fanout(targets, selector=selector)
    selector.begin(TURN)
    assert not each.advance(Lanes(10), Unwritten().settling, 0.0)
    assert 0 < each.position <= 101


def test_a_waiting_delivery_is_not_filtered_again() -> None:
    """While the database does not keep up, the cost of a slow filter that has matched is not paid again."""
    lanes, settling = Lanes(LANE_DELIVERIES * 2), Unwritten(room=0)
    targets = choosy(1, "data.n == 1")
    fill(lanes, targets[0], LANE_DELIVERIES)
    selector = Selector(Metrics(), None, Clock(step=TURN * 1.1))
    each = fanout(targets, body=b'{"n": 1}', selector=selector)
    spent = []
    for _ in range(3):
        selector.begin(TURN)
        assert not each.advance(lanes, settling.settling, 0.0)
        spent.append(selector.spent)
    assert spent == [True, False, False]


@pytest.mark.parametrize("abandoned", [False, True])
def test_an_event_whose_filter_cannot_run_is_stored_unfiltered(*, abandoned: bool) -> None:
    """The row records that the filter must still run. The other subscriptions' filters run as usual."""
    settling, settled = Unwritten(), list[int]()
    broken = Endpoint(1, URL, (b"k",), selection=Selection(None, BrokenFilter()))
    targets = (broken, *choosy(3, "data.n > 1")[1:], *endpoints(4)[3:])
    each = fanout(targets, settled, b'{"n": 1}')
    if abandoned:
        each.record.started = True
        each.abandon(Lanes(10), settling.settling)
    else:
        assert each.advance(Lanes(10), settling.settling, 0.0)
    assert [each.subscription_id for each in settling.rows if each.filter_pending] == [1]
    assert settling.stored == ([1, 4] if abandoned else [1])
    assert each.refused == 2


def covering(subscription: int, first: int = 0, end: int | None = None) -> KeptCursor:
    """A stored cursor of partition 0."""
    reason = CursorReason.BEHIND
    return KeptCursor(subscription, ("t", 0, subscription), 0, reason, first, first, end, "", None, None, 0)


@pytest.mark.parametrize("abandoned", [False, True])
def test_covered_deliveries_are_left_to_their_cursors(*, abandoned: bool) -> None:
    """They are neither filtered, queued nor stored. The record is settled when the cursors are written, and the rest.

    It is so, too, if the partition is revoked meanwhile.
    """
    writes, lanes, settling, settled = Unwritten(), Lanes(10), Unwritten(), list[int]()
    backlog = make_backlog(writes)
    backlog.load(("t", 0), [covering(2), covering(3, first=1), covering(4, end=0)])
    targets = (*endpoints(1), *choosy(2, "data.n > 1")[1:], *endpoints(5)[2:4], replace(endpoints(5)[4], paused=True))
    each = fanout(targets, settled, b'{"n": 1}', backlog=backlog)
    if abandoned:
        each.record.started = True
        assert each.abandon(lanes, settling.settling)
        assert settling.stored == [1, 3, 4]
        settling.write()
    else:
        assert each.advance(lanes, settling.settling, 0.0)
        assert settling.stored == []
        begun = list(started(lanes))
        assert [delivery.lane.endpoint.subscription_id for delivery in begun] == [1, 3, 4]
        for _ in begun:
            each.record.settle_one()
    assert (each.refused, each.record.open, settled) == (0, 2, [])
    assert [(new.due_key[2], new.first, new.end) for new in writes.begun] == [(5, 0, None)]
    writes.write()
    assert settled == [0]


def test_beyond_its_rows_a_receivers_events_are_left_to_a_cursor() -> None:
    """It begins with the first event that may not be stored, once the database has room; the next ones follow it."""
    writes, lanes, settling, settled = Unwritten(), Lanes(10), Unwritten(room=0), list[int]()
    backlog, targets = make_backlog(writes, most_rows=LANE_DELIVERIES + 2), endpoints(1)
    fill(lanes, targets[0], LANE_DELIVERIES)
    each = fanout(targets, settled, backlog=backlog)
    assert not each.advance(lanes, settling.settling, ALONE)
    settling.room = 10
    assert each.advance(lanes, settling.settling, ALONE)
    assert (settling.stored, writes.begun) == ([1], [])
    writes.parking.open_rows["t", 0, 1] += 2
    for _ in range(2):
        assert fanout(targets, settled, backlog=backlog).advance(lanes, settling.settling, ALONE)
    assert (settling.stored, len(writes.begun), settled) == ([1], 1, [])
    writes.write()
    assert settled == [0, 0]


def test_an_event_that_a_filter_refuses_begins_no_cursor() -> None:
    """A receiver that is far behind owes nothing for it."""
    writes, lanes, settling, settled = Unwritten(), Lanes(10), Unwritten(), list[int]()
    targets = choosy(1, "data.n > 1")
    fill(lanes, targets[0], LANE_DELIVERIES)
    each = fanout(targets, settled, b'{"n": 1}', backlog=make_backlog(writes, most_rows=1))
    assert each.advance(lanes, settling.settling, ALONE)
    assert (each.refused, writes.begun, settled) == (1, [], [0])


def test_an_event_behind_the_end_of_a_cursor_is_stored_until_that_is() -> None:
    """If it were sent, a crash would send it again, since the cursor would still be open."""
    writes, lanes, settling, targets = Unwritten(), Lanes(10), Unwritten(), endpoints(2)
    backlog = make_backlog(writes)
    backlog.load(("t", 0), [covering(2)])
    (cursor,) = backlog.here(("t", 0, 2))
    cursor.meet(0)
    for written in (backlog.save, lambda _: writes.write(), lambda _: None):
        assert fanout(targets, backlog=backlog).advance(lanes, settling.settling, 0.0)
        written(cursor)
    assert (settling.stored, sorted(ids(lanes))) == ([2, 2], [1, 1, 1, 2])


@settings(max_examples=30)  # each fills lanes of a thousand
@given(
    full=st.sets(st.integers(1, 20)),
    covered=st.sets(st.integers(1, 20), max_size=10),
    slow=st.booleans(),
    rooms=st.lists(st.integers(0, 20), max_size=5),
    slots=st.integers(1, 50),
)
def test_each_subscription_is_served_once(
    full: set[int], covered: set[int], rooms: list[int], slots: int, *, slow: bool
) -> None:
    """Each delivery is queued, stored or covered, in order, whichever lanes are full and however often it waits."""
    targets, writes = endpoints(20), Unwritten()
    lanes, settling, settled = Lanes(slots), Unwritten(), list[int]()
    backlog = make_backlog(writes)
    backlog.load(("t", 0), map(covering, covered))
    for endpoint in targets:
        fill(lanes, endpoint, LANE_DELIVERIES if endpoint.subscription_id in full else 0)
    each = fanout(targets, settled, backlog=backlog)
    queued: list[int] = []

    def drain() -> None:
        for delivery in started(lanes):
            lanes.finished(delivery.lane)
            if isinstance(delivery.origin, OpenRecord) and delivery.origin is each.record:
                queued.append(delivery.lane.endpoint.subscription_id)
                delivery.origin.settle_one()

    for room in rooms:
        settling.room = len(settling.stored) + room
        before = each.position
        over = each.advance(lanes, settling.settling, ALONE if slow else 0.0)
        assert len(settling.stored) <= settling.room, "the database does not keep up"
        if over:
            break
        assert each.position >= before
    drain()
    settling.room = 10**9
    while not each.advance(lanes, settling.settling, ALONE if slow else 0.0):
        drain()
    drain()
    assert settled == ([] if settling.stored or covered else [0])
    settling.write()
    writes.write()
    assert settled == [0]
    assert sorted([*queued, *settling.stored, *covered]) == list(range(1, 21))
