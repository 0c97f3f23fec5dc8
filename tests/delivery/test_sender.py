"""Requests are made of what lanes give, alone or as a batch, within their subscription's time; of some none can be."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import orjson
import pytest
from requests import PreparedRequest
from sqlalchemy import Engine

from consumer.delivery.delivery import Delivery
from consumer.delivery.memory import MOST
from consumer.delivery.sender import GROWTH, Sender
from consumer.events.event import Event
from consumer.expressions import compile_projection
from consumer.matching.budget import Budget
from consumer.sending.adapter import LoopAdapter, Result
from consumer.sending.payloads import Payload, render
from consumer.subscriptions.endpoint import Batch, Endpoint
from tests.delivery.desk_kit import SHORT, Desk, response
from tests.delivery.store_kit import DEFAULT, URL
from tests.span_recorder import SpanRecorder


class Wire:
    """Where requests go in place of the adapter: they stay open until `end`."""

    def __init__(self) -> None:
        self.requests: list[PreparedRequest] = []
        self.timeouts: list[float | None] = []
        self.connected = False
        self.end: Callable[[Result], None] = lambda _: None

    def submit(
        self,
        request: PreparedRequest,
        callback: Callable[[Result], None],
        *,
        timeout: float | None,
    ) -> "Wire":
        """Open a request; it stands for its transfer too."""
        self.requests.append(request)
        self.timeouts.append(timeout)
        self.end = callback
        return self

    def cancel(self, transfer: object) -> None:
        """It is cut off."""
        assert transfer is self

    def bodies(self) -> list[bytes | str | None]:
        """What was sent."""
        return [request.body for request in self.requests]


class Counter:
    """A Sender at a Desk, whose subscription is told what it asks for."""

    def __init__(self, engine: Engine) -> None:
        self.tracer = SpanRecorder()
        self.desk = Desk(engine)
        self.wire = Wire()
        store = self.desk.store
        self.over: list[int] = []  # subscriptions whose projections have taken too long
        transport = cast("LoopAdapter", self.wire)
        self.sender = Sender(
            self.desk.lanes,
            self.desk.settling,
            transport,
            self.desk.memory,
            Budget(store.monotonic, lambda subscription, _seconds: self.over.append(subscription)),
            store.clock,
            store.monotonic,
            self.tracer,
        )

    def ask(self, url: str = URL, **options: object) -> None:
        """What the subscription asks for."""
        self.desk.endpoint = Endpoint(self.desk.subscription, url, DEFAULT, **options)  # type: ignore[arg-type]  # names of its fields

    def queue(self, *bodies: bytes) -> list[Delivery]:
        """One delivery for each, of records that nobody has seen."""
        deliveries = [self.desk.delivery(offset=offset) for offset in range(len(bodies))]
        for delivery, body in zip(deliveries, bodies, strict=True):
            delivery.event = delivery.event._replace(body=body)
            self.desk.lanes.enqueue(delivery, self.desk.store.monotonic.now)
        return deliveries

    def start(self) -> None:
        """A turn of the loop."""
        self.desk.lanes.wake(self.desk.store.monotonic.now)
        self.sender.start()


@pytest.fixture
def counter(engine: Engine) -> Iterator[Counter]:
    """A Sender on an empty database."""
    result = Counter(engine)
    yield result
    assert result.desk.store.thread.close(20)


@pytest.mark.parametrize("batch", [None, Batch(2, 0.0)])
@pytest.mark.parametrize("timeout", [None, 3.5])
def test_a_request_has_its_subscriptions_time_limit(
    counter: Counter, batch: Batch | None, timeout: float | None
) -> None:
    """Of its own, or none: then the deployment's counts."""
    counter.ask(batch=batch, timeout=timeout)
    counter.queue(b"{}")
    counter.start()
    assert counter.wire.timeouts == [timeout]


def test_what_asks_for_no_batch_goes_as_it_came(counter: Counter) -> None:
    """Byte for byte, one by one."""
    counter.ask()
    counter.queue(b'{"a":  1}', b"2")
    counter.start()
    assert counter.wire.bodies() == [b'{"a":  1}', b"2"]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_batch_is_an_array_however_few_it_holds(counter: Counter, number: int) -> None:
    """In the order of the log; all of its records have been begun; one request is open, and its end is that of all."""
    counter.ask(batch=Batch(5, 0.0))
    deliveries = counter.queue(*(b'{"n":%d}' % each for each in range(number)))
    counter.start()
    (body,) = counter.wire.bodies()
    assert orjson.loads(body or b"") == [{"n": each} for each in range(number)]
    assert all(each.origin.started for each in deliveries)  # type: ignore[union-attr]  # records
    assert (list(counter.sender.open), counter.desk.lanes.slots.in_flight) == ([deliveries[0]], 1)
    counter.wire.end(response(200))
    assert counter.desk.settled == list(range(number))
    assert (counter.sender.open, counter.desk.lanes.slots.in_flight) == ({}, 0)


@pytest.mark.parametrize("bad", [{0}, {2}, {0, 1}, {0, 1, 2}])
def test_a_member_without_a_form_is_given_up_and_the_others_go(counter: Counter, bad: set[int]) -> None:
    """Wherever it stands. If none has one there is no request, and no slot is kept."""
    counter.ask(batch=Batch(3, 0.0))
    deliveries = counter.queue(*(b"no JSON" if each in bad else b"%d" % each for each in range(3)))
    counter.start()
    good = [each for each in range(3) if each not in bad]
    assert [orjson.loads(body or b"") for body in counter.wire.bodies()] == ([good] if good else [])
    assert counter.desk.lanes.slots.in_flight == bool(good)
    assert {number for number, each in enumerate(deliveries) if each.origin.started} == set(good)  # type: ignore[union-attr]  # records
    if good:
        counter.wire.end(response(200))
    counter.desk.store.write()
    assert sorted(counter.desk.settled) == [0, 1, 2]
    assert counter.desk.store.rows("record_offset", "status") == [(each, "exhausted") for each in sorted(bad)]
    assert counter.desk.metrics.attempts == ({"2xx": 1} if good else {})


@pytest.mark.parametrize("batch", [None, Batch(10, 0.0)])
def test_what_a_projection_takes_is_charged(
    counter: Counter, monkeypatch: pytest.MonkeyPatch, batch: Batch | None
) -> None:
    """Alone or in a batch, with a value or without; what has none is charged nothing."""
    ticks = itertools.count()
    monkeypatch.setattr("consumer.delivery.sender.time.thread_time", lambda: next(ticks) * 0.009)  # the sixth is over
    counter.ask(batch=batch)
    counter.queue(*[b"{}"] * 10)
    counter.start()
    assert (counter.over, next(ticks)) == ([], 0)
    counter.ask(batch=batch, projection=compile_projection("{'a': data.a}"))
    counter.queue(*[b'{"a": 1}', b"{}"] * 5)
    counter.start()
    assert counter.over == [counter.desk.subscription]


def test_an_event_without_a_form_is_given_up(counter: Counter) -> None:
    """Without a batch it is the same: no request, no slot, the next one goes on."""
    counter.ask(payload_format="standard")
    counter.queue(b"\xff", b"{}")
    counter.start()
    assert (len(counter.wire.requests), counter.desk.lanes.slots.in_flight) == (1, 1)
    counter.desk.store.write()
    assert counter.desk.store.rows("record_offset", "status", "attempt") == [(0, "exhausted", 1)]


def test_a_url_that_is_none_keeps_all_of_a_batch(counter: Counter) -> None:
    """There is nowhere to send it, until somebody says where."""
    counter.ask(url="nonsense", batch=Batch(3, 0.0))
    counter.queue(b"1", b"2")
    counter.start()
    assert counter.wire.requests == []
    counter.desk.store.write()
    assert counter.desk.store.rows("status", "attempt") == [("parked", 0)] * 2
    assert counter.desk.lanes.slots.in_flight == 0


def test_a_batch_that_failed_is_sent_again_as_it_was(counter: Counter) -> None:
    """With the same id, since the same events are in it."""
    counter.ask(batch=Batch(3, 0.0))
    counter.queue(b"1", b"2")
    counter.start()
    counter.wire.end(response(503))
    counter.desk.store.monotonic.now += SHORT
    counter.start()
    first, second = counter.wire.requests
    assert first.body == second.body == b"[1,2]"
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_batch_that_failed_is_one_no_more(counter: Counter) -> None:
    """When its subscription asks for none meanwhile, each is sent for itself, once."""
    counter.ask(batch=Batch(3, 0.0))
    counter.queue(b"1", b"2")
    counter.start()
    counter.wire.end(response(503))
    counter.ask()
    counter.desk.lanes.lane(counter.desk.endpoint)
    counter.desk.store.monotonic.now += SHORT
    counter.start()
    assert sorted(counter.wire.bodies()[1:]) == [b"1", b"2"]  # type: ignore[type-var]  # bytes
    assert all(len(each.batch()) == 1 for each in counter.sender.open)


def test_a_turn_starts_a_bounded_number_of_deliveries(counter: Counter) -> None:
    """However they are carried: to render and sign them takes time that other receivers wait."""
    counter.ask(batch=Batch(GROWTH // 2, 0.0))
    counter.queue(*[b"{}"] * (GROWTH * 3))
    counter.start()
    assert len(counter.wire.requests) == 2
    counter.wire.end(response(200))
    counter.start()
    assert len(counter.wire.requests) == 2 + 3
    assert counter.desk.lanes.ready()


@pytest.mark.parametrize("options", [{"projection": compile_projection("data")}, {"gzip_above": 0}])
def test_projections_and_compression_take_a_part_of_a_turn(counter: Counter, options: dict[str, Any]) -> None:
    """A large event takes long: the others go in the next turn, so that the loop polls meanwhile."""
    counter.ask(**options)
    counter.queue(b"1", b"2", b"3")
    monotonic = counter.desk.store.monotonic
    submit = counter.wire.submit

    def slowly(*given: Any, **named: Any) -> Wire:
        monotonic.now += 1.0
        return submit(*given, **named)

    counter.wire.submit = slowly  # type: ignore[method-assign]
    for sent in (1, 2, 3):
        counter.sender.start()
        assert len(counter.wire.requests) == sent


def test_a_batch_that_takes_long_to_render_goes_in_parts(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a turn has no time for is the first of the next one, in its order; nothing is lost, nothing sent twice."""
    monotonic = counter.desk.store.monotonic

    def slowly(endpoint: Endpoint, event: Event) -> Payload:
        monotonic.now += 0.015
        return render(endpoint, event)

    monkeypatch.setattr("consumer.delivery.sender.render", slowly)
    counter.ask(batch=Batch(5, 0.0))
    counter.queue(*(b"%d" % number for number in range(5)))
    for _ in range(3):
        counter.sender.start()
    assert counter.wire.bodies() == [b"[0,1]", b"[2,3]", b"[4]"]
    assert counter.desk.lanes.slots.in_flight == 3
    assert counter.desk.lanes.held == 0


def test_a_batch_is_bounded_as_it_is_sent(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A projection may make its events larger."""
    monkeypatch.setattr("consumer.delivery.sender.BATCH_BYTES", 8)
    counter.ask(batch=Batch(3, 0.0), projection=compile_projection("[data, data, data]"))
    counter.queue(b"1", b"2", b"3")
    for _ in range(3):
        counter.sender.start()
    assert counter.wire.bodies() == [b"[[1,1,1],[2,2,2]]", b"[[3,3,3]]"]


def test_what_is_rendered_counts_while_its_request_is_open(counter: Counter) -> None:
    """A body that goes as it came is the record's own, which is counted with that."""
    counter.ask()
    counter.queue(b'{"id":1}')
    counter.start()
    assert counter.desk.memory.held == 0
    counter.ask(payload_format="standard")
    counter.queue(b'{"id":1}', b'{"id":2}')
    counter.start()
    *_, first, second = counter.wire.bodies()
    assert counter.desk.memory.held == len(first or b"") + len(second or b"")
    counter.wire.end(response(200))
    assert counter.desk.memory.held == len(first or b"")
    (other,) = (each for each in counter.sender.open if each.rendered is not None)
    counter.sender.cancel(other)
    assert counter.desk.memory.held == 0
    counter.ask(gzip_above=0)
    counter.queue(b'{"id":1}' * 100)
    counter.start()
    compressed = counter.wire.bodies()[-1]
    assert counter.desk.memory.held == len(compressed or b"") < 100


def test_while_memory_is_full_one_request_is_open_at_a_time(counter: Counter) -> None:
    """So that what is in memory can leave it."""
    counter.ask()
    counter.queue(b"1", b"2", b"3")
    counter.desk.memory.hold("t[0]", MOST)
    for number in (1, 2):
        counter.start()
        counter.start()
        assert len(counter.wire.requests) == number
        counter.wire.end(response(200))
    counter.desk.memory.leave("t[0]")
    counter.start()
    assert len(counter.wire.requests) == 3


def test_a_request_carries_the_span_of_its_attempt(counter: Counter) -> None:
    """The span ends with the request: answered, failed, or cancelled."""
    spans = counter.tracer.spans
    for number, status in enumerate((200, 503)):
        counter.queue(b"{}")
        counter.start()
        assert counter.wire.requests[-1].headers["traceparent"] == spans[number].traceparent
        assert not spans[number].ended
        counter.wire.end(response(status))
    (delivery,) = counter.queue(b"{}")
    counter.start()
    counter.sender.cancel(delivery)
    assert [(span.error, span.ended) for span in spans] == [(None, 1), ("503", 1), ("cancelled", 1)]


def test_a_batch_carries_the_span_of_its_request(counter: Counter) -> None:
    """One for all of its events. Those that are left out, because they have no form, are not counted."""
    counter.ask(batch=Batch(3, 1.0), projection=compile_projection("{'a': data.a}"))
    counter.queue(b'{"a": 1}', b"{}", b'{"a": 2}')
    counter.start()
    (request,), (span,) = counter.wire.requests, counter.tracer.spans
    assert request.headers["traceparent"] == span.traceparent
    assert span.attributes["messaging.batch.message_count"] == 2
    counter.wire.end(response(200))
    assert span.ended == 1


def test_the_span_of_what_cannot_be_built_ends_at_once(counter: Counter) -> None:
    """As an error of its kind: no request carries it."""
    counter.ask(projection=compile_projection("{'a': data.a}"))
    counter.queue(b"{}")
    counter.start()
    assert counter.wire.requests == []
    assert [(span.error, span.ended) for span in counter.tracer.spans] == [("Unrenderable", 1)]
