"""After the request of a batch: effects that count once, effects for each delivery, and deliveries that go on alone."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests import RequestException, Response
from requests.exceptions import ConnectTimeout
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.delivery.delivery import Delivery
from consumer.errors import EgressRefused
from consumer.ledger import outbox
from consumer.subscriptions.endpoint import Batch, Endpoint
from tests.delivery.desk_kit import LONG, SHORT, TOOK, Desk, response
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import DEFAULT, GROUP, URL
from tests.simulation.transport import Hopeless

REFUSED = EgressRefused("10.0.0.1 is a private address")
UNUSED = count(1000, 100)  # offsets, and ids of subscriptions
RESULTS: dict[str, Response | RequestException] = {
    "ok": response(200),
    "fails": response(500),
    "no answer": ConnectTimeout("slow"),
    "refused": response(422),
    "gone": response(410),
    "unsendable": REFUSED,
    "hopeless": Hopeless("a line break"),
}


@pytest.fixture
def desk(engine: Engine, rigs: list[Store]) -> Desk:
    """A Settling whose subscription has batches without a wait."""
    rigs.append(desk := Desk(engine, Batch(100, 0.0), pause_after=86400.0))
    return desk


def three(desk: Desk) -> list[Delivery]:
    """A record never attempted, one that failed once, and a stored row that failed twice."""
    return [desk.delivery(offset=0), desk.delivery(offset=1, attempts=1), desk.row(2, offset=2)]


def rows(desk: Desk) -> list[tuple[object, ...]]:
    """Offset, status and attempts of each row."""
    return sorted(desk.rows("record_offset", "status", "attempt"))


def test_a_2xx_delivers_all_and_counts_as_one_request(desk: Desk) -> None:
    """Each delivery is settled and counted as delivered. One attempt is counted and timed."""
    desk.end(desk.open(*three(desk)), response(204))
    assert desk.settled == [0, 1]
    desk.write()
    assert rows(desk) == [(2, "delivered", 3)]
    assert desk.metrics.deliveries == {"delivered": 3}
    assert desk.metrics.attempts == {"2xx": 1}
    assert sum(desk.metrics.attempt_seconds.counts) == 1
    assert sum(desk.metrics.delivery_latency_seconds.counts) == 3
    assert (desk.lanes.slots.in_flight, desk.lanes.held, len(desk.taken_up)) == (0, 0, 0)
    assert [each[:4] for each in desk.reported] == [
        (0, 1, 204, "delivered"),
        (1, 2, 204, "delivered"),
        (2, 3, 204, "delivered"),
    ]


def test_a_failure_is_an_attempt_of_each_by_its_own_schedule(desk: Desk) -> None:
    """The first is retried from memory, the second is stored for a longer wait, the third is given up."""
    desk.end(desk.open(*three(desk)), response(503))
    assert desk.waiting() == [SHORT]
    desk.write()
    assert rows(desk) == [(1, "parked", 2), (2, "exhausted", 3)]
    assert [row[2] for row in desk.results()] == [None, LONG]
    assert desk.metrics.deliveries == {"retried": 1, "parked": 1, "exhausted": 1}
    assert desk.metrics.attempts == {"5xx": 1}
    assert [each[:4] for each in desk.reported] == [
        (0, 1, 503, "retried"),
        (1, 2, 503, "parked"),
        (2, 3, 503, "exhausted"),
    ]
    assert [event.data["attempts"] for _, event, _ in outbox.pending(desk.engine, GROUP, 9)] == [3]


def test_a_batch_that_fails_is_one_failure_to_the_breaker(desk: Desk) -> None:
    """Ten failed requests in a row open it, whatever number of deliveries each carried."""
    for number in range(10):
        assert desk.opens_in is None
        desk.end(desk.open(*(desk.delivery(offset=100 * number + each) for each in range(5))), response(503))
    assert desk.opens_in is not None
    assert desk.lanes.held == 0, "waiting deliveries are stored"


@pytest.mark.parametrize("result", ["fails", "no answer"])
def test_deliveries_that_failed_together_are_retried_together(desk: Desk, result: str) -> None:
    """Jitter does not scatter them: all with the same number of attempts are due together and go in one batch."""
    desk.settling._jitter = 1.0
    members = [desk.delivery(offset=offset) for offset in range(20)]
    desk.end(desk.open(*members), RESULTS[result])
    (due,) = set(desk.waiting())
    assert desk.go_on(members[0], due).batch() == tuple(members)


def end_each_alone(desk: Desk, members: Sequence[Delivery]) -> None:
    """All are due and go in requests of their own. The second one is refused again, the others succeed."""
    desk.lanes.wake(desk.monotonic.now)
    for _ in members:
        each = desk.lanes.next(desk.monotonic.now)
        assert each is not None
        assert each.batch() == (each,)
        desk.end(each, response(422 if each is members[1] else 200))
    desk.write()


@pytest.mark.parametrize(
    ("final", "schedule", "wait", "cause"),
    [
        (frozenset[int](), None, SHORT, "parked"),
        (frozenset((422,)), None, 0.0, "exhausted"),
        (frozenset[int](), (), 0.0, "exhausted"),
    ],
    ids=["not final", "by its status", "by its schedule"],
)
def test_a_refused_batch_is_retried_one_by_one(
    desk: Desk, final: frozenset[int], schedule: tuple[float, ...] | None, wait: float, cause: str
) -> None:
    """One delivery is the cause: it fails again, and only it is given up in the end. Its neighbours are delivered."""
    desk.endpoint = replace(desk.endpoint, final_statuses=final, retry_schedule=schedule)
    members = [desk.delivery(offset=offset) for offset in range(3)]
    desk.end(desk.open(*members), response(422))
    desk.monotonic.now += wait
    end_each_alone(desk, members)
    assert (sorted(desk.settled), rows(desk)) == ([0, 1, 2], [(1, cause, 2)])


def test_a_410_ends_all_and_disables_once(desk: Desk) -> None:
    """Deliveries waiting for the same receiver are held."""
    request = desk.open(*three(desk))
    desk.enqueue(desk.delivery(offset=9))
    with capture_logs() as logs:
        desk.end(request, response(410))
    desk.write_all()
    assert rows(desk) == [(0, "exhausted", 1), (1, "exhausted", 2), (2, "exhausted", 3), (9, "held", 0)]
    assert desk.disabled() == "the receiver answered 410 Gone"
    assert [line["event"] for line in logs].count("disabling a subscription") == 1
    told = [event.type for _, event, _ in outbox.pending(desk.engine, GROUP, 9)]
    assert sorted(told) == ["delivery.exhausted"] * 3 + ["subscription.disabled"]


def test_a_batch_raises_events_unless_all_of_it_is_operational_events(desk: Desk) -> None:
    """Operational events alone raise no further ones. Another event among them does."""
    members = [desk.delivery(offset=0, topic="operations"), desk.delivery(offset=1)]
    desk.end(desk.open(*members), response(410))
    desk.write_all()
    told = [(event.type, event.data.get("offset")) for _, event, _ in outbox.pending(desk.engine, GROUP, 9)]
    assert sorted(told) == [("delivery.exhausted", 1), ("subscription.disabled", None)]


@pytest.mark.parametrize("leaving", [0, 1])
def test_leaving_deliveries_of_an_open_batch_are_stored_and_the_rest_goes_on(desk: Desk, leaving: int) -> None:
    """The request's result applies to the rest only, even if the delivery that represents the request has left."""
    members = [desk.delivery(offset=0), desk.delivery(offset=1, partition=1), desk.delivery(offset=2)]
    members[2].attempts = 1
    request = desk.open(*members)
    desk.revoked.add(("t", leaving))
    left = [each for each in members if each.event.record.partition == leaving]
    for each in left:
        each.released = True
    desk.settling.on_cancelled(left, TOOK)
    assert desk.metrics.attempts == {}
    desk.end(request, response(200))
    assert desk.settled == [each.event.record.offset for each in members if each not in left]
    desk.write_all()
    assert rows(desk) == {0: [(0, "parked", 1), (2, "parked", 2)], 1: [(1, "parked", 1)]}[leaving]
    assert {row[4] for row in desk.results()} == {"stopped while the request was open: its outcome is unknown"}


def test_a_key_goes_on_after_a_batch(desk: Desk) -> None:
    """If its event is delivered, the key's next one is queued. If it is stored, the next one is stored behind it."""
    first, second, third = (desk.delivery(offset=offset, key=key) for offset, key in enumerate((b"a", b"b", b"a")))
    desk.end(desk.open(first, second, third), response(200))
    assert desk.go_on(third).batch() == (third,)
    desk.enqueue(desk.delivery(offset=3, key=b"a"))
    third.attempts = 1
    desk.end(third, response(503))
    desk.write()
    assert rows(desk) == [(2, "parked", 2), (3, "blocked", 0)]


def test_each_delivery_of_a_batch_has_its_log_line(desk: Desk) -> None:
    """The line has the size of the batch."""
    members = [desk.delivery(offset=0), desk.delivery(offset=1)]
    with capture_logs() as logs:
        desk.end(desk.open(*members), response(503))
    assert [(line["event"], line["offset"], line["batch"], line["outcome"]) for line in logs] == [
        ("attempt", 0, 2, "retried"),
        ("attempt", 1, 2, "retried"),
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 5),
    results=st.lists(st.sampled_from(sorted(RESULTS)), min_size=3, max_size=3),
    leaves=st.sets(st.integers(0, 2)),
    cut_off=st.booleans(),
)
def test_each_record_is_settled_once_and_not_too_early(
    desk: Desk, size: int, results: list[str], leaves: set[int], *, cut_off: bool
) -> None:
    """This holds for every result of its requests and for leaving partitions. All slots are free in the end."""
    base = next(UNUSED)
    desk.lanes.withdraw(lambda _: True)
    desk.settled.clear()
    desk.revoked = {("t", number) for number in leaves}
    # A new subscription: the failures of earlier examples must not count.
    desk.endpoint = Endpoint(base, URL, DEFAULT, batch=Batch(size, 0.0))
    offsets = {base + number: number % 3 for number in range(7)}
    attempts = dict.fromkeys(offsets, 0)
    for offset, partition in offsets.items():
        desk.lanes.enqueue(desk.delivery(offset=offset, partition=partition), desk.monotonic.now)
    for result in results:
        desk.lanes.wake(desk.monotonic.now)
        while (request := desk.lanes.next(desk.monotonic.now)) is not None:
            carried = request.batch()
            assert len(carried) <= size
            for each in carried:
                attempts[each.event.record.offset] += 1
                assert each.event.record.offset not in desk.settled
            if cut_off:
                desk.lanes.finished(request.lane)
                desk.settling.on_cancelled(request.split(), TOOK)
            else:
                desk.end(request, RESULTS[result])
        desk.monotonic.now += SHORT
    assert (desk.lanes.slots.in_flight, desk.lanes.lane(desk.endpoint).in_flight) == (0, 0)
    desk.write_all()
    waiting = {each.event.record.offset for each in desk.lanes.withdraw(lambda _: True)}
    assert sorted((*desk.settled, *waiting)) == sorted(offsets)
    assert all(number <= 3 for number in attempts.values())
