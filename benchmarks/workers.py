"""One worker and two in one command, in turn on one real Kafka; then the start of 4, 16 and 64.

    python -m benchmarks.workers [EVENTS [ROUNDS]]

Once with a plain subscription, where Kafka and receiver take much of two cores, and once with one that costs a worker
more. Events a second, CPU for each delivery, and the memory of each process by its share of what they have in common
(PSS). Of many workers: the seconds until all are ready, until a killed one is replaced, for a page of metrics, to stop.
"""

import json
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
from sqlalchemy import create_engine, text

from benchmarks import rig
from benchmarks.events import TYPE, create_topic, fill

WARM, LAST = 0.2, 0.9  # shares of the events before and after which nothing is measured
MANY = (4, 16, 64)
LIMIT = 300.0  # seconds
BUSY = 0.02  # seconds of CPU in 0.2
PARTITIONS = 8
PLAIN, FILTERED = "plain", "filter and projection"
EXPRESSIONS = """UPDATE webhook_subscriptions SET event_filter = 'data.id != ""', projection = '{"id": data.id}'"""
THREADS = 8  # a worker has three times as many, the parent and the port's process one or two


class Round(NamedTuple):
    """The cost of one run of so many workers."""

    per_second: float
    cpu_us: float
    memory_mib: list[float]  # of each process but the parent and the port's; of the one process


def pss(pid: int) -> float:
    """Mebibytes: a page that n processes share counts as an n-th."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def workers_of(child: psutil.Process, number: int) -> list[psutil.Process]:
    """The processes that deliver: they have threads of Kafka's client."""
    if number == 1:
        return [child]
    return [each for each in child.children() if each.num_threads() > THREADS]


def wait(condition: Callable[[], object]) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() > begin + LIMIT:
            sys.exit("gave up waiting")
        time.sleep(0.01)
    return time.monotonic() - begin


def is_working(pid: int) -> bool:
    """Whether it uses a tenth of a core."""
    before = rig.cpu_seconds(pid)
    time.sleep(0.2)
    return rig.cpu_seconds(pid) - before > BUSY


def measured(number: int, receiver: rig.Sink, events: int, arguments: list[str], settings: dict[str, str]) -> Round:
    """From when all workers work, at the earliest after WARM of the events, to LAST of them: then one may be alone.

    A group that its members join one after the other assigns the partitions twice, in the first seconds.
    """
    receiver.reset()
    with rig.process([*rig.WORKER, *arguments], **settings, KAFKA_GROUP_ID=uuid.uuid4().hex) as child:
        wait(lambda: receiver.count() >= events * WARM)
        processes = workers_of(child, number)
        wait(lambda: all(is_working(each.pid) for each in processes))
        first, began, cpu = receiver.count(), time.perf_counter(), sum(rig.cpu_seconds(each.pid) for each in processes)
        memory = [0.0] * len(processes)
        while receiver.count() < events * LAST:
            memory = [max(before, pss(each.pid)) for before, each in zip(memory, processes, strict=True)]
            time.sleep(0.2)
        made, took = receiver.count() - first, time.perf_counter() - began
        cpu = sum(rig.cpu_seconds(each.pid) for each in processes) - cpu
        return Round(made / took, cpu / made * 1e6, memory)


def ready(port: int) -> bool:
    """Whether all workers are."""
    with suppress(OSError):
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
                return bool(json.load(answer)["ready"])
        except HTTPError as error:
            error.close()
    return False


def started(number: int, settings: dict[str, str]) -> str:
    """A line of the table about many workers."""
    port = rig.free_port()
    settings = settings | {"KAFKA_GROUP_ID": uuid.uuid4().hex, "OPS_PORT": str(port), "OPS_HOST": "127.0.0.1"}
    with rig.process([*rig.WORKER, "--workers", str(number)], **settings) as child:
        seconds = wait(lambda: ready(port))
        processes = [child, *child.children()]
        each = [pss(one.pid) for one in workers_of(child, number)]
        total = sum(pss(one.pid) for one in processes)
        page = time.perf_counter()
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            size = len(answer.read())
        page = time.perf_counter() - page
        victim = workers_of(child, number)[-1]
        before = {one.pid for one in child.children()}
        victim.kill()
        replaced = wait(lambda: {one.pid for one in child.children()} - before)
        stop = time.perf_counter()
        child.terminate()
        status = child.wait(120)
        stop = time.perf_counter() - stop
    return (
        f"{number:>7}{seconds:>11.1f} s{statistics.mean(each):>7.1f} ({max(each):.1f}){total:>8.0f} MiB"
        f"{replaced:>9.2f} s{page * 1000:>9.0f} ms{size / 1024:>7.0f} KiB{stop:>7.1f} s, status {status}"
    )


def compare(subscription: str, receiver: rig.Sink, events: int, rounds: int, settings: dict[str, str]) -> None:
    """Prints the table of one subscription."""
    found: dict[int, list[Round]] = {1: [], 2: []}
    print(f"{subscription}\n{'workers':>7}{'events/s':>10}{'CPU/delivery':>14}   memory of each")
    for _ in range(rounds):
        for number, runs in found.items():
            arguments = ["--workers", str(number)] if number > 1 else []
            runs.append(used := measured(number, receiver, events, arguments, settings))
            memory = ", ".join(f"{each:.0f}" for each in used.memory_mib)
            print(f"{number:>7}{used.per_second:>10,.0f}{used.cpu_us:>11,.0f} µs   {memory} MiB", flush=True)
    one, two = (statistics.median(each.per_second for each in runs) for runs in found.values())
    print(f"two : one   {two / one:.2f} times the events (medians)\n")


def main(events: int = 400_000, rounds: int = 3) -> None:
    """Runs all and prints the tables."""
    with rig.kafka() as bootstrap, rig.sink() as receiver, rig.database([receiver.url + "/hook"], TYPE) as database:
        topic, idle = (f"bench-{uuid.uuid4().hex[:8]}" for _ in range(2))
        create_topic(bootstrap, topic, PARTITIONS)
        fill(bootstrap, topic, events)
        settings = rig.worker_settings(bootstrap, topic, database)
        del settings["KAFKA_GROUP_ID"]
        for subscription in (PLAIN, FILTERED):
            if subscription == FILTERED:
                with create_engine(database).begin() as connection:
                    connection.execute(text(EXPRESSIONS))
            compare(subscription, receiver, events, rounds, settings)

        create_topic(bootstrap, idle, 2 * max(MANY))
        settings["KAFKA_TOPICS"] = idle
        print("workers    all ready   memory of one    of all  replaced  metrics             stopped")
        for number in MANY:
            print(started(number, settings), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
