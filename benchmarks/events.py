"""The events that every benchmark sends: 450 bytes, one type, a thousand keys."""

import time
from typing import Any

import orjson
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

TYPE = "user.created"


def event(number: int) -> dict[str, Any]:
    """One event; `at` is now, in unix nanoseconds, so that the receiver can tell how long it took."""
    data = {"id": number, "name": "Jane Doe", "pad": "x" * 330}
    return {"at": time.time_ns(), "type": TYPE, "id": f"evt_{number}", "source": "/users", "data": data}


def create_topic(bootstrap: str, topic: str, partitions: int = 4) -> None:
    """Make an empty topic."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(15)


def fill(bootstrap: str, topic: str, number: int) -> None:
    """Publish so many events as fast as it goes, and wait until Kafka has them."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for position in range(number):
        producer.produce(topic, orjson.dumps(event(position)), key=f"user-{position % 1000}")
        if position % 5000 == 0:
            producer.poll(0)
    producer.flush()


def stream(bootstrap: str, topic: str, per_second: int, seconds: float) -> int:
    """Publish at a steady rate; the number published."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    begin, sent = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        while sent < elapsed * per_second:
            producer.produce(topic, orjson.dumps(event(sent)), key=f"user-{sent % 1000}")
            sent += 1
        producer.poll(0.001)
    producer.flush()
    return sent
