"""Operational events report changes of subscriptions and deliveries on a topic that can be subscribed to."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from confluent_kafka import Message

from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, Request, always
from tests.kafka_kit import Kafka, headers_of, read_all

LOOKS_OFTEN = "import consumer.worker.outbox_relay as relay; relay.SELDOM = 0.3"


def days_ago(days: float) -> str:
    """The time in the column's format."""
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")


def told(servers: str, topic: str) -> list[dict[str, Any]]:
    """The events of a topic."""
    return [json.loads(message.value() or b"") for message in read_all(servers, topic)]


def test_each_kind_is_published_once_and_delivered(deployment: Deployment, kafka_bootstrap: str) -> None:
    """They are CloudEvents with documented fields; exhausted deliveries of these events are not reported in turn."""
    operations = Kafka(kafka_bootstrap, real=True).topic()
    kinds = ("delivery.exhausted", "subscription.disabled", "subscription.recovered")
    for kind in kinds:
        deployment.subscribe(kind, f"/{kind}")
        deployment.subscribe(kind, f"/refuses/{kind}", final_statuses="500")
        deployment.receiver.rules[f"/refuses/{kind}"] = always(Answer(500))
    leaves = deployment.subscribe("subscription.recovered", "/leaves")
    exhausts = deployment.subscribe("a", "/exhausts", retry_schedule="0.2s")
    gone = deployment.subscribe("b", "/gone")
    failing = deployment.subscribe("c", "/failing", failing_since=days_ago(5.1), retry_schedule="0.2s,0.2s,1h")
    recovers = deployment.subscribe("d", "/recovers", failing_since=days_ago(0.1))
    deployment.receiver.rules |= {
        "/exhausts": always(Answer(500)),
        "/gone": always(Answer(410)),
        "/failing": always(Answer(404)),
        "/leaves": always(Answer(410)),
    }
    deployment.alter(f"import consumer.delivery.failing as failing; failing.SPREAD = failing.EVENTS = 1; {LOOKS_OFTEN}")
    worker = deployment.start(KAFKA_OPERATIONS_TOPIC=operations, KAFKA_TOPICS=f"{deployment.topic},{operations}")
    eventually(worker.ready)
    deployment.publish(["a", "b", "c", "d"])
    eventually(lambda: len(told(kafka_bootstrap, operations)) == 5)
    found = {(event["type"], event["data"]["subscription_id"]): event for event in told(kafka_bootstrap, operations)}
    assert found.keys() == {
        ("delivery.exhausted", exhausts),
        ("delivery.exhausted", gone),
        ("subscription.disabled", gone),
        ("subscription.disabled", failing),
        ("subscription.recovered", recovers),
    }
    ids = {request.path: request.webhook_id for request in deployment.receiver.requests}
    for event in found.values():
        data = event["data"]
        assert event["specversion"] == "1.0"
        assert event["source"] == f"kafka-webhooks/{deployment.group}"
        assert event["subject"] == f"subscriptions/{data['subscription_id']}"
        assert event["datacontenttype"] == "application/json"
        assert abs(datetime.fromisoformat(event["time"]).timestamp() - time.time()) < 60
    exhausted = found["delivery.exhausted", exhausts]["data"]
    assert exhausted == {
        "subscription_id": exhausts,
        "url": deployment.receiver.url("/exhausts"),
        "webhook_id": ids["/exhausts"],
        "event_type": "a",
        "topic": deployment.topic,
        "partition": 0,
        "offset": 0,
        "timestamp": exhausted["timestamp"],
        "attempts": 2,
        "error": "status 500",
        "status": 500,
    }
    assert found["subscription.disabled", gone]["data"]["reason"] == "the receiver answered 410 Gone"
    assert found["subscription.disabled", failing]["data"]["reason"] == "every attempt failed for 5.1 days"
    assert 8600 < found["subscription.recovered", recovers]["data"]["failed_for_seconds"] < 8800

    records = read_all(kafka_bootstrap, operations)
    assert {headers_of(record)["content-type"] for record in records} == {b"application/cloudevents+json"}
    owed = sorted((f"{prefix}/{_type(record)}", record.value()) for record in records for prefix in ("", "/refuses"))
    eventually(lambda: sorted((each.path, each.body) for each in _operational(deployment)) == owed)
    assert all(each.path.endswith(each.headers["x-webhook-event"]) for each in _operational(deployment))
    disabled = "SELECT id FROM webhook_subscriptions WHERE enabled = 0 ORDER BY id"
    eventually(lambda: deployment.sql(disabled) == [(leaves,), (gone,), (failing,)])
    eventually(lambda: not deployment.lag())
    time.sleep(1.5)
    assert len(told(kafka_bootstrap, operations)) == 5
    assert deployment.sql("SELECT * FROM webhook_operations") == []
    worker.stop()


def _type(record: Message) -> object:
    return json.loads(record.value() or b"")["type"]


def _operational(deployment: Deployment) -> list[Request]:
    return [each for each in deployment.receiver.requests if each.path.rpartition("/")[2].count(".") == 1]
