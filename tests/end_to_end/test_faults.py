"""Faults from outside: records are held or retried, log and readiness report it, nothing is lost."""

import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.end_to_end.service_rig import Deployment, assert_in_order, eventually
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn
from tests.kafka_kit import QUIET, Kafka

SHORT_RETRIES = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}


def test_the_database_is_slow(deployment: Deployment) -> None:
    """If another process holds the only write lock most of the time, deliveries are slower and otherwise unaffected."""
    deployment.subscribe("a", "/fails-once")
    deployment.subscribe("a", "/ordered", ordering="key")
    for path in ("/fails-once", "/ordered"):
        deployment.receiver.rules[path] = every(5, in_turn(503, 200))
    worker = deployment.start(**SHORT_RETRIES)
    eventually(worker.ready)
    with in_turns(deployment, held=0.7, free=0.1):
        deployment.publish(["a"] * 120, per_second=100, keys=[f"{number}".encode() for number in range(40)])
        eventually(lambda: not deployment.missing(), timeout=120)
        assert worker.get("/healthz")[0] == 200
    eventually(lambda: not deployment.lag())
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    worker.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")


@contextmanager
def in_turns(deployment: Deployment, *, held: float, free: float) -> Iterator[None]:
    """Locks the database for `held` seconds and frees it for `free`, again and again."""
    enough = threading.Event()

    def take_turns() -> None:
        while not enough.wait(free):
            with deployment.sqlite.locked():
                enough.wait(held)

    thread = threading.Thread(target=take_turns, name="lock")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_the_leader_sends_deliveries_of_a_deleted_topic(deployment: Deployment, kafka_bootstrap: str) -> None:
    """They were stored before its deletion. One of two workers adopts them, and the other one when it leaves."""
    kafka = Kafka(kafka_bootstrap, real=True)
    kept, deployment.topic = deployment.topic, kafka.topic(partitions=4)
    deployment.subscribe("a", "/ordered", ordering="key")
    deployment.subscribe("a", "/free")
    deployment.receiver.rules |= {"/ordered": always(Answer(404)), "/free": always(Answer(404))}
    deployment.alter("""
from consumer.worker import maintenance
from consumer.intake import topics

topics.GONE_AFTER = 2.0
topics.TopicWatch.__init__.__kwdefaults__["every"] = 0.3
maintenance.FIRST_TIDY = maintenance.TIDY_EVERY = 0.7
""")
    settings = {"WEBHOOK_RETRY_SCHEDULE": "500ms," * 80 + "1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}
    worker = deployment.start(**settings)
    deployment.publish(["a"] * 40, keys=[b"a", b"b", b"c", b"d"])
    eventually(lambda: len(deployment.rows()) == 80 and not deployment.lag())
    worker.stop()
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, **QUIET})
    admin.delete_topics([deployment.topic])[deployment.topic].result(60)

    deployment.topic = kept
    first, second = deployment.start(**settings), deployment.start(**settings)
    eventually(lambda: len(first.lag()) == len(second.lag()) == 2)
    deployment.receiver.requests.clear()
    eventually(lambda: len(deployment.receiver.requests) > 20)
    leading, other = (first, second) if 0 in first.lag() else (second, first)
    assert "a topic is gone; sending its stored deliveries" in leading.log
    assert "a topic is gone; sending its stored deliveries" not in other.log
    leading.stop()
    deployment.receiver.rules |= {"/free": in_turn(404, 200), "/ordered": every(5, in_turn(404, 200))}
    eventually(lambda: not deployment.missing())
    eventually(lambda: not {row.status for row in deployment.rows()} & {"parked", "blocked"})
    other.stop()
    assert deployment.duplicates() == 0
    assert_in_order(deployment, "/ordered")


def test_the_clock_is_set_back_by_an_hour_and_right_again(deployment: Deployment) -> None:
    """The log reports it, readiness too for a minute. New events and retries in memory go on, stored ones later."""
    deployment.alter("""
import signal, time
import consumer.worker.maintenance
from consumer.worker.wiring import WorkerParts

difference = 0.0
consumer.worker.maintenance.FAULT_SECONDS = 3.0

def set_back(*_):
    global difference
    difference = -3600.0 if not difference else 0.0

signal.signal(signal.SIGUSR1, set_back)
WorkerParts.__init__.__kwdefaults__["clock"] = lambda: time.time() + difference
""")
    deployment.subscribe("a", "/good")
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules["/fails-once"] = every(3, in_turn(404, 200))
    worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="2s,2s,2s", WEBHOOK_RETRY_IN_MEMORY="0")
    eventually(worker.ready)
    deployment.publish(["a"] * 60)
    eventually(lambda: len(deployment.rows("parked")) == 20)
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "the system clock went back by 3600 s" in worker.unready_because())
    deployment.publish(["a"] * 60)
    eventually(lambda: len(deployment.receiver.at("/good")) == 120)
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    assert worker.get("/healthz")[0] == 200
    # Deliveries stored in the wrong hour are sent in it, and earlier ones wait.
    eventually(lambda: deployment.missing() == 20)
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "the system clock went forward by 3600 s" in worker.unready_because())
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.rows("parked"))
    worker.stop()
    assert worker.log.count("the system clock was set") == 2
    assert deployment.duplicates() == 0


def test_a_receivers_name_is_gone_and_comes_back(deployment: Deployment) -> None:
    """Its deliveries are retried, others are as fast as before, and all arrive once the name resolves again."""
    with NameServer() as names:
        deployment.alter(f"""
from consumer.sending.adapter import LoopAdapter
LoopAdapter.__init__.__kwdefaults__["nameservers"] = ("127.0.0.1:{names.port}",)
""")
        port = deployment.receiver.url("").rpartition(":")[2]
        deployment.subscribe("a", "/named", f"http://receiver.test:{port}/named")
        deployment.subscribe("a", "/good")
        worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="1s," * 30 + "1s", WEBHOOK_RETRY_IN_MEMORY="0")
        eventually(worker.ready)
        names.known = False
        deployment.publish(["a"] * 60)
        eventually(lambda: len(deployment.receiver.at("/good")) == 60)
        eventually(lambda: not deployment.lag())
        errors = {row.last_error for row in deployment.rows() if row.attempt}
        assert errors
        assert all("'receiver.test' does not resolve" in (error or "") for error in errors)
        names.known = True
        eventually(lambda: not deployment.missing())
        eventually(lambda: not deployment.rows("parked"))
        worker.stop()
        assert deployment.duplicates() == 0


class NameServer:
    """Answers 127.0.0.1 for each name or, unless `known`, NXDOMAIN."""

    def __init__(self) -> None:
        self.known = True
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="names")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            end = query.index(b"\0", 12) + 5  # end of the question: the name's last label, type and class
            asks_for_a = query[end - 4 : end - 2] == b"\0\1"
            address = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + b"\x7f\0\0\1"
            answer = address if self.known and asks_for_a else b""
            head = struct.pack("!HHHHH", 0x8180 if self.known else 0x8183, 1, bool(answer), 0, 0)
            self._socket.sendto(query[:2] + head + query[12:end] + answer, client)


def test_retention_overtakes_the_committed_offset(deployment: Deployment, kafka_bootstrap: str) -> None:
    """Log, metrics and readiness report it.

    The worker goes on with the remaining records, and sends its stored deliveries.
    """
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules["/fails-once"] = every(5, in_turn(503, 200))
    settings = {"WEBHOOK_RETRY_SCHEDULE": "3s,3s", "WEBHOOK_RETRY_IN_MEMORY": "0"}
    worker = deployment.start(**settings)
    eventually(worker.ready)
    deployment.publish(["a"] * 40)
    eventually(lambda: not deployment.lag())
    worker.stop()
    stored = deployment.missing()
    assert stored > 0
    deployment.publish(["a"] * 80)
    lost = list(deployment.published)[40:80]
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, **QUIET})
    for removed in admin.delete_records([TopicPartition(deployment.topic, each, 20) for each in range(4)]).values():
        removed.result(60)

    worker = deployment.start(**settings)
    eventually(lambda: "retention removed 40 records before they were read" in worker.unready_because())
    eventually(lambda: worker.metric("webhooks_retention_overtaken_total") == 40)
    for body in lost:
        del deployment.published[body]
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    worker.stop()
    assert deployment.duplicates() == 0
    assert not {request.body for request in deployment.receiver.requests} & set(lost)


def test_retention_overtakes_a_worker_that_runs(deployment: Deployment, kafka_bootstrap: str) -> None:
    """If its database holds a worker up too long, deleted records are counted and reported as after a restart."""
    deployment.subscribe("a", "/good")
    worker = deployment.start(KAFKA_QUEUED_MIN_MESSAGES="1", KAFKA_FETCH_MESSAGE_MAX_BYTES="1000")
    eventually(worker.ready)
    deployment.publish(["a"] * 40)
    eventually(lambda: not deployment.lag())
    with deployment.sqlite.no_tables("webhook_subscriptions"):
        deployment.publish(["a"] * 8000)
        eventually(lambda: "no such table" in worker.unready_because())
        admin = AdminClient({"bootstrap.servers": kafka_bootstrap, **QUIET})
        removed = [TopicPartition(deployment.topic, each, 2000) for each in range(4)]
        for answer in admin.delete_records(removed).values():
            answer.result(60)
    eventually(lambda: not deployment.lag())
    lost = deployment.missing()
    assert lost > 4000
    eventually(lambda: worker.metric("webhooks_retention_overtaken_total") == lost, 10)
    assert f"retention removed {lost} records before they were read" in worker.unready_because()
    worker.stop()
    assert deployment.duplicates() == 0


def test_a_fatal_kafka_error_ends_the_process(deployment: Deployment) -> None:
    """A worker fenced by another member with its name exits with 1, so that it is restarted; the other goes on."""
    deployment.subscribe("a", "/good")
    fenced = deployment.start(KAFKA_GROUP_INSTANCE_ID="one")
    eventually(fenced.ready)
    deployment.publish(["a"] * 20)
    eventually(lambda: not deployment.missing())
    other = deployment.start(KAFKA_GROUP_INSTANCE_ID="one")
    assert fenced.process.wait(120) == 1
    assert "Traceback" not in fenced.log
    deployment.publish(["a"] * 20)
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    other.stop()
    assert deployment.duplicates() <= 20
