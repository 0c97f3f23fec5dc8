"""The worker on real parts: librdkafka's mock cluster, a database and a receiver, with the loop in a test thread."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
from confluent_kafka import TopicPartition
from prometheus_client import generate_latest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from standardwebhooks import Webhook

from consumer.config.environment import load
from consumer.config.settings import DatabaseSettings, DeliverySettings, KafkaSettings
from consumer.intake.record import AssignedPartition, Record
from consumer.schemas.wire_format import Decode, SchemaId
from consumer.subscriptions import repository
from consumer.telemetry.metrics import Metrics, registry
from consumer.worker.wiring import WorkerParts
from consumer.worker.worker import Worker
from tests.databases import url_of
from tests.end_to_end.webhook_receiver import Receiver
from tests.kafka_kit import Kafka, unique
from tests.ledger.rows_kit import query, states
from tests.waiting import eventually

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

    def dead_letters(self, number: int) -> list[bytes]:
        """The first values on the dead-letter topic."""
        return [each.value() or b"" for each in self.kafka.read(self.settings.dead_letter_topic, number)]

    def committed(self) -> int:
        """The group's committed offset of partition 0; negative if there is none."""
        return self.kafka.committed(self.settings.group_id, self.topic)[0]


@pytest.fixture
def rig(mock_kafka: str, engine: Engine) -> Iterator[Rig]:
    """A deployment without a worker."""
    with Receiver() as receiver:
        result = Rig(mock_kafka, engine, receiver)
        yield result
        result.end()


def events(number: int, event_type: str = "a") -> Sequence[bytes]:
    """This many different bodies."""
    return [b'{"type": "%s", "n": %d}' % (event_type.encode(), each) for each in range(number)]


def test_events_arrive_signed_and_are_then_committed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each subscription gets each event once, byte for byte, with a signature that a receiver's library accepts.

    Unwanted records, undecodable ones, which are dead letters, and tombstones move the offset, too.
    """
    rig.subscribe("/one")
    rig.subscribe("/two")
    bodies, bad = events(20), [b"no JSON", b"", b"\xff"]
    rig.write(*events(3, "nobody"), *bad, None, *bodies, None)
    rig.start(monkeypatch)
    eventually(lambda: len(rig.receiver.requests) == 40)
    assert sorted(rig.dead_letters(3)) == sorted(bad)
    eventually(lambda: rig.worker.readings().commits)
    rig.stop()
    assert rig.committed() == 28
    for path in ("/one", "/two"):
        requests = rig.receiver.at(path)
        assert sorted(request.body for request in requests) == sorted(bodies)
        for request in requests:
            Webhook(SECRET).verify(request.body, request.headers)
    assert rig.metrics.events == {"matched": 20, "unmatched": 3, "dead_lettered": 3, "tombstone": 2}
    assert rig.metrics.deliveries == {"delivered": 40}


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
        eventually(partial(delivered, 60 * batch))
    eventually(lambda: set(rig.worker.readings().oldest_unsettled.values()) == {0.0})
    now = rig.worker.readings()
    rig.stop()
    assert 0 <= min(ages) <= max(ages) < 60
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
    eventually(lambda: rig.receiver.requests)
    poll, waits = worker.parts.source.poll, []

    def polled(limit: int, timeout: float) -> list[Record]:
        if worker.parts.lanes.ready():
            waits.append(timeout)
        return poll(limit, timeout)

    monkeypatch.setattr(worker.parts.source, "poll", polled)
    rig.write(*events(50))
    eventually(lambda: len(rig.receiver.requests) == 51)
    assert waits
    assert not any(waits)


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
    eventually(lambda: states(rig.engine) and rig.receiver.requests)
    rig.stop()
    assert states(rig.engine) == {0: "parked"}
    assert query(rig.engine, "SELECT attempt FROM webhook_deliveries") == [(0,)]
    assert rig.committed() == 1


def test_a_name_with_a_forbidden_address_gets_no_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the address shows it. The delivery is stored without an attempt."""
    rig.subscribe("/one")
    with rig.engine.begin() as connection:
        connection.execute(text("UPDATE webhook_subscriptions SET url = REPLACE(url, '127.0.0.1', 'localhost')"))
    rig.write(*events(1))
    rig.start(monkeypatch, WEBHOOK_ALLOW_NETWORKS="127.0.0.2/32")
    eventually(lambda: states(rig.engine))
    rig.stop()
    assert query(rig.engine, "SELECT status, attempt FROM webhook_deliveries") == [("parked", 0)]
    assert not rig.receiver.requests
