"""Very many lanes: which are kept, and which deliveries are admitted when the process is full."""

import pytest
from requests import PreparedRequest

from consumer.delivery.delivery import LANE_DELIVERIES, Delivery, Lane
from consumer.delivery.lanes import IDLE_LANES, NEW_CONNECTIONS, SLOW, STILL, Admission, Lanes
from tests.delivery.lanes_kit import BODY, delivery, endpoint, fill, started, turn


def test_lanes_beyond_those_kept_idle_cost_the_same() -> None:
    """A fan-out above the number of idle lanes kept does not walk all busy lanes for each new one."""
    lanes = Lanes(1)
    seen = 0

    class Counted(Lane):
        def idle(self, now: float) -> bool:
            nonlocal seen
            seen += 1
            return super().idle(now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.delivery.lanes.Lane", Counted)
        patch.setattr("consumer.delivery.delivery.prepare", lambda _: PreparedRequest())
        for number in range(IDLE_LANES * 3):
            fill(lanes, lanes.lane(endpoint(number)), 1)
    assert seen < IDLE_LANES * 4


def test_a_rate_is_not_forgotten_with_an_idle_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new lane would begin with a full bucket, so an idle lane stays until its bucket is full again."""
    monkeypatch.setattr("consumer.delivery.lanes.IDLE_LANES", 2)
    lanes = Lanes(10)
    lane = lanes.lane(endpoint(0, rate_limit=0.01))
    fill(lanes, lane, 1)
    assert len(started(lanes)) == 1
    lanes.finished(lane)
    for number in range(1, 10):
        lanes.wake(float(number))
        lanes.lane(endpoint(number))
    assert lanes.lane(endpoint(0, rate_limit=0.01)) is lane
    fill(lanes, lane, 1, now=10.0)
    assert started(lanes, 99.9) == []
    assert len(started(lanes, 100.0)) == 1
    lanes.finished(lane)
    lanes.wake(200.0)
    for number in range(10, 20):
        lanes.lane(endpoint(number))
    assert lane not in set(lanes)


def test_lanes_after_a_large_fanout_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once they are idle, no more lanes are kept than before, except those busy at the last check."""
    monkeypatch.setattr("consumer.delivery.lanes.IDLE_LANES", 10)
    lanes = Lanes(1000)
    for number in range(100):
        fill(lanes, lanes.lane(endpoint(number)), 1)
    for each in started(lanes):
        lanes.finished(each.lane)
    for number in range(100, 120):
        lanes.lane(endpoint(number))
    assert len(set(lanes)) <= 20


class Crowd:
    """A process that may hold ten deliveries, and ten more for empty lanes, one each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: int, max_in_flight: int | None = None) -> None:
        monkeypatch.setattr("consumer.delivery.lanes.ALL_DELIVERIES", 10)
        self.lanes = Lanes(slots)
        self.max_in_flight = max_in_flight
        self.numbers = iter(range(10**6))

    def offer(self, now: float = 0.0) -> Admission:
        """A delivery for an empty lane, queued if it is admitted."""
        lane = self.lanes.lane(endpoint(next(self.numbers), max_in_flight=self.max_in_flight))
        found = self.lanes.admit(lane, len(BODY), now)
        if found is Admission.QUEUE:
            self.lanes.enqueue(delivery(lane), now)
        return found


def test_a_crowd_of_empty_lanes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One event for a hundred thousand subscriptions does not take as many objects: it waits while slots are scarce."""
    crowd = Crowd(monkeypatch, slots=5)
    for _ in range(20):
        assert crowd.offer() is Admission.QUEUE
    for now in range(10):
        assert crowd.offer() is Admission.BACKPRESSURE
        begun = turn(crowd.lanes, float(now))
        assert len(begun) == 5
        for _ in begun:
            assert crowd.offer() is Admission.QUEUE
        assert crowd.offer() is Admission.BACKPRESSURE
        for each in begun:
            crowd.lanes.finished(each.lane)


def test_the_intake_waits_for_lanes_that_open_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next turn opens more of them."""
    crowd = Crowd(monkeypatch, slots=1000)
    while crowd.offer() is Admission.QUEUE:
        pass
    for lane in crowd.lanes:
        lane.connects = True
    assert len(turn(crowd.lanes)) == NEW_CONNECTIONS
    while crowd.offer() is Admission.QUEUE:
        pass
    assert crowd.offer() is Admission.BACKPRESSURE


def test_stuck_lanes_do_not_hold_the_intake(monkeypatch: pytest.MonkeyPatch) -> None:
    """While receivers hang or are limited, another subscription's delivery is stored although its lane is empty."""
    crowd = Crowd(monkeypatch, slots=1000, max_in_flight=1)
    while crowd.offer() is Admission.QUEUE:
        pass
    begun = turn(crowd.lanes)
    for each in begun:
        fill(crowd.lanes, each.lane, 1)
    assert crowd.lanes.held == 20
    assert turn(crowd.lanes) == []
    assert crowd.offer() is Admission.STORE
    crowd.lanes.finished(begun[0].lane)
    assert len(turn(crowd.lanes)) == 1
    assert crowd.offer() is Admission.QUEUE
    assert crowd.offer() is not Admission.QUEUE


@pytest.mark.parametrize(
    ("slots", "limit", "ends", "decision"),
    [
        (1, None, True, Admission.BACKPRESSURE),
        (4, None, False, Admission.STORE),
        (1, 1, True, Admission.STORE),
    ],
    ids=["all slots turn over", "receivers keep the slots", "at its own limit"],
)
def test_a_lane_that_waits_for_a_slot_holds_the_intake_if_slots_turn_over(
    monkeypatch: pytest.MonkeyPatch, slots: int, limit: int | None, decision: Admission, *, ends: bool
) -> None:
    """Its head has then waited for the other lanes. Else it waits for its receiver, and its deliveries are stored."""
    lanes = Crowd(monkeypatch, slots, limit).lanes
    for number in range(20):
        fill(lanes, lanes.lane(endpoint(number, max_in_flight=limit)), 3)
    now = 0.0
    while now < 1.5 * SLOW:
        for each in turn(lanes, now):
            if ends:
                lanes.finished(each.lane)
        now += STILL / 4
    if limit:
        (open_one,) = turn(lanes, now)
        waiting, now = [open_one.lane], now + SLOW
    else:
        waiting = [lane for lane in lanes if lane.queue]
    assert any(now - lane.queue[0].queued_at >= SLOW for lane in waiting)
    assert {lanes.admit(lane, 1, now) for lane in waiting} == {decision}


def test_a_hung_receiver_does_not_hold_the_intake_when_slots_are_scarce() -> None:
    """Other lanes take most slots and turn them over, but none of this lane's requests has ended for a second."""
    lanes = Lanes(8)
    hung, *others = (lanes.lane(endpoint(number)) for number in range(5))
    for lane in (hung, *others):
        fill(lanes, lane, LANE_DELIVERIES + 100)
    opened: list[Delivery] = []
    now = 0.0
    while now < 1.5 * SLOW:
        for each in opened:
            if each.lane is not hung:
                lanes.finished(each.lane, each.slots)
        opened = turn(lanes, now)
        now += STILL / 4
    assert lanes.slots.quick
    assert lanes.slots.is_scarce(hung.slots)
    assert lanes.admit(others[0], 1, now) is Admission.BACKPRESSURE
    assert lanes.admit(hung, 1, now) is Admission.STORE


def test_a_crowd_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each empty lane may hold one delivery, all of them together no more bytes than the other lanes may."""
    monkeypatch.setattr("consumer.delivery.lanes.ALL_BYTES", 10 * len(BODY))
    lanes = Lanes(5)
    found = []
    for number in range(30):
        lane = lanes.lane(endpoint(number))
        found.append(lanes.admit(lane, len(BODY), 0.0))
        if found[-1] is Admission.QUEUE:
            fill(lanes, lane, 1)
    assert found == [Admission.QUEUE] * 20 + [Admission.BACKPRESSURE] * 10


def test_stored_deliveries_of_an_empty_lane_have_room_beside_full_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receivers that have filled the process do not keep other subscriptions' rows in the database."""
    monkeypatch.setattr("consumer.delivery.lanes.ALL_DELIVERIES", 10)
    lanes = Lanes(5)
    fill(lanes, lanes.lane(endpoint(1)), 10)
    lanes.lane(endpoint(2))
    assert [lanes.room(number, 0.0) for number in (1, 2, 3)] == [0, 1, 1]
    for number in range(10, 20):
        fill(lanes, lanes.lane(endpoint(number)), 1)
    assert [lanes.room(number, 0.0) for number in (1, 2, 3)] == [0, 0, 0]
