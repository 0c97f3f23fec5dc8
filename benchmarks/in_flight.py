"""Ten thousand requests open at once, to receivers that take a second, through one worker.

python -m benchmarks.in_flight [EVENTS]
"""

import sys
import uuid

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

SUBSCRIPTIONS = 20  # so that no lane is short of slots: the first takes half of them, the second half of the rest, …
IN_FLIGHT = 10_000


def main(events: int) -> None:
    """Deliver each event to every subscription and print what it took."""
    deliveries = events * SUBSCRIPTIONS
    with rig.kafka() as bootstrap, rig.sink(delay_ms=1000) as receiver:
        urls = [f"{receiver.url}/hook/{number}" for number in range(SUBSCRIPTIONS)]
        with rig.database(urls, TYPE) as database:
            topic = f"bench-{uuid.uuid4().hex[:8]}"
            create_topic(bootstrap, topic)
            fill(bootstrap, topic, events)
            with rig.worker(bootstrap, topic, database, WEBHOOK_MAX_IN_FLIGHT=str(IN_FLIGHT)) as child:
                used = rig.measure(child, receiver, 1, events)
                stats = receiver.stats()
    print(f"{deliveries} deliveries to {SUBSCRIPTIONS} receivers that take 1 s: {stats['most_open']} open at once")
    rate, cpu_us = used.per_second * SUBSCRIPTIONS, used.cpu_us / SUBSCRIPTIONS
    print(f"{rate:,.0f} deliveries/s, {cpu_us:,.0f} µs of CPU each, {used.memory_mib:,.0f} MiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2500)
