"""The database or Kafka fails and comes back: work waits and reports it, resumes by itself, and nothing is lost."""

import time

from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn
from tests.kafka_broker import KafkaBroker

LONG_SESSION = {"KAFKA_SESSION_TIMEOUT_MS": "30000"}
TABLES = ("webhook_subscriptions", "webhook_deliveries", "webhook_payloads")
SHORT_RETRIES = {"WEBHOOK_RETRY_SCHEDULE": "1s,1s,1s,1s", "WEBHOOK_RETRY_IN_MEMORY": "0"}


def test_the_database_goes_away_in_the_middle(deployment: Deployment) -> None:
    """While neither subscriptions nor the ledger can be read, offsets stand still; later all is delivered."""
    for path in ("/good", "/fails-twice"):
        deployment.subscribe("a", path)
    deployment.receiver.rules["/fails-twice"] = every(5, in_turn(500, 404, 200))
    worker = deployment.start(**SHORT_RETRIES)
    eventually(worker.ready)
    deployment.publish(["a"] * 100)
    eventually(lambda: len(deployment.receiver.at("/good")) == 100)
    eventually(lambda: not deployment.lag())
    with deployment.sqlite.no_tables(*TABLES):
        deployment.publish(["a"] * 200)
        eventually(lambda: "no such table" in worker.unready_because())
        time.sleep(1.5)
        assert deployment.lag() == 200
        assert worker.get("/healthz")[0] == 200
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    eventually(lambda: not deployment.rows("parked"))
    eventually(worker.ready)
    worker.stop()
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()


def test_no_kafka_at_one_workers_end_and_the_nexts_start(deployment: Deployment, brokers: KafkaBroker) -> None:
    """The first worker stops in time without its last commit.

    The second waits, reports it, and repeats at most those records.
    """
    deployment.subscribe("a", "/good")
    settings = {"KAFKA_SESSION_TIMEOUT_MS": "2000"}
    worker = deployment.start(**settings)
    eventually(worker.ready)
    deployment.publish(["a"] * 50)
    eventually(lambda: not deployment.missing())
    brokers.kill()
    eventually(lambda: "no Kafka broker reachable" in worker.unready_because())
    assert worker.stop() < 15
    worker = deployment.start(**settings)
    eventually(lambda: "no Kafka broker reachable" in worker.unready_because())
    assert worker.get("/healthz")[0] == 200
    brokers.restart()
    deployment.publish(["a"] * 50)
    eventually(lambda: not deployment.missing())
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    assert deployment.duplicates() <= 50


def test_kafka_goes_away_in_the_middle(deployment: Deployment, brokers: KafkaBroker) -> None:
    """If brokers are killed and restarted under load, fetched records are delivered, and offsets catch up.

    Stored deliveries are sent when due even without Kafka: their partition is still this worker's.
    """
    for path in ("/one", "/two"):
        deployment.subscribe("a", path)
        deployment.receiver.rules[path] = always(Answer(delay=0.05))
    deployment.subscribe("a", "/fails-once")
    deployment.receiver.rules["/fails-once"] = every(20, in_turn(503, 200))
    worker = deployment.start(
        WEBHOOK_MAX_IN_FLIGHT="60",
        WEBHOOK_RETRY_SCHEDULE="1s,1s,1s,1s",
        WEBHOOK_RETRY_IN_MEMORY="0",
        **LONG_SESSION,
    )
    eventually(worker.ready)
    deployment.publish(["a"] * 2000)
    eventually(lambda: deployment.rows("parked"), every=0.01)
    brokers.kill()
    assert deployment.missing() > 1000
    eventually(lambda: "no Kafka broker reachable" in worker.unready_because())
    assert worker.get("/healthz")[0] == 200
    eventually(lambda: not deployment.rows("parked"))
    brokers.restart()
    deployment.publish(["a"] * 100)
    eventually(lambda: not deployment.missing(), timeout=120)
    eventually(lambda: not deployment.lag())
    eventually(worker.ready)
    assert deployment.duplicates() == 0
    deployment.assert_true_to_what_was_published()
