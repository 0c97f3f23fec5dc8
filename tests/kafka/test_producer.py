"""The log and `fault` of a topic that is written to."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, Message
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.kafka.producer import BACK_OFF, SLOW, AcknowledgedTopic, Purpose

WAITS, FAILS, WELL = (
    "Kafka has not acknowledged a record yet; still waiting",
    "not stored; it is sent again",
    "records get through again",
)


class Written:
    """Records on their way to a broker that does not answer. The test answers and sets the time."""

    def __init__(self) -> None:
        self.now = 0.0
        kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
        purpose = Purpose("operations topic", "KAFKA_OPERATIONS_TOPIC", "operational events")
        self.topic = AcknowledgedTopic(kafka, "operations", purpose, {}, lambda: self.now)

    def write(self, *numbers: int) -> None:
        """Send records."""
        for number in numbers:
            self.topic.write(number, b"x", None, [])

    def polled(self, *answers: tuple[int, KafkaError | None], seconds: float = 0.0) -> list[str]:
        """The log lines when these answers arrive after `seconds` and are handled."""
        self.now += seconds
        for number, error in answers:
            self.topic._answered(number, error, cast("Message", None))
        with capture_logs() as logs:
            self.topic.poll()
            while self.topic.answers:
                _, failure = self.topic.answers.popleft()
                if failure is None:
                    self.topic.got_through()
                else:
                    self.topic.failed(failure)
        return [entry["event"] for entry in logs if entry["log_level"] != "debug"]


@pytest.fixture
def written() -> Iterator[Written]:
    """A topic that is closed in the end."""
    made = Written()
    yield made
    made.topic.close()


def test_an_outage_is_logged_once_and_so_is_its_end(written: Written) -> None:
    """The client retries for ever and logs nothing, and for the operations topic there is no other sign."""
    written.write(1, 2)
    assert written.polled(seconds=SLOW) == []
    assert written.polled(seconds=0.1) == [WAITS]
    assert "no acknowledgement for 10 s; operational events wait for it" in (written.topic.fault or "")
    assert [written.polled(seconds=SLOW) for _ in range(3)] == [[], [], []]
    assert written.polled((1, None), (2, None)) == [WELL]
    assert written.topic.fault is None
    written.write(3)
    assert written.polled((3, None)) == []
    written.write(4)
    assert written.polled(seconds=SLOW + 0.1) == [WAITS]


def test_an_outage_ends_when_no_record_waits_for_long(written: Written) -> None:
    """The leader of one partition is gone while others answer: this is one outage, whatever other records succeed."""
    written.write(1)
    assert written.polled(seconds=SLOW + 0.1) == [WAITS]
    for number in (2, 3):
        written.write(number)
        assert written.polled((number, None), seconds=1.0) == []
    assert written.polled((1, None)) == [WELL]


def test_a_failure_is_logged_once_with_its_remedy(written: Written) -> None:
    """After a silence it is logged too, since it has more information."""
    error: Any = KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)
    written.write(1)
    assert written.polled(seconds=SLOW + 0.1) == [WAITS]
    assert written.polled((1, error)) == [FAILS]
    written.write(2)
    assert written.polled((2, error), seconds=SLOW + 0.1) == []
    assert "bring its replicas back" in (written.topic.fault or "")
    written.write(3)
    assert written.polled((3, None)) == [WELL]
    assert written.topic.fault is None


def test_a_producer_that_cannot_go_on_is_replaced(written: Written) -> None:
    """Its pending records fail, with the reason in the log. A new producer is made at most every half a minute."""
    written.now = 1000.0
    for expected_new in (True, False):
        old: Any = written.topic._producer
        written.write(1, 2)
        written.topic._fatal = KafkaError(KafkaError._FATAL, "fenced")
        assert written.polled() == ([FAILS] if expected_new else [])
        assert (written.topic._producer is not old) is expected_new
        assert "fenced" in (written.topic.fault or "")
    assert written.polled(seconds=BACK_OFF[1]) == []
    written.write(3)
    assert written.polled((3, None)) == [WELL]
