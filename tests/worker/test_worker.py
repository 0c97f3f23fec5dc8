"""The worker on real parts: librdkafka's mock cluster, a database and a receiver, with the loop in a test thread."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from prometheus_client import generate_latest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.events.event import Event
from consumer.intake.decode import decode
from consumer.intake.record import AssignedPartition, Record
from consumer.schemas.wire_format import Decode, SchemaId
from consumer.subscriptions import repository
from consumer.telemetry.metrics import Metrics, registry
from consumer.worker.wiring import WorkerParts
from consumer.worker.worker import Worker
from tests.databases import url_of
from tests.end_to_end.webhook_receiver import Answer, Receiver, always
from tests.kafka_kit import QUIET, Kafka, unique

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Rig:
    """A topic, a database and a receiver, and the worker, which runs in a thread once it is started."""

    def __init__(self, servers: str, engine: Engine, receiver: Receiver) -> None:
        self.kafka = Kafka(servers, real=False)
        self.engine = engine
        self.receiver = receiver
        self.topic = unique("topic")
        # On the mock cluster a classic group takes 3 s to begin, and never rebalances to later members.
        self.settings: KafkaSettings = self.kafka.settings(group_protocol="consumer")
        self.metrics = Metrics()
        self.load_schema: Callable[[SchemaId], Decode] | None = None
        self._calls: deque[Callable[[], None]] = deque()
        self._errors: list[BaseException] = []

    def subscribe(self, path: str, event_type: str = "a") -> int:
        """Subscribe the receiver's path to this type."""
        return repository.add(self.engine, self.receiver.url(path), event_type)

    def write(self, *values: bytes | None) -> None:
        """Records of partition 0."""
        self.kafka.write(self.topic, values)

    def start(self, monkeypatch: pytest.MonkeyPatch, **delivery: str) -> Worker:
        """Start a worker. `on_loop` calls run inside `Source.poll`, as rebalance callbacks do."""
        values = {
            "WEBHOOK_SECRET": SECRET,
            "WEBHOOK_ALLOW_NETWORKS": "127.0.0.0/8",
            "WEBHOOK_RETRY_SCHEDULE": "0.1,60",
            "WEBHOOK_RETRY_JITTER": "0",
            "WEBHOOK_DRAIN": "5",
        }
        database = DatabaseSettings(url=SecretStr(url_of(self.engine)), db_schema=None, encryption_key=None)
        settings = load(DeliverySettings, values | delivery)
        self.worker = Worker(
            partial(
                WorkerParts, self.settings, [self.topic], database, settings, self.metrics, load_schema=self.load_schema
            )
        )
        poll = self.worker.parts.source.poll

        def polled(limit: int, timeout: float) -> list[Record]:
            while self._calls:
                self._calls.popleft()()
            return poll(limit, timeout)

        monkeypatch.setattr(self.worker.parts.source, "poll", polled)
        self._thread = threading.Thread(target=self._run, name="loop")
        self._thread.start()
        return self.worker

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:  # noqa: BLE001 (the test's thread raises it)
            self._errors.append(error)

    def on_loop(self, call: Callable[[], None]) -> None:
        """Run a call on the loop's thread and wait for its result."""
        done = threading.Event()

        def run() -> None:
            call()
            done.set()

        self._calls.append(run)
        assert done.wait(60)

    def owned(self) -> list[AssignedPartition]:
        """The partitions owned now."""
        return list(self.worker.parts.source.partitions.values())

    def revoke(self) -> None:
        """Revoke all partitions, as librdkafka does."""
        source = self.worker.parts.source
        source._on_revoke(source._consumer, [TopicPartition(each.topic, each.number) for each in self.owned()])

    def stop(self) -> None:
        """Stop, and wait until `run` returns."""
        self.worker.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self._errors:
            raise self._errors.pop()

    def end(self) -> None:
        """Leave no thread running, whatever the test has done."""
        if hasattr(self, "_thread") and self._thread.is_alive():
            self.stop()

    def committed(self) -> int:
        """The group's committed offset of partition 0; negative if there is none."""
        return self.kafka.committed(self.settings.group_id, self.topic)[0]

    def rows(self) -> list[tuple[Any, ...]]:
        """Offset, status, attempts and last error of each stored delivery."""
        with self.engine.connect() as connection:
            found = connection.execute(
                text("SELECT record_offset, status, attempt, last_error FROM webhook_deliveries ORDER BY record_offset")
            )
            return [tuple(row) for row in found]


@pytest.fixture
def rig(mock_kafka: str, engine: Engine) -> Iterator[Rig]:
    """A deployment without a worker."""
    with Receiver() as receiver:
        result = Rig(mock_kafka, engine, receiver)
        yield result
        result.end()


def until(condition: Callable[[], object], timeout: float = 120.0) -> None:
    """Wait for a condition that other threads bring about."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def events(number: int, event_type: str = "a") -> Sequence[bytes]:
    """This many different bodies."""
    return [b'{"type": "%s", "n": %d}' % (event_type.encode(), each) for each in range(number)]


def dead_letters(rig: Rig, number: int) -> list[bytes | None]:
    """The first values on the dead-letter topic."""
    reader = Consumer({"bootstrap.servers": rig.kafka.servers, "group.id": unique("reader"), **QUIET})
    reader.assign([TopicPartition(rig.settings.dead_letter_topic, each, OFFSET_BEGINNING) for each in range(4)])
    messages = reader.consume(number, 15)
    reader.close()
    return [message.value() for message in messages]


def test_events_arrive_signed_and_are_then_committed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each subscription gets each event once, byte for byte, with a signature that a receiver's library accepts."""
    rig.subscribe("/one")
    rig.subscribe("/two")
    bodies = events(20)
    rig.write(*bodies)
    rig.start(monkeypatch)
    until(lambda: len(rig.receiver.requests) == 40)
    until(lambda: rig.worker.readings().commits)
    rig.stop()
    assert rig.committed() == 20
    for path in ("/one", "/two"):
        requests = rig.receiver.at(path)
        assert sorted(request.body for request in requests) == sorted(bodies)
        for request in requests:
            Webhook(SECRET).verify(request.body, request.headers)
    assert rig.metrics.events == {"matched": 20}
    assert rig.metrics.deliveries == {"delivered": 40}
    assert rig.rows() == []


def test_scrapes_do_not_disturb_the_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread gets an answer a hundred times a second, and the loop goes on."""
    rig.subscribe("/one")
    rig.subscribe("/two")
    rig.write(*events(1, "nobody's"))  # the mock cluster assigns no topic created after the group
    rig.start(monkeypatch)
    exposed = registry(rig.metrics, rig.worker.readings)
    ages: list[float] = []

    def delivered(number: int) -> bool:
        generate_latest(exposed)
        ages.extend(rig.worker.readings().oldest_unsettled.values())
        return len(rig.receiver.requests) >= number

    for batch in range(1, 6):
        rig.write(*events(30))
        until(partial(delivered, 60 * batch))
    until(lambda: set(rig.worker.readings().oldest_unsettled.values()) == {0.0})
    now = rig.worker.readings()
    rig.stop()
    assert 0 < max(ages) < 60
    assert now.ready
    assert sum(now.database_seconds["lookups"].counts) > 0
    assert now.database_errors["lookups"] == {}
    assert now.loop_lag is not None
    assert sum(now.loop_lag.histogram.counts) > 10
    assert len(rig.receiver.requests) == 300


def test_the_next_request_does_not_wait_for_records(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one slot and all records read, a poll that waits for records must not hold up the next request."""
    rig.subscribe("/one")
    rig.write(*events(1))
    worker = rig.start(monkeypatch, WEBHOOK_MAX_IN_FLIGHT="1")
    until(lambda: rig.receiver.requests)
    poll, waits = worker.parts.source.poll, []

    def polled(limit: int, timeout: float) -> list[Record]:
        if worker.parts.lanes.ready():
            waits.append(timeout)
        return poll(limit, timeout)

    monkeypatch.setattr(worker.parts.source, "poll", polled)
    rig.write(*events(50))
    until(lambda: len(rig.receiver.requests) == 51)
    assert waits
    assert not any(waits)


def test_unwanted_events_are_committed_and_invalid_ones_are_dead_lettered_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unmatched records, undecodable records and tombstones all move the offset.

    Undecodable ones are in the dead-letter topic, unchanged. Tombstones are only counted.
    """
    rig.subscribe("/one")
    rig.write(*events(3, "nobody"), b"no JSON", None, *events(1), b"", b"\xff", None)
    rig.start(monkeypatch)
    until(lambda: rig.receiver.requests)
    assert sorted(dead_letters(rig, 3), key=str) == [b"", b"\xff", b"no JSON"]
    rig.stop()
    assert rig.committed() == 9
    assert rig.metrics.events == {"unmatched": 3, "dead_lettered": 3, "matched": 1, "tombstone": 2}


def test_a_bug_of_a_decoder_makes_a_dead_letter_of_its_record(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a record would end one worker after the other. The log shows the place in the code, and no payload."""

    def failing(record: Record, *more: Any) -> Event:
        if record.value == b"bug":
            raise RuntimeError(record.value.decode() + "gy payload")
        return decode(record, *more)

    monkeypatch.setattr("consumer.worker.polling.decode", failing)
    rig.subscribe("/one")
    rig.write(*events(1), b"bug", *events(1))
    with capture_logs() as logs:
        rig.start(monkeypatch)
        until(lambda: len(rig.receiver.requests) == 2)
        assert dead_letters(rig, 1) == [b"bug"]
        rig.stop()
    assert rig.committed() == 3
    failed, undecodable = (entry for entry in logs if "decod" in entry["event"])
    assert (undecodable["reason"], undecodable["record"]) == ("error", failed["record"])
    assert "in failing" in failed["exception"]
    assert "payload" not in str((failed["error"], undecodable["error"]))


def test_a_revoke_waits_for_open_requests_and_commits_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request starts. Open ones end and are committed before the callback returns. Other records are not started."""
    rig.subscribe("/slow")
    rig.receiver.rules["/slow"] = always(Answer(delay=0.5))
    rig.write(*events(20))
    rig.start(monkeypatch, WEBHOOK_MAX_IN_FLIGHT="8")  # one lane takes half of the slots
    until(lambda: len(rig.receiver.requests) == 4)
    rig.on_loop(rig.revoke)
    assert rig.metrics.deliveries == {"delivered": 4}
    assert rig.committed() == 4
    for _ in range(20):  # turns
        rig.on_loop(lambda: None)
    assert len(rig.receiver.requests) == 4
    assert rig.rows() == []
    rig.stop()
    assert rig.committed() == 4


def test_a_stop_drains_and_a_new_worker_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open requests are completed and unstarted records are left. Both workers together send each event once."""
    rig.subscribe("/slow")
    rig.receiver.rules["/slow"] = always(Answer(delay=0.3))
    bodies = events(40)
    rig.write(*bodies)
    rig.start(monkeypatch, WEBHOOK_MAX_IN_FLIGHT="16")
    until(lambda: len(rig.receiver.requests) >= 8)
    rig.stop()
    sent = len(rig.receiver.requests)
    assert sent < 40
    assert rig.committed() == sent == rig.metrics.deliveries["delivered"]
    del rig.receiver.rules["/slow"]
    rig.start(monkeypatch)
    until(lambda: len(rig.receiver.requests) == 40)
    rig.stop()
    assert sorted(request.body for request in rig.receiver.requests) == sorted(bodies)
    assert rig.committed() == 40


def test_without_the_subscriptions_table_events_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up fails, nothing is committed, and the reason is reported. Later all events arrive."""
    rig.subscribe("/one")
    with rig.engine.begin() as connection:
        connection.execute(text("ALTER TABLE webhook_subscriptions RENAME TO away"))
    rig.write(*events(5))
    worker = rig.start(monkeypatch)
    until(lambda: any("the tables are missing or old" in reason for reason in worker.reasons()))
    assert rig.committed() < 0
    with rig.engine.begin() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO webhook_subscriptions"))
    until(lambda: len(rig.receiver.requests) == 5)
    until(lambda: not worker.reasons())
    until(lambda: set(worker.readings().lag) == {(rig.topic, number) for number in range(4)})
    rig.stop()
    assert rig.committed() == 5


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "ftp://example.com/", "nonsense"])
def test_an_invalid_url_costs_no_event_and_affects_no_other(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Its delivery is stored without an attempt, and the offset moves."""
    rig.subscribe("/one")
    with rig.engine.begin() as connection:
        connection.execute(text("INSERT INTO webhook_subscriptions (url, event_type) VALUES (:u, 'a')"), {"u": url})
    rig.write(*events(1))
    rig.start(monkeypatch)
    until(lambda: rig.rows() and rig.receiver.requests)
    rig.stop()
    assert rig.rows() == [(0, "parked", 0, None)]
    assert rig.committed() == 1
