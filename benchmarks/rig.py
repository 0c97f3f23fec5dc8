"""Shared parts of the benchmarks: a real Kafka, a receiver, one worker on SQLite, and the resources of a process."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).parents[1]
SECRET = "benchmark-secret"  # noqa: S105 (for loopback)
CACHE = ROOT / ".cache"


class Used(NamedTuple):
    """The resources of a process from `begin` to `end` deliveries."""

    per_second: float
    cpu_us: float
    memory_mib: float


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(arguments: list[str], **environment: str) -> Iterator[psutil.Popen]:
    """Runs a program from the project's root; it is stopped, and killed if necessary, at the end."""
    child = psutil.Popen(arguments, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield child
    finally:
        with suppress(psutil.NoSuchProcess):  # it has ended
            child.terminate()
        try:
            child.wait(30)
        except psutil.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def processors(numbers: Sequence[int]) -> Iterator[None]:
    """Processes started in this block run on these processors alone; on any if there are none."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, numbers or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Certificate(NamedTuple):
    """PEM files: the certificate of the receiver at 127.0.0.1, and the authority to trust."""

    chain: Path
    key: Path
    authority: Path


class Sink:
    """The receiver: a process of its own in Go, so that it is faster than the measured programs."""

    def __init__(self, port: int, tls_port: int = 0) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.tls_url = f"https://127.0.0.1:{tls_port}"
        self.process: psutil.Popen | None = None

    def get(self, path: str, method: str = "GET") -> bytes:
        """Queries the receiver."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 (loopback)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bytes(answer.read())

    def count(self) -> int:
        """Deliveries received: distinct ids, by receiver."""
        return int(self.get("/count"))

    def events(self) -> int:
        """Events received, in single requests or batches."""
        return int(self.get("/events"))

    def stats(self) -> dict[str, Any]:
        """Totals and latencies."""
        return dict(json.loads(self.get("/stats")))

    def reset(self) -> None:
        """Clears all counts."""
        self.get("/reset", "POST")


def hook(base: str, number: int, hosts: int) -> str:
    """The url of a subscription: subscriptions use the addresses of the receiver at `base` in turn."""
    return f"{base}/hook{number // hosts}".replace("127.0.0.1", f"127.0.0.{number % hosts + 1}")


def build_go(folder: str, name: str) -> Path:
    """A compiled Go program: a file, or a folder with a module, below benchmarks/."""
    go = shutil.which("go")
    if go is None:
        sys.exit("the benchmarks' receiver is written in Go: install go 1.22 or newer")
    CACHE.mkdir(exist_ok=True)
    place = ROOT / "benchmarks" / folder
    where, what = (place.parent, place.name) if place.is_file() else (place, ".")
    subprocess.run([go, "build", "-o", CACHE / name, what], cwd=where, check=True)
    return CACHE / name


@contextmanager
def sink(
    delay_ms: float = 0,
    hosts: int = 1,
    *,
    tail: bool = False,
    certificate: Certificate | None = None,
    http2: bool = False,
) -> Iterator[Sink]:
    """A running receiver on so many loopback addresses, compiled once. With a certificate it also answers by https."""
    program = build_go("sink.go", "sink")
    port = free_port()
    flags = {"port": port, "delay": f"{delay_ms}ms", "hosts": hosts, "tail": str(tail).lower(), "secret": SECRET}
    tls_port = 0
    if certificate is not None:
        tls_port = free_port()
        flags |= {"tls-port": tls_port, "certificate": certificate.chain, "key": certificate.key}
        flags |= {"http2": str(http2).lower()}
    with process([str(program), *(f"-{name}={value}" for name, value in flags.items())]) as child:
        receiver = Sink(port, tls_port)
        receiver.process = child
        for _ in range(200):
            try:
                receiver.count()
                break
            except OSError:
                time.sleep(0.02)
        yield receiver


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Runs a small server of a benchmark; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name=handler.__name__)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def kafka() -> Iterator[str]:
    """KAFKA_BOOTSTRAP_SERVERS, or a Kafka started for this run."""
    if given := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield given
        return
    from tests.kafka_broker import KafkaBroker  # noqa: PLC0415 (only where it is needed)

    with KafkaBroker() as broker:
        yield broker.bootstrap


@contextmanager
def database(urls: list[str], event_type: str) -> Iterator[str]:
    """A migrated SQLite file with these subscriptions; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="webhooks-benchmark-") as folder:
        url = f"sqlite:///{folder}/webhooks.db"
        command = [sys.executable, "-m", "consumer"]
        environment = {**os.environ, "DATABASE_URL": url}
        subprocess.run([*command, "migrate"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        from sqlalchemy import create_engine, text  # noqa: PLC0415 (a second of the start)

        with create_engine(url).begin() as connection:
            connection.execute(
                text("INSERT INTO webhook_subscriptions (url, event_type) VALUES (:url, :type)"),
                [{"url": each, "type": event_type} for each in urls],
            )
        yield url


WORKER = [sys.executable, "-m", "consumer", "run"]


def worker_settings(bootstrap: str, topic: str, database_url: str) -> dict[str, str]:
    """The environment of a `kafka-webhooks run` that consumes this topic, in a group named after it."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_TOPICS": topic,
        "KAFKA_GROUP_ID": topic,
        "DATABASE_URL": database_url,
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
        "LOG_LEVEL": "WARNING",
        "OPS_PORT": "0",
    }


@contextmanager
def worker(bootstrap: str, topic: str, database_url: str, **settings: str) -> Iterator[psutil.Popen]:
    """A running `kafka-webhooks run`."""
    with process(WORKER, **{**worker_settings(bootstrap, topic, database_url), **settings}) as child:
        yield child


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process's threads by the scheduler's clock (`cpu_times` counts in hundredths)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def measure(
    child: psutil.Popen,
    receiver: Sink,
    begin: int,
    end: int,
    seconds: float = 300,
    count: Callable[[Sink], int] = Sink.count,
) -> Used:
    """Measures a process from the `begin`-th distinct delivery, when it is warm, to the `end`-th."""
    limit = time.monotonic() + seconds
    memory = 0.0

    def wait_for(number: int) -> tuple[int, float, float]:
        nonlocal memory
        while (found := count(receiver)) < number:
            if time.monotonic() > limit or not child.is_running():
                sys.exit(f"gave up at {found} of {number} deliveries")
            memory = max(memory, child.memory_info().rss / 2**20)
            time.sleep(0.01)
        return found, cpu_seconds(child.pid), time.perf_counter()

    first, cpu_before, time_before = wait_for(begin)
    last, cpu_after, time_after = wait_for(end)
    number = last - first
    return Used(number / (time_after - time_before), (cpu_after - cpu_before) / number * 1e6, memory)
