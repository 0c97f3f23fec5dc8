"""Operational events on their topic: their form, and when they count as published."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.intake.decode import decode
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import Headers, Partition, Record
from consumer.kafka.producer import BACK_OFF
from consumer.ledger.rows import OperationalEvent
from consumer.worker.event_publisher import Announcement, EventPublisher
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, unique

AT = 1_700_000_000.25
Open = Callable[..., EventPublisher]


def settings(kafka: Kafka, topic: str = "", *, group: str = "", **properties: str) -> KafkaSettings:
    """Settings of a fresh group, with an operations topic of its own."""
    return kafka.settings(group=group, **properties).model_copy(
        update={"operations_topic": topic or kafka.topic(unique("operations"), partitions=4)}
    )


def disabled(number: int, subscription: int = 7, **data: object) -> Announcement:
    """The event of a disabled subscription."""
    content: Mapping[str, object] = {"subscription_id": subscription, "reason": "410 Gone", **data}
    return number, OperationalEvent("subscription.disabled", f"disabled-{number}", content), AT


def read(kafka: Kafka, topic: str, number: int) -> list[Message]:
    """The first events on a topic, in the order of each partition."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": unique("reader"), **QUIET})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    found: list[Message] = []
    end = time.monotonic() + 60
    while len(found) < number and time.monotonic() < end:
        found += [message for message in consumer.consume(100, 0.1) if message.error() is None]
    consumer.close()
    return found


def served(announcer: EventPublisher, condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, announcer.pending
        announcer.poll()
        time.sleep(0.005)


@pytest.fixture
def open_announcer() -> Iterator[Open]:
    """Makes publishers, and closes them in the end."""
    made: list[EventPublisher] = []

    def make(kafka: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> EventPublisher:
        made.append(EventPublisher(kafka, clock=clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_event_is_a_structured_cloudevent(kafka: Kafka, open_announcer: Open) -> None:
    """It has the attributes that the specification requires, and a header with the content type."""
    made = settings(kafka, group="a group/1")
    announcer = open_announcer(made)
    stored: list[int] = []
    announcer.send([disabled(3)], stored.extend)
    served(announcer, lambda: stored)
    (message,) = read(kafka, made.operations_topic, 1)
    assert (message.key(), message.headers()) == (b"7", [("content-type", b"application/cloudevents+json")])
    assert orjson.loads(message.value() or b"") == {
        "specversion": "1.0",
        "id": "disabled-3",
        "source": "kafka-webhooks/a%20group%2F1",
        "type": "subscription.disabled",
        "time": "2023-11-14T22:13:20.250Z",
        "subject": "subscriptions/7",
        "datacontenttype": "application/json",
        "data": {"subscription_id": 7, "reason": "410 Gone"},
    }


def test_a_worker_reads_it_as_an_event_of_that_type(kafka: Kafka, open_announcer: Open) -> None:
    """Published twice, it has the same webhook id, so that subscribers to operational events can drop duplicates."""
    made = settings(kafka)
    announcer = open_announcer(made)
    for _ in range(2):
        announcer.send([disabled(3)], lambda _ids: None)
        served(announcer, lambda: not announcer.pending)
    partition = Partition("operations", 0, OffsetTracker(None))
    events = [
        decode(Record(partition, offset, 0, b"7", each.value(), cast("Headers", each.headers())))
        for offset, each in enumerate(read(kafka, made.operations_topic, 2))
    ]
    assert {event.type for event in events} == {"subscription.disabled"}
    assert {event.content_type for event in events} == {"application/cloudevents+json"}
    assert len({event.webhook_id for event in events}) == 1
    assert len(events) == 2


def test_published_is_reported_only_inside_poll_and_after_the_acknowledgement(
    kafka: Kafka, open_announcer: Open
) -> None:
    """Each id is reported once, in however many polls. No other batch is accepted meanwhile."""
    made = settings(kafka)
    announcer = open_announcer(made)
    stored: list[int] = []
    announcer.send([disabled(number, number % 5) for number in range(100)], stored.extend)
    assert len(read(kafka, made.operations_topic, 100)) == 100
    assert (stored, announcer.pending) == ([], 100)
    with pytest.raises(RuntimeError, match="one batch"):
        announcer.send([disabled(100)], stored.extend)
    served(announcer, lambda: not announcer.pending)
    announcer.poll()
    assert sorted(stored) == list(range(100))


def test_an_event_of_which_no_record_can_be_made_does_not_stop_the_others(kafka: Kafka, open_announcer: Open) -> None:
    """Its data is JSON, but no object. It is logged, and is not reported as published."""
    announcer = open_announcer(settings(kafka))
    stored: list[int] = []
    bad = 2, OperationalEvent("subscription.disabled", "bad", cast("Mapping[str, object]", [])), AT
    with capture_logs() as logs:
        announcer.send([disabled(1), bad, disabled(3)], stored.extend)
        served(announcer, lambda: not announcer.pending)
    assert stored == [1, 3]
    (line,) = (each for each in logs if each["event"] != "librdkafka")
    assert (line["event"], line["row"], line["event_id"]) == ("an operational event could not be sent", 2, "bad")


def test_events_of_one_subscription_stay_in_order(kafka: Kafka, open_announcer: Open) -> None:
    """They have the same key and so the same partition, in the order in which they were handed over."""
    made = settings(kafka)
    announcer = open_announcer(made)
    announcer.send([disabled(number, number % 5) for number in range(60)], lambda _ids: None)
    served(announcer, lambda: not announcer.pending)
    found: dict[bytes, list[int]] = {}
    partitions: dict[bytes, set[int]] = {}
    for message in read(kafka, made.operations_topic, 60):
        key = bytes(message.key() or b"")
        found.setdefault(key, []).append(int(orjson.loads(message.value() or b"")["id"].removeprefix("disabled-")))
        partitions.setdefault(key, set()).add(message.partition() or 0)
    assert found == {b"%d" % key: list(range(key, 60, 5)) for key in range(5)}
    assert all(len(each) == 1 for each in partitions.values())


def test_an_event_without_a_subscription_is_published_too(kafka: Kafka, open_announcer: Open) -> None:
    """It has no key and no subject."""
    made = settings(kafka)
    announcer = open_announcer(made)
    announcer.send([(1, OperationalEvent("test", "x", {"a": 1}), AT)], lambda _ids: None)
    served(announcer, lambda: not announcer.pending)
    (message,) = read(kafka, made.operations_topic, 1)
    assert message.key() is None
    assert "subject" not in orjson.loads(message.value() or b"")


def test_the_log_names_the_remedy_for_a_missing_topic(real_kafka: Kafka, open_announcer: Open) -> None:
    """Once, and again when the topic exists. There is no busy loop, and the batch can be handed over again."""
    made = settings(
        real_kafka,
        unique("missing"),
        allow_auto_create_topics="false",
        topic_metadata_propagation_max_ms="300",
    )
    announcer = open_announcer(made)
    stored: list[int] = []
    begin = time.process_time()
    with capture_logs() as logs:
        for _ in range(3):
            announcer.send([disabled(number) for number in range(50)], stored.extend)
            served(announcer, lambda: not announcer.pending)
    assert time.process_time() - begin < 1
    assert stored == []
    (said,) = (entry for entry in logs if entry["log_level"] == "warning")
    assert (said["to"], said["topic"]) == ("operations topic", made.operations_topic)
    assert said["advice"] == "create it, or set KAFKA_OPERATIONS_TOPIC to one that exists"
    real_kafka.topic(made.operations_topic)
    end = time.monotonic() + 60
    with capture_logs() as logs:
        while not stored and time.monotonic() < end:
            announcer.send([disabled(1)], stored.extend)
            served(announcer, lambda: not announcer.pending)
    assert stored == [1]
    assert [entry["event"] for entry in logs if "again" in entry["event"]] == ["records get through again"]


def test_a_refused_event_does_not_hold_up_the_others(real_kafka: Kafka, open_announcer: Open) -> None:
    """An event is too large for the topic. The others of its batch are acknowledged."""
    topic = real_kafka.topic(unique("operations"), partitions=4, max_message_bytes="5000")
    announcer = open_announcer(settings(real_kafka, topic, compression_type="none"))
    stored: list[int] = []
    announcer.send([disabled(1), disabled(2, 8, padding="x" * 9000), disabled(3)], stored.extend)
    served(announcer, lambda: not announcer.pending)
    assert sorted(stored) == [1, 3]


def test_events_are_held_while_the_broker_is_down(
    real_kafka: Kafka, kafka_cluster: KafkaBroker | None, open_announcer: Open
) -> None:
    """They are never given up, so that order holds. The log reports the outage after ten seconds, and its end."""
    if kafka_cluster is None:
        pytest.skip("the brokers of KAFKA_TEST_BOOTSTRAP_SERVERS are not ours to kill")
    made = settings(real_kafka)
    late = [0.0]
    announcer = open_announcer(made, lambda: time.monotonic() + late[0])
    stored: list[int] = []
    announcer.send([disabled(0)], stored.extend)
    served(announcer, lambda: stored)
    kafka_cluster.kill()
    with capture_logs() as logs:
        try:
            announcer.send([disabled(1), disabled(2)], stored.extend)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                announcer.poll()
                time.sleep(0.01)
            assert (stored, announcer.pending) == ([0], 2)
            assert not [entry for entry in logs if entry["log_level"] != "debug"]
            late[0] = 11.0
            announcer.poll()
        finally:
            kafka_cluster.restart()
        served(announcer, lambda: not announcer.pending)
        announcer.poll()
    assert stored == [0, 1, 2]
    assert [entry["event"] for entry in logs if "to" in entry] == [
        "no acknowledgement; it is waited for",
        "records get through again",
    ]


def test_a_producer_that_cannot_go_on_is_replaced(mock_kafka: str, open_announcer: Open) -> None:
    """Its pending events fail, with the reason in the log. A new producer is made at most every half a minute."""
    kafka = Kafka(mock_kafka, real=False)
    now = [1000.0]
    announcer = open_announcer(settings(kafka), lambda: now[0])
    topic, stored = announcer._topic, list[int]()
    with capture_logs() as logs:
        for expected_new in (True, False):
            old: Any = topic._producer
            announcer.send([disabled(1), disabled(2)], stored.extend)
            topic._fatal = KafkaError(KafkaError._FATAL, "fenced")
            announcer.poll()
            assert (announcer.pending, stored) == (0, [])
            assert (topic._producer is not old) is expected_new
        now[0] += BACK_OFF[1]
        announcer.poll()
        announcer.send([disabled(3)], stored.extend)
        served(announcer, lambda: stored == [3])
    assert [(entry["event"], entry.get("error", "")) for entry in logs if "to" in entry] == [
        ("not stored; it is sent again", "fenced"),
        ("records get through again", ""),
    ]


def test_an_exception_in_the_callback_is_raised_by_poll_and_loses_nothing_else(
    kafka: Kafka, open_announcer: Open
) -> None:
    """Raised inside librdkafka, it would lose other answers. The next batch is published."""
    announcer = open_announcer(settings(kafka))

    def fail(_ids: list[int]) -> None:
        raise ZeroDivisionError

    announcer.send([disabled(1)], fail)
    with pytest.raises(ZeroDivisionError):
        served(announcer, lambda: False)
    stored: list[int] = []
    announcer.send([disabled(2)], stored.extend)
    served(announcer, lambda: stored == [2])


def test_closing_drops_pending_events(open_announcer: Open) -> None:
    """It does so at once, even without a broker."""
    announcer = open_announcer(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    announcer.send([disabled(1)], lambda _ids: None)
    begin = time.monotonic()
    announcer.close()
    assert (announcer.pending, time.monotonic() - begin < 60) == (0, True)
