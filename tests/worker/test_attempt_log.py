"""The writer of the attempt history: the records on its topic, and that no failure of it affects the worker."""

import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import orjson
import pytest
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.delivery.delivery import Delivery, Lane, OpenRecord
from consumer.delivery.outcome import Delivered, Failed, Outcome, judge
from consumer.events.attempt import ANSWERED, parse
from consumer.sending.answer import BODY_LIMIT
from consumer.subscriptions.endpoint import Endpoint
from consumer.subscriptions.options import parse_answer_headers
from consumer.worker import attempt_log
from consumer.worker.attempt_log import ANSWERS, RESPONSE, AttemptLog
from tests.delivery.desk_kit import response
from tests.delivery.store_kit import NOW
from tests.kafka_kit import Kafka, unique
from tests.ledger.rows_kit import DEFAULT, URL, make_event
from tests.waiting import eventually

Open = Callable[[KafkaSettings, str], AttemptLog]


def delivery(subscription: int = 7, attempts: int = 1, offset: int = 0) -> Delivery:
    """A delivery after this many attempts."""
    made = Delivery(
        make_event(offset),
        Lane(Endpoint(subscription, URL, DEFAULT), 1.0, 0.0),
        OpenRecord(lambda _offset: None, offset, 1),
    )
    made.attempts = attempts
    return made


def answered() -> Delivery:
    """A delivery whose subscription reports answers."""
    made = delivery()
    made.lane.endpoint = replace(made.lane.endpoint, answer_headers=parse_answer_headers("x-*,s*"))
    return made


@pytest.fixture
def open_log() -> Iterator[Open]:
    """Makes attempt logs, and closes them in the end."""
    made: list[AttemptLog] = []

    def make(kafka: KafkaSettings, topic: str) -> AttemptLog:
        made.append(AttemptLog(kafka, topic))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_attempt_is_a_record_with_the_subscription_as_key(kafka: Kafka, open_log: Open) -> None:
    """Successes and failures, each with an id of its own and a header with the content type."""
    settings = kafka.settings(group="a group")
    topic = kafka.topic(partitions=4)
    log = open_log(settings, topic)
    log.report(delivery(attempts=2), "delivered", Delivered(204), NOW, 0.25)
    log.report(delivery(8), "parked", Failed("status 500", 500, None, "sorry\x1b\u00e9"), NOW, 0.5)
    messages = {message.key(): message for message in kafka.read(topic, 2)}
    assert {message.headers()[0] for message in messages.values()} == {  # type: ignore[index]  # it has headers
        ("content-type", b"application/cloudevents+json")
    }
    found = {key: parse(message.value(), "kafka-webhooks/a%20group") for key, message in messages.items()}
    event = make_event(0)
    success = found[b"7"]
    assert success is not None
    assert (success.at, success.subscription_id, success.webhook_id, success.event_type) == (
        NOW,
        7,
        event.webhook_id,
        event.type,
    )
    assert (success.attempt, success.outcome, success.status, success.seconds) == (2, "delivered", 204, 0.25)
    assert (success.topic, success.partition, success.offset) == event.record[:3]
    failure = found[b"8"]
    assert failure is not None
    assert (failure.outcome, failure.status, failure.error) == ("parked", 500, "status 500")
    assert failure.response == r"sorry\x1b\xe9"
    assert len({orjson.loads(message.value() or b"")["id"] for message in messages.values()}) == 2


@pytest.mark.parametrize(
    ("body", "member", "written"),
    [
        (b'{"ok": "s3cret"}', "body", '{"ok": "(not shown)"}'),
        ("\u00e9".encode() * (BODY_LIMIT // 2 - 1) + b"x" + "\u00e9".encode()[:1], "body", "\u00e9" * 32763),
        (b"\xff\0s3cret", "body_base64", b64encode(b"\xff\0(not shown)").decode()),
        (None, "body", ""),
    ],
)
def test_a_reported_answer_is_a_record_with_the_key_of_the_event(
    kafka: Kafka, open_log: Open, body: bytes | None, member: str, written: str
) -> None:
    """Status, the listed headers and the whole body, as text if it is UTF-8; credentials that it echoes are masked."""
    settings, topic = kafka.settings(group="a group"), kafka.topic(partitions=4)
    log, answer = open_log(settings, topic), response(503, X_Reply="s3cret", Server="x", Set_Cookie="sid=1")
    answer._content = body
    for key in (b"customer-7", None, b""):
        made = answered()
        made.event = made.event._replace(key=key)
        log.report_answer(made, answer, lambda: ["s3cret"], NOW, 0.25)
    messages = kafka.read(topic, 3)
    event = make_event(0)
    assert sorted(message.key() or b"" for message in messages) == [b"customer-7", *[event.webhook_id.encode()] * 2]
    record = orjson.loads(messages[0].value() or b"")
    assert (record["type"], record["source"], record["subject"]) == (ANSWERED, settings.event_source, "subscriptions/7")
    assert record["data"] == {
        "subscription_id": 7,
        "webhook_id": event.webhook_id,
        "event_type": event.type,
        **event.record._asdict(),
        "attempt": 2,
        "status": 503,
        "seconds": 0.25,
        "headers": {"x-reply": "(not shown)", "server": "x"},
        member: written,
    }
    assert parse(messages[0].value(), settings.event_source) is None


def test_an_answer_that_cannot_be_reported_is_counted(kafka: Kafka, open_log: Open) -> None:
    """The delivery goes on."""
    log, made = open_log(kafka.settings(), kafka.topic()), answered()
    log.report_answer(made, response(200), list, float("inf"), 0.1)
    assert (log.dropped, log.answers_dropped) == (0, 1)


def test_answers_that_are_dropped_end_no_wait_for_attempts(real_kafka: Kafka, open_log: Open) -> None:
    """Here, because there are too many, and because Kafka refuses one: a tenant's receiver decides on both."""
    log, went_on, answer = open_log(real_kafka.settings(), real_kafka.topic()), list[int](), response(200)
    answer._content = b"x" * BODY_LIMIT
    for number in range(20):
        for _ in range(ANSWERS // BODY_LIMIT + 1):
            log.report_answer(answered(), answer, list, NOW, 0.1)
        log.poll(float(number))
        log.report(delivery(number, offset=number), "delivered", Delivered(200), NOW, 0.1)
        log.once_written(partial(went_on.append, number))
        assert number not in went_on
    assert log.answers_dropped > 0
    eventually(lambda: not log.busy, every=0.01, meanwhile=lambda: log.poll(time.monotonic()))
    assert went_on == list(range(20))

    log = open_log(real_kafka.settings(), real_kafka.topic(max_message_bytes="1000"))
    answer._content = random.Random(7).randbytes(9000)
    log.report_answer(answered(), answer, list, NOW, 0.1)
    eventually(lambda: log.answers_dropped == 1, every=0.01, meanwhile=lambda: log.poll(time.monotonic()))
    log.poll(time.monotonic() + 1)
    log.once_written(partial(went_on.append, 20))
    assert 20 not in went_on
    assert log.dropped == 0


def secrets(searched: list[str]) -> list[str]:
    """No secrets; notes that an answer is about to be searched."""
    searched.append("an answer")
    return []


def test_answers_leave_room_for_attempts(kafka: Kafka, open_log: Open) -> None:
    """Beyond the limit of a round they are dropped, unsearched, and attempts are not; the next round has room again."""
    topic, answer, searched = kafka.topic(), response(200), list[str]()
    log = open_log(kafka.settings(), topic)
    answer._content = b"x" * BODY_LIMIT
    for _ in range(ANSWERS // BODY_LIMIT + 1):
        log.report_answer(answered(), answer, partial(secrets, searched), NOW, 0.1)
    assert len(searched) == ANSWERS // BODY_LIMIT - 1
    log.report(delivery(), "delivered", Delivered(200), NOW, 0.1)
    few = ANSWERS // BODY_LIMIT - 1
    assert log.answers_dropped == 2

    def is_written() -> bool:
        log.poll(time.monotonic())
        return not log._fills.answers and not log._sent.answers

    eventually(is_written, every=0.01)
    log.report_answer(answered(), answer, list, NOW, 0.1)
    assert len(kafka.read(topic, few + 2)) == few + 2
    assert (log.dropped, log.answers_dropped) == (0, 2)


def test_a_failed_answer_is_kept_short_and_without_secrets(kafka: Kafka, open_log: Open) -> None:
    """Credentials masked by `judge` stay masked, and at most 256 ASCII characters are written."""
    settings, topic = kafka.settings(), kafka.topic(partitions=4)
    answer = response(500)
    answer._content = b"echo: s3cret-token " + "\u00e9".encode() * 2000
    outcome: Outcome = judge(answer, NOW, secrets=lambda: ["s3cret-token"])
    open_log(settings, topic).report(delivery(), "retried", outcome, NOW, 0.5)
    (message,) = kafka.read(topic, 1)
    found = parse(message.value(), settings.event_source)
    assert found is not None
    assert found.response is not None
    assert found.response.startswith("echo: (not shown) \\xe9")
    assert found.response.isascii()
    assert len(found.response) == RESPONSE
    assert b"s3cret" not in (message.value() or b"")


def test_attempts_for_a_missing_topic_are_counted(real_kafka: Kafka, open_log: Open) -> None:
    """Nothing waits or raises. The log has a line once a minute. Once the topic exists, attempts are written again."""
    settings = real_kafka.settings(allow_auto_create_topics="false")
    topic = unique("missing")
    with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
        patch.setitem(attempt_log._DEFAULTS, "topic.metadata.propagation.max.ms", 300)
        log = open_log(settings, topic)

        def poll() -> None:
            log.poll(time.monotonic())

        for number in range(5):
            log.report(delivery(offset=number), "delivered", Delivered(200), NOW, 0.1)
        eventually(lambda: log.dropped == 5, every=0.01, meanwhile=poll)
        log.report(delivery(), "delivered", Delivered(200), NOW, 0.1)
        eventually(lambda: log.dropped == 6, every=0.01, meanwhile=poll)
    lines = [each for each in logs if each["event"].startswith("attempts are missing")]
    assert [each["topic"] for each in lines] == [topic]
    assert log.fault is None
    real_kafka.topic(topic, partitions=4)

    def reported() -> bool:
        before = log.dropped
        log.report(delivery(9), "delivered", Delivered(200), NOW, 0.1)
        log.close()  # waits for the answer
        return log.dropped == before

    eventually(reported, every=0.01, meanwhile=poll)
    assert {message.key() for message in real_kafka.read(topic, 1)} == {b"9"}


def test_a_full_queue_drops_at_once(open_log: Open) -> None:
    """Without a broker, attempts beyond the queues are dropped without waiting, and the rest when the worker stops."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", properties={"log.level": "0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attempt_log._FIXED, "queue.buffering.max.messages", 10)
        log = open_log(settings, "attempts")
    for number in range(30):
        log.report(delivery(offset=number), "delivered", Delivered(200), NOW, 0.1)
        log.poll(0.0)
    assert log.dropped == 19  # one is in the round that was sent
    log.close()
    assert log.dropped == 30


def test_an_attempt_that_cannot_be_written_is_dropped(mock_kafka: str, open_log: Open) -> None:
    """Text that JSON cannot hold, a time beyond the calendar, or a record that is too large raises no exception."""
    kafka = Kafka(mock_kafka, real=False)
    log = open_log(kafka.settings(), kafka.topic())
    log.report(delivery(), "retried", Failed("\ud800"), NOW, 0.1)
    log.report(delivery(), "retried", Failed("reset"), 1e18, 0.1)
    log.report(delivery(), "retried", Failed("x" * 2_000_000), NOW, 0.1)
    assert log.dropped == 3


def test_what_waits_for_attempts_goes_on_once_kafka_has_them(kafka: Kafka, open_log: Open) -> None:
    """It goes on in order, each after its own attempt: no crash then loses the proof of a delivery."""
    topic, went_on = kafka.topic(partitions=4), list[int]()
    log = open_log(kafka.settings(), topic)
    for number in range(3):
        log.report(delivery(number, offset=number), "delivered", Delivered(200), NOW, 0.1)
        log.once_written(partial(went_on.append, number))
        log.poll(float(number))
    assert went_on == []
    assert log.busy
    eventually(lambda: not log.busy, every=0.01, meanwhile=lambda: log.poll(time.monotonic()))
    assert went_on == [0, 1, 2]
    assert {message.key() for message in kafka.read(topic, 3)} == {b"0", b"1", b"2"}


def test_nothing_waits_for_attempts_that_kafka_does_not_take(open_log: Open) -> None:
    """All goes on once Kafka has not taken an attempt in time, and later deliveries wait no more."""
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", properties={"log.level": "0"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attempt_log._FIXED, "delivery.timeout.ms", 300)
        log, went_on = open_log(settings, "attempts"), list[int]()
    for number in range(3):
        log.report(delivery(offset=number), "delivered", Delivered(200), NOW, 0.1)
        log.once_written(partial(went_on.append, number))
        log.poll(float(number))
        assert went_on == []
    eventually(lambda: not log.busy, every=0.01, meanwhile=lambda: log.poll(time.monotonic()))
    assert went_on == [0, 1, 2]
    log.once_written(partial(went_on.append, 3))
    assert went_on == [0, 1, 2, 3]
    assert log.fault is None


def test_what_waits_when_the_worker_stops_is_never_done(open_log: Open) -> None:
    """The next owner delivers again what has no proof, and no row or offset moves without one."""
    settings, went_on = KafkaSettings(bootstrap_servers="127.0.0.1:1", properties={"log.level": "0"}), list[int]()
    log = open_log(settings, "attempts")
    log.report(delivery(), "delivered", Delivered(200), NOW, 0.1)
    log.once_written(partial(went_on.append, 0))
    log.close()
    assert (went_on, log.dropped) == ([], 1)
