"""Relaying operational events from the database to Kafka: by the leader, and deleted after the acknowledgement."""

import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Message
from sqlalchemy import Engine, event, func, select, text
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.database.engine import DatabaseThread
from consumer.intake.decode import decode
from consumer.intake.record import Headers
from consumer.ledger import outbox
from consumer.ledger.rows import OperationalEvent
from consumer.worker.outbox_relay import EVENTS_AT_ONCE, SELDOM, SOON, OutboxRelay, operations_topic
from models import StoredOperation
from tests.kafka_kit import Kafka, read_all, unique
from tests.records import record
from tests.waiting import eventually

GROUP = "webhooks"
Open = Callable[..., "Rig"]


class Rig:
    """A relay on a real database and a real Kafka. The test sets the time, and answers are handled in turns."""

    def __init__(self, engine: Engine, kafka: KafkaSettings) -> None:
        self.engine = engine
        self.topic = kafka.operations_topic
        self.now = 1000.0
        self.leads = True
        self.looks = 0
        self._posted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = DatabaseThread("ledger", self._posted.put)
        self.late = 0.0  # seconds by which the producer's clock is ahead
        topic = operations_topic(kafka, lambda: time.monotonic() + self.late)
        event.listen(engine, "before_cursor_execute", self._count)
        self.relay = OutboxRelay(
            engine, self._thread, GROUP, topic, kafka.event_source, lambda: self.leads, clock=lambda: self.now
        )

    @property
    def pending(self) -> set[int]:
        """Rows whose events are on their way."""
        return self.relay._sent

    def turn(self, seconds: float = 0.0) -> None:
        """One turn of the loop, `seconds` later by the relay's clock."""
        self.now += seconds
        self.relay.poll(self.now)
        try:
            while True:
                self._posted.get_nowait()()
        except Empty:
            return

    def until(self, condition: Callable[[], object], *, seconds: float = 0.0) -> None:
        """Turn, `seconds` each time, until `condition` holds."""
        eventually(
            condition,
            every=0.002,
            meanwhile=lambda: self.turn(seconds),
            otherwise=lambda: (self.relay.busy, self.stored()),
        )

    def settle(self) -> None:
        """Start due work, and turn until no answer is pending."""
        self.turn()
        self.until(lambda: not self.relay.busy)

    def write(self, *names: str, group: str = GROUP, **data: object) -> None:
        """Write operational events as the ledger does."""
        happened = [OperationalEvent("delivery.exhausted", name, {"subscription_id": 7, **data}) for name in names]
        with self.engine.begin() as connection:
            outbox.add(connection, group, happened)

    def stored(self) -> int:
        """The number of events in the database."""
        with self.engine.connect() as connection:
            return int(connection.scalar(select(func.count()).select_from(StoredOperation)) or 0)

    def rename(self, old: str, new: str) -> None:
        """Take the table away, or bring it back."""
        with self.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    def close(self) -> None:
        """End like a process that dies, without waiting."""
        self.relay.close()
        event.remove(self.engine, "before_cursor_execute", self._count)
        assert self._thread.close(20)

    def _count(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        self.looks += "webhook_operations.data" in statement


def said(logs: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """The lines of the log, without those of librdkafka itself."""
    return [entry for entry in logs if entry["event"] != "librdkafka"]


def messages(kafka: KafkaSettings, number: int) -> list[Message]:
    """The messages on the topic, once there are so many."""
    return Kafka(kafka.bootstrap_servers, real=True).read(kafka.operations_topic, number)


def published(kafka: KafkaSettings, number: int) -> list[str]:
    """The CloudEvents ids on a topic of one partition, all of them once there are so many."""
    messages(kafka, number)
    found = read_all(kafka.bootstrap_servers, kafka.operations_topic)
    return [orjson.loads(each.value() or b"")["id"] for each in found]


def with_topic(kafka: Kafka, group: str = "", compression: str = "lz4", **of_topic: Any) -> KafkaSettings:
    """Settings with an existing topic for operational events."""
    settings = kafka.settings(group=group, compression_type=compression)
    return settings.model_copy(update={"operations_topic": kafka.topic(**of_topic)})


@pytest.fixture
def kafka(real_kafka: Kafka) -> KafkaSettings:
    """Settings with a topic of one partition."""
    return with_topic(real_kafka)


@pytest.fixture
def nowhere() -> KafkaSettings:
    """Settings of a Kafka that does not exist."""
    return KafkaSettings(bootstrap_servers="127.0.0.1:1")


@pytest.fixture
def open_rig(engine: Engine) -> Iterator[Open]:
    """Makes rigs on one database, and closes them in the end."""
    made: list[Rig] = []

    def make(kafka: KafkaSettings) -> Rig:
        made.append(Rig(engine, kafka))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_events_are_published_in_order_and_deleted(open_rig: Open, kafka: KafkaSettings) -> None:
    """All events of this group and no other's, in any number of batches, without a wait between full ones."""
    rig = open_rig(kafka)
    names = [f"e{number}" for number in range(2 * EVENTS_AT_ONCE + 50)]
    rig.write(*names)
    rig.write("theirs", group="another")
    rig.until(lambda: rig.stored() == 1)
    assert published(kafka, len(names)) == names
    assert rig.now == 1000.0


def test_an_event_is_a_structured_cloudevent(open_rig: Open, real_kafka: Kafka) -> None:
    """It has the attributes that the specification requires; published twice, workers give it the same webhook id."""
    kafka = with_topic(real_kafka, group="a group/1")
    rig = open_rig(kafka)
    for row in (1, 2):
        operation = OperationalEvent("subscription.disabled", "x", {"subscription_id": 7, "reason": "410 Gone"})
        rig.relay._publish([(row, operation, 1_700_000_000.25)])
        rig.until(lambda: not rig.pending)
    once, again = messages(kafka, 2)
    assert (once.key(), once.headers()) == (b"7", [("content-type", b"application/cloudevents+json")])
    assert orjson.loads(once.value() or b"") == {
        "specversion": "1.0",
        "id": "x",
        "source": "kafka-webhooks/a%20group%2F1",
        "type": "subscription.disabled",
        "time": "2023-11-14T22:13:20.250Z",
        "subject": "subscriptions/7",
        "datacontenttype": "application/json",
        "data": {"subscription_id": 7, "reason": "410 Gone"},
    }
    first, second = (decode(record(each.value(), cast("Headers", each.headers()))) for each in (once, again))
    assert first == second
    assert (first.type, first.content_type) == ("subscription.disabled", "application/cloudevents+json")


def test_an_event_that_cannot_be_published_does_not_stop_the_others(open_rig: Open, real_kafka: Kafka) -> None:
    """No record can be made of one, and the topic refuses another. Both stay in the database, and the log names one."""
    kafka = with_topic(real_kafka, compression="none", partitions=4, max_message_bytes="5000")
    rig = open_rig(kafka)
    rig.write("a")
    rig.write("large", subscription_id=8, padding="x" * 9000)
    rig.write("b")
    bad = 99, OperationalEvent("subscription.disabled", "bad", cast("Mapping[str, object]", [])), 0.0
    with capture_logs() as logs:
        rig.relay._publish([bad])
        rig.until(lambda: rig.stored() == 1)
    assert [orjson.loads(each.value() or b"")["id"] for each in messages(kafka, 2)] == ["a", "b"]
    assert [each["row"] for each in said(logs) if each["event"] == "an operational event could not be sent"] == [99]


def test_events_of_one_subscription_stay_in_order(open_rig: Open, real_kafka: Kafka) -> None:
    """They have the same key and so the same partition. An event without a subscription has neither key nor subject."""
    kafka = with_topic(real_kafka, partitions=4)
    rig = open_rig(kafka)
    for number in range(30):
        rig.write(str(number), subscription_id=number % 5)
    rig.write("none", subscription_id=None)
    rig.until(lambda: not rig.stored())
    found: dict[bytes | None, list[str]] = {}
    for message in messages(kafka, 31):
        found.setdefault(message.key(), []).append(orjson.loads(message.value() or b"")["id"])
    assert found.pop(None) == ["none"]
    assert found == {b"%d" % key: [str(number) for number in range(key, 30, 5)] for key in range(5)}


def test_an_acknowledged_event_that_could_not_be_deleted_is_not_sent_twice_by_this_process(
    open_rig: Open, kafka: KafkaSettings
) -> None:
    """While the database fails, deletion is retried after a back-off. No row is read before it succeeds."""
    rig = open_rig(kafka)
    rig.write("a", "b")
    rig.turn()
    rig.until(lambda: rig.pending)
    rig.rename("webhook_operations", "away")
    with capture_logs() as logs:
        rig.until(lambda: said(logs))
        for _ in range(5):
            rig.relay.wake()
            rig.turn(SELDOM)
        assert rig.relay.busy
        rig.rename("away", "webhook_operations")
        rig.until(lambda: not rig.relay.busy, seconds=1.0)
    refused, over = said(logs)
    assert over["event"] == "the database answers again"
    assert "the tables are missing or old" in refused["error"]
    assert rig.stored() == 0
    rig.write("c")
    rig.until(lambda: rig.stored() == 0, seconds=SOON)
    assert published(kafka, 3) == ["a", "b", "c"]


def test_after_a_crash_between_acknowledgement_and_removal_the_id_is_the_same(
    open_rig: Open, kafka: KafkaSettings
) -> None:
    """The next leader publishes the row again: at least once, and recognisable by the id."""
    rig = open_rig(kafka)
    rig.write("a")
    rig.turn()
    rig.until(lambda: rig.pending)
    assert published(kafka, 1) == ["a"]
    successor = open_rig(kafka)
    successor.until(lambda: successor.stored() == 0)
    assert published(kafka, 2) == ["a", "a"]


def test_unpublished_events_are_kept_and_retried_with_a_growing_back_off(real_kafka: Kafka, open_rig: Open) -> None:
    """While the topic is missing, the waits are 0.5 s, doubled up to 30 s. Once it exists, each event is there once."""
    base = real_kafka.settings(allow_auto_create_topics="false", topic_metadata_propagation_max_ms="200")
    kafka = base.model_copy(update={"operations_topic": unique("missing")})
    rig = open_rig(kafka)
    names = [f"e{number}" for number in range(20)]
    rig.write(*names)
    rig.settle()
    for wait in (0.5, 1, 2, 4, 8, 16, 30, 30):
        before = rig.looks
        rig.turn()
        rig.now += wait - 0.125
        rig.settle()
        assert rig.looks == before
        rig.now += 0.125
        rig.settle()
        assert rig.looks == before + 1
    assert rig.stored() == len(names)
    real_kafka.topic(kafka.operations_topic)
    rig.until(lambda: rig.stored() == 0, seconds=0.25)
    assert published(kafka, len(names)) == names


def test_no_event_is_deleted_before_a_broker_has_it(open_rig: Open, nowhere: KafkaSettings) -> None:
    """Neither during an outage of Kafka nor at a stop. The rows remain for the next leader."""
    rig = open_rig(nowhere)
    rig.write("a", "b")
    rig.turn()
    rig.until(lambda: rig.pending)
    for _ in range(20):
        rig.turn(SELDOM)
    assert rig.relay.busy
    assert rig.looks == 1
    rig.relay.close()
    rig.turn()
    assert rig.stored() == 2


def test_only_the_leader_reads_the_outbox(open_rig: Open, nowhere: KafkaSettings) -> None:
    """Other workers send no statement. A new leader reads within a second."""
    rig = open_rig(nowhere)
    rig.leads = False
    for _ in range(100):
        rig.relay.wake()
        rig.now += 0.5
        rig.settle()
    assert rig.looks == 0
    rig.leads = True
    rig.now += SOON
    rig.settle()
    assert rig.looks == 1


def test_reads_are_rare_but_soon_after_an_event(open_rig: Open, nowhere: KafkaSettings) -> None:
    """They come every ten seconds, or within a second of an event written here, never twice in one second."""
    rig = open_rig(nowhere)

    def looks(seconds: float, *, wake: bool) -> int:
        before = rig.looks
        for _ in range(int(seconds * 8)):
            if wake:
                rig.relay.wake()
            rig.now += 0.125
            rig.settle()
        return rig.looks - before

    rig.settle()
    assert rig.looks == 1
    assert looks(SELDOM * 5, wake=False) == 5
    assert looks(SOON * 10, wake=True) == 10
    rig.relay.wake()
    assert looks(SOON, wake=False) == 1
    assert looks(SELDOM - SOON, wake=False) == 0
