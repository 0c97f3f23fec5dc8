"""Lanes without a worker: subscriptions, deliveries, and the requests that a turn starts."""

from itertools import chain

from consumer.delivery.delivery import Delivery, Lane, OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.events.event import Event, RecordId
from consumer.ledger.rows import AttemptFailure, OrderingKey
from consumer.subscriptions.endpoint import Batch, Endpoint, Selection

BODY = b'{"id": 1}'


def endpoint(
    number: int = 1, url: str = "http://example.com/", **options: float | Batch | Selection | None
) -> Endpoint:
    """A subscription's endpoint."""
    return Endpoint(number, url, (b"key",), **options)  # type: ignore[arg-type]  # the names and types of its fields


def delivery(
    lane: Lane,
    offset: int = 0,
    body: bytes = BODY,
    key: str | None = None,
    partition: int = 0,
    status: int | None = None,
    record: type[OpenRecord] = OpenRecord,
) -> Delivery:
    """A delivery of a record with one subscription. With a key it is ordered; with a status its last attempt failed."""
    event = Event(RecordId("t", partition, offset, 0), "a", "msg_1", body, "application/json", None, None)
    ordering_key = None if key is None else OrderingKey(lane.endpoint.subscription_id, "t", partition, key)
    result = Delivery(event, lane, record(lambda _: None, offset, 1), ordering_key)
    result.last = None if status is None else AttemptFailure("", status, None, 0.0)
    return result


def fill(
    lanes: Lanes, lane: Lane, number: int, now: float = 0.0, first: int = 0, record: type[OpenRecord] = OpenRecord
) -> None:
    """Queue this many deliveries, from the offset `first` on."""
    for offset in range(first, first + number):
        lanes.enqueue(delivery(lane, offset, record=record), now)


def broken(lane: Lane) -> float:
    """Ten failures open the lane's circuit breaker. Returns until when."""
    for _ in range(10):
        lane.breaker.failed(0.0, 0.0)
    assert lane.breaker.open_until is not None
    return lane.breaker.open_until


def turn(lanes: Lanes, now: float = 0.0) -> list[Delivery]:
    """The deliveries that one turn of the loop starts."""
    lanes.wake(now)
    return list(iter(lambda: lanes.next(now), None))


def started(lanes: Lanes, now: float = 0.0) -> list[Delivery]:
    """All deliveries that may start now, in as many turns as it takes."""
    return list(chain.from_iterable(iter(lambda: turn(lanes, now), [])))


def sent(lanes: Lanes, now: float = 0.0) -> list[list[int]]:
    """The offsets in each request that one turn starts."""
    return [[each.event.record.offset for each in first.batch()] for first in turn(lanes, now)]
