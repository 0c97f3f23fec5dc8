"""Fan-out of an event to 1, 100 and 10,000 subscriptions, with and without filters: time up to the transport.

python -m benchmarks.fanout [DELIVERIES]

There is no Kafka, database or request: events pass the dispatch and the lanes as in a worker, and started deliveries
end at once. The throughput benchmark has the cost of requests. Times are CPU time, so that other load hardly matters; a
turn's is wall-clock time.
"""

import gc
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import orjson

from consumer.delivery.delivery import OpenRecord
from consumer.delivery.lanes import Lanes
from consumer.delivery.settling import Settling
from consumer.events.event import Event, RecordId
from consumer.expressions.expression import compile_filter
from consumer.matching.catalog import Catalog, Key, Matches
from consumer.matching.inbox import Inbox
from consumer.matching.selection import Selector
from consumer.subscriptions.endpoint import Endpoint, Selection
from consumer.telemetry.logs import configure_logging
from consumer.telemetry.metrics import Metrics
from consumer.worker.dispatch import Dispatch
from consumer.worker.service import COLLECT_EVERY
from tests.delivery.backlog_kit import make_backlog

FANOUTS = (1, 100, 10_000)
BODY = {
    "type": "order.created",
    "amount": 150,
    "customer": {"id": 123, "name": "Zoë", "country": "DE"},
    "items": [{"sku": f"sku-{number}", "quantity": number, "price": 12.5} for number in range(6)],
    "note": "x" * 100,
}
PASSES = 'data.amount > 100 && type.startsWith("order.")'
REFUSES = 'data.amount > 1000 && type.startsWith("order.")'
FAILS = "data.missing > 100"
BATCH = 500  # records of one poll, as the worker takes them


class Stored:
    """Nothing is stored here, because the lanes have room."""

    def may_postpone(self) -> bool:
        """Whether deliveries may be stored: they wait in memory here."""
        return False


class Result(NamedTuple):
    """One run: events and evaluated subscriptions a second of CPU, deliveries, and the longest turn in seconds."""

    events: float
    asked: float
    delivered: int
    turn: float


def run(endpoints: tuple[Endpoint, ...], events: int) -> Result:
    """Runs so many events for all of these subscriptions."""
    metrics = Metrics()
    lanes = Lanes(max(1000, 2 * len(endpoints)))
    answer = cast("Callable[[tuple[Key, ...], Callable[[Matches | Exception], None]], None]", _answering(endpoints))
    inbox = Inbox(Catalog(answer, 3600.0), lambda _place, _offset: None)
    inbox.stored(("orders", 0), set())
    settling, selector, backlog = cast("Settling", Stored()), Selector(metrics), make_backlog()
    dispatch = Dispatch(inbox, lanes, settling, selector, backlog, metrics, time.monotonic)
    body = orjson.dumps(BODY)
    given = settled = delivered = 0
    longest = start = 0.0

    def settle(_: int) -> None:
        nonlocal settled
        settled += 1

    while settled < events:
        if given == 1 and not start and settled == 1:  # warm-up: lanes and prepared requests
            gc.collect()
            start = time.process_time()
            delivered = 0
        now = time.monotonic()
        room = 1 if not start else min(BATCH, inbox.room, events - given)
        for _ in range(room if start or not given else 0):
            record = RecordId("orders", 0, given, 1)
            event = Event(record, "order.created", "msg_1", body, "application/json", None, None)
            inbox.put(event, event.size, settle, now)
            given += 1
        began = time.perf_counter()
        dispatch.poll(0.0)
        longest = max(longest, time.perf_counter() - began) if start else 0.0
        lanes.wake(now)
        while (delivery := lanes.next(now)) is not None:
            delivered += 1
            lanes.finished(delivery.lane)
            assert isinstance(delivery.origin, OpenRecord)  # noqa: S101 (for the type checker)
            delivery.origin.settle_one()
    seconds = time.process_time() - start
    return Result((events - 1) / seconds, (events - 1) * len(endpoints) / seconds, delivered, longest)


def _answering(endpoints: tuple[Endpoint, ...]) -> object:
    return lambda keys, done: done(dict.fromkeys(keys, endpoints))


def subscriptions(number: int, selection: Selection | None) -> tuple[Endpoint, ...]:
    """So many subscriptions of one kind."""
    return tuple(
        Endpoint(each, f"http://receiver-{each}.example.com/hooks", (b"k",), selection=selection)
        for each in range(1, number + 1)
    )


def main(deliveries: int) -> None:
    """Prints a row for each kind and number.

    The last column is relative to subscriptions without a selection in the same run.
    """
    gc.set_threshold(*COLLECT_EVERY)
    configure_logging("ERROR")
    kinds: dict[str, Selection | None] = {
        "no selection": None,
        "topics, all pass": Selection(frozenset(("orders", "users"))),
        "filters, all pass": Selection(filter=compile_filter(PASSES)),
        "filters, none pass": Selection(filter=compile_filter(REFUSES)),
        "filters, all fail": Selection(filter=compile_filter(FAILS)),
    }
    print(
        f"events of {len(orjson.dumps(BODY))} bytes, a second of CPU; {deliveries:,} subscriptions are asked in a run:"
    )
    for number in FANOUTS:
        plain = 0.0
        for kind, selection in kinds.items():
            found = run(subscriptions(number, selection), max(10, deliveries // number) + 1)
            plain = plain or found.asked
            print(
                f"  1 to {number:>6,}, {kind:<18} {found.events:>9,.1f} events/s  {1e6 / found.asked:>6.2f} µs each"
                f"  {plain / found.asked:>5.2f} times  longest turn {found.turn * 1000:>6.1f} ms"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
