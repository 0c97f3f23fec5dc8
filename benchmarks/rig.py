"""What the benchmarks share: a real Kafka, a receiver, one worker on SQLite, and what a process used."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

ROOT = Path(__file__).parents[1]
SECRET = "benchmark-secret"  # noqa: S105 (for loopback)
CACHE = ROOT / ".cache"


class Used(NamedTuple):
    """What a process has used from `begin` to `end` deliveries."""

    per_second: float
    cpu_us: float
    memory_mib: float


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(arguments: list[str], **environment: str) -> Iterator[psutil.Popen]:
    """Run a program from the project's root; it is stopped, and if need be killed, at the end."""
    child = psutil.Popen(arguments, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except psutil.TimeoutExpired:
            child.kill()
            child.wait()


class Sink:
    """The receiver: a process of its own, in Go, so that it is faster than what is measured."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, method: str = "GET") -> bytes:
        """Ask the receiver itself."""
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 (loopback)
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bytes(answer.read())

    def count(self) -> int:
        """Deliveries received: distinct ids, by receiver."""
        return int(self.get("/count"))

    def events(self) -> int:
        """Events received, in whatever requests."""
        return int(self.get("/events"))

    def stats(self) -> dict[str, Any]:
        """Totals and latencies."""
        return dict(json.loads(self.get("/stats")))

    def reset(self) -> None:
        """Forget all."""
        self.get("/reset", "POST")


@contextmanager
def sink(delay_ms: int = 0, hosts: int = 1) -> Iterator[Sink]:
    """A running receiver, on so many loopback addresses; compiled once."""
    go = shutil.which("go")
    if go is None:
        sys.exit("the benchmarks' receiver is written in Go: install go 1.22 or newer")
    CACHE.mkdir(exist_ok=True)
    subprocess.run([go, "build", "-o", CACHE / "sink", ROOT / "benchmarks" / "sink.go"], check=True)
    port = free_port()
    with process([str(CACHE / "sink"), str(port), str(delay_ms), str(hosts)]):
        receiver = Sink(port)
        for _ in range(200):
            try:
                receiver.count()
                break
            except OSError:
                time.sleep(0.02)
        yield receiver


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
    """A migrated SQLite file with these subscriptions; its URL."""
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


@contextmanager
def worker(bootstrap: str, topic: str, database_url: str, **settings: str) -> Iterator[psutil.Popen]:
    """One `kafka-webhooks run`."""
    with ExitStack() as stack:
        yield stack.enter_context(
            process(
                [sys.executable, "-m", "consumer", "run"],
                **{
                    "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                    "KAFKA_TOPICS": topic,
                    "KAFKA_GROUP_ID": topic,
                    "DATABASE_URL": database_url,
                    "WEBHOOK_SECRET": SECRET,
                    "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
                    "LOG_LEVEL": "WARNING",
                    "OPS_PORT": "0",
                    **settings,
                },
            )
        )


def measure(
    child: psutil.Popen,
    receiver: Sink,
    begin: int,
    end: int,
    seconds: float = 300,
    count: Callable[[Sink], int] = Sink.count,
) -> Used:
    """Watch a process from the `begin`-th distinct delivery (it is warm then) to the `end`-th."""
    limit = time.monotonic() + seconds
    memory = 0.0

    def wait_for(number: int) -> tuple[int, float, float]:
        nonlocal memory
        while (found := count(receiver)) < number:
            if time.monotonic() > limit or not child.is_running():
                sys.exit(f"gave up at {found} of {number} deliveries")
            memory = max(memory, child.memory_info().rss / 2**20)
            time.sleep(0.01)
        cpu = child.cpu_times()
        return found, cpu.user + cpu.system, time.perf_counter()

    first, cpu_before, time_before = wait_for(begin)
    last, cpu_after, time_after = wait_for(end)
    number = last - first
    return Used(number / (time_after - time_before), (cpu_after - cpu_before) / number * 1e6, memory)
