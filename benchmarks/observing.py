"""The cost of observing a worker: scraped, with the attempt history, and with traces.

    python -m benchmarks.observing [EVENTS]

In one run, on one real Kafka and one receiver: events a second, CPU for each delivery, and the extra cost. The
collector discards the traces.
"""

import statistics
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

WARM = 0.2  # share of the events before the measurement
RUNS = 3  # runs of each; the median counts
SCRAPE = 1.0  # seconds between two scrapes


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Scrapes the worker's metrics every SCRAPE seconds, from its start on."""
    enough = threading.Event()

    def scrape() -> None:
        while not enough.wait(SCRAPE):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read()
            except OSError:
                continue  # the worker has not started yet, or has ended

    thread = threading.Thread(target=scrape, name="scraping")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def main(events: int) -> None:
    """Runs each and prints the table."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.http_server(_Collector) as traces:
        attempts, port = f"attempts-{uuid.uuid4().hex[:8]}", rig.free_port()
        create_topic(bootstrap, attempts)
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": traces, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
        variants: dict[str, dict[str, str]] = {
            "nothing": {},
            "scraped every second": {"OPS_PORT": str(port)},
            "attempt history": {"KAFKA_ATTEMPTS_TOPIC": attempts},
            "traces, one in a hundred": tracing | {"OTEL_TRACES_SAMPLER_ARG": "0.01"},
            "traces, all": tracing | {"OTEL_TRACES_SAMPLER_ARG": "1"},
        }
        runs: dict[str, list[rig.Used]] = {name: [] for name in variants}
        for _ in range(RUNS):  # in turn, because the machine's speed varies
            for name, settings in variants.items():
                topic = f"bench-{uuid.uuid4().hex[:8]}"
                create_topic(bootstrap, topic)
                fill(bootstrap, topic, events)
                receiver.reset()
                url = receiver.url + "/hook"
                with (
                    rig.database([url], TYPE) as database,
                    scraping(port if "OPS_PORT" in settings else 1),
                    rig.worker(bootstrap, topic, database, **settings) as child,
                ):
                    used = rig.measure(child, receiver, int(events * WARM), events)
                runs[name].append(used)
                print(f"{name:26}{used.per_second:>10,.0f}/s{used.cpu_us:>8.1f} µs", flush=True)
    usual = statistics.median(each.cpu_us for each in runs["nothing"])
    print(f"\n{'':26}{'events/s':>10}{'CPU/delivery':>14}{'more':>8}")
    for name, found in runs.items():
        rate, cpu = (statistics.median(values) for values in zip(*(each[:2] for each in found), strict=True))
        print(f"{name:26}{rate:>10,.0f}{cpu:>11.1f} µs{cpu / usual - 1:>8.0%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150_000)
