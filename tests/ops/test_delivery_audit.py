"""The proof of deliveries, on a real Kafka: what each step of a delivery leaves on record; a gap is named."""

import time
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaTopicPartition
from sqlalchemy import Engine, text

from consumer.crypto.vault import Vault
from consumer.errors import NotFound, WebhooksError
from consumer.events.attempt import Attempt, render
from consumer.intake.decode import decode
from consumer.ledger import cursors
from consumer.ledger.cursors import NewCursor
from consumer.ops import delivery_audit as module
from consumer.ops.changes import CHANGED, Changes, Deployment
from consumer.ops.delivery_audit import DeliveryAudit, audit
from consumer.ops.events import newest
from consumer.ops.replay_request import Log
from consumer.subscriptions import repository
from models import CursorReason
from tests.kafka_kit import Kafka
from tests.ledger.rows_kit import GROUP, park, parked

pytestmark = pytest.mark.kafka  # the mock cluster finds no offsets by time

EVENTS = 10
URL = "https://example.com/hooks"


class Scene:
    """A topic with ten orders, all committed, and a subscription to them; no attempt is on record."""

    def __init__(self, kafka: Kafka, engine: Engine) -> None:
        self.kafka = kafka
        self.topic, self.attempts, operations = kafka.topic(), kafka.topic(partitions=3), kafka.topic()
        self.settings = kafka.settings(group=GROUP).model_copy(update={"operations_topic": operations})
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


@pytest.fixture
def scene(real_kafka: Kafka, engine: Engine) -> Scene:
    """A deployment."""
    return Scene(real_kafka, engine)


def test_each_delivery_is_found_where_it_is(scene: Scene) -> None:
    """Delivered, waiting in a row, given up, owed by a cursor, not committed yet; a gap is named by its place."""
    scene.commit(8)
    scene.tried(0, 1, 2)
    scene.tried(3, 6, outcome="parked")
    scene.store(3)
    scene.store(4, status="exhausted")
    place = scene.topic, 0, scene.subscription
    cursors.begin(scene.where.engine, GROUP, [NewCursor(place, 5, CursorReason.PAUSED, end=6)], time.time())
    found = scene.audit()
    ((key, counts),) = found.counts.items()
    assert key[0] == scene.topic
    assert counts == {
        "records": 11,
        "events": 10,
        "matched": 10,
        "delivered": 3,
        "waiting": 3,
        "given_up": 1,
        "covered": 1,
        "missing": 2,
    }
    assert [(each.topic, each.partition, each.offset, each.subscription_id) for each in found.missing] == [
        (scene.topic, 0, 6, scene.subscription),
        (scene.topic, 0, 7, scene.subscription),
    ]
    assert (found.left, found.faults) == (0, [])


def test_a_whole_proof_has_no_difference_until_one_delivery_is_removed(scene: Scene) -> None:
    """The audit names the one whose row was deleted by hand."""
    scene.tried(*range(EVENTS - 1))
    scene.store(EVENTS - 1)
    assert scene.audit().total["missing"] == 0
    with scene.where.engine.begin() as connection:
        connection.execute(text("DELETE FROM webhook_deliveries"))
    assert [each.offset for each in scene.audit().missing] == [EVENTS - 1]


def test_the_present_subscriptions_count_and_each_from_its_registration(scene: Scene) -> None:
    """Filters and disabled ones are not owed; a later subscription is not owed what came before it."""
    scene.tried(*range(EVENTS))
    scene.subscribe(event_filter="data.number >= 100")
    scene.subscribe(since=datetime.now(UTC))
    disabled = scene.subscribe()
    Changes(scene.where, "cli:me").set_enabled(disabled, enabled=False)
    chosen = scene.subscribe("*", event_filter="data.number in [2, 3]", tenant="acme")
    assert scene.audit().total["matched"] == EVENTS
    other = scene.subscribe(event_filter="data.number in [2, 3]")
    assert [(each.offset, each.subscription_id) for each in scene.audit().missing] == [(2, other), (3, other)]
    assert scene.audit(subscription_id=scene.subscription).total["matched"] == EVENTS
    assert scene.audit(tenant="acme").total["matched"] == 0
    with pytest.raises(NotFound):
        scene.audit(subscription_id=chosen, tenant="another")


def test_a_subscription_that_was_changed_later_may_not_have_matched(scene: Scene) -> None:
    """Its deliveries are counted apart: an operational event says when it was changed."""
    event = {
        "source": scene.settings.event_source,
        "type": CHANGED,
        "time": datetime.now(UTC),
        "data": {"subscription_id": scene.subscription},
    }
    scene.kafka.write(scene.settings.operations_topic, [orjson.dumps(event)])
    total = scene.audit().total
    assert (total["changed"], total["missing"]) == (EVENTS, 0)


def test_parts_and_limits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log is audited in parts; a few deliveries are named, and all counted; too many at once are refused."""
    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(module, "LISTED", 4)
    scene.tried(0, 9)
    found = scene.audit()
    assert (found.total["records"], found.total["delivered"], found.total["missing"]) == (11, 2, 8)
    assert [each.offset for each in found.missing] == [1, 2, 3, 4]
    assert found.as_json()["not_listed"] == 4
    monkeypatch.setattr(module, "MOST", 2)
    with pytest.raises(WebhooksError, match="audit one tenant or subscription"):
        scene.audit()


def test_without_attempts_nothing_can_be_proved(scene: Scene) -> None:
    """The error names the setting."""
    for topic, words in ((None, "set KAFKA_ATTEMPTS_TOPIC"), ("missing", "correct KAFKA_ATTEMPTS_TOPIC")):
        with pytest.raises(WebhooksError, match=words):
            list(audit(scene.log, scene.where, topic, 0.0, time.time()))
