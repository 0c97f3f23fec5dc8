"""Reading partitions at chosen positions on a real Kafka: from there to the log's end, and what the log has lost."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from consumer.errors import Undecodable
from consumer.intake.cursor_reader import CursorReader, RemovedRecords
from consumer.intake.decode import decode
from consumer.intake.record import Record
from tests.intake.raw_producer import SMALL_READS, write_bomb
from tests.kafka_kit import QUIET, Kafka
from tests.waiting import eventually


class Reading:
    """A reader and the records that it has returned."""

    def __init__(self, reader: CursorReader, topic: str) -> None:
        self.reader, self.here = reader, (topic, 0)
        self.records: list[Record] = []

    def at(self, offset: int) -> "Reading":
        self.records.clear()
        self.reader.seek(self.here, offset)
        return self

    def until(self, position: int) -> "Reading":
        """Read until `position` is the next offset."""
        eventually(
            lambda: self.reader.positions[self.here] >= position,
            meanwhile=lambda: self.records.extend(self.reader.read(100)),
            otherwise=lambda: (self.reader.positions, self.reader.fault),
        )
        return self

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


Open = Callable[..., Reading]


@pytest.fixture
def reading(real_kafka: Kafka) -> Iterator[Open]:
    """Opens readers of a topic, and closes them in the end."""
    with ExitStack() as stack:

        def opened(topic: str, **properties: str) -> Reading:
            reader = CursorReader(real_kafka.settings(**properties))
            stack.callback(reader.close)
            return Reading(reader, topic)

        yield opened


def remove_before(kafka: Kafka, topic: str, offset: int) -> None:
    """What retention does: the log begins at `offset` from now on."""
    admin = AdminClient({"bootstrap.servers": kafka.servers, **QUIET})
    for answer in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        answer.result(20)


def test_a_partition_is_read_where_the_caller_says(real_kafka: Kafka, reading: Open) -> None:
    """A seek leaves nothing of what was fetched for the position before it; a dropped partition returns nothing."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"%d" % number for number in range(50)])
    log = reading(topic).at(10).until(50)
    assert log.offsets == list(range(10, 50))
    assert log.at(40).until(50).offsets == list(range(40, 50))
    log.at(0)
    log.reader.read(100)
    assert log.at(45).until(50).offsets[-5:] == [45, 46, 47, 48, 49]
    log.reader.drop([log.here])
    assert not log.reader.positions
    assert not log.reader.read(100)


def test_a_transactions_marker_moves_the_position(real_kafka: Kafka, reading: Open) -> None:
    """The end of the log is reached although its last offset holds no record."""
    topic = real_kafka.topic()
    producer = real_kafka.transactional()
    producer.begin_transaction()
    producer.produce(topic, b"{}", partition=0)
    producer.commit_transaction(20)
    assert reading(topic).at(0).until(2).offsets == [0]


def test_what_retention_took_is_counted(real_kafka: Kafka, reading: Open) -> None:
    """A position that the log no longer holds: the missing offsets are named, and reading begins after them."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"{}"] * 20)
    remove_before(real_kafka, topic, 15)
    log = reading(topic).at(5).until(20)
    assert log.offsets == [15, 16, 17, 18, 19]
    assert log.reader.removed == [RemovedRecords(log.here, 5, 15)]
    remove_before(real_kafka, topic, 20)
    log.reader.removed.clear()
    assert log.at(17).until(20).offsets == []
    assert log.reader.removed == [RemovedRecords(log.here, 17, 20)]


def test_a_log_that_ends_before_the_position_has_begun_again(real_kafka: Kafka, reading: Open) -> None:
    """As after a topic was made again: the position means nothing there, and the caller is told."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"{}"] * 3)
    log = reading(topic).at(100)
    eventually(lambda: log.reader.restarted, meanwhile=lambda: log.reader.read(100))
    assert log.reader.restarted == {log.here}


def test_an_unreadable_batch_is_given_up_record_by_record(real_kafka: Kafka, reading: Open) -> None:
    """It does not stop the records behind it."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"{}"])
    write_bomb(real_kafka.servers, topic)
    real_kafka.write(topic, [b"{}"])
    log = reading(topic, **SMALL_READS).at(0).until(3)
    assert log.offsets == [0, 1, 2]
    with pytest.raises(Undecodable):
        decode(log.records[1])
