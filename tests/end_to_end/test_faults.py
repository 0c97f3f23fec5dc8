"""Faults that only a real process or a real Kafka meets: work waits and reports it, and nothing is lost."""

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from consumer.intake.offsets import encode
from consumer.ledger import cursors
from consumer.ledger.cursors import NewCursor
from models import CursorReason
from tests.databases import connect_to
from tests.end_to_end.service_rig import Deployment, assert_in_order
from tests.end_to_end.webhook_receiver import Answer, always, every, in_turn
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka
from tests.waiting import eventually


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


def test_a_topic_that_is_made_anew_after_its_leader_changed_is_read(
    deployment: Deployment, brokers: KafkaBroker
) -> None:
    """Kafka's client does not read it: `/readyz` and a metric say so, and a process that replaces this one reads it.

    The leader epoch of the old topic was above 0, where that of a new one begins.
    """
    deployment.subscribe("a", "/good")
    deployment.alter("""
from consumer.intake import positions, stalls, topics

topics.TopicWatch.__init__.__kwdefaults__["every"] = 0.3
stalls.STALLED_AFTER, positions._IDLE = 2.0, 0.2
""")
    parent = deployment.start(arguments=["--workers", "2"])
    eventually(parent.ready, otherwise=lambda: parent.log)
    deployment.publish(["a"] * 20)
    eventually(deployment.finished, otherwise=lambda: parent.log)
    brokers.kill()
    brokers.restart()
    deployment.publish(["a"] * 20)
    eventually(deployment.finished, otherwise=lambda: parent.log)
    before = parent.members()

    admin = AdminClient({"bootstrap.servers": deployment.servers, **QUIET})
    admin.delete_topics([deployment.topic])[deployment.topic].result(60)
    eventually(lambda: deployment.topic not in admin.list_topics(timeout=60).topics)
    Kafka(deployment.servers, real=True).topic(deployment.topic, partitions=4)
    deployment.producer = Producer({"bootstrap.servers": deployment.servers, **QUIET})  # that knows the new one alone
    deployment.publish(["a"] * 20)
    eventually(lambda: "although its log has" in parent.unready_because(), every=0.02)
    eventually(lambda: not deployment.missing(), otherwise=lambda: parent.log)
    eventually(parent.ready, otherwise=lambda: parent.log)
    assert "whose topic was deleted and made anew" in parent.log
    assert not set(parent.members().values()) & set(before.values())
    assert deployment.duplicates() == 0
    parent.stop()


def test_a_cursor_of_an_earlier_topic_owes_nothing_of_the_present_one(deployment: Deployment) -> None:
    """Kafka forgets a deleted topic's commits, so nothing but the topic's id tells the cursor's offsets apart.

    Here the database answers before Kafka tells the id, which `/readyz` then says.
    """
    subscription = deployment.subscribe("a", "/good")
    deployment.publish(["a"] * 40)
    place, settled = (deployment.topic, 0, subscription), encode(0, [(1, 8)])
    earlier = NewCursor(place, 0, CursorReason.PAUSED, identity="A" * 30, runs=settled)
    engine = connect_to(deployment.database.url)
    cursors.begin(engine, deployment.group, [earlier], 0.0)
    engine.dispose()
    deployment.alter("""
from consumer.intake import positions

ask, unanswered = positions.TopicIds.ask, iter(range(3))

def late(ids, topics, *more):
    return {} if topics and next(unanswered, None) is not None else ask(ids, topics, *more)

positions.TopicIds.ask = late
""")
    worker = deployment.start()
    awaited = f"Kafka does not report the id of the topic {deployment.topic}"
    eventually(lambda: awaited in worker.unready_because(), otherwise=lambda: worker.log)
    eventually(deployment.finished, otherwise=lambda: worker.log)
    assert deployment.duplicates() == 0
