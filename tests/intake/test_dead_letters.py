"""Dead letters: tests on the mock cluster and on a real Kafka, then tests that need a real one."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.events.event import TopicPartition
from consumer.intake.dead_letters import STUB_BYTES, DeadLetters
from consumer.intake.record import BAD_HEADERS, Headers
from tests.kafka_kit import Kafka, unique
from tests.records import record
from tests.waiting import eventually

Open = Callable[..., "Desk"]


class Desk:
    """Dead letters, and the numbers of those that are stored."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.letters = DeadLetters(settings)
        self.settings = settings
        self.stored: list[int] = []

    def bury(
        self, number: int = 0, value: object = b"x", reason: str = "not_json", detail: str = "", **more: Any
    ) -> None:
        """Dead-letter a record."""
        self.letters.send(record(value, **more), reason, detail, lambda: self.stored.append(number))

    def flush(self) -> None:
        """Poll until nothing is pending."""
        eventually(lambda: not self.letters.pending, every=0.005, meanwhile=self.turn)

    def turn(self) -> None:
        """Poll once."""
        self.letters.poll(time.monotonic())

    def letter(self, kafka: Kafka) -> Message:
        """The only letter, once it is stored."""
        self.flush()
        (message,) = kafka.read(self.settings.dead_letter_topic, 1)
        return message


@pytest.fixture
def open_letters() -> Iterator[Open]:
    """Makes DeadLetters, and closes them in the end."""
    made: list[Desk] = []

    def make(settings: KafkaSettings) -> Desk:
        made.append(Desk(settings))
        return made[-1]

    yield make
    for each in made:
        each.letters.close()


@pytest.fixture
def desk(kafka: Kafka, open_letters: Open) -> Desk:
    """Dead letters with a topic."""
    return open_letters(kafka.settings(dead_letters=kafka.topic()))


@pytest.fixture
def nowhere(open_letters: Open) -> Desk:
    """Dead letters without a Kafka."""
    return open_letters(KafkaSettings(bootstrap_servers="127.0.0.1:1"))


def test_a_letter_is_the_record_with_its_origin(kafka: Kafka, desk: Desk) -> None:
    """Value, key and headers are unchanged, and our headers come after them.

    A header of the record that begins with `dead-letter-` is left out: it would look like one of ours.
    """
    original: Headers = [("a", b"1"), ("b", None)]
    own: Headers = [("dead-letter-reason", b"old"), ("dead-letter-size", b"9"), ("dead-letter-sha256", b"0")]
    desk.bury(0, b"\xff\x00", "not_utf8", "é" * 2000, headers=[*own, *original])
    message = desk.letter(kafka)
    assert (message.key(), message.value()) == (b"k", b"\xff\x00")
    headers: Any = message.headers()
    assert headers[:2] == original
    assert dict(headers) == {
        "a": b"1",
        "b": None,
        "dead-letter-topic": b"orders",
        "dead-letter-partition": b"2",
        "dead-letter-offset": b"7",
        "dead-letter-timestamp": b"1700000000000",
        "dead-letter-reason": b"not_utf8",
        "dead-letter-detail": ("é" * 1000).encode(),
        "dead-letter-group": desk.settings.group_id.encode(),
    }
    assert abs(message.timestamp()[1] / 1000 - time.time()) < 60


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b"")])
def test_null_and_empty_values_are_kept_apart(kafka: Kafka, desk: Desk, key: bytes | None, value: bytes | None) -> None:
    """Operators who repair dead letters need to see which it was."""
    desk.bury(0, value, headers=BAD_HEADERS, key=key)
    message = desk.letter(kafka)
    assert (message.key(), message.value()) == (key, value)


def test_on_stored_runs_only_inside_poll_and_after_the_acknowledgement(kafka: Kafka, desk: Desk) -> None:
    """It does not run in `send` or on another thread, even if the broker has answered. It runs once per letter."""
    for number in range(50):
        desk.bury(number)
    assert len(kafka.read(desk.settings.dead_letter_topic, 50)) == 50
    assert (desk.stored, desk.letters.pending) == ([], 50)
    desk.flush()
    desk.turn()
    assert sorted(desk.stored) == list(range(50))


def test_an_exception_in_on_stored_loses_no_other_answer(desk: Desk) -> None:
    """A bug in one callback does not keep the others' records from being settled."""

    def fail() -> None:
        raise RuntimeError("a bug in the worker")

    desk.letters.send(record(b"x"), "not_json", "", fail)
    for number in (1, 2):
        desk.bury(number)
    with pytest.raises(RuntimeError, match="a bug"):
        desk.flush()
    desk.flush()
    assert desk.stored == [1, 2]


@pytest.mark.parametrize("size", [2_000_000, 9_000_000])
def test_a_record_that_the_topic_cannot_take_is_stored_as_a_stub(
    real_kafka: Kafka, open_letters: Open, size: int
) -> None:
    """The broker or librdkafka refuses it. Its beginning, size and digest are kept, and it counts as stored."""
    desk = open_letters(real_kafka.settings(dead_letters=real_kafka.topic(max_message_bytes="1048576")))
    value = bytes(range(256)) * (size // 256)
    desk.bury(1, value, headers=[("a", b"1")])
    message = desk.letter(real_kafka)
    assert (desk.stored, desk.letters.fault) == ([1], None)
    headers = dict(message.headers() or [])
    assert (message.key(), message.value(), headers["a"]) == (b"k", value[:STUB_BYTES], b"1")
    assert headers["dead-letter-size"] == b"%d" % len(value)
    assert headers["dead-letter-sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_a_record_too_large_for_a_stub_is_stored_as_headers(real_kafka: Kafka, open_letters: Open) -> None:
    """The key or headers are huge, or the topic is for small records. The record's place is kept."""
    desk = open_letters(real_kafka.settings(dead_letters=real_kafka.topic(max_message_bytes="20000")))
    desk.bury(1, b"x" * 100_000, headers=[("a", b"1" * 30_000)], key=b"k" * 30_000)
    message = desk.letter(real_kafka)
    headers = dict(message.headers() or [])
    assert (message.key(), message.value(), headers["dead-letter-offset"]) == (None, None, b"7")
    assert "a" not in headers


def test_a_missing_topic_is_a_fault_that_names_the_remedy(real_kafka: Kafka, open_letters: Open) -> None:
    """Without auto-creation no letter is lost. Letters wait without a busy loop, and go out when the topic exists."""
    desk = open_letters(
        real_kafka.settings(
            dead_letters=unique("missing"), allow_auto_create_topics="false", topic_metadata_propagation_max_ms="300"
        )
    )
    with capture_logs() as logs:
        desk.bury(1)
        eventually(
            lambda: desk.letters._waiting and next(iter(desk.letters._waiting))[2].failures > 2,
            every=0.01,
            meanwhile=desk.turn,
        )
    assert (desk.stored, desk.letters.pending) == ([], 1)
    assert "create it, or set KAFKA_DEAD_LETTER_TOPIC" in (desk.letters.fault or "")
    assert len([entry for entry in logs if entry["log_level"] == "warning"]) == 1
    real_kafka.topic(desk.settings.dead_letter_topic)
    desk.flush()
    assert (desk.stored, desk.letters.fault) == ([1], None)


def test_the_partitions_of_pending_letters_are_known(nowhere: Desk) -> None:
    """A letter is pending on its way or between two attempts, whose waits grow to half a minute, until it is stored."""
    places: list[list[TopicPartition]] = [[("orders", 2)], [("orders", 3), ("others", 2)], []]
    now, waits = 0.0, []
    nowhere.bury()
    for _ in range(9):
        assert [nowhere.letters.holds(each) for each in places] == [True, False, False]
        (number,) = nowhere.letters._sent
        nowhere.letters._topic.answers.append((number, KafkaError(KafkaError._MSG_TIMED_OUT)))
        nowhere.letters._clock = lambda now=now: now  # type: ignore[misc]
        nowhere.letters.poll(now)
        assert [nowhere.letters.holds(each) for each in places] == [True, False, False]
        assert not nowhere.letters._sent
        waits.append(nowhere.letters._waiting[0][0] - now)
        now = nowhere.letters._waiting[0][0]
        nowhere.letters.poll(now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    nowhere.letters._topic.answers.append((next(iter(nowhere.letters._sent)), None))
    nowhere.letters.poll(now)
    assert (nowhere.letters.holds(places[0]), nowhere.stored) == (False, [0])


def test_bytes_are_released_with_the_acknowledgement(nowhere: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of pending letters are bounded, not those of all letters ever sent. Keys and headers count too."""
    monkeypatch.setattr("consumer.intake.dead_letters._MOST_BYTES", 10)
    for value, key, headers in ((b"x" * 10, None, None), (None, b"x" * 10, None), (None, None, [("x", b"x" * 9)])):
        nowhere.bury(0, value, key=key, headers=headers)
        assert nowhere.letters.full
        (number,) = nowhere.letters._sent
        nowhere.letters._topic.answers.append((number, None))
        nowhere.turn()
        assert not nowhere.letters.full
