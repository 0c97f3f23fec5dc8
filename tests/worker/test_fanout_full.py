"""A full process: events go on, whatever fills it."""

from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.delivery.delivery import Delivery, OpenRecord
from consumer.delivery.lanes import SLOW, Lanes
from consumer.ledger.rows import OrderingKey, order_key
from consumer.matching.selection import Selector
from consumer.subscriptions.endpoint import Batch, Endpoint
from consumer.telemetry.metrics import Metrics
from consumer.worker.dispatch import Fanout
from tests.ledger.rows_kit import URL, make_event
from tests.worker.test_fanout import Postponed

HUNG = 30  # turns until a request is given up
TICK = 0.1  # seconds of a turn


class Lot(NamedTuple):
    """A subscription's limits, and the turns for which its receiver keeps a request open."""

    max_in_flight: int | None
    rate_limit: float | None
    ordered: bool
    batch: Batch | None
    turns: int
    fails: bool  # on the first attempt


LOTS = st.builds(
    Lot,
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 0.01, 5.0]),
    st.booleans(),
    st.sampled_from([None, Batch(3, 60.0)]),
    st.sampled_from([0, 1, HUNG]),
    st.booleans(),
)


@settings(deadline=None)
@given(
    lots=st.lists(LOTS, min_size=1, max_size=16), slots=st.sampled_from([1, 2, 3, 10, 1000]), behind=st.integers(0, 5)
)
def test_a_full_process_always_goes_on(lots: list[Lot], slots: int, behind: int) -> None:
    """Hung, rate-limited, failing, ordered or gathering deliveries may fill it. Each is queued or stored once.

    With slots for all, the fan-out never waits. Without, it waits at most as long as the requests that hold all slots.
    """
    targets = tuple(
        Endpoint(number, URL, (b"key",), lot.ordered, lot.max_in_flight, lot.rate_limit, batch=lot.batch)
        for number, lot in enumerate(lots, 1)
    )
    rows = frozenset(OrderingKey(number, "t", 0, order_key(b"k")) for number in range(1, behind + 1))
    lanes, settling, settled = Lanes(slots), Postponed(behind=rows), list[int]()
    events = 4
    coming = [
        Fanout(
            make_event(offset, key=b"k"), targets, OpenRecord(settled.append, offset, len(targets)), Selector(Metrics())
        )
        for offset in range(events)
    ]
    flying: list[tuple[int, Delivery]] = []
    delivered, now, stood, stands = 0, 0.0, 0, (0, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("consumer.delivery.lanes.ALL_DELIVERIES", 4)
        for turn in count():
            held = lanes.held
            while coming and coming[0].advance(lanes, settling, now):
                coming.pop(0)
            if not coming:
                break
            assert lanes.held <= max(held, 8)  # failed deliveries whose requests were open come on top
            before, stands = stands, (len(coming), coming[0].position)
            stood = stood + 1 if before == stands else 0
            assert stood <= (SLOW / TICK if slots > len(lots) * events else events * len(lots) * HUNG)
            lanes.wake(now)
            begun = list(iter(lambda now=now: lanes.next(now), None))  # type: ignore[misc]
            flying += [(turn + lots[each.lane.endpoint.subscription_id - 1].turns, each) for each in begun]
            for request in [each for end, each in flying if end <= turn]:
                lanes.finished(request.lane)
                for each in request.split():
                    each.attempts += 1
                    if lots[each.lane.endpoint.subscription_id - 1].fails and each.attempts == 1:
                        lanes.wait(each, now + 5.0)
                        continue
                    delivered += 1
                    if each.ordering_key is not None:
                        lanes.go_on(each.lane, each.ordering_key)
            flying = [(end, each) for end, each in flying if end > turn]
            now += TICK
    assert delivered + len(settling.stored) + lanes.held + sum(len(each.batch()) for _, each in flying) == (
        events * len(targets)
    )
