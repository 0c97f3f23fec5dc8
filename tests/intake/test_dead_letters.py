"""Dead letters: tests on the mock cluster and on a real Kafka, then tests that need a real one."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as KafkaTopicPartition
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import STUB_BYTES, DeadLetters
from consumer.intake.offsets import OffsetTracker
from consumer.intake.record import BAD_HEADERS, AssignedPartition, Headers, Record, Unreadable
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, unique

Open = Callable[[KafkaSettings], DeadLetters]


def record(value: bytes | None, headers: Headers | Unreadable | None = None, key: bytes | None = b"key") -> Record:
    return Record(AssignedPartition("orders", 3, OffsetTracker(None)), 42, 1_700_000_000_000, key, value, headers)


def flush(letters: DeadLetters, seconds: float) -> int:
    """Poll until nothing is pending, at most this long. Returns the number still pending."""
    end = time.monotonic() + seconds
    while letters.pending and time.monotonic() < end:
        letters.poll(time.monotonic())
        time.sleep(0.005)
    return letters.pending


def read(kafka: Kafka, topic: str, number: int) -> list[Message]:
    """The letters on a topic, in any partition."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": unique("reader"), **QUIET})
    end = time.monotonic() + 60
    while not (partitions := consumer.list_topics(topic, 60).topics[topic].partitions) and time.monotonic() < end:
        time.sleep(0.05)  # the first letter creates the topic, and it may not exist yet
    consumer.assign([KafkaTopicPartition(topic, partition, 0) for partition in partitions])
    found: list[Message] = []
    while len(found) < number and time.monotonic() < end:
        found += [message for message in consumer.consume(100, 0.1) if message.error() is None]
    consumer.close()
    return found


@pytest.fixture
def open_letters() -> Iterator[Open]:
    """Makes DeadLetters, and closes them in the end."""
    made: list[DeadLetters] = []

    def make(settings: KafkaSettings) -> DeadLetters:
        made.append(DeadLetters(settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_letter_is_the_record_with_its_origin(kafka: Kafka, open_letters: Open) -> None:
    """Value, key and headers are unchanged, and our headers come after them.

    A header of the record that begins with `dead-letter-` is left out: it would look like one of ours.
    """
    settings = kafka.settings(dead_letters=kafka.topic())
    letters = open_letters(settings)
    original: Headers = [("a", b"1"), ("b", None)]
    own: Headers = [("dead-letter-reason", b"old"), ("dead-letter-size", b"9"), ("dead-letter-sha256", b"0")]
    letters.send(record(b"\xff\x00", [*own, *original]), "not_utf8", "é" * 2000, lambda: None)
    assert flush(letters, 15) == 0
    (message,) = read(kafka, settings.dead_letter_topic, 1)
    assert (message.key(), message.value()) == (b"key", b"\xff\x00")
    headers = cast("Headers", message.headers())
    assert headers[:2] == original
    assert dict(headers) == {
        "a": b"1",
        "b": None,
        "dead-letter-topic": b"orders",
        "dead-letter-partition": b"3",
        "dead-letter-offset": b"42",
        "dead-letter-timestamp": b"1700000000000",
        "dead-letter-reason": b"not_utf8",
        "dead-letter-detail": ("é" * 1000).encode(),
        "dead-letter-group": settings.group_id.encode(),
    }
    assert abs(message.timestamp()[1] / 1000 - time.time()) < 60


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b"")])
def test_null_and_empty_values_are_kept_apart(
    kafka: Kafka, open_letters: Open, key: bytes | None, value: bytes | None
) -> None:
    """Operators who repair dead letters need to see which it was."""
    settings = kafka.settings(dead_letters=kafka.topic())
    letters = open_letters(settings)
    letters.send(record(value, BAD_HEADERS, key), "null", "no value", lambda: None)
    assert flush(letters, 15) == 0
    (message,) = read(kafka, settings.dead_letter_topic, 1)
    assert (message.key(), message.value()) == (key, value)


def test_on_stored_runs_only_inside_poll_and_after_the_acknowledgement(kafka: Kafka, open_letters: Open) -> None:
    """It does not run in `send` or on another thread, even if the broker has answered. It runs once per letter."""
    settings = kafka.settings(dead_letters=kafka.topic())
    letters = open_letters(settings)
    stored: list[int] = []
    for number in range(50):
        letters.send(record(b"%d" % number), "not_json", "", lambda number=number: stored.append(number))  # type: ignore[misc]
    assert len(read(kafka, settings.dead_letter_topic, 50)) == 50
    assert (stored, letters.pending) == ([], 50)
    assert flush(letters, 15) == 0
    assert sorted(stored) == list(range(50))
    letters.poll(time.monotonic())
    assert len(stored) == 50


def test_an_exception_in_on_stored_loses_no_other_answer(kafka: Kafka, open_letters: Open) -> None:
    """A bug in one callback does not keep the others' records from being settled."""
    letters = open_letters(kafka.settings(dead_letters=kafka.topic()))
    stored: list[int] = []

    def fail() -> None:
        raise RuntimeError("a bug in the worker")

    for callback in (fail, lambda: stored.append(1), lambda: stored.append(2)):
        letters.send(record(b"x"), "not_json", "", callback)
    with pytest.raises(RuntimeError, match="a bug"):
        flush(letters, 15)
    assert flush(letters, 15) == 0
    assert stored == [1, 2]


@pytest.mark.parametrize("size", [2_000_000, 9_000_000])
def test_a_record_that_the_topic_cannot_take_is_stored_as_a_stub(
    real_kafka: Kafka, open_letters: Open, size: int
) -> None:
    """The broker or librdkafka refuses it. Its beginning, size and digest are kept, and it counts as stored."""
    settings = real_kafka.settings(dead_letters=real_kafka.topic(max_message_bytes="1048576"))
    letters = open_letters(settings)
    value = bytes(range(256)) * (size // 256)
    stored: list[int] = []
    letters.send(record(value, [("a", b"1")]), "too_large", "", lambda: stored.append(1))
    assert flush(letters, 20) == 0
    assert (stored, letters.fault) == ([1], None)
    (message,) = read(real_kafka, settings.dead_letter_topic, 1)
    headers = dict(message.headers() or [])
    assert (message.key(), message.value(), headers["a"]) == (b"key", value[:STUB_BYTES], b"1")
    assert headers["dead-letter-size"] == b"%d" % len(value)
    assert headers["dead-letter-sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_a_record_too_large_for_a_stub_is_stored_as_headers(real_kafka: Kafka, open_letters: Open) -> None:
    """The key or headers are huge, or the topic is for small records. The record's place is kept."""
    settings = real_kafka.settings(dead_letters=real_kafka.topic(max_message_bytes="20000"))
    letters = open_letters(settings)
    letters.send(record(b"x" * 100_000, [("a", b"1" * 30_000)], b"k" * 30_000), "too_large", "", lambda: None)
    assert flush(letters, 20) == 0
    (message,) = read(real_kafka, settings.dead_letter_topic, 1)
    headers = dict(message.headers() or [])
    assert (message.key(), message.value(), headers["dead-letter-offset"]) == (None, None, b"42")
    assert "a" not in headers


def test_a_missing_topic_is_a_fault_that_names_the_remedy(real_kafka: Kafka, open_letters: Open) -> None:
    """Without auto-creation no letter is lost. Letters wait without a busy loop, and go out when the topic exists."""
    settings = real_kafka.settings(
        dead_letters=unique("missing"), allow_auto_create_topics="false", topic_metadata_propagation_max_ms="300"
    )
    letters = open_letters(settings)
    stored: list[int] = []
    with capture_logs() as logs:
        letters.send(record(b"x"), "not_json", "", lambda: stored.append(1))
        begin = time.process_time()
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            letters.poll(time.monotonic())
            time.sleep(0.01)
    assert time.process_time() - begin < 1
    assert (stored, letters.pending) == ([], 1)
    assert "create it, or set KAFKA_DEAD_LETTER_TOPIC" in (letters.fault or "")
    assert len([entry for entry in logs if entry["log_level"] == "warning"]) == 1
    real_kafka.topic(settings.dead_letter_topic)
    assert flush(letters, 20) == 0
    assert (stored, letters.fault) == ([1], None)


def test_waits_between_attempts_grow_to_half_a_minute(mock_kafka: str) -> None:
    """0.5 s, doubled each time, never above 30 s."""
    kafka = Kafka(mock_kafka, real=False)
    now = [0.0]
    letters = DeadLetters(kafka.settings(), clock=lambda: now[0])
    letters.send(record(b"x"), "not_json", "", lambda: None)
    ((_, letter),) = letters._sent.items()
    waits = []
    for _ in range(9):
        letters._sent.clear()
        letters._failed(letter, KafkaError(KafkaError._MSG_TIMED_OUT))
        waits.append(letters._waiting.pop()[0] - now[0])
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    letters.close()


def test_a_broker_that_is_down_holds_letters_back(
    real_kafka: Kafka, kafka_cluster: KafkaBroker | None, open_letters: Open
) -> None:
    """While the broker is down no letter counts as stored. All do once it is back."""
    if kafka_cluster is None:
        pytest.skip("the brokers of KAFKA_TEST_BOOTSTRAP_SERVERS are not ours to kill")
    settings = real_kafka.settings(dead_letters=real_kafka.topic(), message_timeout_ms="1000")
    letters = open_letters(settings)
    stored: list[int] = []
    letters.send(record(b"0"), "not_json", "", lambda: stored.append(0))
    assert flush(letters, 15) == 0
    kafka_cluster.kill()
    try:
        letters.send(record(b"1"), "not_json", "", lambda: stored.append(1))
        assert flush(letters, 1.5) == 1
        assert stored == [0]
        assert letters.fault is not None
    finally:
        kafka_cluster.restart()
    assert flush(letters, 30) == 0
    assert stored == [0, 1]
    assert letters.fault is None
    assert {message.value() for message in read(real_kafka, settings.dead_letter_topic, 2)} == {b"0", b"1"}


def test_the_partitions_of_pending_letters_are_known(open_letters: Open) -> None:
    """A letter is pending on its way or between two attempts, and no longer once it is stored."""
    letters = open_letters(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    letters.send(record(b"x"), "not_json", "", lambda: None)
    places: list[list[TopicPartition]] = [[("orders", 3)], [("orders", 2), ("others", 3)], []]
    assert [letters.holds(each) for each in places] == [True, False, False]
    (number,) = letters._sent
    letters._topic.answers.append((number, KafkaError(KafkaError._MSG_TIMED_OUT)))
    letters.poll(time.monotonic())
    assert not letters._sent
    assert [letters.holds(each) for each in places] == [True, False, False]
    letters._waiting.clear()
    assert not letters.holds(places[0])


def test_bytes_are_released_with_the_acknowledgement(open_letters: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of pending letters are bounded, not those of all letters ever sent. Keys and headers count too."""
    monkeypatch.setattr("consumer.intake.dead_letters._MOST_BYTES", 10)
    letters = open_letters(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    for each in (record(b"x" * 10, key=None), record(None, key=b"x" * 10), record(None, [("x", b"x" * 9)], None)):
        letters.send(each, "not_json", "", lambda: None)
        assert letters.full
        (number,) = letters._sent
        letters._topic.answers.append((number, None))
        letters.poll(time.monotonic())
        assert not letters.full
