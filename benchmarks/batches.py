"""The savings of batches: one worker, one subscription, events alone and in batches of 10, 100 and 500.

    python -m benchmarks.batches [EVENTS]

In one run, on one real Kafka and one receiver: events a second, CPU for each event, memory, and the ratios.
"""

import sys
import uuid

from sqlalchemy import create_engine, text

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

SIZES = (None, 10, 100, 500)
WARM = 0.1  # share of the events before the measurement


def main(events: int) -> None:
    """Runs all sizes and prints the table."""
    measured: dict[int | None, rig.Used] = {}
    repeated: dict[int | None, int] = {}
    with rig.kafka() as bootstrap, rig.sink() as receiver:
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        print(f"publishing {events} events of 450 bytes …", flush=True)
        create_topic(bootstrap, topic)
        fill(bootstrap, topic, events)
        for size in SIZES:
            print(f"batches of {size or 'one, without an array'} …", flush=True)
            receiver.reset()
            with rig.database([receiver.url + "/hook"], TYPE) as database:
                with create_engine(database).begin() as connection:
                    connection.execute(text("UPDATE webhook_subscriptions SET batch_size = :size"), {"size": size})
                with rig.worker(bootstrap, topic, database, KAFKA_GROUP_ID=f"{topic}-{size}") as child:
                    measured[size] = rig.measure(child, receiver, int(events * WARM), events, count=rig.Sink.events)
            repeated[size] = receiver.events() - events

    alone = measured[None]
    print(f"\n{'':12}{'events/s':>10}{'CPU/event':>12}{'memory':>10}{'events':>9}{'CPU':>7}{'repeated':>10}")
    for size, used in measured.items():
        print(
            f"{size or 'no batch':>12}{used.per_second:>10,.0f}{used.cpu_us:>9,.1f} µs{used.memory_mib:>6,.0f} MiB"
            f"{used.per_second / alone.per_second:>8.1f}x{used.cpu_us / alone.cpu_us:>6.2f}x{repeated[size]:>10}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
