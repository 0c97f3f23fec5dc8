"""A whole deployment for a test: a topic, a migrated database, a receiver, and workers as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.end_to_end.canaries import search, secrets_of
from tests.end_to_end.deployed_database import DeployedDatabase, SqliteDatabase
from tests.end_to_end.webhook_receiver import Receiver
from tests.kafka_kit import QUIET, unique
from tests.processes import PROGRAM, environment, free_port
from tests.waiting import eventually

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# A permitted filter that takes 2 ms of CPU for each event: it compiles a pattern in each iteration. It matches every
# third event.
SLOW_FILTER = f"[{', '.join(['1'] * 100)}].exists(x, 'abcd'.matches('(a|b)[^c]{{9}}%d$')) || data.number %% 3 == 0"
# Short, to notice rebalances and dead members soon, but longer than a broker's outage of some seconds.
QUICK_GROUP = {"KAFKA_HEARTBEAT_INTERVAL_MS": "300", "KAFKA_SESSION_TIMEOUT_MS": "6000"}


class Row(NamedTuple):
    """A row of `webhook_deliveries`."""

    subscription_id: int
    status: str
    attempt: int
    last_error: str | None
    last_status: int | None


class Deployment:
    """The resources that workers share. `published` has each event's body and type, in the order of publishing."""

    def __init__(
        self, servers: str, topic: str, database: DeployedDatabase, receiver: Receiver, directory: Path
    ) -> None:
        self.servers = servers
        self.topic = topic
        self.group = unique("group")
        self.database = database
        self.receiver = receiver
        self.published: dict[bytes, str] = {}
        self.keys: dict[bytes, bytes | None] = {}  # of published events
        self.published_at: dict[bytes, float] = {}
        self.partitions = 4  # of the topic
        self.subscriptions: dict[str, str] = {}  # event type by path
        self.workers: list[Worker] = []
        self.program: Sequence[str] = PROGRAM
        self.secrets: dict[str, str] = {}  # of the workers' settings
        self._directory = directory
        self.producer = Producer(
            {
                "bootstrap.servers": servers,
                **QUIET,
                "linger.ms": 2,
                "message.max.bytes": 4_000_000,
                "enable.idempotence": True,  # keeps the order
            }
        )

    # Workers.

    @property
    def settings(self) -> dict[str, str]:
        """The settings that all programs share."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "KAFKA_GROUP_ID": self.group,
            "KAFKA_TOPICS": self.topic,
            "KAFKA_DEAD_LETTER_TOPIC": f"{self.group}.dead",
            "DATABASE_URL": self.database.url,
            "WEBHOOK_SECRET": SECRET,
        }

    def start(self, *, arguments: Sequence[str] = (), **variables: str) -> "Worker":
        """Starts another worker, with these arguments behind `run`."""
        port = free_port()
        settings = self.settings | {
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_SUBSCRIPTION_CACHE": "0.2",
            "WEBHOOK_RETRY_JITTER": "0",
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(port),
            **({} if variables.get("KAFKA_GROUP_PROTOCOL") == "consumer" else QUICK_GROUP),
            **variables,
        }
        self.secrets |= secrets_of(settings)
        log = self._directory / f"worker-{len(self.workers)}.log"
        worker = Worker(settings, port, log, self.program, arguments)
        self.workers.append(worker)
        return worker

    def alter(self, code: str) -> None:
        """Workers started from now on first run this code inside their process."""
        script = self._directory / "altered.py"
        script.write_text(f"{code}\nfrom consumer.__main__ import main\n\nmain()\n")
        self.program = (sys.executable, str(script))

    def assert_no_secret_is_told(self) -> None:
        """Fails if a worker has printed a secret of its settings."""
        assert search(self.secrets, {f"worker {place}": each.log for place, each in enumerate(self.workers)}) == []

    # Subscriptions, by plain SQL.

    @property
    def sqlite(self) -> SqliteDatabase:
        """The database, if it is SQLite."""
        assert isinstance(self.database, SqliteDatabase)
        return self.database

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Runs one statement in its own transaction."""
        return self.database.sql(statement, *values)

    def subscribe(self, event_type: str, path: str, url: str | None = None, **options: str | float) -> int:
        """Adds a subscription with its event type and these columns; `url` is by default the receiver's."""
        columns = {"url": url or self.receiver.url(path), "event_type": event_type, **options}
        self.sql(
            f"INSERT INTO webhook_subscriptions ({', '.join(columns)}) "  # noqa: S608 (names of columns, from tests)
            f"VALUES ({', '.join('?' * len(columns))})",
            *columns.values(),
        )
        ((subscription_id,),) = self.sql("SELECT MAX(id) FROM webhook_subscriptions WHERE url = ?", columns["url"])
        self.subscriptions[path] = event_type
        assert isinstance(subscription_id, int)
        return subscription_id

    def rows(self, status: str = "") -> list[Row]:
        """The stored deliveries."""
        found = self.sql(
            "SELECT subscription_id, status, attempt, last_error, last_status FROM webhook_deliveries ORDER BY id"
        )
        return [row for row in map(Row._make, found) if status in {"", row.status}]

    # Records.

    def publish(
        self, event_types: Iterable[str], *, per_second: float = 0, keys: Sequence[bytes | None] = (b"key",)
    ) -> None:
        """Publishes one event of each type, over all partitions, with these keys in turn.

        Waits for acknowledgements.
        """
        random = Random(len(self.published))
        begin = time.monotonic()
        for sent, event_type in enumerate(event_types):
            if per_second:
                time.sleep(max(0.0, begin + sent / per_second - time.monotonic()))
            number = len(self.published)
            filler = "é" * random.randint(0, 200)
            body = json.dumps(
                {"type": event_type, "number": number, "ü": filler}, ensure_ascii=number % 2 == 0
            ).encode()
            self.published[body] = event_type
            self.published_at[body] = time.time()
            self.keys[body] = keys[number % len(keys)]
            self.write(body, partition=number % self.partitions, key=self.keys[body])
            self.producer.poll(0)
        assert self.producer.flush(30) == 0

    @contextmanager
    def publishing(
        self, event_type: str, *, per_second: float, keys: Sequence[bytes | None] = (b"key",)
    ) -> Iterator[None]:
        """Publishes continuously in a thread of its own."""
        enough = threading.Event()

        def flow() -> None:
            while not enough.is_set():
                self.publish([event_type] * 20, per_second=per_second, keys=keys)

        thread = threading.Thread(target=flow, name="publishing")
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def write(
        self,
        value: bytes | None,
        *,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
        key: bytes | None = b"key",
    ) -> None:
        """Writes a record of any content; `flush` waits for it."""
        self.producer.produce(
            self.topic, value, key, partition, headers=list(headers), on_delivery=_assert_acknowledged
        )

    def flush(self) -> None:
        """Waits for all acknowledgements."""
        assert self.producer.flush(30) == 0

    def committed(self) -> dict[int, int]:
        """The group's offsets; 0 for a partition without one."""
        return {number: offset for number, (offset, _) in self._offsets().items()}

    def lag(self) -> int:
        """Uncommitted records of all partitions."""
        return sum(end - offset for offset, end in self._offsets().values())

    def _offsets(self) -> dict[int, tuple[int, int]]:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.group, **QUIET})
        try:
            asked = [TopicPartition(self.topic, number) for number in range(self.partitions)]
            committed = consumer.committed(asked, 20)
            ends = [consumer.get_watermark_offsets(each, 20)[1] for each in committed]
        finally:
            consumer.close()
        return {each.partition: (max(0, each.offset), end) for each, end in zip(committed, ends, strict=True)}

    # Comparing published with received events.

    def expected(self) -> Counter[tuple[str, bytes]]:
        """Each subscribed path with each body that it must receive."""
        return Counter(
            (path, body)
            for path, wanted in self.subscriptions.items()
            for body, event_type in list(self.published.items())  # more events may be published meanwhile
            if wanted == event_type
        )

    def accepted(self) -> Counter[tuple[str, bytes]]:
        """Each path with each body that it has answered with a 2xx."""
        return Counter((each.path, each.body) for each in list(self.receiver.requests) if each.accepted)

    def missing(self) -> int:
        """Deliveries that are due and not accepted."""
        return len(self.expected().keys() - self.accepted().keys())

    def finished(self) -> bool:
        """Whether all is delivered and committed, and no stored delivery waits."""
        waiting = {"parked", "blocked"}.intersection(row.status for row in self.rows())
        return not self.missing() and not self.lag() and not waiting

    def duplicates(self) -> int:
        """Repeated accepted deliveries."""
        accepted = self.accepted()
        return accepted.total() - len(accepted)

    def assert_true_to_what_was_published(self) -> None:
        """Only published and subscribed events arrived, and all requests of an event have one id of its own."""
        assert self.accepted().keys() <= self.expected().keys()
        ids: dict[bytes, set[str]] = {}
        for request in list(self.receiver.requests):
            ids.setdefault(request.body, set()).add(request.webhook_id)
        assert {len(each) for each in ids.values()} <= {1}
        assert len({next(iter(each)) for each in ids.values()}) == len(ids)


class Worker:
    """`python -m consumer run` in a process of its own, or in several with `--workers`."""

    def __init__(
        self,
        settings: Mapping[str, str],
        port: int,
        log: Path,
        program: Sequence[str] = PROGRAM,
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*program, "run", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=environment({"PYTHONFAULTHANDLER": "1", **settings}),
            )

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.terminate()

    def stop(self, within: float = 120.0) -> None:
        """Sends SIGTERM, and checks that it ends in time with status 0 and without a traceback."""
        self.process.terminate()
        status = self.process.wait(within)
        assert status == 0, f"exit {status}: {self.log[-3000:]}"
        assert "Traceback" not in self.log, self.log[-3000:]

    def children(self) -> list[psutil.Process]:
        """Its processes that run now, with `--workers`: those of workers, and that of the port."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def members(self) -> dict[int, psutil.Process]:
        """Of these the workers, by number."""
        begun = [json.loads(line) for line in self.log.splitlines() if '"worker process started"' in line]
        numbers = {line["pid"]: line["worker"] for line in begun}
        return {numbers[child.pid]: child for child in self.children() if child.pid in numbers}

    def kill(self) -> None:
        """Sends SIGKILL, first to the parent if there are several processes."""
        children = self.children()
        self.process.kill()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.wait()

    def abort(self) -> str:
        """Sends SIGABRT; returns the stacks of its threads, which it prints."""
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()
        return self.log.rpartition("Fatal Python error")[2]

    def freeze(self) -> None:
        """Sends SIGSTOP; returns when all of its threads and processes are stopped."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)
        children = self.children()
        for child in children:
            child.suspend()
        eventually(lambda: all(child.status() == psutil.STATUS_STOPPED for child in children), every=0.01)

    def thaw(self) -> None:
        """Sends SIGCONT."""
        for child in self.children():
            child.resume()
        os.kill(self.process.pid, signal.SIGCONT)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body from its own port; status 0 if it does not answer."""
        try:
            try:
                answer = urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60)
            except HTTPError as error:
                answer = error
            with answer:
                return answer.status, answer.read().decode()
        except (OSError, HTTPException):  # it died, perhaps in the middle of its answer
            return 0, ""

    def ready(self) -> bool:
        """Whether /readyz reports it as ready."""
        return self.get("/readyz")[0] == 200

    def unready_because(self) -> str:
        """The reasons in /readyz; empty while ready or if it does not answer."""
        status, body = self.get("/readyz")
        return "; ".join(json.loads(body)["reasons"]) if status == 503 else ""

    def lag(self) -> dict[int, float]:
        """The lag in its metrics, by partition that it owns."""
        lines = self.get("/metrics")[1].splitlines()
        found = (re.fullmatch(r'webhooks_consumer_lag{partition="(\d+)",.*} (\S+)', line) for line in lines)
        return {int(each[1]): float(each[2]) for each in found if each}

    def metric(self, sample: str) -> float:
        """The value of one sample, given with labels; 0 if it does not exist."""
        _, text = self.get("/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return float(values.get(sample, 0))


def assert_in_order(deployment: Deployment, path: str) -> None:
    """Each event's requests come after the earlier events of its key were accepted or exhausted.

    If a crash repeats deliveries, the first acceptance counts. Null keys have no order.
    """
    attempts: dict[bytes, list[int]] = {}
    accepted: dict[bytes, int] = {}
    for number, request in enumerate(deployment.receiver.at(path)):
        attempts.setdefault(request.body, []).append(number)
        if request.accepted:
            accepted.setdefault(request.body, number)
    ended: dict[bytes, tuple[int, bytes]] = {}
    for body, key in deployment.keys.items():
        if key is None or body not in attempts:
            continue
        before, earlier = ended.get(key, (-1, b""))
        assert attempts[body][0] > before, (key, earlier[:60], body[:60])
        ended[key] = (accepted.get(body, attempts[body][-1]), body)


def _assert_acknowledged(error: object, _message: Message) -> None:
    assert error is None, error
