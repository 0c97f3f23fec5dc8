"""HTTP/1.1 and HTTP/2 by TLS: the sender's cost of a delivery, without Kafka and the database.

    python -m benchmarks.http2 [ROUNDS]

Each row has the medians of ROUNDS runs (3) of the two protocols in turn. A run sends signed 450-byte events in a
process of its own: first so many at once, which opens the connections ("start"); then as fast as the receivers answer
with so many open requests; then 1,000 a second for the latency, without the receivers' delay. The receivers' CPU is not
counted, but they share the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
import trustme

from benchmarks import rig
from benchmarks.events import event
from benchmarks.sending import Run

SECONDS = 2.0  # seconds at the steady rate
RATE = 1_000  # events a second, for the latency
WARM = 0.2  # share of the deliveries before the measurement
SCENARIOS = [  # delay of an answer in ms, hosts, open requests, deliveries
    (0, 1, 256, 20_000),
    (0, 50, 256, 20_000),
    (10, 1, 256, 20_000),
    (10, 50, 256, 20_000),
    (100, 1, 1000, 15_000),
    (100, 50, 1000, 15_000),
    (100, 50, 50, 1_500),
]


def send(url: str, hosts: int, version: str, deliveries: int, concurrency: int) -> None:
    """Makes one run; prints its figures as JSON."""
    run = Run([rig.hook(url, number, hosts) for number in range(hosts)], http2=version == "2")
    body = json.dumps(event(0)).encode()
    cold = time.process_time()
    run.until(concurrency, concurrency, lambda _: body)
    cold = time.process_time() - cold
    run.until(int(deliveries * WARM), concurrency, lambda _: body)
    begin, cpu, first = time.perf_counter(), time.process_time(), run.done
    run.until(deliveries, concurrency, lambda _: body)
    took, cpu, number = time.perf_counter() - begin, time.process_time() - cpu, run.done - first
    memory = psutil.Process().memory_info().rss / 2**20
    connections = len(psutil.Process().net_connections("tcp"))
    run.latencies.clear()
    began, total = time.perf_counter(), int(RATE * SECONDS)
    start = run.sent
    while run.done - start < total:
        due = min(total, int((time.perf_counter() - began) * RATE) + 1)
        while run.sent - start < due:
            run.send(body)
        run.poller.turn(0.001)
    latencies = sorted(run.latencies)
    run.adapter.close()
    print(
        json.dumps(
            {
                "cold": cold * 1e3,
                "per_second": number / took,
                "cpu": cpu / number * 1e6,
                "memory": memory,
                "connections": connections,
                "p50": latencies[len(latencies) // 2] * 1e3,
                "p99": latencies[int(len(latencies) * 0.99)] * 1e3,
            }
        )
    )


@contextmanager
def certificate(hosts: int) -> Iterator[rig.Certificate]:
    """A certificate for so many loopback addresses."""
    with tempfile.TemporaryDirectory(prefix="http2-") as folder:
        authority = trustme.CA()
        issued = authority.issue_cert(*(f"127.0.0.{host}" for host in range(1, hosts + 1)))
        files = rig.Certificate(*(Path(folder) / name for name in ("chain.pem", "key.pem", "authority.pem")))
        issued.private_key_pem.write_to_path(files.key)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(files.chain, append=True)
        authority.cert_pem.write_to_path(files.authority)
        yield files


def compare(delay: int, hosts: int, concurrency: int, deliveries: int, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of each protocol."""
    found: dict[str, list[dict[str, float]]] = {"1.1": [], "2": []}
    with (
        certificate(hosts) as files,
        rig.sink(delay, hosts, certificate=files, http2=True) as receiver,
    ):
        environment = {**os.environ, "SSL_CERT_FILE": str(files.authority)}
        for _ in range(rounds):
            for version, runs in found.items():
                task = [receiver.tls_url, str(hosts), version, str(deliveries), str(concurrency)]
                command = [sys.executable, "-m", "benchmarks.http2", "--send", *task]
                done = subprocess.run(
                    command, cwd=rig.ROOT, env=environment, check=True, stdout=subprocess.PIPE, timeout=120
                )
                runs.append(json.loads(done.stdout))
    return {version: {name: median(run[name] for run in runs) for name in runs[0]} for version, runs in found.items()}


COLUMNS: dict[str, Callable[[dict[str, float]], str]] = {
    "start, CPU ms": lambda run: f"{run['cold']:.0f}",
    "deliveries/s": lambda run: f"{run['per_second']:,.0f}",
    "CPU, µs": lambda run: f"{run['cpu']:.1f}",
    "connections": lambda run: f"{run['connections']:,.0f}",
    "memory, MiB": lambda run: f"{run['memory']:.0f}",
    "p50, ms": lambda run: f"{run['p50']:.1f}",
    "p99, ms": lambda run: f"{run['p99']:.1f}",
}


def main(rounds: int = 3) -> None:
    """Prints a table."""
    print(f"| receivers | open | HTTP | {' | '.join(COLUMNS)} |")
    print(f"| --- | ---: | --- |{' ---: |' * len(COLUMNS)}")
    for delay, hosts, concurrency, deliveries in SCENARIOS:
        for version, run in compare(delay, hosts, concurrency, deliveries, rounds).items():
            run["p50"], run["p99"] = run["p50"] - delay, run["p99"] - delay
            cells = " | ".join(cell(run) for cell in COLUMNS.values())
            name = f"{hosts} host{'s' if hosts > 1 else ''}, {delay} ms"
            print(f"| {name} | {concurrency:,} | {version} | {cells} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--send"]:
        send(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    else:
        main(*map(int, sys.argv[1:2]))
