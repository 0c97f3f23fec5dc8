"""Requests for the deliveries that lanes start: single or batched, in the subscription's time limit, or impossible."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import orjson
import pytest
from requests import PreparedRequest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.delivery.delivery import Delivery
from consumer.delivery.limits import MEMORY
from consumer.delivery.sender import GROWTH, NO_DESCRIPTOR_WAIT, Sender
from consumer.errors import NoDescriptor
from consumer.events.event import Event
from consumer.expressions.expression import compile_projection
from consumer.matching.selection import PAUSE
from consumer.sending.exchange import SignedRequest
from consumer.sending.request import build
from consumer.sending.signing import Template
from consumer.sending.transfer import Result, Transfer
from consumer.subscriptions.endpoint import Batch, Endpoint
from tests.delivery.desk_kit import SHORT, Desk, response
from tests.delivery.store_kit import Store
from tests.ledger.rows_kit import DEFAULT, URL
from tests.span_recorder import SpanRecorder


class Wire:
    """Stands in for the adapter: requests stay open until `end`. They share one transfer."""

    connections_opened = 0

    def __init__(self) -> None:
        self.requests: list[PreparedRequest] = []
        self.timeouts: list[float | None] = []
        self.transfer = Transfer(PreparedRequest(), lambda _: None, 0.0, 0.0)
        self.end: Callable[[Result], None] = lambda _: None
        self.ends: list[Callable[[Result], None]] = []

    def submit(
        self,
        request: PreparedRequest,
        callback: Callable[[Result], None],
        *,
        timeout: float | None = None,
    ) -> Transfer:
        """Open a request."""
        self.requests.append(request)
        self.timeouts.append(timeout)
        self.end = callback
        self.ends.append(callback)
        return self.transfer

    def cancel(self, transfer: object) -> None:
        """Cancel the request."""
        assert transfer is self.transfer

    def close(self) -> None:
        """Drop all of them."""

    def bodies(self) -> list[bytes | str | None]:
        """The bodies sent."""
        return [request.body for request in self.requests]


class Counter(Desk):
    """A Sender. The test sets the subscription's options."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.tracer = SpanRecorder()
        self.wire = Wire()
        self.sender = Sender(self.lanes, self.settling, self.wire, self.memory, self.clock, self.monotonic, self.tracer)

    def ask(self, url: str = URL, **options: object) -> None:
        """Set the subscription's URL and options."""
        self.endpoint = Endpoint(self.subscription, url, DEFAULT, **options)  # type: ignore[arg-type]  # field names

    def queue(self, *bodies: bytes) -> list[Delivery]:
        """Queue one delivery for each body, of records not yet started."""
        deliveries = [self.delivery(offset=offset) for offset in range(len(bodies))]
        for delivery, body in zip(deliveries, bodies, strict=True):
            delivery.event = delivery.event._replace(body=body)
        self.enqueue(*deliveries)
        return deliveries

    def turn(self, *bodies: bytes, **options: object) -> list[Delivery]:
        """A turn of the loop. With bodies, their deliveries are queued before, with these options if there are some."""
        if options:
            self.ask(**options)  # type: ignore[arg-type]  # field names
        deliveries = self.queue(*bodies)
        self.lanes.wake(self.monotonic.now)
        self.sender.start()
        return deliveries


@pytest.fixture
def counter(engine: Engine, rigs: list[Store]) -> Counter:
    """A Sender on an empty database."""
    rigs.append(counter := Counter(engine))
    return counter


@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
@pytest.mark.parametrize("timeout", [None, 3.5])
def test_a_request_has_its_subscriptions_time_limit(
    counter: Counter, batch: Batch | None, timeout: float | None
) -> None:
    """The subscription's own limit, or None for the deployment's."""
    counter.turn(b"{}", batch=batch, timeout=timeout)
    assert counter.wire.timeouts == [timeout]


@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
def test_a_process_without_descriptors_makes_no_attempt(counter: Counter, batch: Batch | None) -> None:
    """The deliveries wait in memory, and are sent a moment later. /readyz says so for a minute."""
    counter.ask(batch=batch)
    deliveries = counter.queue(b"1", b"2")
    sender = counter.sender
    counter.turn()
    with capture_logs() as logs:
        for end in (counter.wire.end,) if batch else counter.wire.ends:
            end(NoDescriptor("this process may open no more files"))
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert sender.fault == "this process may open no more files"
    assert (sender.ready, bool(sender.open), sum(counter.metrics.attempts.values())) == (False, False, 0)
    before = counter.wire.bodies()
    counter.turn()
    assert counter.wire.bodies() == before
    counter.monotonic.now += NO_DESCRIPTOR_WAIT
    assert sender.ready
    counter.turn()
    assert sorted(map(str, counter.wire.bodies())) == sorted(map(str, before * 2))
    assert [each.attempts for each in deliveries] == [0, 0]
    counter.monotonic.now += 60
    assert sender.fault is None


def test_a_revoked_partition_waits_for_no_descriptor(counter: Counter) -> None:
    """Its deliveries are stored, also those behind it in order: the next owner sends them."""
    counter.ask(ordered=True)
    counter.enqueue(*(counter.delivery(offset=offset, key=b"k") for offset in (0, 1)))
    counter.turn()
    counter.revoked.add(("t", 0))
    counter.wire.end(NoDescriptor("this process may open no more files"))
    counter.write()
    assert [row[:2] for row in counter.results()] == [("parked", 0), ("blocked", 0)]
    assert counter.lanes.held == 0


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_batch_is_an_array_however_few_it_holds(counter: Counter, number: int) -> None:
    """Its order is that of the log. All its records count as started. One request is open, and its end ends all."""
    deliveries = counter.turn(*(b'{"n":%d}' % each for each in range(number)), batch=Batch(5, 0.0))
    (body,) = counter.wire.bodies()
    assert orjson.loads(body or b"") == [{"n": each} for each in range(number)]
    assert all(each.origin.started for each in deliveries)  # type: ignore[union-attr]  # records
    assert (list(counter.sender.open), counter.lanes.slots.in_flight) == ([deliveries[0]], 1)
    counter.wire.end(response(200))
    assert counter.settled == list(range(number))
    assert (counter.sender.open, counter.lanes.slots.in_flight) == ({}, 0)


@pytest.mark.parametrize("bad", [{0}, {2}, {0, 1}, {0, 1, 2}])
def test_a_member_that_cannot_be_rendered_is_given_up_and_the_others_go(counter: Counter, bad: set[int]) -> None:
    """Its place in the batch does not matter. If no member can be rendered, there is no request and no slot."""
    deliveries = counter.turn(*(b"no JSON" if each in bad else b"%d" % each for each in range(3)), batch=Batch(3, 0.0))
    good = [each for each in range(3) if each not in bad]
    assert [orjson.loads(body or b"") for body in counter.wire.bodies()] == ([good] if good else [])
    assert counter.lanes.slots.in_flight == bool(good)
    assert {number for number, each in enumerate(deliveries) if each.origin.started} == set(good)  # type: ignore[union-attr]  # records
    if good:
        counter.wire.end(response(200))
    counter.write()
    assert sorted(counter.settled) == [0, 1, 2]
    assert counter.rows("record_offset", "status") == [(each, "exhausted") for each in sorted(bad)]
    assert counter.metrics.attempts == ({"2xx": 1} if good else {})


@pytest.mark.parametrize("batch", [None, Batch(10, 0.0)])
def test_the_time_of_a_projection_is_charged(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, batch: Batch | None
) -> None:
    """It is charged alone or in a batch, with a value or without. Without a projection nothing is charged."""
    ticks = itertools.count()
    monkeypatch.setattr(
        "consumer.delivery.sender.time.thread_time", lambda: next(ticks) * 0.009
    )  # the sixth is over the budget
    counter.turn(*[b"{}"] * 10, batch=batch)
    assert (len(counter.budget), next(ticks)) == (0, 0)
    counter.turn(*[b'{"a": 1}', b"{}"] * 5, batch=batch, projection=compile_projection("{'a': data.a}"))
    assert counter.budget.is_over(counter.subscription)
    assert counter.lanes.lane(counter.endpoint).breaker.open_until == counter.monotonic.now + PAUSE


def test_a_subscription_gets_no_more_time_than_its_budget(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve whose requests take 0.07 s to make leave the processor to the one beside them: each has one in a pause."""
    made: list[int] = []

    def slowly(template: Template, endpoint: Endpoint, event: Event, *more: Any) -> SignedRequest:
        made.append(endpoint.subscription_id)
        counter.monotonic.now += 0.07 if endpoint.renders else 0.0
        return build(template, endpoint, event, *more)

    monkeypatch.setattr("consumer.delivery.sender.time.thread_time", lambda: counter.monotonic.now)
    monkeypatch.setattr("consumer.delivery.sender.build", slowly)
    victim = replace(counter.endpoint, subscription_id=1000)
    attackers = [replace(victim, subscription_id=each, projection=compile_projection("data")) for each in range(12)]
    ends = counter.monotonic.now + PAUSE
    for _ in range(50):
        for endpoint in (*attackers, victim):
            counter.endpoint = endpoint
            if counter.lanes.room(endpoint.subscription_id, counter.monotonic.now):
                counter.queue(b"{}")
        counter.turn()
        counter.monotonic.now += 0.01
        for end in counter.wire.ends:
            end(response(200))
        counter.wire.ends.clear()
    assert counter.monotonic.now < ends
    assert sorted(made) == [*range(12), *[1000] * 50]


def test_a_subscription_that_anothers_charge_has_left_out_sends_no_more(counter: Counter) -> None:
    """Of all that share a worker, the one that has taken most pays, whoever is charged last."""
    counter.ask(projection=compile_projection("data"))
    counter.budget.charge(counter.subscription, 0.0495)
    for number in range(1000, 1004):
        counter.budget.charge(number, 0.045)
    assert counter.budget.is_over(counter.subscription)
    counter.turn(*[b"{}"] * 10)
    assert len(counter.wire.requests) <= 1
    assert counter.lanes.held == 0


@pytest.mark.parametrize(("seconds", "is_over"), [(0.004, False), (0.106, True)], ids=["usual", "ffdhe8192"])
def test_the_time_of_a_handshake_is_charged(counter: Counter, seconds: float, *, is_over: bool) -> None:
    """Beyond what a usual one takes. A receiver that answers 200 and closes would not open its circuit breaker."""
    counter.wire.transfer.spend(seconds)
    counter.turn(*[b"{}"] * 5)
    for end in counter.wire.ends:
        end(response(200))
    assert counter.budget.is_over(counter.subscription) is is_over
    assert (counter.lanes.lane(counter.endpoint).breaker.open_until is not None) is is_over
    assert sorted(counter.settled) == [0, 1, 2, 3, 4]


def test_an_event_that_cannot_be_rendered_is_given_up(counter: Counter) -> None:
    """It gets no request and no slot, its span ends with the error's type, and the next event goes on."""
    counter.turn(b"\xff", b"{}", payload_format="standard")
    assert (len(counter.wire.requests), counter.lanes.slots.in_flight) == (1, 1)
    assert [(span.error, span.ended) for span in counter.tracer.spans] == [("Unrenderable", 1), (None, 0)]
    counter.write()
    assert counter.rows("record_offset", "status", "attempt") == [(0, "exhausted", 1)]


def fail(*_: object, **__: object) -> NoReturn:
    raise AttributeError("a bug")


BUG = "the request could not be made (AttributeError); the worker's log says more"


@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
@pytest.mark.parametrize("place", ["build", "submit"])
def test_a_bug_in_a_request_fails_its_attempt_alone(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, batch: Batch | None, place: str
) -> None:
    """The exception is logged and does not end the worker. The record is settled once a retry has been delivered."""
    counter.ask(batch=batch, max_in_flight=1)
    counter.queue(b"1")
    with monkeypatch.context() as patch, capture_logs() as logs:
        if place == "submit":
            patch.setattr(counter.wire, "submit", fail)
        else:
            patch.setattr("consumer.sending.request.SignedRequest", fail)
        counter.turn()
    (bug, attempt) = logs
    assert (bug["event"], type(bug["exc_info"])) == ("a request could not be made", AttributeError)
    assert (attempt["outcome"], attempt["error"]) == ("retried", BUG)
    assert [(span.error, span.ended) for span in counter.tracer.spans] == [("RequestException", 1)]
    assert (counter.sender.open, counter.lanes.slots.in_flight, counter.settled) == ({}, 0, [])
    counter.monotonic.now += SHORT
    counter.turn()
    counter.wire.end(response(200))
    assert (counter.wire.bodies(), counter.settled) == ([b"1" if batch is None else b"[1]"], [0])


def test_a_bug_in_rendering_gives_up_its_own_event_of_a_batch(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a retried batch, the event would fail the others again."""
    loads = orjson.loads
    monkeypatch.setattr(orjson, "loads", lambda text: fail() if text == b"1" else loads(text))
    counter.turn(b"0", b"1", b"2", batch=Batch(3, 0.0))
    counter.wire.end(response(200))
    counter.write()
    assert counter.wire.bodies() == [b"[0,2]"]
    assert counter.rows("record_offset", "status", "last_error") == [(1, "exhausted", BUG)]
    assert sorted(counter.settled) == [0, 1, 2]


def test_an_invalid_url_parks_all_of_a_batch(counter: Counter) -> None:
    """There is no address to send it to until the subscription is corrected."""
    counter.turn(b"1", b"2", url="nonsense", batch=Batch(3, 0.0))
    assert counter.wire.requests == []
    counter.write()
    assert counter.rows("status", "attempt") == [("parked", 0)] * 2
    assert counter.lanes.slots.in_flight == 0


def test_a_failed_batch_is_split_when_batches_are_switched_off(counter: Counter) -> None:
    """Each event is sent in a request of its own, once."""
    counter.turn(b"1", b"2", batch=Batch(3, 0.0))
    counter.wire.end(response(503))
    counter.ask()
    counter.lanes.lane(counter.endpoint)
    counter.monotonic.now += SHORT
    counter.turn()
    assert sorted(counter.wire.bodies()[1:]) == [b"1", b"2"]  # type: ignore[type-var]  # bytes
    assert all(len(each.batch()) == 1 for each in counter.sender.open)


def test_a_turn_starts_a_bounded_number_of_deliveries(counter: Counter) -> None:
    """The bound counts deliveries, batched or not: to render and sign them takes time while other receivers wait."""
    counter.turn(*[b"{}"] * (GROWTH * 3), batch=Batch(GROWTH // 2, 0.0))
    assert len(counter.wire.requests) == 2
    counter.wire.end(response(200))
    counter.turn()
    assert len(counter.wire.requests) == 2 + 3
    assert counter.lanes.ready()


@pytest.mark.parametrize("options", [{"projection": compile_projection("data")}, {"gzip_above": 0}])
def test_projections_and_compression_take_a_part_of_a_turn(counter: Counter, options: dict[str, Any]) -> None:
    """A large event takes long. The others go in the next turn, so that the loop polls meanwhile."""
    counter.ask(**options)
    counter.queue(b"1", b"2", b"3")
    submit = counter.wire.submit

    def slowly(*given: Any, **named: Any) -> Transfer:
        counter.monotonic.now += 1.0
        return submit(*given, **named)

    counter.wire.submit = slowly  # type: ignore[method-assign]
    for sent in (1, 2, 3):
        counter.sender.start()
        assert len(counter.wire.requests) == sent


def test_a_batch_that_takes_long_to_render_goes_in_parts(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events without time in this turn are first in the next one, in order. None is lost or sent twice."""
    loads = orjson.loads

    def slowly(text: bytes) -> Any:
        counter.monotonic.now += 0.015
        return loads(text)

    monkeypatch.setattr(orjson, "loads", slowly)
    counter.ask(batch=Batch(5, 0.0))
    counter.queue(*(b"%d" % number for number in range(5)))
    for _ in range(3):
        counter.sender.start()
    assert counter.wire.bodies() == [b"[0,1]", b"[2,3]", b"[4]"]
    assert counter.lanes.slots.in_flight == 3
    assert counter.lanes.held == 0


def test_a_batch_is_bounded_in_rendered_bytes(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection may enlarge its events."""
    monkeypatch.setattr("consumer.delivery.sender.BATCH_BYTES", 8)
    counter.ask(batch=Batch(3, 0.0), projection=compile_projection("[data, data, data]"))
    counter.queue(b"1", b"2", b"3")
    for _ in range(3):
        counter.sender.start()
    assert counter.wire.bodies() == [b"[[1,1,1],[2,2,2]]", b"[[3,3,3]]"]


def test_a_rendered_body_counts_while_its_request_is_open(counter: Counter) -> None:
    """A body sent unchanged is the record's own and is counted with the record."""
    counter.turn(b'{"id":1}')
    assert counter.memory.held == 0
    counter.turn(b'{"id":1}', b'{"id":2}', payload_format="standard")
    *_, first, second = counter.wire.bodies()
    assert counter.memory.held == len(first or b"") + len(second or b"")
    counter.wire.end(response(200))
    assert counter.memory.held == len(first or b"")
    (other,) = (each for each in counter.sender.open if each.rendered is not None)
    counter.sender.cancel(other)
    assert counter.memory.held == 0
    counter.turn(b'{"id":1}' * 100, gzip_above=0)
    compressed = counter.wire.bodies()[-1]
    assert counter.memory.held == len(compressed or b"") < 100


def test_while_memory_is_full_one_request_is_open_at_a_time(counter: Counter) -> None:
    """The deliveries in memory can then still leave it."""
    counter.ask()
    counter.queue(b"1", b"2", b"3")
    counter.memory.hold("t[0]", MEMORY)
    for number in (1, 2):
        counter.turn()
        counter.turn()
        assert len(counter.wire.requests) == number
        counter.wire.end(response(200))
    counter.memory.leave("t[0]")
    counter.turn()
    assert len(counter.wire.requests) == 3


def test_a_request_carries_the_span_of_its_attempt(counter: Counter) -> None:
    """The span ends with the request: answered, failed or cancelled."""
    spans = counter.tracer.spans
    for number, status in enumerate((200, 503)):
        counter.turn(b"{}")
        assert counter.wire.requests[-1].headers["traceparent"] == spans[number].traceparent
        assert not spans[number].ended
        counter.wire.end(response(status))
    (delivery,) = counter.turn(b"{}")
    counter.sender.cancel(delivery)
    assert [(span.error, span.ended) for span in spans] == [(None, 1), ("503", 1), ("cancelled", 1)]


def test_without_a_span_a_request_carries_the_traceparent_to_pass_on(counter: Counter) -> None:
    """Its attempt is not sampled. The event's own is passed on, or one with the flag unset if the event has none."""
    counter.tracer.passes = passed = f"00-{'a' * 32}-{'b' * 16}-02"
    counter.turn(b"{}")
    assert counter.wire.requests[0].headers["traceparent"] == passed
    counter.wire.end(response(200))
    assert not counter.tracer.spans


def test_a_batch_carries_the_span_of_its_request(counter: Counter) -> None:
    """One span for all of its events. Events left out because they cannot be rendered are not counted."""
    counter.turn(b'{"a": 1}', b"{}", b'{"a": 2}', batch=Batch(3, 1.0), projection=compile_projection("{'a': data.a}"))
    (request,), (span,) = counter.wire.requests, counter.tracer.spans
    assert request.headers["traceparent"] == span.traceparent
    assert span.attributes["messaging.batch.message_count"] == 2
    counter.wire.end(response(200))
    assert span.ended == 1
