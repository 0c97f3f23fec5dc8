"""One program in one scenario, from an empty topic to a result."""

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import trustme

from benchmarks import rig
from benchmarks.compare.programs import Program, Task
from benchmarks.compare.results import Result
from benchmarks.compare.scenarios import BEFORE_WARM, HALF, HOSTS, NEARLY_ALL, PARTITIONS, Scenario
from benchmarks.compare.watch import Mark, Running, Watch
from benchmarks.events import TYPE, create_topic, delete_topic, fill, stream

SESSION_MS = 3000  # session time-out of Kafka's group: the wait of the new process after kill -9
LATENCY_SECONDS = 6.0
LINGER_MS = 5  # librdkafka's default; without it Kafka itself is the bottleneck, at 10,000 events a second
LATEST = 20.0  # seconds after the last event was published
STILL = 1.0  # seconds without a delivery: no duplicate follows


class Places(NamedTuple):
    """The processors of the program, of Kafka and the publisher, and of the receiver; empty: all share all."""

    program: Sequence[int] = ()
    kafka: Sequence[int] = ()
    receiver: Sequence[int] = ()


def apart(processors: Sequence[int]) -> Places:
    """Half of the processors for the program, the rest shared out between Kafka and receiver.

    Raises ValueError if there are fewer than four.
    """
    half, quarter = len(processors) // 2, len(processors) // 4
    if not quarter:
        raise ValueError(f"processors of its own for each need four or more; this machine has {len(processors)}")
    return Places(processors[:half], processors[half:-quarter], processors[-quarter:])


@dataclass(frozen=True)
class Stage:
    """The Kafka, the receiver's certificate and the processors that all runs share."""

    bootstrap: str
    places: Places
    certificate: rig.Certificate


@contextmanager
def stage(places: Places) -> Iterator[Stage]:
    """Starts a Kafka and makes a certificate for the receiver."""
    with (
        rig.processors(places.kafka),
        rig.kafka() as bootstrap,
        tempfile.TemporaryDirectory(prefix="compare-") as folder,
    ):
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        certificate = rig.Certificate(*(Path(folder) / name for name in ("chain.pem", "key.pem", "authority.pem")))
        issued.private_key_pem.write_to_path(certificate.key)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(certificate.chain, append=True)
        authority.cert_pem.write_to_path(certificate.authority)
        yield Stage(bootstrap, places, certificate)


def run(program: Program, scenario: Scenario, shared: Stage, *, latency: bool = True) -> Result:
    """Publishes, starts, watches, kills if the scenario says so, and counts.

    Then measures latency at half of the rate.
    """
    concurrency = program.concurrency(scenario.concurrency)
    events = scenario.events(program.per_second, concurrency * program.workers)
    topic = f"compare-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        certificate = shared.certificate if scenario.tls else None
        hosts = min(scenario.fan_out, HOSTS)
        with rig.processors(shared.places.receiver):
            sink = rig.sink(scenario.delay_ms, hosts, tail=scenario.tail, certificate=certificate)
            receiver = stack.enter_context(sink)
        urls = scenario.urls(receiver.tls_url if scenario.tls else receiver.url)
        if program.from_kafka:
            create_topic(shared.bootstrap, topic, PARTITIONS)
            stack.callback(delete_topic, shared.bootstrap, topic)
            fill(shared.bootstrap, topic, events, scenario.pad)
        task = Task(
            bootstrap=shared.bootstrap,
            topic=topic,
            url=urls[0],
            database=stack.enter_context(rig.database(urls, TYPE)) if program.database else "",
            concurrency=concurrency,
            deliveries=events * scenario.fan_out,
            pad=scenario.pad,
            session_ms=SESSION_MS,
            authority=certificate.authority if certificate else None,
        )
        log = rig.CACHE / f"compare-{program.name}.log"
        log.write_bytes(b"")
        running = stack.enter_context(Running(program.command(task), shared.places.program, log))
        watch = Watch(receiver, running)
        result = _deliver(watch, running, receiver, task, program, scenario)
        if latency and scenario.latency and program.from_kafka and result.finished:
            result = _latency(result, receiver, task, watch)
    return result


def _deliver(
    watch: Watch, running: Running, receiver: rig.Sink, task: Task, program: Program, scenario: Scenario
) -> Result:
    """The rate is measured from the first fifth to the kill at half, or to nine tenths."""
    seconds = 30 + 4 * scenario.seconds
    kill = scenario.kill and program.from_kafka
    begin = watch.until(max(1, int(task.deliveries * BEFORE_WARM)), seconds)
    end = watch.until(int(task.deliveries * (HALF if kill else NEARLY_ALL)), seconds)
    repeated = None
    if kill:
        running.kill()
        watch.quiet(0.1)
        calm = receiver.stats()
        repeated = int(calm["total"] - calm["distinct"])
        running.start()
    last = watch.until(task.deliveries, seconds)
    watch.quiet(STILL)
    stats = receiver.stats()
    again = int(stats["total"] - stats["distinct"])
    made = max(1, end.deliveries - begin.deliveries)
    return Result(
        scenario=scenario.name,
        program=program.name,
        concurrency=task.concurrency,
        workers=program.workers,
        most_open=stats["most_open"],
        deliveries=task.deliveries,
        per_second=_per_second(begin, end),
        cpu_us=(end.cpu - begin.cpu) / made * 1e6,
        memory_mib=watch.memory,
        lost=task.deliveries - stats["distinct"],
        repeated=again if repeated is None else repeated,
        repeated_after_kill=None if repeated is None else again - repeated,
        forged=stats["forged"],
        others=max(0.0, (end.others - begin.others) / max(0.001, end.clock - begin.clock)),
        finished=last.deliveries >= task.deliveries,
    )


def _per_second(begin: Mark, end: Mark) -> float:
    return (end.deliveries - begin.deliveries) / max(0.001, end.clock - begin.clock)


def _latency(result: Result, receiver: rig.Sink, task: Task, watch: Watch) -> Result:
    """The latency of events published at half of the rate, by the processes that have just made the deliveries."""
    offered = result.per_second / 2
    receiver.reset()
    sent = stream(task.bootstrap, task.topic, offered, LATENCY_SECONDS, task.pad, linger_ms=LINGER_MS)
    arrived = watch.until(sent, LATEST)
    watch.quiet(STILL)
    stats = receiver.stats()
    return replace(
        result,
        offered=offered,
        p50_ms=stats["p50_ms"],
        p99_ms=stats["p99_ms"],
        lost=result.lost + sent - int(stats["distinct"]),
        repeated=result.repeated + int(stats["total"] - stats["distinct"]),
        finished=arrived.deliveries >= sent,
    )
