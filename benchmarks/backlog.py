"""A receiver that was down: the rows that its backlog costs, and the time until it has caught up.

    python -m benchmarks.backlog [EVENTS]

One worker on a real Kafka. First the rate of live events; then as many events come while the receiver refuses every
connection, and it starts to answer when the worker has read all of them. The same again, while events for a receiver
that is never behind come at a steady rate.
"""

import sys
import time
import uuid

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import create_engine, text

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill, stream

PARTITIONS = 4
INNOCENT = "order.paid"  # the type of events for a receiver that is never behind
PER_SECOND, SECONDS = 500, 10.0  # of these
SCHEDULE = "1s,2s,5s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s,10s"


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


def main(events: int) -> None:
    """Runs all and prints the figures."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.sink() as innocent:
        up, down = receiver.url + "/hook", f"http://127.0.0.1:{rig.free_port()}/hook"
        with rig.database([up], TYPE) as database:
            engine = create_engine(database)

            def move(url: str) -> None:
                with engine.begin() as connection:
                    about = {"url": url, "type": TYPE}
                    connection.execute(
                        text("UPDATE webhook_subscriptions SET url = :url WHERE event_type = :type"), about
                    )

            def count(table: str) -> int:
                with engine.connect() as connection:
                    return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())  # noqa: S608

            def miss() -> float:
                """Publishes all events while the receiver is down; returns the seconds until the worker has them."""
                move(down)
                time.sleep(3)
                began = time.perf_counter()
                fill(bootstrap, topic, events)
                wait_for_no_lag(bootstrap, topic)
                return time.perf_counter() - began

            with engine.begin() as connection:
                about = {"url": innocent.url + "/hook", "type": INNOCENT}
                connection.execute(
                    text("INSERT INTO webhook_subscriptions (url, event_type) VALUES (:url, :type)"), about
                )
            topic = f"bench-{uuid.uuid4().hex[:8]}"
            create_topic(bootstrap, topic, PARTITIONS)
            fill(bootstrap, topic, events)
            with rig.worker(bootstrap, topic, database, WEBHOOK_RETRY_SCHEDULE=SCHEDULE, LOG_LEVEL="ERROR") as child:
                live = rig.measure(child, receiver, events // 10, events)
                alone = innocents(bootstrap, topic, innocent)
                passed = miss()
                rows, cursors = count("webhook_deliveries"), count("webhook_cursors")
                move(up)
                began = time.perf_counter()
                behind = rig.measure(child, receiver, events + events // 10, 2 * events, seconds=600)
                drained = time.perf_counter() - began
                miss()
                move(up)
                rig.measure(child, receiver, 2 * events, 2 * events + events // 10)
                before, began = receiver.count(), time.perf_counter()
                beside = innocents(bootstrap, topic, innocent)
                caught_up, left = receiver.count() - before, 3 * events - receiver.count()
                both = caught_up / (time.perf_counter() - began)
                while receiver.count() < 3 * events:
                    time.sleep(0.1)
                stats = receiver.stats()
    print(f"live                {live.per_second:>10,.0f} events/s {live.cpu_us:>6,.1f} µs")
    print(f"while it was down   {events / passed:>10,.0f} events/s, {rows} rows and {cursors} cursors")
    print(f"catching up         {behind.per_second:>10,.0f} events/s {behind.cpu_us:>6,.1f} µs, all in {drained:.1f} s")
    print(f"beside {PER_SECOND} others/s {both:>10,.0f} events/s, {left} left at the end")
    print(f"p95 of the others   {alone:.1f} ms alone, {beside:.1f} ms beside a subscription that catches up")
    print(f"repeats             {stats['total'] - stats['distinct']}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
