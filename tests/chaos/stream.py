"""A steady stream of events into Kafka, recorded in the book; some are unwanted, and some records are not events."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from random import Random

from confluent_kafka import KafkaError, Message, Producer

from tests.chaos.book import Book, Event
from tests.kafka_kit import QUIET

KEYS = 60
WITHOUT_KEY = 0.1
WEIGHTS = {"order": 80, "leaving": 6, "picky": 5, "unwanted": 5, "no event": 4}
# A batch is sent once: a broker that dies between writing and answering causes no second record.
PRODUCER = {**QUIET, "enable.idempotence": True, "message.timeout.ms": 120_000, "linger.ms": 2}


class Stream:
    """A thread from `start` to `stop`. Each key has one partition."""

    def __init__(self, servers: str, topic: str, partitions: int, book: Book, seed: int, per_second: float) -> None:
        self._topic = topic
        self._partitions = partitions
        self._book = book
        self._random = Random(f"{seed} stream")
        self._per_second = per_second
        self._producer = Producer({"bootstrap.servers": servers, **PRODUCER})
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._flow, name="stream", daemon=True)
        self._errors: list[KafkaError] = []

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Stop publishing, and wait until Kafka has all events."""
        self._enough.set()
        self._thread.join()
        assert self._producer.flush(60) == 0
        assert not self._errors, self._errors

    def _flow(self) -> None:
        begin, sent = time.monotonic(), 0
        while not self._enough.wait(0.02):
            due = int((time.monotonic() - begin) * self._per_second)
            for _ in range(due - sent):
                self._publish()
            sent = due
            self._producer.poll(0)

    def _publish(self) -> None:
        random, number = self._random, len(self._book.events)
        (kind,) = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        key = None if random.random() < WITHOUT_KEY else random.randrange(KEYS)
        partition = (random.randrange(self._partitions) if key is None else key) % self._partitions
        body = json.dumps({"type": kind, "number": number, "filler": "é" * random.randint(0, 200)}).encode()
        if kind == "no event":
            body = b"\xff" + body
        name = None if key is None else b"key %d" % key
        event = Event(number, time.time(), kind, partition, name, body, owed=kind != "no event")
        self._book.publish(event)
        self._producer.produce(
            self._topic, body, name, partition, on_delivery=partial(self._acknowledged, self._book.acknowledged, event)
        )

    def _acknowledged(
        self, note: Callable[[Event, int], None], event: Event, error: KafkaError | None, message: Message
    ) -> None:
        offset = message.offset()
        if error is not None or offset is None:
            self._errors.append(error or KafkaError(KafkaError._FAIL))
        else:
            note(event, offset)
