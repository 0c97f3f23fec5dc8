"""Batches in lanes: their size, their wait, which deliveries go alone, and that none is lost or sent twice."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.delivery import BATCH_BYTES, LANE_DELIVERIES, OPEN_DELIVERIES
from consumer.delivery.lanes import STILL, Admission, Lanes
from consumer.subscriptions.endpoint import Batch
from tests.delivery.lanes_kit import broken, delivery, endpoint, fill, sent


def test_a_batch_goes_when_it_is_full() -> None:
    """Two full batches go at once, in the order of the log. The rest waits for a third one or for its time."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint(batch=Batch(3, 2.0)))
    fill(lanes, lane, 7)
    assert sent(lanes) == [[0, 1, 2], [3, 4, 5]]
    assert (lane.in_flight, lanes.slots.in_flight, lane.held) == (2, 2, 1)
    fill(lanes, lane, 1, now=1.0, first=7)
    assert sent(lanes, 1.0) == []
    fill(lanes, lane, 1, now=1.5, first=8)
    assert sent(lanes, 1.5) == [[6, 7, 8]]


def test_a_batch_goes_when_its_first_has_waited() -> None:
    """It goes neither earlier nor later, and no turn examines the lane meanwhile."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint(batch=Batch(3, 2.0)))
    fill(lanes, lane, 1, now=1.0)
    assert sent(lanes, 1.0) == []
    fill(lanes, lane, 1, now=2.0, first=1)
    assert sent(lanes, 2.9) == []
    assert not lanes.ready()
    assert (lanes.wakes_before(3.0), lanes.wakes_before(3.01)) == (False, True)
    assert sent(lanes, 3.0) == [[0, 1]]
    assert not lanes.wakes_before(1000.0)


def test_a_batch_goes_when_it_has_its_bytes() -> None:
    """A batch holds up to a mebibyte of bodies. The delivery beyond that goes next; a larger body goes alone."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint(batch=Batch(100, 2.0)))
    for offset, size in enumerate([BATCH_BYTES // 2, BATCH_BYTES // 2 - 1]):
        lanes.enqueue(delivery(lane, offset, bytes(size)), 0.0)
    assert sent(lanes) == []
    lanes.enqueue(delivery(lane, 2, bytes(2)), 0.0)
    assert sent(lanes) == [[0, 1]]
    lanes.enqueue(delivery(lane, 3, bytes(BATCH_BYTES + 1)), 0.0)
    lanes.enqueue(delivery(lane, 4), 0.0)
    assert sent(lanes) == [[2], [3]]
    assert sent(lanes, 2.0) == [[4]]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_retries_of_a_receiver_failure_go_in_batches(status: int) -> None:
    """Deliveries that failed together share a batch again, though each has its own due time, behind queued ones."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint(batch=Batch(4, 2.0)))
    fill(lanes, lane, 1, first=9)
    for offset in range(5):
        lanes.wait(delivery(lane, offset, status=status), due=0.1 * (offset + 1))
    for tenth in range(4):
        started = sent(lanes, tenth / 10 + 0.001)
        assert started == ([[9, 0, 1, 2]] if tenth == 3 else [])
    assert [sent(lanes, when) for when in (0.45, 0.55, 2.44, 2.46)] == [[], [], [], [[3, 4]]]


def test_a_batch_is_one_request_to_every_limit() -> None:
    """Slots, `max_in_flight`, `rate_limit` and the breaker count requests. A lane has room for what these may carry."""
    lanes = Lanes(1000)
    lane = lanes.lane(endpoint(batch=Batch(100, 60.0), max_in_flight=2, rate_limit=1.0))
    admitted = 0
    while lanes.admit(lane, 1, 0.0) is Admission.QUEUE:
        fill(lanes, lane, 1, first=admitted)
        admitted += 1
    assert admitted == 500
    assert [len(each) for each in sent(lanes)] == [100]
    assert [len(each) for each in sent(lanes, 0.9)] == []
    assert [len(each) for each in sent(lanes, 1.0)] == [100]
    assert [len(each) for each in sent(lanes, 2.0)] == []  # two are open
    lanes.finished(lane)
    assert [len(each) for each in sent(lanes, 2.0)] == [100]


def test_a_probe_is_a_batch() -> None:
    """After an open period there is room for a whole batch. The next batch waits for its answer."""
    lanes = Lanes(1000)
    lane = lanes.lane(endpoint(batch=Batch(1000, 60.0)))
    until = broken(lane)
    assert lanes.admit(lane, 1, 0.0) is Admission.STORE
    assert lanes.room(1, until) == 1000
    fill(lanes, lane, 1000, now=until)
    assert lanes.admit(lane, 1, until) is Admission.STORE
    assert [len(each) for each in sent(lanes, until)] == [1000]
    fill(lanes, lane, 1000, now=until)
    assert sent(lanes, until) == []
    lanes.finished(lane)
    lane.succeeded(until + 0.1, until, lanes.slots.total)
    assert [len(each) for each in sent(lanes, until + 0.1)] == [1000]


def test_a_full_lane_sends_an_incomplete_batch() -> None:
    """No further delivery can come in to fill the batch. With one key or a rate limit, it would wait for a minute."""
    lanes = Lanes(100)
    lane = lanes.lane(endpoint(batch=Batch(1000, 60.0)))
    for offset in range(LANE_DELIVERIES):
        lanes.enqueue(delivery(lane, offset, key="a" if offset else "b"), 0.0)
    assert sent(lanes) == [[0, 1]]


def test_a_full_process_sends_incomplete_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches with long waits must not keep other deliveries out. When there is room again, they wait again."""
    monkeypatch.setattr("consumer.delivery.lanes.ALL_DELIVERIES", 6)
    lanes = Lanes(100)
    waiting = [lanes.lane(endpoint(number, batch=Batch(100, 60.0))) for number in (1, 2)]
    for lane in waiting:
        fill(lanes, lane, 2)
    assert sent(lanes) == []
    fill(lanes, lanes.lane(endpoint(3, batch=Batch(100, 60.0))), 2)
    assert sent(lanes) == [[0, 1]]
    assert sent(lanes, 1.0) == []


def test_a_full_lane_holds_the_intake_while_its_batch_may_go() -> None:
    """Its head has waited for more deliveries, not for the receiver. The next one is held for a turn, not stored.

    A hung receiver does not hold the intake once the lane has its maximum open.
    """
    lanes = Lanes(1000)
    lane = lanes.lane(endpoint(batch=Batch(1000, 60.0)))
    fill(lanes, lane, LANE_DELIVERIES - 1)
    assert sent(lanes, 30.0) == []
    fill(lanes, lane, 1, now=30.0)
    assert lanes.admit(lane, 1, 30.0) is Admission.BACKPRESSURE
    requests = 0
    while lanes.admit(lane, 1, 31.0) is not Admission.STORE and requests < 20:
        requests += len(sent(lanes, 31.0))
        fill(lanes, lane, LANE_DELIVERIES, now=31.0)
    assert requests == OPEN_DELIVERIES // 1000
    assert lanes.admit(lane, 1, 31.0 + STILL) is Admission.STORE


def test_batches_that_hang_hold_a_bounded_number_of_deliveries() -> None:
    """Counted in slots alone, a lane could have half a million deliveries open."""
    lanes = Lanes(10_000)
    for size in (3, 100, 1000):
        lane = lanes.lane(endpoint(size, batch=Batch(size, 60.0)))
        fill(lanes, lane, 2 * OPEN_DELIVERIES)
        assert len(sent(lanes)) == lane.in_flight == OPEN_DELIVERIES // size


def test_a_lane_goes_on_when_its_batch_option_changes() -> None:
    """Waiting deliveries go when the subscription no longer asks for batches, or for a shorter wait. Retries do too."""
    lanes = Lanes(100)
    batched = lanes.lane(endpoint(batch=Batch(10, 60.0)))
    fill(lanes, batched, 2)
    assert sent(lanes) == []
    assert lanes.lane(endpoint(batch=Batch(10, 1.0))) is batched
    assert sent(lanes, 0.5) == []
    assert sent(lanes, 1.0) == [[0, 1]]
    fill(lanes, batched, 2, now=1.0)
    assert sent(lanes, 1.0) == []
    lanes.lane(endpoint(batch=None))
    assert sent(lanes, 1.1) == [[0], [1]]


@pytest.mark.parametrize("batch", [None, Batch(1, 0.0)])
def test_a_lane_at_its_limit_goes_on_when_the_limit_is_raised(batch: Batch | None) -> None:
    """The subscription or a larger share may raise it. The open requests need not end first: they may hang."""
    lanes = Lanes(100)
    lanes.rebound(lambda _: 0.5)
    lane = lanes.lane(endpoint(batch=batch, max_in_flight=2))
    fill(lanes, lane, 4)
    assert sent(lanes) == [[0]]
    lanes.rebound(lambda _: 1.0)
    assert sent(lanes, 0.1) == [[1]]
    lanes.lane(endpoint(batch=batch, max_in_flight=3))
    assert sent(lanes, 0.2) == [[2]]


class Offer(NamedTuple):
    """A delivery that arrives at a tick."""

    tick: int
    size: int
    alone: bool


OFFERS = st.lists(st.builds(Offer, st.integers(0, 30), st.integers(0, 12), st.booleans()), max_size=60)
ROOM = 20  # bytes of a batch in this test
TICK = 0.25


@given(offers=OFFERS, size=st.integers(1, 8), ticks=st.integers(0, 12), retried=st.sets(st.integers(0, 59)))
def test_every_delivery_goes_once_in_time_in_a_bounded_batch(
    offers: list[Offer], size: int, ticks: int, retried: set[int]
) -> None:
    """No batch goes early: it is full, has its bytes, goes alone, or its first delivery has waited."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.delivery.delivery.BATCH_BYTES", ROOM)
        lanes = Lanes(1000)
        lane = lanes.lane(endpoint(batch=Batch(size, ticks * TICK)))
        coming = {
            number: delivery(lane, number, bytes(offer.size), status=404 if offer.alone else None)
            for number, offer in enumerate(offers)
        }
        queued_at: dict[int, int] = {}
        gone: list[int] = []
        for tick in range(32 + 12 + 2):
            now = tick * TICK
            for number, offer in enumerate(offers):
                if offer.tick == tick and number in retried:
                    lanes.wait(coming[number], due=now)
                elif offer.tick == tick:
                    lanes.enqueue(coming[number], now)
                if offer.tick == tick:
                    queued_at[number] = tick
            lanes.wake(now)
            for first in iter(lambda now=now: lanes.next(now), None):  # type: ignore[misc]
                carried = first.batch()
                numbers = [each.event.record.offset for each in carried]
                total = sum(len(each.event.body) for each in carried)
                assert len(carried) == 1 or (total <= ROOM and not any(each.goes_alone for each in carried))
                assert len(carried) <= size
                left = sum(len(each.event.body) for each in lane.queue)
                complete = len(carried) + len(lane.queue) >= size or total + left >= ROOM or first.goes_alone
                assert complete or tick - queued_at[numbers[0]] >= ticks
                assert all(tick - queued_at[number] <= ticks for number in numbers)
                gone += numbers
                lanes.finished(lane)
            assert all(tick - queued_at[number] < max(ticks, 1) for number in queued_at.keys() - set(gone))
        assert sorted(gone) == sorted(coming)
        assert (lanes.held, lanes.slots.in_flight, lane.held_bytes) == (0, 0, 0)
