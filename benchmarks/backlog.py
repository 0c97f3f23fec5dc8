"""A receiver that was down: the rows that its backlog costs, and the time until it has caught up.

    python -m benchmarks.backlog [EVENTS]

One worker on a real Kafka. First the rate of live events; then as many events come while the receiver refuses every
connection, and it starts to answer when the worker has read all of them.
"""

import sys
import time
import uuid

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import create_engine, text

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

PARTITIONS = 4
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


def main(events: int) -> None:
    """Runs both and prints the figures."""
    with rig.kafka() as bootstrap, rig.sink() as receiver:
        down = f"http://127.0.0.1:{rig.free_port()}/hook"
        with rig.database([down], TYPE) as database:
            engine = create_engine(database)

            def move(url: str) -> None:
                with engine.begin() as connection:
                    connection.execute(text("UPDATE webhook_subscriptions SET url = :url"), {"url": url})

            def count(table: str) -> int:
                with engine.connect() as connection:
                    return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())  # noqa: S608

            topic = f"bench-{uuid.uuid4().hex[:8]}"
            create_topic(bootstrap, topic, PARTITIONS)
            move(receiver.url + "/hook")
            fill(bootstrap, topic, events)
            with rig.worker(bootstrap, topic, database, WEBHOOK_RETRY_SCHEDULE=SCHEDULE, LOG_LEVEL="ERROR") as child:
                live = rig.measure(child, receiver, events // 10, events)
                move(down)
                time.sleep(3)
                began = time.perf_counter()
                fill(bootstrap, topic, events)
                wait_for_no_lag(bootstrap, topic)
                passed = time.perf_counter() - began
                rows, cursors = count("webhook_deliveries"), count("webhook_cursors")
                move(receiver.url + "/hook")
                began = time.perf_counter()
                behind = rig.measure(child, receiver, events + events // 10, 2 * events, seconds=600)
                drained = time.perf_counter() - began
                stats = receiver.stats()
    print(f"live                {live.per_second:>10,.0f} events/s {live.cpu_us:>6,.1f} µs")
    print(f"while it was down   {events / passed:>10,.0f} events/s, {rows} rows and {cursors} cursors")
    print(f"catching up         {behind.per_second:>10,.0f} events/s {behind.cpu_us:>6,.1f} µs, all in {drained:.1f} s")
    print(f"repeats             {stats['total'] - stats['distinct']}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
