"""The latency from `produce` at a steady rate: to a bare consumer, and through one worker to the receiver.

python -m benchmarks.latency [EVENTS_PER_SECOND] [SECONDS] [LINGER_MS]

The bare consumer only notes when it takes an event: so long take publisher and Kafka alone.
"""

import statistics
import sys
import time
import uuid
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import orjson
from confluent_kafka import OFFSET_END as END
from confluent_kafka import Consumer, TopicPartition

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, stream

PARTITIONS = 4
WARM_SECONDS = 3.0


def consume(bootstrap: str, topic: str, found: Connection) -> None:
    """Sends a sign of life, and once it gets a number the latencies in ms of so many events."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare"})
    consumer.assign([TopicPartition(topic, number, END) for number in range(PARTITIONS)])
    taken: list[tuple[int, bytes]] = []
    consumer.poll(1.0)
    found.send(None)
    expected = None
    while expected is None or len(taken) < expected:
        messages = consumer.consume(1000, 0) or consumer.consume(1, 0.05)
        now = time.time_ns()
        taken += [(now, value) for message in messages if (value := message.value()) is not None]
        if expected is None and found.poll():
            expected = found.recv()
    consumer.close()
    found.send([(now - orjson.loads(value)["at"]) / 1e6 for now, value in taken])


def bare(bootstrap: str, topic: str, per_second: float, seconds: float, linger_ms: int) -> list[float]:
    """The latencies of a bare consumer, in a process of its own."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=consume, args=(bootstrap, topic, theirs))
    process.start()
    ours.recv()
    warm = stream(bootstrap, topic, per_second, WARM_SECONDS, linger_ms=linger_ms)
    ours.send(warm + stream(bootstrap, topic, per_second, seconds, linger_ms=linger_ms))
    latencies: list[float] = ours.recv()
    process.join()
    return latencies[warm:]


def shown(name: str, values: Sequence[float]) -> str:
    """A line of the table."""
    return f"{name:20}" + "".join(f"{value:9.1f}" for value in values)


def main(per_second: int, seconds: float, linger_ms: int) -> None:
    """Warms up, streams events twice and prints the percentiles."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.database([receiver.url + "/hook"], TYPE) as database:
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, PARTITIONS)
        found = sorted(bare(bootstrap, topic, per_second, seconds, linger_ms))
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        create_topic(bootstrap, topic, PARTITIONS)
        with rig.worker(bootstrap, topic, database):
            warm = stream(bootstrap, topic, per_second, WARM_SECONDS, linger_ms=linger_ms)
            while receiver.count() < warm:
                time.sleep(0.05)
            receiver.reset()
            sent = stream(bootstrap, topic, per_second, seconds, linger_ms=linger_ms)
            limit = time.monotonic() + 10
            while receiver.count() < sent and time.monotonic() < limit:
                time.sleep(0.05)
            stats = receiver.stats()
    print(
        f"{sent} events at {per_second}/s, {stats['distinct']} received, {stats['total'] - stats['distinct']} twice\n"
    )
    print(f"{'ms':20}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "max")))
    hundredths = statistics.quantiles(found, n=100)
    print(shown("a bare consumer", (hundredths[49], hundredths[94], hundredths[98], found[-1])))
    print(shown("one worker", [stats[name] for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]))


if __name__ == "__main__":
    given = [*sys.argv[1:], *("500", "20", "0")[len(sys.argv) - 1 :]]
    main(int(given[0]), float(given[1]), int(given[2]))
