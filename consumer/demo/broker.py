"""An embedded Kafka: librdkafka's mock cluster, in this process. It keeps some 5 MB per partition, in memory.

`python -m consumer.demo.broker TOPIC...` runs it for the tutorial, until Ctrl-C or SIGTERM.
"""

import signal
import sys
from contextlib import closing

from confluent_kafka import KafkaError, Message, Producer

from consumer.errors import KafkaUnavailable

_TIMEOUT = 10.0  # seconds for each answer; it comes from this machine


class EmbeddedKafka:
    """A broker with these topics on a free port of 127.0.0.1; other processes can reach it at `servers`."""

    def __init__(self, *topics: str) -> None:
        self._refused: KafkaError | None = None
        self._producer = Producer(
            {"bootstrap.servers": "embedded", "test.mock.num.brokers": 1, "log_level": 0, "linger.ms": 0}
        )
        brokers = self._producer.list_topics(timeout=_TIMEOUT).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        for topic in topics:
            self._producer.list_topics(topic, timeout=_TIMEOUT)  # the mock cluster creates it when asked for it

    def publish(self, topic: str, value: bytes, *, key: bytes, event_type: str | None = None) -> None:
        """Hand one record to the producer; `flush` raises if it was refused."""
        headers: list[tuple[str, str | bytes | None]] = [("event-type", event_type)] if event_type else []
        self._producer.produce(topic, value, key, headers=headers, on_delivery=self._acknowledged)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all records are acknowledged. KafkaUnavailable if they are not."""
        if self._producer.flush(_TIMEOUT) or self._refused is not None:
            raise KafkaUnavailable(f"the embedded Kafka did not store each record: {self._refused or 'no answer'}")

    def close(self) -> None:
        """Drop unacknowledged records; the broker ends with this object."""
        self._producer.purge()
        self._producer.flush(1)

    def _acknowledged(self, error: KafkaError | None, _message: Message) -> None:
        self._refused = error or self._refused


def main(topics: list[str]) -> None:
    """Run a broker with the topics, and print the setting that names it on stdout."""
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before librdkafka's threads begin, which inherit it
    with closing(EmbeddedKafka(*topics)) as kafka:
        sys.stdout.write(f"KAFKA_BOOTSTRAP_SERVERS={kafka.servers}\n")
        sys.stdout.flush()
        signal.sigwait(stops)


if __name__ == "__main__":
    main(sys.argv[1:])
