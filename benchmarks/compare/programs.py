"""The compared programs: how each is built, started and configured."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import rig
from benchmarks.events import KEYS

HERE = Path(__file__).parent
STORE_PASSWORD = "benchmark"  # noqa: S105 (of a file with a public certificate)
COMPILED = rig.CACHE / "compiled" / "venv" / "bin" / "python"
APART = {"PYTHONPATH": ""}  # this tree on the path would take the place of the compiled package
CHECKPOINT_LIMIT = (
    65_536  # records above the oldest open one; with the default of 1,024, a 5 s answer stops a partition
)
PARALLEL_CONSUMER, FORK = rig.CACHE / "parallel_consumer", rig.CACHE / "fork"
# The maintained fork: its source, as its first release (bz.stub.parallelconsumer) was not at hand.
FORK_REPOSITORY = "https://github.com/astubbs/parallel-consumer"
FORK_COMMIT = "230e5d9d"
FORK_VERSION = "0.6.0.0-SNAPSHOT"
JAVA = ("java", "-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")


class Command(NamedTuple):
    """The command of a process, and variables to add to our environment."""

    arguments: list[str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Task:
    """The task of a program. Kafka considers a member dead that is silent for `session_ms` milliseconds."""

    bootstrap: str
    topic: str
    url: str
    database: str
    concurrency: int
    deliveries: int
    pad: int
    session_ms: int
    authority: Path | None  # the authority to trust, as PEM


@dataclass(frozen=True)
class Program:
    """One row of a table. `per_second` is about its maximum on two cores, from which the length of runs is computed."""

    name: str
    title: str
    command: Callable[[Task], Command]
    per_second: int
    workers: int = 1  # processes that deliver
    most_open: int | None = None  # requests, if it has a maximum
    from_kafka: bool = True
    database: bool = False
    fans_out: bool = False
    usual: bool = True  # whether it runs by default
    build: Callable[[], object] = field(default=lambda: None)

    def concurrency(self, allowed: int) -> int:
        """The open requests that each of its workers may have."""
        return min(allowed, self.most_open or allowed)


def _worker(python: str, workers: int) -> Callable[[Task], Command]:
    several = ["--workers", str(workers)] if workers > 1 else []
    return lambda task: Command([python, "-P", *rig.WORKER[1:], *several], _settings(task) | APART)


def _settings(task: Task) -> dict[str, str]:
    settings = rig.worker_settings(task.bootstrap, task.topic, task.database)
    settings |= {
        "WEBHOOK_MAX_IN_FLIGHT": str(task.concurrency),
        "KAFKA_SESSION_TIMEOUT_MS": str(task.session_ms),
        "KAFKA_HEARTBEAT_INTERVAL_MS": str(min(3000, task.session_ms // 4)),
    }
    return settings | _trusted(task)


def _tutorial(task: Task) -> Command:
    arguments = [sys.executable, "benchmarks/tutorial_loop.py", task.bootstrap, task.topic, task.database, rig.SECRET]
    trusted = {"REQUESTS_CA_BUNDLE": str(task.authority)} if task.authority else {}
    return Command(arguments, {"SESSION_TIMEOUT_MS": str(task.session_ms)} | trusted)


def _bare(task: Task) -> Command:
    numbers = [str(number) for number in (task.deliveries, task.concurrency, task.pad)]
    return Command([sys.executable, "-m", "benchmarks.bare_loop", task.url, *numbers], _trusted(task))


def _benthos(task: Task) -> Command:
    variables = _variables(task) | {"CHECKPOINT_LIMIT": str(CHECKPOINT_LIMIT)}
    return Command([str(rig.CACHE / "benthos"), "run", str(HERE / "benthos" / "benthos.yaml")], variables)


def _parallel_consumer(built: Path, engine: str, order: str) -> Callable[[Task], Command]:
    def command(task: Task) -> Command:
        trusted = []
        if task.authority:
            store = _trust_store(task.authority)
            trusted = [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"]
        classes = ["-cp", f"{built}/dispatcher.jar:{built}/lib/*", "compare.Dispatcher"]
        return Command([*JAVA, *trusted, *classes], _variables(task) | {"ENGINE": engine, "ORDER": order})

    return command


def _variables(task: Task) -> dict[str, str]:
    """The settings of the peers in other languages, which have their subscription in a map, not in a database."""
    return {
        "BOOTSTRAP": task.bootstrap,
        "TOPIC": task.topic,
        "GROUP": task.topic,
        "URL": task.url,
        "SECRET": rig.SECRET,
        "CONCURRENCY": str(task.concurrency),
        "SESSION_TIMEOUT_MS": str(task.session_ms),
    } | _trusted(task)


def _trusted(task: Task) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(task.authority)} if task.authority else {}


def _trust_store(authority: Path) -> Path:
    """A Java trust store with the authority, made once for each."""
    store = authority.with_suffix(".p12")
    if not store.exists():
        command = ["keytool", "-importcert", "-noprompt", "-alias", "benchmark", "-file", str(authority)]
        command += ["-keystore", str(store), "-storepass", STORE_PASSWORD, "-storetype", "PKCS12"]
        subprocess.run(command, check=True, capture_output=True)
    return store


def _maven(*arguments: str) -> None:
    pom = HERE / "parallel_consumer" / "pom.xml"
    subprocess.run(["mvn", "-q", "-B", "-f", str(pom), *arguments], check=True, stdout=sys.stderr)  # noqa: S607 (the user's)


@cache
def _build_parallel_consumer() -> None:
    """Builds it into .cache with Maven."""
    _maven("package", f"-Doutput={PARALLEL_CONSUMER}")


@cache
def _build_fork() -> None:
    """Builds the same program with the sources of astubbs' fork."""
    source = rig.CACHE / "fork-source"
    if not source.exists():
        subprocess.run(["git", "clone", "--quiet", FORK_REPOSITORY, source], check=True, stdout=sys.stderr)  # noqa: S607 (the user's)
    subprocess.run(["git", "-C", source, "checkout", "--quiet", FORK_COMMIT], check=True, stdout=sys.stderr)  # noqa: S607 (the user's)
    _maven("package", f"-Doutput={FORK}", f"-Dfork={source}")


def _build_benthos() -> None:
    rig.build_go("compare/benthos", "benthos")


def _parallel(
    name: str, title: str, engine: str, order: str, per_second: int, *, usual: bool = True, fork: bool = False
) -> Program:
    return Program(
        name,
        f"Parallel Consumer, {title}",
        _parallel_consumer(FORK if fork else PARALLEL_CONSUMER, engine, order),
        per_second,
        most_open=KEYS if order == "KEY" else None,
        usual=usual,
        build=_build_fork if fork else _build_parallel_consumer,
    )


def _ours(name: str, title: str, per_second: int, workers: int, *, compiled: bool = False) -> Program:
    return Program(
        name,
        f"this service, {title}",
        _worker(str(COMPILED) if compiled else sys.executable, workers),
        per_second,
        workers,
        database=True,
        fans_out=True,
        build=_build_compiled if compiled else lambda: None,
    )


@cache
def _build_compiled() -> None:
    """Builds it into .cache. Raises RuntimeError if it is not compiled."""
    subprocess.run(["make", "compiled"], cwd=rig.ROOT, check=True, stdout=sys.stderr)  # noqa: S607 (the user's make)
    command = [str(COMPILED), "-P", "-m", "consumer", "--version"]
    asked = subprocess.run(command, env={**os.environ, **APART}, capture_output=True, text=True, check=True)
    if "compiled" not in asked.stdout:
        raise RuntimeError(f"{COMPILED} runs another build: {asked.stdout}")


PROGRAMS = (
    _ours("worker", "one worker", 25_000, 1),
    _ours("workers-2", "two workers", 30_000, 2),
    _ours("compiled", "compiled, one worker", 35_000, 1, compiled=True),
    _ours("compiled-2", "compiled, two workers", 35_000, 2, compiled=True),
    _parallel("vertx", "Vert.x", "vertx", "UNORDERED", 20_000),
    _parallel("fork", "its fork, Vert.x", "vertx", "UNORDERED", 20_000, fork=True),
    _parallel("vertx-key", "Vert.x, by key", "vertx", "KEY", 15_000),
    _parallel("threads", "threads and java.net.http", "core", "UNORDERED", 5_000, usual=False),
    Program("benthos", "Benthos", _benthos, 9_000, build=_build_benthos),
    Program("tutorial", "the tutorial's loop", _tutorial, 550, most_open=1, database=True, fans_out=True),
    Program("bare", "bare sockets: the limit", _bare, 75_000, from_kafka=False),
)
