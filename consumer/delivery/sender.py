"""Open requests: they start as lanes allow, and each ends in a call of `Settling.on_result`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import structlog
from requests import RequestException, Response

from consumer.delivery.attempt_reports import attempt_begins, attempt_ends, fields
from consumer.delivery.delivery import Delivery, Lane, OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.delivery.limits import Memory
from consumer.delivery.settling import Settling
from consumer.errors import NoDescriptor, NotAuthorized
from consumer.events.event import Event
from consumer.loop.part import RECORDS_WAIT, Part
from consumer.sending.exchange import SignedRequest
from consumer.sending.payloads import Rendered, Unrenderable, render, variables_for
from consumer.sending.request import build, build_batch
from consumer.sending.signing import Template
from consumer.sending.transfer import Transport
from consumer.telemetry.tracer import Tracer, TraceSpan

log = structlog.get_logger(__name__)

RENDERING = 0.02  # seconds of a turn after which it renders and compresses no more
SENDING = 0.005  # seconds of a turn after which it starts no more requests: answers and records wait meanwhile
HANDSHAKE = 0.01  # seconds of CPU of a handshake that are not charged: a usual one takes 0.7 to 5 ms
LOOK_EVERY = 16  # requests between two checks of the clock
NO_DESCRIPTOR_WAIT = 0.1  # seconds without new requests after one for which this process had no descriptor
SAID_FOR = 60.0  # seconds that /readyz reports it
BATCH_BYTES = 4 * 2**20  # of a rendered batch: with a projection it may be larger than its events
GROWTH = 64  # a turn starts as many deliveries as ended in the last one, and so many more: bursts spread over turns


class Sender(Part):
    """Starts and ends requests.

    `open` has the delivery that stands for each open request, the oldest first, with its span if attempts are traced.
    """

    def __init__(
        self,
        lanes: Lanes,
        settling: Settling,
        transport: Transport,
        memory: Memory,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        tracer: Tracer | None = None,
    ) -> None:
        self.open: dict[Delivery, TraceSpan | None] = {}
        self._lanes = lanes
        self._settling = settling
        self._transport = transport
        self._memory = memory
        self._clock = clock
        self._monotonic = monotonic
        self._tracer = tracer
        self._ended = 0  # deliveries whose request ended in the last turn
        self._rests_until = self._faulty_until = 0.0
        self._fault = ""

    @property
    def ready(self) -> bool:
        """A request may start."""
        return self._lanes.ready() and self._monotonic() >= self._rests_until

    @property
    def fault(self) -> str | None:
        """That this process had no descriptor for a request in the last minute."""
        return self._fault if self._monotonic() < self._faulty_until else None

    @property
    def busy(self) -> bool:
        """Requests are open, or a waiting delivery may soon be sent."""
        return bool(self.open) or self._lanes.wakes_before(self._monotonic() + RECORDS_WAIT)

    def poll(self, now: float) -> None:
        """Wake deliveries that are due, and start requests."""
        self._lanes.wake(now)
        self.start()

    def start(self) -> None:
        """Start requests as far as lanes allow. While memory is full, one request is open at a time."""
        allowance, self._ended = GROWTH + self._ended, 0
        now, timestamp = self._monotonic(), int(self._clock())
        while allowance > 0 and now >= self._rests_until and not (self.open and self._memory.full):
            if (delivery := self._lanes.next(now)) is None:
                return
            allowance -= 1 + len(delivery.batch_members)
            lane = delivery.lane
            prepared, endpoint = lane.prepared, lane.endpoint
            if isinstance(prepared, RequestException):
                self._begin(delivery, now)
                self._completed(delivery, prepared)
                continue
            if endpoint.batch is None:
                self._send(delivery, prepared, now, timestamp)
            else:
                self._send_batch(delivery, prepared, now, timestamp)
            if prepared.is_slow and self._monotonic() - now >= RENDERING:
                return
            if not allowance % LOOK_EVERY and self._monotonic() - now >= SENDING:
                return

    def cancel(self, delivery: Delivery) -> None:
        """Cancel an open request. Its deliveries get no result."""
        self._end(delivery)
        if delivery.transfer is not None:
            self._transport.cancel(delivery.transfer)

    @contextmanager
    def _charged(self, lane: Lane, event: Event) -> Iterator[None]:
        """Charge the CPU time of expressions and of passed headers to their subscription, not that of parsing."""
        endpoint = lane.endpoint
        if not endpoint.renders:
            yield
            return
        if endpoint.evaluates:
            variables_for(event)
        began = time.thread_time()
        try:
            yield
        finally:
            self._settling.charge(lane, time.thread_time() - began)

    def _begin(self, delivery: Delivery, now: float, body: object = None, span: TraceSpan | None = None) -> None:
        if body is not delivery.event.body and isinstance(body, bytes):
            delivery.rendered = body
            self._memory.keep(body, len(body))
        delivery.started_at = now
        delivery.sent_to = delivery.lane.endpoint
        self.open[delivery] = span
        for each in (delivery, *delivery.batch_members):
            if isinstance(each.origin, OpenRecord):
                each.origin.started = True

    def _send(self, delivery: Delivery, template: Template, now: float, timestamp: int) -> None:
        """Send one delivery, or give it up without a request if none can be built.

        Any other exception fails the attempt, which is then retried or stored as after an error of the network.
        """
        endpoint, event = delivery.lane.endpoint, delivery.event
        span = traceparent = None
        if self._tracer is not None and (traceparent := self._tracer.unsampled(event.traceparent)) is None:
            span = attempt_begins(self._tracer, endpoint, (event,), delivery.attempts)
            traceparent = span.traceparent
        try:
            if not template.renders:
                request = build(template, endpoint, event, timestamp, traceparent)
            else:
                with self._charged(delivery.lane, event):
                    request = build(template, endpoint, event, timestamp, traceparent)
        except ValueError as error:  # a projection without a value; a stored row with an edited header
            if span is not None:
                span.end({}, type(error).__name__)
            self._lanes.finished(delivery.lane, delivery.slots)
            self._settling.on_undeliverable(delivery, str(error))
            return
        except Exception as error:  # noqa: BLE001 (one delivery must not end the worker)
            self._begin(delivery, now, span=span)
            self._completed(delivery, _failure(delivery, error))
            return
        self._submit(delivery, request, now, span)

    def _submit(self, delivery: Delivery, request: SignedRequest, now: float, span: TraceSpan | None) -> None:
        self._begin(delivery, now, request.body, span)
        ended = partial(self._completed, delivery)
        try:
            delivery.transfer = self._transport.submit(request, ended, timeout=delivery.lane.endpoint.timeout)
        except Exception as error:  # noqa: BLE001 (one delivery must not end the worker)
            self._completed(delivery, _failure(delivery, error))

    def _give_back(self, lane: Lane, members: Sequence[Delivery]) -> None:
        self._lanes.give_back(members)
        if self._settling.is_over_budget(lane):
            self._settling.leave_alone(lane)  # as those that waited when the budget was used up

    def _send_batch(self, first: Delivery, template: Template, now: float, timestamp: int) -> None:
        """Send the deliveries of a batch that can be rendered; the others are given up without a request."""
        lane = first.lane
        endpoint = lane.endpoint
        payloads: list[Rendered] = []
        sent: list[Delivery] = []
        hopeless: list[tuple[Delivery, str]] = []
        members, size, slots = first.split(), 0, first.slots
        for number, each in enumerate(members):
            if number and (size >= BATCH_BYTES or self._monotonic() - now >= RENDERING):
                self._give_back(lane, members[number:])
                break
            try:
                with self._charged(lane, each.event):
                    payload = render(endpoint, each.event)
                payloads.append(payload)
                size += len(payloads[-1].body)
            except Exception as error:  # noqa: BLE001 (retried with the batch, it would fail the others each time)
                hopeless.append((each, str(error if isinstance(error, Unrenderable) else _failure(each, error))))
            else:
                sent.append(each)
        if sent:
            first, *first.batch_members = sent
            first.slots = slots
            span = traceparent = None
            if self._tracer is not None:
                events = [payload.event for payload in payloads]
                span = attempt_begins(self._tracer, endpoint, events, first.attempts)
                traceparent = span.traceparent
            try:
                request = build_batch(template, endpoint, payloads, timestamp, traceparent)
            except Exception as error:  # noqa: BLE001 (one batch must not end the worker)
                self._begin(first, now, span=span)
                self._completed(first, _failure(first, error))
            else:
                self._submit(first, request, now, span)
        else:
            self._lanes.finished(lane, slots)
        for each, why in hopeless:
            self._settling.on_undeliverable(each, why)

    def _completed(self, delivery: Delivery, result: Response | RequestException) -> None:
        self._ended += 1 + len(delivery.batch_members)
        if delivery.transfer is not None:
            delivery.lane.connects = delivery.transfer.connected
            if (seconds := delivery.transfer.handshake - HANDSHAKE) > 0:
                self._settling.charge(delivery.lane, seconds)
        if isinstance(result, NoDescriptor):
            self._not_tried(delivery, result)
            return
        self._end(delivery, result)
        self._settling.on_result(delivery, result)

    def _not_tried(self, delivery: Delivery, error: NoDescriptor) -> None:
        """Rest for a moment, so that open requests can end and free their descriptors."""
        if self.fault is None:
            log.warning("requests wait", reason=str(error), open=len(self.open))
        self._fault, now = str(error), self._monotonic()
        self._rests_until, self._faulty_until = now + NO_DESCRIPTOR_WAIT, now + SAID_FOR
        self._end(delivery)
        self._settling.on_not_tried(delivery)

    def _end(self, delivery: Delivery, result: Response | RequestException | None = None) -> None:
        """The request is no longer open; without a result, it was cancelled."""
        span = self.open.pop(delivery, None)
        if span is not None:
            attempt_ends(span, result)
        self._lanes.finished(delivery.lane, delivery.slots)
        if delivery.rendered is not None:
            self._memory.drop(delivery.rendered)
            delivery.rendered = None


def _failure(delivery: Delivery, error: Exception) -> RequestException:
    """The result of an attempt whose request could not be made: a plug-in's failure, or a bug, which is logged."""
    if isinstance(error, NotAuthorized):
        return error
    log.error("a request could not be made", **fields(delivery, 0.0, len(delivery.batch())), exc_info=error)
    return RequestException(f"the request could not be made ({type(error).__name__}); the worker's log says more")
