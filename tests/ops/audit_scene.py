"""A deployment whose deliveries can be audited, on a real Kafka: events, attempts and stored deliveries by hand."""

import time
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from sqlalchemy import Engine, text

from consumer.crypto.vault import Vault
from consumer.events.attempt import Attempt, render
from consumer.intake.decode import decode
from consumer.ops.changes import Deployment
from consumer.ops.delivery_audit import DeliveryAudit, audit
from consumer.ops.events import newest
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, park, parked

EVENTS = 10
URL = "https://example.com/hooks"


class Scene:
    """A topic with ten orders, all committed, and a subscription to them; no attempt is on record."""

    def __init__(self, kafka: Kafka, engine: Engine) -> None:
        self.kafka = kafka
        self.topic, self.attempts, operations = kafka.topic(), kafka.topic(partitions=3), kafka.topic()
        topics = {"operations_topic": operations, "attempts_topic": self.attempts}
        self.settings = kafka.settings(group=GROUP).model_copy(update=topics)
        self.log = Log(self.settings, [self.topic])
        self.where = Deployment(engine, GROUP, Vault())
        self.subscription = self.subscribe()
        self.values = [b'{"type": "order", "number": %d}' % number for number in range(EVENTS)]
        kafka.write(self.topic, [*self.values, b"\xff"])
        self.commit(EVENTS + 1)

    def subscribe(
        self, event_type: str = "order", since: datetime = datetime(2020, 1, 1, tzinfo=UTC), **more: Any
    ) -> int:
        """A subscription that was registered long ago."""
        number = repository.add(self.where.engine, URL, event_type, **more)
        with self.where.engine.begin() as connection:
            changed = "UPDATE webhook_subscriptions SET created_at = :at WHERE id = :id"
            connection.execute(text(changed), {"at": since.replace(tzinfo=None), "id": number})
        return number

    def commit(self, offset: int) -> None:
        """The group has committed this offset."""
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, "group.id": GROUP})
        consumer.commit(offsets=[KafkaTopicPartition(self.topic, 0, offset)], asynchronous=False)
        consumer.close()

    def tried(self, *found: int, outcome: str = "delivered", subscription: int | None = None) -> None:
        """Attempts at these offsets."""
        number = subscription or self.subscription
        for offset in found:
            about = number, f"msg_{offset}", "order", None, self.topic, 0, offset, 1, outcome, 204, None, 0.1, None
            value = render(Attempt(time.time(), *about), self.settings.event_source, f"id-{number}-{offset}")
            self.kafka.write(self.attempts, [value])

    def store(self, offset: int, **more: Any) -> None:
        """A stored delivery of an event."""
        (record,) = (each for each in newest(self.settings, self.topic, EVENTS + 1) if each.offset == offset)
        park(self.where.engine, parked(decode(record), self.subscription, time.time(), **more))

    def audit(self, **more: Any) -> DeliveryAudit:
        """The audit of the last day."""
        (*_, found) = audit(self.log, self.where, self.attempts, time.time() - 86_400, time.time() + 1, **more)
        return found
