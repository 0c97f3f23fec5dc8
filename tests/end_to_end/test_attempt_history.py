"""The attempt history of a whole deployment: every attempt is on the topic, and faults of it stop no delivery."""

from confluent_kafka import Message

from consumer.config.settings import KafkaSettings
from consumer.events.attempt import Attempt, parse
from consumer.ops.attempts import AttemptHistory
from tests.end_to_end.service_rig import Deployment, eventually
from tests.end_to_end.webhook_receiver import Answer, always, in_turn
from tests.kafka_kit import Kafka, read_all


def on_topic(deployment: Deployment, topic: str) -> list[Attempt]:
    """The attempts of this deployment."""
    messages: list[Message] = read_all(deployment.servers, topic)
    found = [parse(message.value(), f"kafka-webhooks/{deployment.group}") for message in messages]
    return [attempt for attempt in found if attempt is not None]


def told(found: list[Attempt], subscription: int) -> list[tuple[int, str, int | None]]:
    """Number, outcome and status of each attempt."""
    return sorted((each.attempt, each.outcome, each.status) for each in found if each.subscription_id == subscription)


def test_every_attempt_is_on_the_topic_and_in_the_history(deployment: Deployment, kafka_bootstrap: str) -> None:
    """A success, a success after a failure, an exhausted delivery and a batch have all their attempts."""
    topic = Kafka(kafka_bootstrap, real=True).topic()
    good = deployment.subscribe("a", "/good")
    second = deployment.subscribe("b", "/second", retry_schedule="0.2s")
    never = deployment.subscribe("c", "/never", retry_schedule="0.2s,0.2s")
    batched = deployment.subscribe("d", "/batched", batch_size=3, batch_wait_ms=30_000)
    del deployment.subscriptions["/batched"]
    deployment.receiver.rules |= {"/second": in_turn(503, 200), "/never": always(Answer(404))}
    settings = KafkaSettings(bootstrap_servers=kafka_bootstrap, group_id=deployment.group)
    history = AttemptHistory(settings, topic)
    history.start()
    worker = deployment.start(KAFKA_ATTEMPTS_TOPIC=topic, KAFKA_TOPICS=f"^({deployment.topic}|{topic})$")
    eventually(worker.ready)
    deployment.publish(["a", "b", "c", "d", "d", "d"])
    eventually(lambda: len(on_topic(deployment, topic)) == 9)
    found = on_topic(deployment, topic)
    assert told(found, good) == [(1, "delivered", 200)]
    assert told(found, second) == [(1, "retried", 503), (2, "delivered", 200)]
    assert told(found, never) == [(1, "retried", 404), (2, "retried", 404), (3, "exhausted", 404)]
    assert told(found, batched) == [(1, "delivered", 200)] * 3
    assert len(deployment.receiver.at("/batched")) == 1
    assert {each.webhook_id for each in found if each.subscription_id == good} == {
        request.webhook_id for request in deployment.receiver.at("/good")
    }
    assert {each.topic for each in found} == {deployment.topic}, "the history is not consumed"
    eventually(lambda: sorted(history.recent(None, 99)) == sorted(found))
    assert [each.attempt for each in history.recent(never, 2)] == [3, 2]
    assert sorted(history.read_back(never, found[0].at - 60, found[0].at + 60, 99)) == sorted(history.recent(never, 9))
    assert history.fault is None
    assert worker.metric("webhooks_attempts_dropped_total") == 0
    worker.stop()
    history.close()
