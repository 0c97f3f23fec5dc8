"""The events of all benchmarks: by default 450 bytes, one type, a thousand keys."""

import time
from collections.abc import Sequence
from typing import Any

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

TYPE = "user.created"
KEYS = 1000
PAD = 330  # padding of an event of 450 bytes
QUEUED = 1_000_000  # records that a producer keeps until Kafka acknowledges them


def event(number: int, pad: int = PAD, at: int | None = None, event_type: str = TYPE) -> dict[str, Any]:
    """One event; `at` (unix nanoseconds, by default now) tells the receiver its latency."""
    data = {"id": number, "name": "Jane Doe", "pad": "x" * pad}
    sent = time.time_ns() if at is None else at
    return {"at": sent, "type": event_type, "id": f"evt_{number}", "source": "/users", "data": data}


def create_topic(bootstrap: str, topic: str, partitions: int = 4) -> None:
    """Creates an empty topic."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(15)


def fill(bootstrap: str, topic: str, number: int, pad: int = PAD, types: Sequence[str] = (TYPE,)) -> None:
    """Publishes so many events, of each of `types` in turn, as fast as possible, and waits for acknowledgements."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": QUEUED})
    for position in range(number):
        value = orjson.dumps(event(position, pad, event_type=types[position % len(types)]))
        producer.produce(topic, value, key=f"user-{position % KEYS}")
        if position % 1000 == 0:
            producer.poll(0)
            while len(producer) > QUEUED // 2:
                producer.poll(0.05)
    producer.flush()


def stream(
    bootstrap: str,
    topic: str,
    per_second: float,
    seconds: float,
    pad: int = PAD,
    *,
    linger_ms: int = 0,
    event_type: str = TYPE,
) -> int:
    """Publishes at a steady rate; returns the number published.

    An event's `at` is its scheduled time, so that a late publisher does not improve the latency.
    """
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": linger_ms})
    producer.list_topics(topic)  # so that the first events do not wait for its connection
    origin, begin, sent = time.time_ns(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        while sent < elapsed * per_second:
            at = origin + int(sent / per_second * 1e9)
            producer.produce(topic, orjson.dumps(event(sent, pad, at, event_type)), key=f"user-{sent % KEYS}")
            sent += 1
        producer.poll(0.001)
    producer.flush()
    return sent


def delete_topic(bootstrap: str, topic: str) -> None:
    """Deletes a topic to free disk space."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.delete_topics([topic])[topic].result(15)
