"""Runs the embedded Kafka for the tutorial, until Ctrl-C or SIGTERM: `python -m consumer.demo.broker TOPIC...`."""

import signal
import sys
from contextlib import closing

from consumer.demo.kafka import EmbeddedKafka


def main(topics: list[str]) -> None:
    """Create the topics, and print the setting that names the broker on stdout."""
    stops = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # before librdkafka's threads begin, which inherit it
    with closing(EmbeddedKafka()) as kafka:
        for topic in topics:
            kafka.create(topic)
        sys.stdout.write(f"KAFKA_BOOTSTRAP_SERVERS={kafka.servers}\n")
        sys.stdout.flush()
        signal.sigwait(stops)


if __name__ == "__main__":
    main(sys.argv[1:])
