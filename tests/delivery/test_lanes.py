"""Which deliveries may start: shared slots, bounded queues, keys in order, limits; and that none is lost."""

import random
from collections import defaultdict
from heapq import heapify
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.delivery.delivery import LANE_BYTES, LANE_DELIVERIES, CursorRecord, Delivery, Lane, OpenRecord
from consumer.delivery.lanes import ALONE, FOR_BACKLOG, NEW_CONNECTIONS, SLOW, STILL, Admission, Lanes
from consumer.delivery.limits import OPEN_BYTES, TIMED_OUT
from consumer.ledger.rows import AttemptFailure, OrderingKey
from consumer.sending.signing import Template
from consumer.subscriptions.endpoint import Batch, Endpoint, Selection
from tests.delivery.lanes_kit import BODY, broken, delivery, endpoint, fill, started, turn


def test_a_hung_receiver_leaves_slots_to_the_others() -> None:
    """The first lane gets half of the slots, the second half of the rest. A third still starts at once.

    A request that ended before its lane was empty does not count.
    """
    lanes = Lanes(100)
    fill(lanes, lanes.lane(endpoint(1)), 1)
    started(lanes)
    lanes.finished(lanes.lane(endpoint(1)))
    for number in (1, 2, 3):
        fill(lanes, lanes.lane(endpoint(number)), 200)
        started(lanes)
    assert [lanes.lane(endpoint(number)).in_flight for number in (1, 2, 3)] == [50, 25, 13]
    assert lanes.slots.in_flight < 100


@pytest.mark.parametrize(("busy", "each"), [(1, 950), (2, 444), (3, 307)])
def test_lanes_whose_requests_end_share_most_of_the_slots(busy: int, each: int) -> None:
    """One lane alone gets all but a twentieth, two get four ninths each. The rest is for a lane that begins."""
    lanes = Lanes(1000)
    moving = [lanes.lane(endpoint(number)) for number in range(busy)]
    for lane in moving:
        fill(lanes, lane, 1000)
    for _ in range(6000):  # in each lane one request ends, then every delivery that may start does
        started(lanes)
        for lane in moving:
            lanes.finished(lane)
            fill(lanes, lane, 1)
    started(lanes)
    assert [lane.in_flight for lane in moving] == pytest.approx([each] * busy, rel=0.02)
    late = lanes.lane(endpoint(1000))
    fill(lanes, late, 1000)
    assert len([each for each in started(lanes) if each.lane is late]) >= (1000 - busy * each) // 2 - 5


def test_a_lane_gives_way_once_it_is_no_longer_alone() -> None:
    """The other one starts at once in the reserve, and gets what the first gives back until both have their share."""
    lanes = Lanes(1000)
    first, second = lanes.lane(endpoint(1)), lanes.lane(endpoint(2))

    def go(busy: list[Lane], rounds: int) -> None:
        for _ in range(rounds):
            started(lanes)
            for lane in busy:
                lanes.finished(lane)
                fill(lanes, lane, 1)

    fill(lanes, first, 1000)
    go([first], 6000)
    fill(lanes, second, 1)
    assert [each.lane for each in started(lanes) if each.lane is second] == [second]
    lanes.finished(second)
    started(lanes)
    assert first.in_flight == 950, "it is alone again"
    fill(lanes, second, 1000)
    started(lanes)
    assert (first.in_flight, second.in_flight) == (950, 25), "half of the reserve"
    go([first, second], 6000)
    assert [first.in_flight, second.in_flight] == pytest.approx([444, 444], rel=0.02)


def test_timed_out_receivers_beyond_the_slots_share_a_part_of_them() -> None:
    """A healthy receiver starts at once beside them. Each gets its turn; one that answers leaves the shared part."""
    lanes = Lanes(200)
    hung = [lanes.lane(endpoint(number)) for number in range(240)]
    for lane in hung:
        fill(lanes, lane, 1)
    first = started(lanes)
    assert len(first) == 200, "none of them has timed out yet"
    for each in first:
        lanes.finished(each.lane)
        lanes.ended(each.lane, timed_out=True)
        fill(lanes, each.lane, 1)
    second = started(lanes, 15.0)
    assert len(second) == 40 + 200 // TIMED_OUT, "those never tried, and the shared part"
    healthy = lanes.lane(endpoint(1000))
    fill(lanes, healthy, 50, 15.0)
    assert {each.lane for each in started(lanes, 15.0)} == {healthy}
    for each in second:
        lanes.finished(each.lane)
        lanes.ended(each.lane, timed_out=each.lane is not second[-1].lane)
    third = started(lanes, 30.0)
    assert len({each.lane for each in third}) == len(third) == 200 // TIMED_OUT
    assert not {each.lane for each in third} & {each.lane for each in second if each.lane.timed_out}
    fill(lanes, second[-1].lane, 20, 30.0)
    assert len(started(lanes, 30.0)) == 20


def test_live_deliveries_start_before_those_of_cursors() -> None:
    """A lane with one of them has its turn before lanes of cursors alone, also if it waited among these."""
    lanes = Lanes(1000)
    both, behind = lanes.lane(endpoint(1)), lanes.lane(endpoint(2))
    for lane in (behind, both):
        fill(lanes, lane, 3, record=CursorRecord)
    lanes.wake(0.0)
    assert lanes.next(0.0) is not None
    fill(lanes, both, 1, first=3)
    fill(lanes, lanes.lane(endpoint(3)), 1)
    begun = turn(lanes)
    assert [isinstance(each.origin, CursorRecord) for each in begun] == [False] * 2 + [True] * 5
    assert [each.event.record.offset for each in begun if each.lane is both] == [3, 0, 1, 2]


def test_cursors_get_a_part_of_the_turns_while_live_deliveries_take_all() -> None:
    """Retention does not wait for a calm hour."""
    lanes = Lanes(100)
    live, behind = lanes.lane(endpoint(1)), lanes.lane(endpoint(2))
    fill(lanes, behind, 20, record=CursorRecord)
    sent: list[Lane] = []
    for _ in range(10 * FOR_BACKLOG):
        fill(lanes, live, 2)
        lanes.wake(0.0)
        request = lanes.next(0.0)
        assert request is not None
        sent.append(request.lane)
        lanes.finished(request.lane)
    assert sent.count(behind) == 10


def test_cursors_leave_slots_and_room_to_the_live_stream() -> None:
    """However many catch up, a live delivery starts at once, and their lanes are not full for it."""
    lanes = Lanes(100)
    behind = [lanes.lane(endpoint(number)) for number in range(200)]
    for lane in behind:
        while lanes.room_for_backlog(lane.endpoint.subscription_id, 0.0) > 0:
            fill(lanes, lane, 1, record=CursorRecord)
    assert len(started(lanes)) == 95
    fill(lanes, behind[0], 1)
    assert [each.lane for each in started(lanes)] == [behind[0]]
    for lane in behind:
        assert lanes.admit(lane, 1, 0.0) is Admission.QUEUE
    assert not lanes.ready(), "the loop does not turn for those that wait for a request to end"


def test_hung_receivers_take_at_most_half_of_the_slots() -> None:
    """Lanes without an ended request for a while get one request each beyond half. A moving lane gets its share."""
    lanes = Lanes(1000)
    hung = [lanes.lane(endpoint(number)) for number in range(100)]
    for lane in hung:
        fill(lanes, lane, 1)
    assert len(started(lanes)) == 100
    for lane in hung:
        fill(lanes, lane, 200)
    started(lanes, STILL)
    assert 490 <= lanes.slots.in_flight <= 500
    free = 1000 - lanes.slots.in_flight
    moving = lanes.lane(endpoint(1000))
    fill(lanes, moving, 1000, STILL)
    started(lanes, STILL)
    assert moving.in_flight == free // 2
    lanes.finished(hung[0])
    assert hung[0] in {each.lane for each in started(lanes, STILL)}, "it moves again"
    late = lanes.lane(endpoint(1001))
    fill(lanes, late, 1, STILL)
    assert len(started(lanes, 2 * STILL)) == 1


def test_a_turn_opens_few_new_connections() -> None:
    """Each needs a TLS handshake. Receivers that keep connections open do not wait for those that close them."""
    lanes = Lanes(1000)
    urls = ("https://example.com/", "https://example.com/", "http://example.com/")
    closing, kept, plain = (lanes.lane(endpoint(number, url)) for number, url in enumerate(urls))
    kept.connects = False  # as its last request shows
    for lane in (closing, kept, plain):
        fill(lanes, lane, 100)
    begun = turn(lanes)
    assert [sum(each.lane is lane for each in begun) for lane in (closing, kept, plain)] == [NEW_CONNECTIONS, 100, 100]
    assert lanes.ready()
    assert [each.lane for each in turn(lanes)] == [closing] * NEW_CONNECTIONS
    lanes.withdraw(lambda each: each.lane is closing)
    assert turn(lanes) == []
    assert not lanes.ready()


def test_lanes_take_turns() -> None:
    """A long queue does not keep a short one waiting."""
    lanes = Lanes(1000)
    fill(lanes, lanes.lane(endpoint(1)), 100)
    fill(lanes, lanes.lane(endpoint(2)), 2)
    order = [each.lane.endpoint.subscription_id for each in started(lanes)[:5]]
    assert order == [1, 2, 1, 2, 1]


def beside(lanes: Lanes) -> None:
    """Another subscription has something to send."""
    fill(lanes, lanes.lane(endpoint(99)), 1)


def moving(lanes: Lanes, lane: Lane, now: float) -> None:
    """One request of the lane ends now, and the next takes its place."""
    lanes.wake(now)
    each = lanes.next(now)
    assert each is not None
    lanes.finished(lane)
    lanes.enqueue(delivery(lane), now)


def test_a_full_lane_holds_the_intake_if_its_receiver_is_fast() -> None:
    """While the head of the queue is young, the intake is held. Afterwards deliveries are stored."""
    lanes = Lanes(10)
    beside(lanes)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, LANE_DELIVERIES, now=100.0)
    moving(lanes, lane, 100.0 + SLOW * 0.9)
    assert lanes.admit(lane, 1, 100.0 + SLOW * 0.9) is Admission.BACKPRESSURE
    moving(lanes, lane, 100.0 + SLOW)
    assert lanes.admit(lane, 1, 100.0 + SLOW) is Admission.STORE
    assert lanes.admit(lanes.lane(endpoint(2)), 1, 200.0) is Admission.QUEUE


def test_a_full_lane_holds_the_intake_only_while_requests_end() -> None:
    """A silent receiver holds the intake for a tenth of a second, not for as long as its head is young.

    The time counts from the first queued delivery, so that a burst into an idle lane does not count as a hang.
    """
    lanes = Lanes(10)
    beside(lanes)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, LANE_DELIVERIES, now=100.0)
    assert lanes.admit(lane, 1, 100.0 + STILL * 0.9) is Admission.BACKPRESSURE
    assert lanes.admit(lane, 1, 100.0 + STILL) is Admission.STORE
    moving(lanes, lane, 100.5)
    assert lanes.admit(lane, 1, 100.5 + STILL * 0.9) is Admission.BACKPRESSURE
    assert lanes.admit(lane, 1, 100.5 + STILL) is Admission.STORE


def test_a_lane_that_is_alone_holds_the_intake_for_longer() -> None:
    """Its receiver may take a second: then its events would be stored, and read from the log once more.

    Not once another subscription has something to send.
    """
    lanes = Lanes(10_000)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, LANE_DELIVERIES, now=100.0)
    assert len(started(lanes, 100.0)) == LANE_DELIVERIES
    fill(lanes, lane, LANE_DELIVERIES, now=100.1)
    assert lanes.admit(lane, 1, 100.0 + ALONE * 0.9) is Admission.BACKPRESSURE, "it has not answered yet"
    assert lanes.admit(lane, 1, 100.0 + ALONE) is Admission.STORE
    moving(lanes, lane, 100.0 + SLOW)
    lane.succeeded(100.0 + SLOW, 100.0, 10_000)
    assert lanes.admit(lane, 1, 100.0 + ALONE) is Admission.BACKPRESSURE, "it takes so long"
    assert lanes.admit(lane, 1, 100.1 + ALONE) is Admission.STORE, "the head of its queue does not move"
    assert lanes.admit(lane, 1, 100.0 + ALONE * 0.9) is Admission.BACKPRESSURE
    beside(lanes)
    assert lanes.admit(lane, 1, 100.0 + ALONE * 0.9) is Admission.STORE


def test_a_lane_full_of_retries_is_slow() -> None:
    """A receiver with all deliveries waiting for their next attempt must not hold the intake."""
    lanes = Lanes(LANE_DELIVERIES)
    lane = lanes.lane(endpoint())
    for offset in range(LANE_DELIVERIES):
        lanes.wait(delivery(lane, offset), due=50.0)
    assert lanes.admit(lane, 1, 0.0) is Admission.STORE
    lanes.wake(50.0)
    assert lanes.admit(lane, 1, 50.0) is Admission.STORE


def test_a_lane_is_bounded_in_bytes() -> None:
    """A single body always goes. Without room for another large one, no due row is read: it would be refused again."""
    lanes = Lanes(1)
    lane = lanes.lane(endpoint())
    assert lanes.admit(lane, LANE_BYTES * 2, 0.0) is Admission.QUEUE
    body = bytes(2**20 - 1)
    while lanes.admit(lane, len(body), 0.0) is Admission.QUEUE:
        assert lanes.room(1, 0.0) > 0
        lanes.enqueue(delivery(lane, body=body), 0.0)
    assert lanes.admit(lane, len(body), 0.0) is Admission.BACKPRESSURE
    assert (lane.held, lanes.room(1, 0.0)) == (16, 0)


def test_a_cleared_lane_in_the_turn_list_goes_on() -> None:
    """It is still listed. The next queued delivery gets its turn there, once."""
    lanes = Lanes(100)
    lane, other = lanes.lane(endpoint(1)), lanes.lane(endpoint(2))
    for each in (lane, other):
        fill(lanes, each, 1)
    lanes.clear(lane)
    fill(lanes, lane, 1)
    lanes.clear(other)
    assert [each.lane for each in started(lanes)] == [lane]
    fill(lanes, other, 1)
    assert [each.lane for each in started(lanes)] == [other]


def test_retries_come_when_due_and_first() -> None:
    """A retry waits until it is due, then goes ahead of deliveries that were never tried."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint())
    retry = delivery(lane, 7)
    lanes.wait(retry, due=10.0)
    fill(lanes, lane, 2)
    lanes.wake(9.99)
    assert retry not in started(lanes)
    fill(lanes, lane, 2)
    lanes.wake(10.0)
    assert lanes.next(10.0) is retry


def test_a_changed_url_applies_to_queued_deliveries() -> None:
    """The lane sends to the subscription's present URL."""
    lanes = Lanes(10)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, 1)
    lanes.lane(endpoint(url="https://example.org/new"))
    (queued,) = started(lanes)
    assert isinstance(queued.lane.prepared, Template)
    assert queued.lane.prepared.request.url == "https://example.org/new"


def test_a_mark_changes_no_request() -> None:
    """An outage that marks ten thousand subscriptions does not prepare ten thousand requests anew."""
    lanes = Lanes(10)
    lane = lanes.lane(endpoint())
    prepared = lane.prepared
    marked = endpoint(failing_since=5.0)
    assert (lanes.lane(marked).endpoint, lane.prepared) == (marked, prepared)
    assert lanes.lane(endpoint(max_in_flight=3, failing_since=6.0)).limit == 3
    assert lane.prepared is not prepared


def test_lanes_are_woken_once_however_many_subscriptions_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens in the next turn, because each lane's reason to wait may be over."""
    heaps = 0

    def counted(heap: list[object]) -> None:
        nonlocal heaps
        heaps += 1
        heapify(heap)  # type: ignore[type-var]  # entries can be compared

    monkeypatch.setattr("consumer.delivery.lanes.heapify", counted)
    lanes = Lanes(1000)
    for number in range(100):
        fill(lanes, lanes.lane(endpoint(number, rate_limit=0.001)), 2)
    assert len(started(lanes)) == 100
    for number in range(100):
        lanes.lane(endpoint(number, rate_limit=1000.0))
    assert lanes.wakes_before(0.0)
    assert heaps == 0
    assert len(started(lanes, 1.0)) == 100
    assert heaps == 2
    assert not lanes.wakes_before(1.0)


def test_a_limit_is_shared_among_workers_and_follows_the_partitions() -> None:
    """With a quarter of the partitions, a worker gets a quarter of the requests, at least one, and of the rate."""
    lanes = Lanes(1000)
    lanes.rebound(lambda _: 0.25)
    eight, two = lanes.lane(endpoint(1, max_in_flight=8)), lanes.lane(endpoint(2, max_in_flight=2))
    for lane in (eight, two):
        fill(lanes, lane, 50)
    started(lanes)
    assert (eight.in_flight, two.in_flight) == (2, 1)
    lanes.rebound(lambda _: 1.0)
    for lane in (eight, two):  # a lane goes on only after a request has ended
        lanes.finished(lane)
    started(lanes)
    assert (eight.in_flight, two.in_flight) == (8, 2)
    lanes.rebound(lambda _: 0.5)
    lanes.finished(eight)
    assert started(lanes) == []


def test_a_limit_is_shared_by_the_topics_that_a_subscription_names() -> None:
    """This worker's share is all of the topics that the subscription names, but a tenth of all topics."""
    lanes = Lanes(1000)
    selection = Selection(frozenset({"orders"}))
    chosen, other = endpoint(max_in_flight=50, selection=selection), endpoint(2, max_in_flight=50)
    assert (lanes.lane(chosen).limit, lanes.lane(other).limit) == (50, 50)
    lanes.rebound(lambda topics: 1.0 if topics == frozenset({"orders"}) else 0.1)
    assert (lanes.lane(chosen).limit, lanes.lane(other).limit) == (50, 5)
    assert lanes.lane(endpoint(3, max_in_flight=20, selection=selection)).limit == 20
    assert lanes.lane(endpoint(max_in_flight=50)).limit == 5


@pytest.mark.parametrize("by", ["rate", "share"])
def test_a_raised_rate_applies_at_once(by: str) -> None:
    """The next start was a quarter of an hour away. The same holds for a larger share, when other workers leave."""
    lanes = Lanes(100)
    lanes.rebound(lambda _: 0.001)
    lane = lanes.lane(endpoint(rate_limit=1.0))
    fill(lanes, lane, 3)
    assert len(started(lanes)) == 1
    assert started(lanes, 1.0) == []
    if by == "rate":
        lanes.lane(endpoint(rate_limit=1000.0))
    else:
        lanes.rebound(lambda _: 1.0)
    assert len(started(lanes, 2.0) + started(lanes, 3.0)) == 2


def test_a_rate_is_kept_and_only_deliveries_sent_soon_are_queued() -> None:
    """Eight a second: one at once, then one each eighth of a second. What exceeds 5 s at this rate is stored."""
    lanes = Lanes(1000)
    lane = lanes.lane(endpoint(rate_limit=8.0))
    admitted = 0
    while lanes.admit(lane, len(BODY), 0.0) is Admission.QUEUE:
        lanes.enqueue(delivery(lane, admitted), 0.0)
        admitted += 1
    assert (admitted, lanes.admit(lane, 1, 0.0)) == (40, Admission.STORE)
    starts: list[float] = []
    for step in range(64):
        now = step / 32
        lanes.wake(now)
        starts += [now] * len(started(lanes, now))
    assert starts == [number / 8 for number in range(16)]
    assert (lanes.wakes_before(2.0), lanes.wakes_before(2.01)) == (False, True)


def test_an_open_breaker_admits_nothing_and_the_probe_is_alone() -> None:
    """Open: all deliveries are stored. Half-open: one goes, the next waits for its answer. Then twice as many go."""
    lanes = Lanes(1000)
    lane = lanes.lane(endpoint())
    until = broken(lane)
    assert (lanes.admit(lane, 1, 0.0), lanes.room(1, 0.0)) == (Admission.STORE, 0)
    assert lanes.room(1, until) == 2
    for offset in range(2):
        assert lanes.admit(lane, 1, until) is Admission.QUEUE
        lanes.enqueue(delivery(lane, offset), until)
    assert lanes.admit(lane, 1, until) is Admission.STORE
    assert len(started(lanes, until)) == 1
    lanes.finished(lane)
    lane.succeeded(until + 0.1, until, lanes.slots.total)
    assert len(started(lanes, until + 0.1)) == 1


def test_a_lane_rests_until_its_breaker_lets_a_request_through() -> None:
    """Deliveries queued when it opened do not start until then, and no event from outside is needed."""
    lanes = Lanes(10)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, 2)
    until = broken(lane)
    assert started(lanes) == []
    assert (lanes.wakes_before(until), lanes.wakes_before(until + 0.1)) == (False, True)
    lanes.wake(until)
    assert len(started(lanes, until)) == 1


ENDPOINTS = (
    endpoint(1),
    endpoint(2, max_in_flight=2),
    endpoint(3, rate_limit=2.0),
    endpoint(4, max_in_flight=4, rate_limit=50.0),
    endpoint(5, batch=Batch(3, 1.0)),
    endpoint(6, max_in_flight=1, rate_limit=5.0, batch=Batch(4, 0.5)),
)


class LanesMachine(RuleBasedStateMachine):
    """Random offers, starts, ends and withdrawals, compared with plain lists of the deliveries and their order."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(8)
        self.now = 0.0
        self.here: set[Delivery] = set()
        self.flying: list[Delivery] = []  # open requests
        self.ordering_keys = defaultdict[OrderingKey, list[Delivery]](list)  # deliveries held or open, in order
        self.offsets = iter(range(10**9))

    @rule(
        to=st.sampled_from(ENDPOINTS),
        keys=st.lists(st.sampled_from([None, "k", "l"]), min_size=1, max_size=4),
        partition=st.integers(0, 1),
        record=st.sampled_from([OpenRecord, CursorRecord]),
    )
    def offer(self, to: Endpoint, keys: list[str | None], partition: int, record: type[OpenRecord]) -> None:
        for key in keys:
            lane = self.lanes.lane(to)
            each = delivery(lane, next(self.offsets), key=key, partition=partition, record=record)
            if self.lanes.admit(lane, len(BODY), self.now) is not Admission.QUEUE:
                continue
            if record is CursorRecord and self.lanes.room_for_backlog(to.subscription_id, self.now) <= 0:
                continue
            self.lanes.enqueue(each, self.now)
            self.here.add(each)
            if each.ordering_key is not None:
                self.ordering_keys[each.ordering_key].append(each)

    @rule()
    def start(self) -> None:
        began = started(self.lanes, self.now)
        assert not began or self.lanes._backlog_slots <= self.lanes.slots.total - 1
        for request in began:
            carried = request.batch()
            batch = request.lane.batch
            assert len(carried) <= (1 if batch is None or any(each.goes_alone for each in carried) else batch.size)
            for each in carried:
                assert each.lane is request.lane
                if each.ordering_key is not None:
                    assert self.ordering_keys[each.ordering_key][0] is each
                    assert each.ordering_key not in {other.ordering_key for other in self.carried()}
            self.here -= set(carried)
            self.flying.append(request)
            request.started_at = self.now
        for lane in {each.lane for each in began}:
            window = lane.breaker.window(self.now)
            most = min(lane.limit or self.lanes.slots.total, self.lanes.slots.total if window is None else window)
            assert sum(each.lane is lane for each in self.flying) == lane.in_flight <= most

    @precondition(lambda self: self.flying)
    @rule(
        seed=st.integers(0, 99),
        what=st.sampled_from(["done", "retry", "parked"]),
        slow=st.booleans(),
        status=st.sampled_from([404, 503]),
    )
    def end(self, seed: int, what: str, *, slow: bool = False, status: int = 503) -> None:
        request = self.flying.pop(random.Random(seed).randrange(len(self.flying)))
        self.lanes.finished(request.lane)
        self.lanes.ended(request.lane, timed_out=what != "done" and slow)
        if what == "done" or status == 404:
            request.lane.succeeded(self.now, request.started_at, self.lanes.slots.total)
        else:
            request.lane.breaker.failed(self.now, request.started_at)
        for each in request.split():
            each.last = AttemptFailure("", status, None, self.now)
            self.ends(each, what, self.now + seed + slow)

    def carried(self) -> list[Delivery]:
        return [each for request in self.flying for each in request.batch()]

    def ends(self, each: Delivery, what: str, due: float) -> None:
        if what == "retry":
            self.lanes.wait(each, due)
            self.here.add(each)
        elif each.ordering_key is not None:
            assert self.ordering_keys[each.ordering_key].pop(0) is each
            if what == "done":
                self.lanes.go_on(each.lane, each.ordering_key)
                return
            assert self.lanes.cut(each.lane, each.ordering_key) == self.ordering_keys[each.ordering_key]
            self.here -= set(self.ordering_keys.pop(each.ordering_key))

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.lanes.wake(self.now)

    @rule(share=st.sampled_from([0.25, 0.5, 1.0]))
    def share(self, share: float) -> None:
        self.lanes.rebound(lambda _: share)

    @rule(partition=st.integers(0, 1), cancel=st.booleans())
    def leave(self, partition: int, *, cancel: bool) -> None:
        """A partition leaves. Its open requests go on or are cancelled; their other deliveries are tried again."""

        def leaves(each: Delivery) -> bool:
            return each.event.record.partition == partition

        self.withdrawn(self.lanes.withdraw(leaves), {each for each in self.here if leaves(each)})
        for request in [each for each in self.flying if cancel and any(map(leaves, each.batch()))]:
            self.flying.remove(request)
            self.lanes.finished(request.lane)
            for each in request.split():
                if not leaves(each):
                    self.ends(each, "retry", self.now)
                elif each.ordering_key is not None:
                    assert self.ordering_keys.pop(each.ordering_key) == [each]
                    assert self.lanes.cut(each.lane, each.ordering_key) == []

    @rule(to=st.sampled_from(ENDPOINTS))
    def leave_alone(self, to: Endpoint) -> None:
        """All waiting deliveries of a subscription are taken out."""
        lane = self.lanes.lane(to)
        self.withdrawn(self.lanes.clear(lane), {each for each in self.here if each.lane is lane})

    def withdrawn(self, taken: list[Delivery], expected: set[Delivery]) -> None:
        assert set(taken) == expected
        assert len(taken) == len(expected)
        for ordering_key, standing in self.ordering_keys.items():
            gone = [each for each in taken if each.ordering_key == ordering_key]
            assert gone == [each for each in standing if each in expected]  # in their order
            self.ordering_keys[ordering_key] = [each for each in standing if each not in expected]
        self.here -= expected

    @invariant()
    def counts_are_right(self) -> None:
        assert self.lanes.slots.in_flight == len(self.flying) <= self.lanes.slots.total
        assert self.lanes.held == len(self.here)
        assert self.lanes.slots._timed_out == sum(lane.in_flight for lane in self.lanes if lane.timed_out)
        of_cursors = [each for each in self.here if isinstance(each.origin, CursorRecord)]
        assert (self.lanes._backlog, self.lanes._backlog_bytes) == (len(of_cursors), len(of_cursors) * len(BODY))
        assert self.lanes._backlog_slots == sum(lane.backlog_slots for lane in self.lanes)
        for lane in self.lanes:
            assert 0 <= lane.backlog_slots <= lane.slots
            assert lane.held == sum(each.lane is lane for each in self.here)
            assert lane.held_bytes == lane.held * len(BODY)

    @invariant()
    def no_chain_is_left_behind(self) -> None:
        under_way = {each.ordering_key for each in (*self.here, *self.carried())}
        assert {ordering_key for lane in self.lanes for ordering_key in lane.chains} <= under_way

    @invariant()
    def what_may_go_is_woken(self) -> None:
        """A lane with queued deliveries is listed, waits for a request to end, or is woken in time."""
        for lane in self.lanes:
            head = next(chain(lane.queue, lane.backlog), None)
            if lane.batch is not None and head and not lane.listed and lane.startable_at(self.now) <= self.now:
                end = max(self.now, head.queued_at + lane.batch.wait)
                assert any(each is lane and at <= end for at, _, each in self.lanes._gathering)

    def teardown(self) -> None:
        """Every admitted delivery comes out in the end."""
        for _ in range(400):
            self.pass_time(60.0)
            self.start()
            while self.flying:
                self.end(0, "done")
            if not self.here:
                break
        assert not self.here
        assert not any(lane.chains for lane in self.lanes)


TestLanes = LanesMachine.TestCase


@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=40), hung=st.booleans())
def test_a_large_request_takes_several_slots(sizes: list[int], *, hung: bool) -> None:
    """A request takes a slot for each slot's worth of bytes, so open bytes are bounded. All slots come back."""
    lanes, unit = Lanes(64), OPEN_BYTES // 64
    many = [lanes.lane(endpoint(number)) for number in range(1, 5)]
    for number, size in enumerate(sizes):
        lanes.enqueue(delivery(many[number % 4], number, bytes(size * unit)), 0.0)
    begun: list[Delivery] = []
    for _ in range(len(sizes) + 1):
        begun += started(lanes)
        open_bytes = sum(len(each.event.body) for each in begun)
        assert open_bytes <= OPEN_BYTES + 12 * unit
        assert lanes.slots.in_flight == len(begun) > 0 or not lanes.held
        for each in begun[:1]:
            lanes.ended(each.lane, timed_out=hung)
        for each in begun:
            lanes.finished(each.lane, each.slots)
        begun.clear()
    assert (lanes.held, lanes.slots.in_flight, lanes.slots.taken, lanes.slots._timed_out) == (0, 0, 0, 0)
    assert all(lane.slots == lane.in_flight == 0 for lane in lanes)


def test_a_lane_of_large_requests_leaves_the_same_share_to_others() -> None:
    """It gets the same share of slots and of bytes as a lane with many small requests."""
    lanes, unit = Lanes(64), OPEN_BYTES // 64
    large = lanes.lane(endpoint(1))
    for offset in range(16):
        lanes.enqueue(delivery(large, offset, bytes(4 * unit)), 0.0)
    begun = started(lanes)
    assert (len(begun), {each.slots for each in begun}) == (8, {4})
    small = lanes.lane(endpoint(2))
    fill(lanes, small, 100)
    assert len(started(lanes)) == 16
