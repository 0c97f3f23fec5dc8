"""Reading partitions at chosen positions: from there to the log's end, and what the log has lost.

The simulation's reader passes the same tests as the one on a real Kafka, but for what its log has not.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol, cast

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Undecodable
from consumer.intake.cursor_reader import CursorReader, RemovedRecords
from consumer.intake.decode import decode
from consumer.intake.record import Record
from tests.intake.raw_producer import SMALL_READS, write_bomb
from tests.kafka_kit import QUIET, Kafka
from tests.simulation.world import TOPIC, SimulatedReader, World
from tests.waiting import eventually


class Reading:
    """A reader of partition 0 of a topic, and the records that it has returned."""

    def __init__(self, reader: CursorReader | SimulatedReader, topic: str) -> None:
        self.reader, self.here = reader, (topic, 0)
        self.records: list[Record] = []

    def at(self, offset: int) -> "Reading":
        self.records.clear()
        self.reader.seek(self.here, offset)
        return self

    def until(self, position: int) -> "Reading":
        """Read until `position` is the next offset."""
        eventually(
            lambda: self.reader.positions[self.here] == position,
            meanwhile=lambda: self.records.extend(self.reader.read(100)),
            otherwise=lambda: (self.reader.positions, self.reader.fault),
        )
        return self

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


class Log(Protocol):
    """Partition 0 of a new topic."""

    def write(self, number: int) -> None:
        """Append so many records."""

    def remove_before(self, offset: int) -> None:
        """What retention does: the log begins at `offset` from now on."""

    def reading(self) -> Reading:
        """A new reader."""


class RealLog:
    """On a real Kafka."""

    def __init__(self, kafka: Kafka, stack: ExitStack) -> None:
        self._kafka, self._stack = kafka, stack
        self.topic = kafka.topic()

    def write(self, number: int) -> None:
        self._kafka.write(self.topic, [b"{}"] * number)

    def remove_before(self, offset: int) -> None:
        admin = AdminClient({"bootstrap.servers": self._kafka.servers, **QUIET})
        for answer in admin.delete_records([TopicPartition(self.topic, 0, offset)]).values():
            answer.result(20)

    def reading(self, **properties: str) -> Reading:
        """`a_b` becomes the property `a.b`."""
        reader = CursorReader(self._kafka.settings(**properties))
        self._stack.callback(reader.close)
        return Reading(reader, self.topic)


class SimulatedLog:
    """In the simulation of a worker."""

    def __init__(self, world: World) -> None:
        self._world = world

    def write(self, number: int) -> None:
        for _ in range(number):
            self._world.write(0, b"{}")

    def remove_before(self, offset: int) -> None:
        self._world.removed[TOPIC, 0] = offset

    def reading(self) -> Reading:
        return Reading(SimulatedReader(self._world), TOPIC)


@pytest.fixture
def real_log(real_kafka: Kafka) -> Iterator[RealLog]:
    with ExitStack() as stack:
        yield RealLog(real_kafka, stack)


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Log:
    if request.param == "simulated":
        return SimulatedLog(World(request.getfixturevalue("engine")))
    return cast("Log", request.getfixturevalue("real_log"))


def test_a_partition_is_read_where_the_caller_says(log: Log) -> None:
    """A seek leaves nothing of what was fetched for the position before it; a dropped partition returns nothing."""
    log.write(50)
    reading = log.reading().at(10).until(50)
    assert reading.offsets == list(range(10, 50))
    assert reading.at(40).until(50).offsets == list(range(40, 50))
    reading.at(0)
    reading.reader.read(100)
    assert reading.at(45).until(50).offsets == [45, 46, 47, 48, 49]
    log.write(1)
    assert reading.until(51).offsets[-1] == 50
    reading.reader.drop([reading.here])
    assert not reading.reader.positions
    assert not reading.reader.read(100)
    assert not reading.reader.removed
    assert not reading.reader.restarted


def test_a_position_at_the_logs_end_waits_for_its_record(log: Log) -> None:
    """A cursor that has caught up reads there."""
    log.write(3)
    reading = log.reading().at(3)
    reading.reader.read(100)
    log.write(1)
    assert reading.until(4).offsets == [3]
    assert not reading.reader.removed
    assert not reading.reader.restarted


def test_what_retention_took_is_counted(log: Log) -> None:
    """A position that the log no longer holds: the missing offsets are named, and reading begins after them."""
    log.write(20)
    log.remove_before(15)
    reading = log.reading().at(5).until(20)
    assert reading.offsets == [15, 16, 17, 18, 19]
    assert reading.reader.removed == [RemovedRecords(reading.here, 5, 15)]
    log.remove_before(20)
    reading.reader.removed.clear()
    assert reading.at(17).until(20).offsets == []
    assert reading.reader.removed == [RemovedRecords(reading.here, 17, 20)]


def test_a_log_that_ends_before_the_position_has_begun_again(log: Log) -> None:
    """As after a topic was made again: the caller is told that the position means nothing, and gets its records."""
    log.write(3)
    reading = log.reading().at(100).until(3)
    assert reading.reader.restarted == {reading.here}
    assert reading.offsets == [0, 1, 2]
    assert not reading.reader.removed


def test_a_transactions_marker_moves_the_position(real_kafka: Kafka, real_log: RealLog) -> None:
    """The end of the log is reached although its last offset holds no record."""
    producer = real_kafka.transactional()
    producer.begin_transaction()
    producer.produce(real_log.topic, b"{}", partition=0)
    producer.commit_transaction(20)
    assert real_log.reading().at(0).until(2).offsets == [0]


def test_an_unreadable_batch_is_given_up_record_by_record(real_kafka: Kafka, real_log: RealLog) -> None:
    """It does not stop the records behind it."""
    real_log.write(1)
    write_bomb(real_kafka.servers, real_log.topic)
    real_log.write(1)
    reading = real_log.reading(**SMALL_READS).at(0).until(3)
    assert reading.offsets == [0, 1, 2]
    with pytest.raises(Undecodable):
        decode(reading.records[1])
