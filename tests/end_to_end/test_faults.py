"""Faults from outside: records are held or retried, log and readiness report it, nothing is lost."""

import signal
import time

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from tests.end_to_end.service_rig import Deployment, assert_in_order, eventually
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn
from tests.kafka_kit import QUIET, Kafka


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
