"""Up to ten thousand open requests to slow receivers, through one worker.

python -m benchmarks.in_flight [EVENTS [DELAY_MS]]
"""

import sys
import uuid

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

SUBSCRIPTIONS = 20  # together they may take 80/81 of the slots
IN_FLIGHT = 10_000


def main(events: int, delay_ms: int) -> None:
    """Delivers each event to every subscription and prints the resources used."""
    deliveries = events * SUBSCRIPTIONS
    with rig.kafka() as bootstrap, rig.sink(delay_ms=delay_ms, hosts=SUBSCRIPTIONS) as receiver:
        urls = [rig.hook(receiver.url, number, SUBSCRIPTIONS) for number in range(SUBSCRIPTIONS)]
        with rig.database(urls, TYPE) as database:
            topic = f"bench-{uuid.uuid4().hex[:8]}"
            create_topic(bootstrap, topic)
            fill(bootstrap, topic, events)
            with rig.worker(bootstrap, topic, database, WEBHOOK_MAX_IN_FLIGHT=str(IN_FLIGHT)) as child:
                used = rig.measure(child, receiver, 1, deliveries)
                stats = receiver.stats()
    print(
        f"{deliveries} deliveries, {SUBSCRIPTIONS} receivers that take {delay_ms} ms, {stats['most_open']} open at once"
    )
    print(f"{used.per_second:,.0f} deliveries/s, {used.cpu_us:,.0f} µs of CPU each, {used.memory_mib:,.0f} MiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)  # noqa: PLR2004
