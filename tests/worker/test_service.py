"""`kafka-webhooks run` as a process: waiting for its dependencies, its log, its end, and secrecy."""

import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from consumer.database import migrations
from consumer.database.engine import LOCK_TIMEOUT
from consumer.errors import DatabaseUnavailable
from consumer.subscriptions import repository
from consumer.worker.service import Service
from tests.databases import database
from tests.end_to_end.service_rig import Worker
from tests.end_to_end.webhook_receiver import Answer, Receiver, always
from tests.kafka_kit import Kafka, unique
from tests.processes import free_port
from tests.waiting import eventually

OUTCOMES = {"delivered", "retried", "parked", "exhausted"}


class Run(Worker):
    """A worker whose log is read line by line."""

    def __init__(self, directory: Path, **variables: str) -> None:
        port = free_port()
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "KAFKA_TOPICS": "users",
            "WEBHOOK_SECRET": "secret-of-24-characters-",
            "KAFKA_GROUP_PROTOCOL": "consumer",  # on the mock cluster a classic group takes 3 s to begin
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(port),
        }
        super().__init__(settings | variables, port, directory / "log")

    def lines(self) -> list[dict[str, object]]:
        """The log's complete lines; each is JSON."""
        return [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("\n")]

    def logged(self, event: str) -> int:
        """The number of lines with this event."""
        return sum(line["event"] == event for line in self.lines())

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds. The process goes on meanwhile."""
        eventually(lambda: self.process.poll() is not None or condition(), every=0.02, otherwise=lambda: self.log)
        assert self.process.poll() is None, self.log

    def reason(self) -> str:
        """Why it is not ready, once it has begun."""
        self.until(lambda: self.unready_because() not in {"", "starting"})
        return self.unready_because()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers. Keywords are their environment variables."""
    running: list[Run] = []

    def begin(**variables: str) -> Run:
        running.append(Run(tmp_path, **variables))
        return running[-1]

    yield begin
    for run in running:
        run.kill()


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "Connection refused"), ("absent.invalid:1521", "cannot connect to absent.invalid: ")],
)
def test_without_its_database_it_waits_and_reports_why(start: Start, address: str, why: str) -> None:
    """Alive and not ready, with one log line, no traceback and no password. SIGTERM ends it with status 0."""
    run = start(DATABASE_URL=f"oracle+oracledb://webhooks:p4ssw0rd@{address}/?service_name=FREEPDB1")
    reason = run.reason()
    assert reason.startswith("database: ")
    assert why in reason
    assert [run.get(path)[0] for path in ("/healthz", "/metrics")] == [200, 200]
    run.stop()
    assert [line["event"] for line in run.lines()] == ["starting", "waiting for the database"]
    assert run.lines()[0]["build"] == "pure Python"
    assert "p4ssw0rd" not in run.log + reason


def test_it_waits_for_missing_tables(start: Start, tmp_path: Path, mock_kafka: str) -> None:
    """The reason names the command. Once the command has run, the worker goes on by itself and joins its group."""
    path, topic = tmp_path / "webhooks.db", unique("topic")
    path.touch()
    Kafka(mock_kafka, real=False).write(topic, [b"{}"])
    run = start(
        DATABASE_URL=f"sqlite:///{path}",
        KAFKA_BOOTSTRAP_SERVERS=mock_kafka,
        KAFKA_TOPICS=topic,
        KAFKA_GROUP_ID=unique("group"),
    )
    reason = run.reason()
    assert reason.endswith("run kafka-webhooks migrate")
    assert f"not {migrations.state(database(path)).head}" in reason
    migrations.upgrade(database(path))
    run.until(run.ready)
    run.stop()
    assert run.logged("waiting for the database") == 1
    assert run.lines()[-1]["event"] == "stopped"


def test_a_locked_file_delays_no_stop(start: Start, tmp_path: Path) -> None:
    """The driver waits half a minute for SQLite's lock, in C: a signal is handled meanwhile."""
    path = tmp_path / "webhooks.db"
    migrations.upgrade(engine := database(path))
    engine.dispose()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        run = start(DATABASE_URL=f"sqlite:///{path}")
        run.until(lambda: run.unready_because() == "starting")
        run.stop(LOCK_TIMEOUT / 2)


@pytest.mark.parametrize("disposition", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_terminal_that_closes_stops_a_worker_in_order(
    tmp_path: Path, mock_kafka: str, start: Start, disposition: signal.Handlers
) -> None:
    """As SIGTERM does; under `nohup`, which has that signal ignored, it goes on."""
    migrations.upgrade(engine := database(tmp_path / "webhooks.db"))
    engine.dispose()
    before = signal.signal(signal.SIGHUP, disposition)  # a child inherits it
    try:
        run = start(
            DATABASE_URL=f"sqlite:///{tmp_path}/webhooks.db",
            KAFKA_BOOTSTRAP_SERVERS=mock_kafka,
            KAFKA_TOPICS=unique("topic"),
            KAFKA_GROUP_ID=unique("group"),
        )
    finally:
        signal.signal(signal.SIGHUP, before)
    run.until(lambda: run.unready_because() not in {"", "starting"} or run.ready())
    run.process.send_signal(signal.SIGHUP)
    if disposition is signal.SIG_IGN:
        ignored = Path(f"/proc/{run.process.pid}/status").read_text().partition("SigIgn:")[2].split()[0]
        assert int(ignored, 16) >> (signal.SIGHUP - 1) & 1
        run.stop()
    assert run.process.wait(60) == 0, run.log
    assert run.lines()[-1]["event"] == "stopped"


def test_the_back_off_grows_and_each_reason_is_logged_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is half a second at first and five at most. The status has the latest reason, the log each change."""
    errors = ["refused", "refused", "no listener", "no listener", "no listener", "refused"]
    waits: list[float] = []
    said: list[object] = []
    subject = Service()

    def state(_: Engine) -> migrations.Revisions:
        if errors:
            raise DatabaseUnavailable(errors.pop(0))
        return migrations.Revisions("0001", "0002", behind=False)

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        said.extend(subject._status().reasons)

    monkeypatch.setattr("consumer.worker.service.migrations.state", state)
    monkeypatch.setattr("consumer.worker.service.time.sleep", sleep)
    with capture_logs() as logs:
        subject._await_database(engine)
    assert waits == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    refused, silent = (f"database: {error}" for error in ("refused", "no listener"))
    assert said == [refused, refused, silent, silent, silent, refused]
    assert [line["reason"] for line in logs] == [refused, silent, refused]


def test_payloads_are_never_logged(start: Start, tmp_path: Path, mock_kafka: str) -> None:
    """At level DEBUG, neither bodies nor headers, whether they are delivered, fail, are gone or are not events."""
    engine = database(tmp_path / "webhooks.db")
    migrations.upgrade(engine)
    kafka, topic = Kafka(mock_kafka, real=False), unique("topic")
    body, header = "s3cr3tbody", "s3cr3theader"
    with Receiver() as receiver:
        for path, status in (("/ok", 200), ("/fails", 500), ("/gone", 410)):
            receiver.rules[path] = always(Answer(status))
            repository.add(engine, receiver.url(path), "t")
        engine.dispose()
        run = start(
            DATABASE_URL=f"sqlite:///{tmp_path}/webhooks.db",
            KAFKA_BOOTSTRAP_SERVERS=mock_kafka,
            KAFKA_TOPICS=topic,
            KAFKA_GROUP_ID=unique("group"),
            KAFKA_DEAD_LETTER_TOPIC=unique("dead"),
            WEBHOOK_ALLOW_NETWORKS="127.0.0.0/8",
            WEBHOOK_RETRY_SCHEDULE="0.05,60",
            LOG_LEVEL="DEBUG",
        )
        kafka.write(topic, [f'{{"type": "t", "x": "{body}"}}'.encode()], headers=[("authorization", header.encode())])
        for bad in (f'{{"{body}', f'["{body}"]', f'"{body}"', f'{{"type": "{body} "}}', f'{{"type": ["{body}"]}}'):
            kafka.write(topic, [bad.encode(), bad.encode("utf-16")])
        run.until(lambda: run.logged("undecodable") == 10)
        run.until(lambda: {each["outcome"] for each in run.lines() if "outcome" in each} == OUTCOMES)
        run.stop()
    assert [line for line in run.log.splitlines() if body in line or header in line] == []
