"""A receiver that was down: the rows that its backlog costs, and the time until it has caught up.

    python -m benchmarks.backlog [EVENTS]

One worker on a real Kafka. First the rate of live events; then as many events come while the receiver refuses every
connection, and it starts to answer when the worker has read all of them. The same again, while events for a receiver
that is never behind come at a steady rate.
"""

import sys
import time
import uuid
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import Engine, create_engine, text

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill, stream

PARTITIONS = 4
INNOCENT = "order.paid"  # the type of events for a receiver that is never behind
PER_SECOND, SECONDS = 500, 10.0  # of these
SCHEDULE = "1s,2s,5s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s"


class Outage(NamedTuple):
    """What the events of an outage cost: the seconds until the worker had read them, and what it has stored."""

    seconds: float
    rows: int
    cursors: int


def wait_for_no_lag(bootstrap: str, topic: str) -> None:
    """Waits until the group has committed the end of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    try:
        ends = [consumer.get_watermark_offsets(place)[1] for place in places]
        while [each.offset for each in consumer.committed(places)] != ends:
            time.sleep(0.1)
    finally:
        consumer.close()


def innocents(bootstrap: str, topic: str, receiver: rig.Sink) -> float:
    """The 95th percentile in milliseconds, from produce to a receiver that is never behind, over SECONDS."""
    receiver.reset()
    sent = stream(bootstrap, topic, PER_SECOND, SECONDS, event_type=INNOCENT)
    while receiver.count() < sent:
        time.sleep(0.05)
    return float(receiver.stats()["p95_ms"])


def execute(engine: Engine, statement: str, **values: str) -> None:
    """Changes subscriptions."""
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def move(engine: Engine, url: str) -> None:
    """The receiver is at another address now."""
    execute(engine, "UPDATE webhook_subscriptions SET url = :url WHERE event_type = :type", url=url, type=TYPE)


def outage(bootstrap: str, topic: str, events: int, engine: Engine, up: str) -> Outage:
    """Publishes all events while the receiver is down, and puts it `up` when the worker has read them."""
    move(engine, f"http://127.0.0.1:{rig.free_port()}/hook")
    time.sleep(3)
    began = time.perf_counter()
    fill(bootstrap, topic, events)
    wait_for_no_lag(bootstrap, topic)
    took = time.perf_counter() - began
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT COUNT(*) FROM webhook_deliveries")).scalar_one()
        cursors = connection.execute(text("SELECT COUNT(*) FROM webhook_cursors")).scalar_one()
    move(engine, up)
    return Outage(took, rows, cursors)


def main(events: int) -> None:
    """Runs all and prints the figures."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.sink() as innocent:
        up = receiver.url + "/hook"
        with rig.database([up], TYPE) as database:
            engine = create_engine(database)
            statement = "INSERT INTO webhook_subscriptions (url, event_type) VALUES (:url, :type)"
            execute(engine, statement, url=innocent.url + "/hook", type=INNOCENT)
            create_topic(bootstrap, topic, PARTITIONS)
            fill(bootstrap, topic, events)
            with rig.worker(bootstrap, topic, database, WEBHOOK_RETRY_SCHEDULE=SCHEDULE, LOG_LEVEL="ERROR") as child:
                live = rig.measure(child, receiver, events // 10, events)
                alone = innocents(bootstrap, topic, innocent)
                missed = outage(bootstrap, topic, events, engine, up)
                began = time.perf_counter()
                behind = rig.measure(child, receiver, events + events // 10, 2 * events, seconds=600)
                drained = time.perf_counter() - began
                outage(bootstrap, topic, events, engine, up)
                rig.measure(child, receiver, 2 * events, 2 * events + events // 10)
                before, began = receiver.count(), time.perf_counter()
                beside = innocents(bootstrap, topic, innocent)
                caught_up, left = receiver.count() - before, 3 * events - receiver.count()
                both = caught_up / (time.perf_counter() - began)
                while receiver.count() < 3 * events:
                    time.sleep(0.1)
                stats = receiver.stats()
    print(f"live                {live.per_second:>10,.0f} events/s {live.cpu_us:>6,.1f} µs")
    stored = f"{missed.rows} rows and {missed.cursors} cursors"
    print(f"while it was down   {events / missed.seconds:>10,.0f} events/s, {stored}")
    print(f"catching up         {behind.per_second:>10,.0f} events/s {behind.cpu_us:>6,.1f} µs, all in {drained:.1f} s")
    print(f"beside {PER_SECOND} others/s {both:>10,.0f} events/s, {left} left at the end")
    print(f"p95 of the others   {alone:.1f} ms alone, {beside:.1f} ms beside a subscription that catches up")
    print(f"repeats             {stats['total'] - stats['distinct']}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
