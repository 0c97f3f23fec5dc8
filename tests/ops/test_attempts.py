"""The attempt history on a real Kafka: the last hour from memory, older attempts on demand."""

import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable
from consumer.events.attempt import Attempt, key_of, render
from consumer.intake.log_reader import LogReader
from consumer.ledger.replays import Span
from consumer.ops import attempt_pages, attempt_statistics, attempts
from consumer.ops.attempt_pages import Position, Wanted
from consumer.ops.attempt_statistics import HOUR, WINDOWS
from consumer.ops.attempts import AttemptHistory
from consumer.ops.walk import Bounds
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import Kafka, unique, until

Open = Callable[[KafkaSettings, str], AttemptHistory]
PARTITIONS = 3
DAY = 24 * HOUR


class Written:
    """A topic to which attempts are written with chosen times."""

    def __init__(self, kafka: Kafka, topic: str = "") -> None:
        self.kafka = kafka
        self.settings = kafka.settings()
        self.topic = topic or kafka.topic(partitions=PARTITIONS)
        self.now = time.time()

    def add(
        self,
        subscription: int,
        *ages: float,
        outcome: str = "delivered",
        source: str = "",
        webhook_id: str = "msg_1",
        tenant: str | None = None,
    ) -> None:
        """Writes an attempt for each age (seconds), in this order; its record's offset is the age."""
        key = key_of(subscription)
        for age in ages:
            at = self.now - age
            attempt = Attempt(
                at, subscription, webhook_id, "a", tenant, "t", 0, int(age), 1, outcome, 200, None, 0.1, None
            )
            value = render(attempt, source or self.settings.event_source, "id")
            number = zlib.crc32(key) % PARTITIONS
            stamp = int(at * 1000)
            self.kafka._producer.produce(self.topic, value, key, number, timestamp=stamp, on_delivery=stored)
        assert self.kafka._producer.flush(20) == 0


def stored(error: object, _: object) -> None:
    """Fails where the record is written, not where it is missed."""
    assert error is None, error


def ages(written: Written, found: list[Attempt]) -> list[int]:
    """The ages of these attempts, in seconds."""
    return [round(written.now - each.at) for each in found]


@pytest.fixture
def open_history() -> Iterator[Open]:
    """Starts histories, and closes them after the test."""
    made: list[AttemptHistory] = []

    def make(kafka: KafkaSettings, topic: str) -> AttemptHistory:
        made.append(AttemptHistory(kafka, topic))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_last_hour_is_in_memory(real_kafka: Kafka, open_history: Open) -> None:
    """New attempts are read continuously, older ones stay on the topic, and foreign or broken records are counted."""
    written = Written(real_kafka)
    written.add(1, 5000, 3000, 60)
    written.add(2, 4000, 50, outcome="parked")
    history = open_history(written.settings, written.topic)
    until(lambda: len(history.recent(None, 9)) == 3)
    assert history.fault is None
    assert ages(written, history.recent(None, 9)) == [50, 60, 3000]
    assert ages(written, history.recent(1, 1)) == [60]
    real_kafka.write(written.topic, [b"broken", None, b"{}"])
    written.add(1, 2, source="kafka-webhooks/another-group")
    written.add(1, 1)
    until(lambda: len(history.recent(1, 9)) == 3)
    until(lambda: history.skipped == 4)
    assert sum(each.ok for each in history.summary(1)) == 3
    assert sum(each.failed for each in history.summary(None)) == 1


def test_partitions_that_are_added_are_found(
    real_kafka: Kafka, open_history: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is a topic created after the start; until then `fault` says what to do."""
    monkeypatch.setattr(attempts, "LOOK_EVERY", 0.5)
    monkeypatch.setattr(attempts, "AGAIN", 0.3)
    written = Written(real_kafka, unique("later"))
    history = open_history(written.settings, written.topic)
    advice = "or this user may not read it: create it, allow Read, or correct KAFKA_ATTEMPTS_TOPIC"
    until(lambda: history.fault == f"attempt history: the topic {written.topic} does not exist, {advice}")
    real_kafka.topic(written.topic, partitions=PARTITIONS)
    until(lambda: history.fault is None)
    written.add(1, 3)
    until(lambda: history.recent(1, 9))


def test_it_goes_on_after_an_outage(one_node: KafkaBroker, open_history: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fault` says that no broker answers. Attempts read before stay, once, and new ones follow."""
    monkeypatch.setattr(attempts, "AGAIN", 0.3)
    written = Written(Kafka(one_node.bootstrap, real=True))
    written.add(1, 3)
    history = open_history(written.settings, written.topic)
    until(lambda: history.recent(1, 9))
    one_node.kill()
    until(lambda: "no Kafka broker reachable" in (history.fault or ""))
    assert len(history.recent(1, 9)) == 1
    one_node.restart()
    written.add(1, 2)
    until(lambda: len(history.recent(1, 9)) == 2, timeout=120)
    until(lambda: history.fault is None)


def test_a_new_client_continues_where_the_last_one_stopped(
    real_kafka: Kafka, open_history: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that only a new client resolves, no attempt counts twice."""
    monkeypatch.setattr(attempts, "AGAIN", 0.1)
    written = Written(real_kafka)
    written.add(1, 3, 2)
    history = open_history(written.settings, written.topic)
    until(lambda: len(history.recent(1, 9)) == 2)
    with monkeypatch.context() as patch:
        patch.setattr("consumer.ops.attempts.parse", lambda *_: 1 / 0)
        written.add(1, 9)
        until(lambda: history.fault == "attempt history: ZeroDivisionError: division by zero")
    written.add(1, 1)
    until(lambda: len(history.recent(1, 9)) == 3)


def walked(history: AttemptHistory, wanted: Wanted, limit: int) -> list[list[Attempt]]:
    """Its pages, as a client walks them: a cursor is JSON."""
    pages: list[list[Attempt]] = []
    position = None
    while not pages or position is not None:
        page = history.page(wanted, limit, position)
        pages.append(page.attempts)
        position = page.position
        if position is not None:
            before, written = json.loads(json.dumps(position))
            position = Position(tuple(before), written)
    return pages


def test_older_attempts_are_read_page_by_page(real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come newest first, of one subscription or all, between two times, whatever a page and a step hold."""
    monkeypatch.setattr(attempt_pages, "STEP", 6)
    written = Written(real_kafka)
    for each in range(30):
        for number in range(3, 0, -1):
            written.add(number, 9000 - 100 * each - number)
    history = AttemptHistory(written.settings, written.topic)
    since, until_ = written.now - 8500.5, written.now - 7000.5
    (whole,) = walked(history, Wanted(None, since, until_), 1000)
    expected = sorted(
        9000 - 100 * each - number
        for number in range(1, 4)
        for each in range(30)
        if 7000.5 < 9000 - 100 * each - number <= 8500.5
    )
    assert ages(written, whole) == expected
    of_two = [each for each in whole if each.subscription_id == 2]
    for subscription, all_of_them in ((None, whole), (2, of_two), (99, [])):
        pages = walked(history, Wanted(subscription, since, until_), 20)
        assert list(itertools.chain(*pages)) == all_of_them
        assert [len(page) for page in pages[:-1]] == [20] * (len(pages) - 1)
    seen = walked(history, Wanted(None, since, until_, lambda each: each.subscription_id == 2), 20)
    assert list(itertools.chain(*seen)) == of_two
    assert walked(history, Wanted(None, written.now + 5, written.now + 9), 4) == [[]]


def test_the_attempts_of_an_event_are_read_from_its_time_on(
    real_kafka: Kafka, open_history: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together with the ones in memory, each once; the list says if there may be later ones."""
    written = Written(real_kafka)
    written.add(1, 9000, 8000, 60)
    written.add(2, 8500, outcome="parked")
    written.add(3, 100, webhook_id="msg_2")
    history = open_history(written.settings, written.topic)
    until(lambda: len(history.recent(None, 9)) == 2)
    found, missing = history.of_event("msg_1", written.now - 8900)
    assert (ages(written, found), missing) == ([60, 8000, 8500], None)
    assert ages(written, history.of_event("msg_2", written.now - 200)[0]) == [100]
    monkeypatch.setattr(attempts, "FORWARD", Bounds(records=2))
    found, missing = history.of_event("msg_1", written.now - 9000)
    assert 60 in ages(written, found)  # from memory
    assert len(found) < 4
    assert missing == "later attempts than the ones that were read in time, if any"


def test_a_page_is_bounded_and_none_is_missing_between_pages(
    real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though few records are read for a page, and those of several workers are not in the order of their times.

    Attempts at the same time are apart by their other members. A partition with few records waits for a busy one.
    """
    monkeypatch.setattr(attempt_pages, "STEP", 20)
    monkeypatch.setattr(attempt_pages, "RECORDS_READ", 40)
    written = Written(real_kafka)
    late = [age + (3.5 if age % 7 == 0 else 0.0) for age in range(60, 0, -1)]
    written.add(1, *late)
    written.add(2, 60, 40)
    written.add(3, *[20] * 5)  # records of one attempt: it need not be repeated
    written.add(4, 20)
    written.add(2, 3)
    history = AttemptHistory(written.settings, written.topic)
    pages = walked(history, Wanted(None, 0.0, written.now), 1000)
    found = list(itertools.chain(*pages))
    assert found == sorted(found, key=attempt_pages.order, reverse=True)
    assert {(each.subscription_id, round(written.now - each.at, 1)) for each in found} == {
        *((1, age) for age in late),
        *((2, float(age)) for age in (60, 40, 3)),
        *((number, 20.0) for number in (3, 4)),
    }
    assert len([each for each in found if each.subscription_id != 3]) == len(late) + 4
    assert len(pages) > 1


def test_pages_get_further_however_many_records_there_are(real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though all records that a page reads are stamped within the time in which they may be out of order."""
    monkeypatch.setattr(attempt_pages, "STEP", 10)
    monkeypatch.setattr(attempt_pages, "RECORDS_READ", 10)
    written = Written(real_kafka)
    written.add(1, *(number / 100 for number in range(100, 0, -1)))
    history = AttemptHistory(written.settings, written.topic)
    pages = walked(history, Wanted(None, 0.0, written.now), 50)
    assert len(list(itertools.chain(*pages))) == 100
    assert 5 < len(pages) < 30


def test_errors_of_reading_back(real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kafka that does not answer, or too slowly, is an error; and so is a topic that does not exist."""
    written, wanted = Written(real_kafka), Wanted(1, 0, time.time() + 60)
    with pytest.raises(KafkaUnavailable, match="does not exist"):
        AttemptHistory(real_kafka.settings(), unique("missing")).page(wanted, 5, None)
    written.add(1, 5)
    monkeypatch.setattr(attempt_pages, "READ_BACK", 0.0)
    with pytest.raises(KafkaUnavailable, match="one subscription"):
        AttemptHistory(written.settings, written.topic).page(wanted, 5, None)
    monkeypatch.setattr("consumer.intake.log_reader._TIMEOUT", 0.5)
    with pytest.raises(KafkaUnavailable):
        AttemptHistory(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "t").page(wanted, 5, None)


def test_the_statistics_of_a_subscription_are_exact_where_the_topic_is_read_whole(real_kafka: Kafka) -> None:
    """They have its attempts of each window, of a tenant its own; and the hours of the last day."""
    written = Written(real_kafka)
    written.add(1, 2 * DAY)
    written.add(1, 2 * DAY - 60, 5 * HOUR, 5 * HOUR - 1, 1800, outcome="parked", tenant="acme")
    written.add(1, 10, 5, 1)
    written.add(1, 4, source="kafka-webhooks/another-group")
    written.add(8, *[20] * 50)  # of the same partition
    history = AttemptHistory(written.settings, written.topic, clock=lambda: written.now)
    found = history.statistics(1)
    assert [(each.hours, each.delivered, each.failed, each.exact) for each in found.windows] == [
        (1, 3, 1, True),
        (24, 3, 3, True),
        (168, 4, 4, True),
    ]
    assert sum(each.delivered + each.failed for each in found.by_hour) == 6
    week = found.windows[2]
    assert (week.share, week.low, week.high, week.sample) == (0.5, 0.5, 0.5, 8)
    assert week.median == pytest.approx(0.1, rel=0.05)
    assert 2 * DAY <= written.now - week.since <= 2 * DAY + HOUR  # where the log begins
    assert [each.failed for each in history.statistics(1, "acme").windows] == [1, 3, 4]
    assert [each.delivered for each in history.statistics(1, "acme").windows] == [0, 0, 0]
    with pytest.raises(KafkaUnavailable, match=r"the topic missing\S* does not exist"):  # not: there are none
        AttemptHistory(real_kafka.settings(), unique("missing")).statistics(1)
    empty = Written(real_kafka)
    nothing = AttemptHistory(empty.settings, empty.topic, clock=lambda: empty.now).statistics(1)
    assert [(each.sample, each.since, each.share) for each in nothing.windows] == [(0, empty.now, None)] * 3
    assert nothing.by_hour == []


def test_the_statistics_of_a_busy_topic_are_estimates(real_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded sample of each hour is read, and once; the next answer goes on where time was too short."""
    monkeypatch.setattr(attempt_statistics, "WHOLE", 60)
    monkeypatch.setattr(attempt_statistics, "SAMPLE", 30)
    written = Written(real_kafka)
    own = [6 * HOUR * number / 600 for number in range(600, 0, -1)]
    for number, age in enumerate(own):
        written.kafka._producer.poll(0)
        written.add(1 if number % 2 else 8, age, outcome="parked" if number % 20 == 1 else "delivered")
    history = AttemptHistory(written.settings, written.topic, clock=lambda: written.now)
    read: list[int] = []
    count = attempt_statistics._counted

    def counted(reader: LogReader, span: Span, *more: Any) -> Any:
        read.append(span.end - span.begin)
        return count(reader, span, *more)

    monkeypatch.setattr(attempt_statistics, "_counted", counted)
    none = history.statistics(1, seconds=0.0)
    assert (none.windows, none.by_hour, none.unread > WINDOWS[-1]) == ([], [], True)
    with monkeypatch.context() as patch:  # time is up within a run
        patch.setattr(attempt_statistics, "walk", lambda reader, spans, _: reader.start(spans) or ())
        assert history.statistics(1).windows == []
    read.clear()
    found = history.statistics(1)
    day = found.windows[1]
    assert (day.exact, found.unread) == (False, 0)
    assert sum(read) <= 8 * 60
    assert 200 < day.delivered + day.failed < 400  # of 300
    assert day.low is not None
    assert day.high is not None
    assert day.low <= 0.9 <= day.high
    first = sum(read)
    read.clear()
    assert history.statistics(1).windows[1] == day
    assert sum(read) < first  # complete hours are kept
