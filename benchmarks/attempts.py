"""The CPU that the attempt history costs each delivery: a call of `AttemptLog.report`, and librdkafka's work.

python -m benchmarks.attempts [ATTEMPTS]

It needs no Kafka: librdkafka's mock cluster, in a process of its own, accepts the records.
"""

import subprocess
import sys
import time

from confluent_kafka import Producer

from consumer.config.settings import KafkaSettings
from consumer.delivery.delivery import Delivery, Lane, OpenRecord
from consumer.delivery.outcome import Delivered, Failed, Outcome
from consumer.events.event import Event, RecordId
from consumer.subscriptions.endpoint import Endpoint
from consumer.worker.attempt_log import AttemptLog

OF_A_TURN = 50  # attempts between two polls of the loop
AT_ONCE = 20_000  # attempts before the queue, which holds more, is drained
SUBSCRIPTIONS = 100


def mock_cluster() -> None:
    """Prints the addresses of a mock cluster and keeps it running until standard input ends."""
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1})
    print(",".join(f"{each.host}:{each.port}" for each in owner.list_topics(timeout=10).brokers.values()), flush=True)
    sys.stdin.read()


def deliveries() -> list[Delivery]:
    """One delivery of each subscription."""
    found = []
    for number in range(SUBSCRIPTIONS):
        place = RecordId("orders", number % 6, 1_000_000 + number, 1_700_000_000_000)
        event = Event(place, "order.created", f"msg_{number:040x}", b"{}", "application/json", b"key", None)
        lane = Lane(Endpoint(number, f"https://receiver-{number}.example/hooks", (b"key",)), 1.0, 0.0)
        found.append(Delivery(event, lane, OpenRecord(lambda _offset: None, 0, 1)))
        found[-1].attempts = 1
    return found


def measure(servers: str, attempts: int, what: str, outcome: Outcome) -> None:
    """Reports so many attempts, and prints the cost of each: this thread's CPU and the whole process's."""
    log = AttemptLog(KafkaSettings(bootstrap_servers=servers), "webhooks.attempts")
    each = deliveries()
    log.report(each[0], what, outcome, time.time(), 0.0123)
    log.close()  # connected
    thread = process = 0.0
    for _ in range(max(1, attempts // AT_ONCE)):
        begin, begin_thread = time.process_time(), time.thread_time()
        for number in range(AT_ONCE):
            log.report(each[number % SUBSCRIPTIONS], what, outcome, 1_700_000_000.25, 0.0123)
            if number % OF_A_TURN == 0:
                log.poll(time.monotonic())
        thread += time.thread_time() - begin_thread
        log.close()
        process += time.process_time() - begin
    number = max(1, attempts // AT_ONCE) * AT_ONCE
    print(
        f"{what:>10}: {thread / number * 1e6:.2f} µs of the loop's thread, {process / number * 1e6:.2f} µs of the "
        f"process with librdkafka's threads; {log.dropped} of {number} dropped"
    )


def main(attempts: int) -> None:
    """Measures successes, then failures with an answer."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attempts", "--mock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as cluster:
        assert cluster.stdin is not None  # noqa: S101 (for the type checker)
        assert cluster.stdout is not None  # noqa: S101 (the same)
        servers = cluster.stdout.readline().decode().strip()
        measure(servers, attempts, "delivered", Delivered(204))
        measure(servers, attempts, "retried", Failed("status 503", 503, None, "Service Unavailable, try later. " * 20))
        cluster.stdin.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["--mock"]:
        mock_cluster()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
