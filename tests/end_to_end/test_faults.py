"""Faults that only a real process or a real Kafka meets: work waits and reports it, and nothing is lost."""

import signal
import subprocess
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.end_to_end.service_rig import Deployment, assert_in_order
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka
from tests.waiting import eventually

SIGTERM_BIT = 1 << 14


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
    """The log and readiness report it. New events go on, stored ones later."""
    deployment.alter("""
import signal, time
from consumer.worker.wiring import WorkerParts

difference = 0.0

def set_back(*_):
    global difference
    difference = -3600.0 if not difference else 0.0

signal.signal(signal.SIGUSR1, set_back)
WorkerParts.__init__.__kwdefaults__["clock"] = lambda: time.time() + difference
""")
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules["/fails-once"] = every(3, in_turn(404, 200))
    worker = deployment.start(WEBHOOK_RETRY_SCHEDULE="2s,2s,2s", WEBHOOK_RETRY_IN_MEMORY="0")
    eventually(worker.ready)
    deployment.publish(["a"] * 60)
    eventually(lambda: len(deployment.rows("parked")) == 20)
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "the system clock went back by 3600 s" in worker.unready_because())
    deployment.publish(["a"] * 60)
    eventually(lambda: deployment.missing() == 20 and not deployment.lag())  # those stored before wait
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "the system clock went forward by 3600 s" in worker.unready_because())
    eventually(deployment.finished)
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


def test_answers_received_while_frozen_count(deployment: Deployment) -> None:
    """When the worker wakes, the time-out has passed, but the answers in its sockets are read first."""
    deployment.subscribe("a", "/slow")
    deployment.receiver.rules["/slow"] = always(Answer(delay=0.7))
    worker = deployment.start(WEBHOOK_TIMEOUT="1.5", WEBHOOK_MAX_IN_FLIGHT="200")
    eventually(worker.ready)
    deployment.publish(["a"] * 100)
    eventually(lambda: len(deployment.receiver.requests) == 100, every=0.01)
    worker.freeze()
    time.sleep(3)
    worker.thaw()
    eventually(lambda: not deployment.lag())
    deployment.assert_true_to_what_was_published()
    assert (deployment.duplicates(), worker.metric('webhooks_deliveries_total{outcome="retried"}')) == (0, 0)
    worker.stop()


def test_no_kafka_while_one_worker_ends_and_the_next_starts(deployment: Deployment, brokers: KafkaBroker) -> None:
    """Stored deliveries are sent without it. The first worker stops in time, without its last commit.

    The second one waits, reports it, and repeats at most those records.
    """
    deployment.subscribe("a", "/good")
    deployment.receiver.rules["/good"] = every(5, in_turn(404, 200))
    settings = {"KAFKA_SESSION_TIMEOUT_MS": "10000", "WEBHOOK_RETRY_SCHEDULE": "2s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}
    worker = deployment.start(**settings)
    deployment.publish(["a"] * 50)
    eventually(lambda: len(deployment.rows("parked")) == 10, every=0.01)
    brokers.kill()
    eventually(lambda: not deployment.missing())
    eventually(lambda: "no Kafka broker reachable" in worker.unready_because())
    worker.stop(within=60)
    worker = deployment.start(**settings)
    eventually(lambda: "no Kafka broker reachable" in worker.unready_because())
    assert worker.get("/healthz")[0] == 200
    brokers.restart()
    deployment.publish(["a"] * 50)
    eventually(deployment.finished)
    eventually(worker.ready)
    assert deployment.duplicates() <= 50
    deployment.assert_true_to_what_was_published()


def test_a_stop_does_not_wait_for_a_database_that_hangs(deployment: Deployment) -> None:
    """While another process holds the write lock, deliveries that cannot be stored are left to the next worker.

    None is lost.
    """
    deployment.subscribe("a", "/fails")
    deployment.receiver.rules["/fails"] = always(Answer(404))  # 500s would open the breaker
    settings = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0", "WEBHOOK_DRAIN": "1s"}
    worker = deployment.start(**settings)
    eventually(worker.ready)
    with deployment.sqlite.locked():
        deployment.publish(["a"] * 50)
        eventually(lambda: len(deployment.receiver.requests) == 50)
        worker.stop(within=60)
        assert deployment.lag() == 50
    del deployment.receiver.rules["/fails"]
    deployment.start(**settings)
    eventually(deployment.finished)


def test_a_stop_while_starting(deployment: Deployment) -> None:
    """It can be stopped once it catches signals: during imports, database, group and first records."""
    deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 10)
    for delay in (0.0, 0.3, 0.7, 1.2):
        worker = deployment.start()
        eventually(lambda worker=worker: _catches_sigterm(worker.process), every=0.001)  # type: ignore[misc]
        time.sleep(delay)
        worker.stop(within=60)
    deployment.start()
    eventually(lambda: not deployment.missing())
    assert deployment.duplicates() == 0


def _catches_sigterm(process: "subprocess.Popen[bytes]") -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & SIGTERM_BIT)
