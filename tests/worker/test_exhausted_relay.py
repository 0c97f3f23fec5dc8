"""Carrying deliveries that were given up from the database to the exhausted topic, on a real Kafka."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from consumer.config.settings import KafkaSettings
from consumer.intake.dead_letters import STUB_BYTES
from consumer.intake.exhausted import parse, render
from consumer.intake.record import AssignedPartition, Headers, Record
from consumer.ledger import given_up
from consumer.worker.exhausted_relay import AT_ONCE, LOOK_EVERY, ExhaustedRelay, exhausted_topic
from tests.delivery.store_kit import Store
from tests.kafka_kit import Kafka, headers_of, unique
from tests.ledger.rows_kit import GROUP, make_event, parked
from tests.waiting import eventually

Open = Callable[[KafkaSettings], "Rig"]


class Rig(Store):
    """A relay of one worker."""

    def __init__(self, engine: Engine, kafka: KafkaSettings) -> None:
        super().__init__(engine)
        self.leads = True
        letters = exhausted_topic(kafka, self.monotonic)
        assert letters is not None
        self.relay = ExhaustedRelay(engine, self.thread, GROUP, letters, lambda: self.leads, self.monotonic)

    @property
    def waiting(self) -> int:
        """The number of deliveries that the topic lacks, as the database has it."""
        return len(given_up.unpublished(self.engine, GROUP, 999))

    def give_up(self, *offsets: int, **more: object) -> None:
        """Store deliveries that were given up."""
        events = [make_event(each, **more) for each in offsets]  # type: ignore[arg-type]  # a test's shorthand
        self.others_park(*(parked(each, 7, status="exhausted", next_attempt_at=None) for each in events))

    def turn(self) -> None:
        """A turn of the loop, which is a moment later."""
        self.monotonic.now += 0.05
        self.relay.poll(self.monotonic.now)
        while not self.posted.empty():
            self.posted.get()()

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until it holds."""
        eventually(condition, every=0.002, meanwhile=self.turn)


@pytest.fixture
def open_rig(sqlite_engine: Engine) -> Iterator[Open]:
    """Makes relays of workers on one database."""
    made: list[Rig] = []
    yield lambda kafka: made.append(Rig(sqlite_engine, kafka)) or made[-1]  # type: ignore[func-returns-value]
    for each in made:
        each.relay.close()
        assert each.thread.close(20)


@pytest.fixture
def kafka(real_kafka: Kafka) -> KafkaSettings:
    """Settings with a topic that takes 100 kB."""
    topic = real_kafka.topic(max_message_bytes="100000")
    return real_kafka.settings(group=GROUP, compression_type="none").model_copy(update={"exhausted_topic": topic})


def test_the_event_is_on_the_topic_as_it_was(real_kafka: Kafka, kafka: KafkaSettings, open_rig: Open) -> None:
    """Key, body and headers, null and binary ones too, byte for byte; the headers of ours tell all else about it."""
    rig = open_rig(kafka)
    own = {"null": None, "octets": b"\xff\x00", "empty": b"", "text": b"\xc3\xa9"}
    rig.give_up(5, key=b"\xfe", body=b"\x00\xff", headers=own | {"exhausted-at": b"x"}, tenant="Jané", traceparent="00")
    ((item, event),) = given_up.unpublished(rig.engine, GROUP, 1)
    rig.until(lambda: not rig.waiting)
    (message,) = real_kafka.read(kafka.exhausted_topic or "", 1)
    headers: Headers = message.headers()  # type: ignore[assignment]  # the binding's type is wider
    assert (message.key(), message.value(), headers[:4]) == (b"\xfe", b"\x00\xff", list(own.items()))
    told = headers_of(message)
    names = ("reason", "status", "attempts", "subscription", "offset", "at")
    assert [told[f"exhausted-{name}"] for name in names] == [b"boom", b"503", b"1", b"7", b"5", b"1700000100000"]
    record = Record(AssignedPartition("x", 0), 0, 0, message.key(), message.value(), headers)
    found = parse(record, GROUP)
    assert found is not None
    assert (found.event, found.subscription_id) == (event._replace(headers=own, extra=24), item.subscription_id)
    assert parse(record, "another") is None


def test_a_crash_between_the_acknowledgement_and_the_row_repeats_the_record(
    real_kafka: Kafka, kafka: KafkaSettings, open_rig: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next leader publishes it once more, also if it takes over while the answer is out: it is never lost."""
    crashed = open_rig(kafka)
    crashed.give_up(5)
    with monkeypatch.context() as patch:
        patch.setattr(given_up, "note_published", lambda *_: 1 / 0)
        crashed.until(lambda: crashed.relay.fault)
    assert crashed.waiting == 1
    successor = open_rig(kafka)
    successor.until(lambda: not successor.waiting)
    assert len(real_kafka.read(kafka.exhausted_topic or "", 2)) == 2


def test_while_the_topic_takes_nothing_all_stays_owed(real_kafka: Kafka, open_rig: Open) -> None:
    """/readyz says why, and few are in memory. Only the leader publishes; the next one begins anew; none is lost."""
    base = real_kafka.settings(group=GROUP, allow_auto_create_topics="false", topic_metadata_propagation_max_ms="200")
    kafka = base.model_copy(update={"exhausted_topic": unique("missing")})
    leader, other = open_rig(kafka), open_rig(kafka)
    other.leads = False
    leader.give_up(*range(150))
    leader.until(lambda: leader.relay.fault)
    other.until(lambda: other.monotonic.now > 1000.0 + 2 * LOOK_EVERY)
    assert "create it, or set KAFKA_EXHAUSTED_TOPIC" in (leader.relay.fault or "")
    assert (leader.relay.pending, leader.waiting, other.relay.busy) == (AT_ONCE, 150, False)
    leader.relay.close()  # at a stop: nothing is noted
    leader.leads = False
    leader.turn()
    assert not leader.relay.busy
    real_kafka.topic(kafka.exhausted_topic or "")
    other.leads = True
    other.until(lambda: not other.waiting)
    offsets = [headers_of(each)["exhausted-offset"] for each in real_kafka.read(kafka.exhausted_topic or "", 150)]
    assert {int(each) for each in offsets} == set(range(150))


def test_one_that_cannot_be_published_does_not_stop_the_others(
    real_kafka: Kafka, kafka: KafkaSettings, open_rig: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is too large the beginning is published; one of which no record can be made stays owed."""
    rig = open_rig(kafka)
    monkeypatch.setattr("consumer.worker.exhausted_relay.AT_ONCE", 1)
    rig.give_up(1, 3)
    rig.give_up(2, body=b"x" * 200_000)
    to_render = "consumer.worker.exhausted_relay.render"
    monkeypatch.setattr(to_render, lambda each: 1 / 0 if each.event.record.offset == 1 else render(each))
    rig.until(lambda: rig.waiting == 1)
    found = {headers_of(each)["exhausted-offset"]: each for each in real_kafka.read(kafka.exhausted_topic or "", 2)}
    assert found.keys() == {b"2", b"3"}
    assert len(found[b"2"].value() or b"") == STUB_BYTES
    assert headers_of(found[b"2"])["exhausted-size"] == b"200000"
