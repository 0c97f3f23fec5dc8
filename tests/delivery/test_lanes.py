"""What may start: slots shared, queues bounded, nothing lost in between."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from requests import PreparedRequest

from consumer.delivery.lanes import (
    IDLE_LANES,
    LANE_BYTES,
    LANE_DELIVERIES,
    SLOW,
    Admission,
    Delivery,
    Lane,
    Lanes,
    OpenRecord,
)
from consumer.endpoint import Endpoint
from consumer.event import Event, RecordId

BODY = b'{"id": 1}'


def endpoint(number: int = 1, url: str = "https://example.com/") -> Endpoint:
    """A subscription's endpoint."""
    return Endpoint(number, url, (b"key",))


def delivery(lane: Lane, offset: int = 0, body: bytes = BODY) -> Delivery:
    """A delivery of a record with one subscription."""
    event = Event(RecordId("t", 0, offset, 0), "a", "msg_1", body, "application/json", None, None)
    return Delivery(event, lane, OpenRecord(lambda _: None, offset, 1))


def fill(lanes: Lanes, lane: Lane, number: int, now: float = 0.0) -> None:
    """Queue so many deliveries."""
    for offset in range(number):
        lanes.enqueue(delivery(lane, offset), now)


def started(lanes: Lanes) -> list[Delivery]:
    """All that may start now."""
    return list(iter(lanes.next, None))


def test_a_record_is_settled_with_its_last_delivery() -> None:
    """Not before, and once."""
    settled: list[int] = []
    record = OpenRecord(settled.append, 42, 3)
    record.settle_one()
    record.settle_one()
    assert not settled
    record.settle_one()
    assert settled == [42]


def test_a_hung_receiver_leaves_slots_to_the_others() -> None:
    """The first lane gets half of the slots, the second half of the rest: a third still starts at once."""
    lanes = Lanes(100)
    for number in (1, 2, 3):
        fill(lanes, lanes.lane(endpoint(number)), 200)
        started(lanes)
    assert [lanes.lane(endpoint(number)).in_flight for number in (1, 2, 3)] == [50, 25, 13]
    assert lanes.in_flight < 100


def test_one_slot_is_enough_for_one_delivery() -> None:
    """With a single slot deliveries go one by one."""
    lanes = Lanes(1)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, 2)
    assert len(started(lanes)) == 1
    lanes.finished(lane)
    assert len(started(lanes)) == 1


def test_lanes_take_turns() -> None:
    """A long queue does not keep a short one waiting."""
    lanes = Lanes(1000)
    fill(lanes, lanes.lane(endpoint(1)), 100)
    fill(lanes, lanes.lane(endpoint(2)), 2)
    order = [each.lane.endpoint.subscription_id for each in started(lanes)[:5]]
    assert order == [1, 2, 1, 2, 1]


def test_a_full_lane_waits_for_a_fast_receiver_and_not_for_a_slow_one() -> None:
    """While the head of the queue is young, the intake is held; then deliveries are stored."""
    lanes = Lanes(10)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, LANE_DELIVERIES, now=100.0)
    assert lanes.admit(lane, 1, 100.0 + SLOW * 0.9) is Admission.HOLD
    assert lanes.admit(lane, 1, 100.0 + SLOW) is Admission.PARK
    assert lanes.admit(lanes.lane(endpoint(2)), 1, 200.0) is Admission.QUEUE


def test_a_lane_full_of_retries_is_slow() -> None:
    """A receiver whose deliveries all wait for their next attempt must not hold the intake."""
    lanes = Lanes(LANE_DELIVERIES)
    lane = lanes.lane(endpoint())
    for offset in range(LANE_DELIVERIES):
        lanes.wait(delivery(lane, offset), due=50.0)
    assert lanes.admit(lane, 1, 0.0) is Admission.PARK
    lanes.wake(50.0)
    assert lanes.admit(lane, 1, 50.0) is Admission.PARK


def test_a_lane_is_bounded_in_bytes() -> None:
    """Large bodies fill a lane before their number does, but one alone always goes."""
    lanes = Lanes(1)
    lane = lanes.lane(endpoint())
    assert lanes.admit(lane, LANE_BYTES * 2, 0.0) is Admission.QUEUE
    lanes.enqueue(delivery(lane, body=bytes(LANE_BYTES)), 0.0)
    assert lanes.admit(lane, 1, 0.0) is Admission.HOLD
    assert lanes.full() == [1]


def test_a_lane_without_room_for_another_large_body_is_full() -> None:
    """Else its rows, the oldest that are due, would be read from the database again and again and be refused."""
    lanes = Lanes(1)
    lane = lanes.lane(endpoint())
    body = bytes(2**20 - 1)
    while lanes.admit(lane, len(body), 0.0) is Admission.QUEUE:
        assert not lanes.full()
        lanes.enqueue(delivery(lane, body=body), 0.0)
    assert lanes.full() == [1]


def test_lanes_beyond_those_kept_idle_cost_the_same() -> None:
    """A fan-out above the number of idle lanes kept does not walk all busy lanes for each new one."""
    lanes = Lanes(1)
    seen = 0

    class Counted(Lane):
        def idle(self) -> bool:
            nonlocal seen
            seen += 1
            return super().idle()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.delivery.lanes.Lane", Counted)
        patch.setattr("consumer.delivery.lanes.prepare", lambda _: PreparedRequest())
        for number in range(IDLE_LANES * 3):
            fill(lanes, lanes.lane(endpoint(number)), 1)
    assert seen < IDLE_LANES * 4


def test_retries_come_when_due_and_first() -> None:
    """A retry waits its time, then goes ahead of what was never tried."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint())
    retry = delivery(lane, 7)
    lanes.wait(retry, due=10.0)
    fill(lanes, lane, 2)
    lanes.wake(9.99)
    assert retry not in started(lanes)
    fill(lanes, lane, 2)
    lanes.wake(10.0)
    assert lanes.next() is retry


def test_a_changed_url_is_used_for_what_is_queued() -> None:
    """The lane sends where the subscription points now."""
    lanes = Lanes(10)
    lane = lanes.lane(endpoint())
    fill(lanes, lane, 1)
    lanes.lane(endpoint(url="https://example.org/new"))
    (queued,) = started(lanes)
    assert isinstance(queued.lane.prepared, PreparedRequest)
    assert queued.lane.prepared.url == "https://example.org/new"


@pytest.mark.parametrize("url", ["http://", "nonsense", "http://[::1", "http://a:99999/"])
def test_a_url_that_is_none_is_an_error_not_a_crash(url: str) -> None:
    """The lane keeps the error for its deliveries."""
    prepared = Lanes(1).lane(endpoint(url=url)).prepared
    assert isinstance(prepared, ValueError | PreparedRequest)
    if url != "http://a:99999/":
        assert isinstance(prepared, ValueError)


def test_withdrawing_takes_only_what_leaves() -> None:
    """Queued and waiting deliveries of a partition come out; the others still start."""
    lanes = Lanes(100)
    lane, other = lanes.lane(endpoint(1)), lanes.lane(endpoint(2))
    fill(lanes, lane, 4)
    fill(lanes, other, 2)
    lanes.wait(delivery(lane, 9), due=1.0)
    taken = lanes.withdraw(lambda each: each.event.record.offset in (1, 9))
    assert sorted(each.event.record.offset for each in taken) == [1, 1, 9]
    assert sorted(each.event.record.offset for each in started(lanes)) == [0, 0, 2, 3]
    lanes.wake(1.0)
    assert lanes.held == 0
    assert not started(lanes)


class LanesMachine(RuleBasedStateMachine):
    """Random offers, starts, ends and withdrawals against a plain list of what is where."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(8)
        self.now = 0.0
        self.here: set[Delivery] = set()
        self.flying: list[Delivery] = []
        self.offsets = iter(range(10**9))

    @rule(number=st.integers(1, 4), size=st.integers(1, 3))
    def offer(self, number: int, size: int) -> None:
        for _ in range(size):
            lane = self.lanes.lane(endpoint(number))
            each = delivery(lane, next(self.offsets))
            assert self.lanes.admit(lane, len(BODY), self.now) is Admission.QUEUE
            self.lanes.enqueue(each, self.now)
            self.here.add(each)

    @rule()
    def start(self) -> None:
        for each in started(self.lanes):
            self.here.remove(each)
            self.flying.append(each)

    @precondition(lambda self: self.flying)
    @rule(seed=st.integers(0, 99), retry=st.booleans())
    def end(self, seed: int, *, retry: bool) -> None:
        each = self.flying.pop(random.Random(seed).randrange(len(self.flying)))
        self.lanes.finished(each.lane)
        if retry:
            self.lanes.wait(each, self.now + seed)
            self.here.add(each)

    @rule(seconds=st.integers(0, 60))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        self.lanes.wake(self.now)

    @rule(remainder=st.integers(0, 4))
    def withdraw(self, remainder: int) -> None:
        taken = self.lanes.withdraw(lambda each: each.event.record.offset % 5 == remainder)
        assert set(taken) == {each for each in self.here if each.event.record.offset % 5 == remainder}
        assert len(taken) == len(set(taken))
        self.here -= set(taken)

    @invariant()
    def counts_are_right(self) -> None:
        assert self.lanes.in_flight == len(self.flying) <= self.lanes.slots
        assert self.lanes.held == len(self.here)

    def teardown(self) -> None:
        """Everything that was taken in comes out in the end."""
        self.now += 1000
        self.lanes.wake(self.now)
        while self.here:
            before = len(self.here)
            while self.flying:
                self.end(0, retry=False)
            self.start()
            assert len(self.here) < before


TestLanes = LanesMachine.TestCase


@given(st.integers(1, 2000), st.integers(1, 30))
def test_every_lane_with_work_gets_on(slots: int, hung: int) -> None:
    """However many receivers hang, one more lane starts as soon as any slot is free."""
    lanes = Lanes(slots)
    for number in range(hung):
        fill(lanes, lanes.lane(endpoint(number)), 20)
    begun = started(lanes)
    lanes.finished(begun[0].lane)
    fill(lanes, lanes.lane(endpoint(99)), 1)
    assert any(each.lane.endpoint.subscription_id == 99 for each in started(lanes)) or lanes.in_flight == slots
