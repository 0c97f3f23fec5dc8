"""Turning events into deliveries: each event is counted once as matched or unmatched, and filters share the turn."""

import pytest

from consumer.delivery.delivery import LANE_DELIVERIES
from consumer.delivery.lanes import Lanes
from consumer.expressions.expression import compile_filter
from consumer.matching.catalog import Catalog, Matches
from consumer.matching.inbox import Inbox
from consumer.matching.selection import TURN, Selector
from consumer.subscriptions.endpoint import Endpoint, Selection
from consumer.telemetry.metrics import Metrics
from consumer.worker.dispatch import LOOK_EVERY, Dispatch
from tests.delivery.backlog_kit import Unwritten, make_backlog
from tests.delivery.store_kit import Clock
from tests.ledger.rows_kit import URL, make_event
from tests.span_recorder import SpanRecorder

WANTED, REFUSED = "data.n == 1", "data.n > 1"


class Desk:
    """A dispatch with known subscriptions, if `known`. The clock moves by `step` at each reading."""

    def __init__(self, *filters: str | None, step: float = 0.0, known: bool = True) -> None:
        self.clock = Clock(step=step)
        endpoints = tuple(
            Endpoint(number, URL, (b"k",), selection=None if each is None else Selection(filter=compile_filter(each)))
            for number, each in enumerate(filters, 1)
        )
        answer: Matches = {("user.created", None): endpoints}
        catalog = Catalog(lambda _, done: done(answer) if known else None, 1000.0, lambda: 100.0)
        self.inbox = Inbox(catalog, lambda _place, _offset: None)
        self.inbox.stored(("t", 0), set())
        self.metrics, self.settled, self.tracer = Metrics(), list[int](), SpanRecorder()
        self.lanes, writes = Lanes(1000), Unwritten()
        self.dispatch = Dispatch(
            self.inbox,
            self.lanes,
            writes.settling,
            Selector(self.metrics, None, self.clock),
            make_backlog(writes),
            self.metrics,
            self.clock,
            tracer=self.tracer,
        )

    def put(self, offset: int) -> None:
        event = make_event(offset, body=b'{"n": 1}')
        self.inbox.put(event, event.size, self.settled.append, 100.0)

    def run(self, turns: int | None = None) -> int:
        """This many turns, or until no event waits. Each turn but the last requests another one. Returns the turns."""
        done = 0
        while self.dispatch.busy if turns is None else done < turns:
            self.dispatch.poll(self.clock())
            done += 1
            assert turns is not None or self.dispatch.ready == self.dispatch.busy
        return done


@pytest.mark.parametrize(
    ("filters", "outcome", "settled"),
    [
        ((), "unmatched", True),
        ((None,), "matched", False),
        ((REFUSED, WANTED), "matched", False),
        ((WANTED, REFUSED), "matched", False),
        ((REFUSED, REFUSED), "unmatched", True),
        (("data.missing == 1",), "unmatched", True),
    ],
)
def test_an_event_is_matched_if_any_subscription_wants_it(
    filters: tuple[str | None, ...], outcome: str, *, settled: bool
) -> None:
    """It is counted once. If no subscription wants it, it is settled at once."""
    desk = Desk(*filters)
    desk.put(0)
    desk.run(3)
    assert dict(desk.metrics.events) == {outcome: 1}
    assert desk.settled == ([0] if settled else [])
    assert not desk.dispatch.busy
    (span,) = desk.tracer.spans
    refused = sum(each is not None and each != WANTED for each in filters)
    counts = span.attributes["webhooks.subscriptions.matched"], span.attributes["webhooks.subscriptions.refused"]
    assert counts == (len(filters) - refused, refused)
    assert span.ended == 1
    assert span.ago == desk.clock.now - 100.0  # measured from the event's arrival


def test_an_event_that_is_not_sampled_has_no_span() -> None:
    """It is matched all the same."""
    desk = Desk(WANTED)
    desk.tracer.passes = f"00-{'a' * 32}-{'b' * 16}-02"
    desk.put(0)
    desk.run(3)
    assert (dict(desk.metrics.events), desk.tracer.spans) == ({"matched": 1}, [])


def test_filters_leave_time_for_the_rest_of_a_turn() -> None:
    """The limit covers all events of a turn. The next turn continues at once from where this one ended."""
    desk = Desk(*[REFUSED] * 20, WANTED, *[REFUSED] * 20, step=TURN / 10)
    for offset in range(5):
        desk.put(offset)
    desk.run(1)  # requests their subscriptions
    assert desk.run() >= 200 / 11
    assert dict(desk.metrics.events) == {"matched": 5}


@pytest.mark.parametrize("filters", [(None,), (WANTED, REFUSED)])
def test_an_event_whose_deliveries_are_all_stored_is_matched(filters: tuple[str | None, ...]) -> None:
    """After a restart it has no delivery left to make, but subscriptions did want it."""
    desk = Desk(*filters)
    desk.inbox.stored(("t", 0), {(0, 1_700_000_000_000, 1)})
    desk.put(0)
    desk.run(3)
    assert dict(desk.metrics.events) == {"matched": 1}
    assert desk.settled == [0]


def lanes_of(desk: Desk) -> int:
    return sum(1 for _ in desk.lanes)


def test_a_turn_fans_out_to_a_part_of_many_subscriptions() -> None:
    """Each may need a new lane and a prepared request. The loop goes on in between, and continues at once."""
    desk = Desk(*[None] * 2000, step=TURN / 10)
    desk.put(0)
    desk.dispatch.poll(desk.clock())
    turns = 1
    while desk.dispatch.busy:
        before = lanes_of(desk)
        desk.dispatch.poll(desk.clock())
        turns += 1
        assert 0 < lanes_of(desk) - before <= 11 * LOOK_EVERY
        assert desk.dispatch.ready == desk.dispatch.busy
    assert turns >= 2000 / (11 * LOOK_EVERY)
    assert (lanes_of(desk), dict(desk.metrics.events)) == (2000, {"matched": 1})


def test_a_partly_fanned_out_event_is_the_first_of_its_partition() -> None:
    """No stored delivery at or above it may be sent, since this process may still make that delivery from the log."""
    desk = Desk(*[None] * 2000, step=TURN / 10)
    for offset in (0, 1):
        desk.put(offset)
    while not lanes_of(desk):
        desk.dispatch.poll(desk.clock())
    assert (lanes_of(desk) < 2000, desk.dispatch.first_offset(("t", 0))) == (True, 0)
    assert desk.dispatch.untouched(("t", 0)) == 1, "a cursor that ends here leaves it the rest of this event"
    assert desk.dispatch.untouched(("t", 1)) is None
    desk.run()
    assert desk.dispatch.first_offset(("t", 0)) is None


def test_an_event_that_waits_for_the_database_does_not_keep_the_loop_busy() -> None:
    """However much of the turn is used up, the loop may wait for the answer."""
    desk = Desk(None, step=TURN / 3, known=False)
    desk.put(0)
    for _ in range(3):
        desk.dispatch.poll(desk.clock())
        assert (desk.dispatch.busy, desk.dispatch.ready) == (True, False)


def test_an_event_without_room_does_not_keep_the_loop_busy() -> None:
    """It waits for requests to end, and so may the loop."""
    desk = Desk(None)
    for offset in range(LANE_DELIVERIES + 1):
        if desk.inbox.room:
            desk.put(offset)
        desk.dispatch.poll(desk.clock())
    desk.put(LANE_DELIVERIES)
    desk.dispatch.poll(desk.clock())
    assert (desk.dispatch.busy, desk.dispatch.ready, desk.lanes.held) == (True, False, LANE_DELIVERIES)
