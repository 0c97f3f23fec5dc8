"""Reading the log by time on a real Kafka: the first record, the last one, and that reading ends."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.errors import KafkaUnavailable, SettingsError, WebhooksError
from consumer.intake.decode import decode
from consumer.intake.log_reader import LogReader
from consumer.intake.record import Record
from consumer.ledger.replays import Span
from tests.intake.raw_producer import BOMB, SMALL_READS, produce_with_header_name, write_bomb
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, unique
from tests.records import refusal
from tests.waiting import eventually

Open = Callable[[KafkaSettings], LogReader]
BASE = 1_700_000_000  # the records' own timestamps, unix seconds; brokers refuse timestamps in the future


@pytest.fixture
def reader_of() -> Iterator[Open]:
    """Makes readers, and closes them in the end."""
    with ExitStack() as stack:
        yield lambda settings: stack.enter_context(LogReader(settings))


def topic_of(kafka: Kafka, partitions: int = 1, **config: str) -> str:
    """A topic that keeps records with old timestamps."""
    return kafka.topic(partitions=partitions, retention_ms="-1", **config)


def write_at(kafka: Kafka, topic: str, times: Sequence[float], partition: int = 0, base: float = BASE) -> None:
    """Write a record with a timestamp for each of these seconds after `base`. Its value is the second."""
    # Small batches: a batch is fetched as a whole.
    producer = Producer({"bootstrap.servers": kafka.servers, "batch.num.messages": 100, **QUIET})
    refused: list[object] = []

    def answered(error: object, _message: object) -> None:
        refused.append(error)

    for second in times:
        stamp = int((base + second) * 1000)
        producer.produce(topic, b"%g" % second, b"key", partition, timestamp=stamp, on_delivery=answered)
    assert producer.flush(20) == 0
    assert not any(refused)


def read_all(reader: LogReader, limit: int = 100) -> list[Record]:
    """Read everything to the end."""
    return read_until(reader, lambda _: reader.done, limit)


def read_until(reader: LogReader, condition: Callable[[list[Record]], bool], limit: int = 1) -> list[Record]:
    """Read until the condition holds for the records."""
    records: list[Record] = []
    eventually(
        lambda: condition(records),
        meanwhile=lambda: records.extend(reader.read(limit, 0.1)),
        otherwise=lambda: (reader.positions, len(records)),
    )
    return records


def in_a_transaction(kafka: Kafka, topic: str, *how: str) -> Producer:
    """Write a record in a transaction for each of `how`, which is how it ends: commit, abort, or open."""
    producer = kafka.transactional()
    for each in how:
        producer.begin_transaction()
        producer.produce(topic, b"inside", b"key", 0)
        producer.flush(20)
        if each != "open":
            getattr(producer, f"{each}_transaction")(20)
    return producer


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def test_a_time_is_read_from_its_first_record_to_its_last(real_kafka: Kafka, reader_of: Open) -> None:
    """`since` is inclusive, `until` is not. Partitions without such records are left out. The rest is not read."""
    topic = topic_of(real_kafka, 3)
    write_at(real_kafka, topic, [0, 10, 20, 30, 40])
    write_at(real_kafka, topic, [5], partition=1)
    reader = reader_of(real_kafka.settings())
    places = reader.partitions([topic])
    assert places == [(topic, 0), (topic, 1), (topic, 2)]
    spans = reader.spans(places, BASE + 10, BASE + 40)
    assert spans == [(topic, 0, 1, 4)]
    reader.start(spans)
    records = read_all(reader)
    assert values(records) == [b"10", b"20", b"30"]
    assert [record.id[:3] for record in records] == [(topic, 0, offset) for offset in (1, 2, 3)]
    assert (records[0].timestamp, records[0].key) == ((BASE + 10) * 1000, b"key")
    assert reader.positions == {(topic, 0): 4}
    assert reader.read(10, 0.1) == []


def test_without_an_end_time_it_ends_at_the_present_end_of_the_log(real_kafka: Kafka, reader_of: Open) -> None:
    """Records written while it reads are not read."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"1", b"2"])
    reader = reader_of(real_kafka.settings())
    reader.start(reader.spans([(topic, 0)], 0, None))
    real_kafka.write(topic, [b"3"])
    assert values(read_all(reader)) == [b"1", b"2"]


def test_from_the_epoch_on_no_time_is_looked_up(kafka: Kafka, reader_of: Open) -> None:
    """The span begins with the oldest record. The mock cluster would find no record at any time."""
    topic = topic_of(kafka)
    write_at(kafka, topic, [0, 10])
    assert reader_of(kafka.settings()).spans([(topic, 0)], 0.0, None) == [(topic, 0, 0, 2)]


@pytest.mark.parametrize("how", ["commit", "abort"])
def test_transaction_markers_at_the_end_are_skipped(real_kafka: Kafka, reader_of: Open, how: str) -> None:
    """A span that ends with a transaction's markers, or with aborted records, still ends."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"before"])
    in_a_transaction(real_kafka, topic, *[how] * 3)
    reader = reader_of(real_kafka.settings())
    (span,) = reader.spans([(topic, 0)], 0, None)
    assert span.end == 7
    reader.start([span])
    assert values(read_all(reader)) == [b"before"] + [b"inside"] * (3 if how == "commit" else 0)
    assert reader.positions == {(topic, 0): 7}


def test_a_marker_before_the_end_adds_no_record(real_kafka: Kafka, reader_of: Open) -> None:
    """If the last offset before the end is no record, the next record arrives anyway and is left out."""
    topic = topic_of(real_kafka)
    in_a_transaction(real_kafka, topic, "commit")
    now = time.time()  # the broker sets a marker's timestamp
    write_at(real_kafka, topic, [10, 20], base=now)
    reader = reader_of(real_kafka.settings())
    (span,) = reader.spans([(topic, 0)], now - 60, now + 10)
    assert (span.begin, span.end) == (0, 2)
    reader.start([span])
    assert values(read_all(reader)) == [b"inside"]
    assert reader.positions == {(topic, 0): 2}


def test_an_open_transaction_is_not_waited_for(real_kafka: Kafka, reader_of: Open) -> None:
    """The log ends where the first open transaction begins. Workers read its records later."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"before"])
    producer = in_a_transaction(real_kafka, topic, "open")
    reader = reader_of(real_kafka.settings())
    reader.start(reader.spans([(topic, 0)], 0, None))
    assert values(read_all(reader)) == [b"before"]
    producer.abort_transaction(20)


def test_a_read_is_resumed_at_its_positions(real_kafka: Kafka, reader_of: Open) -> None:
    """Spans that begin where another reader stopped return the rest, once. Spans at their end return no record."""
    topic = topic_of(real_kafka, 2)
    for partition in (0, 1):
        write_at(real_kafka, topic, range(10 * (1 - partition) + 3), partition=partition)
    first = reader_of(real_kafka.settings())
    spans = first.spans(first.partitions([topic]), 0, None)
    first.start(spans)
    records = read_until(first, lambda records: len(records) >= 8)
    rest = [span._replace(begin=first.positions[span.topic, span.number]) for span in spans]
    second = reader_of(real_kafka.settings())
    second.start(rest)
    records += read_all(second)
    assert len(records) == len({record.id for record in records}) == 16


def remove_before(kafka: Kafka, topic: str, offset: int) -> None:
    """Remove records at once, as retention does in time."""
    admin = AdminClient({"bootstrap.servers": kafka.servers, **QUIET})
    place = TopicPartition(topic, 0, offset)
    admin.delete_records([place])[place].result(60)


@pytest.mark.parametrize(("begin", "read", "removed"), [(5, [b"5", b"6"], 3), (7, [], 5)], ids=["a part", "the rest"])
def test_records_removed_by_retention_are_counted(
    real_kafka: Kafka, reader_of: Open, begin: int, read: list[bytes], removed: int
) -> None:
    """Records removed since the positions were stored are counted and logged. The remaining ones are read."""
    topic = topic_of(real_kafka)
    write_at(real_kafka, topic, range(8))
    reader = reader_of(real_kafka.settings())
    (span,) = reader.spans([(topic, 0)], 0, None)
    remove_before(real_kafka, topic, begin)
    with capture_logs() as logs:
        reader.start([span._replace(begin=2, end=7)])
        assert values(read_all(reader)) == read
    assert [line["records"] for line in logs if line["log_level"] == "error"] == [removed]


def test_a_recreated_topic_is_an_error(real_kafka: Kafka, reader_of: Open) -> None:
    """Its offsets belong to other records, and reading on would replay these."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"1"])
    reader = reader_of(real_kafka.settings())
    (span,) = reader.spans([(topic, 0)], 0, None)
    reader.start([span._replace(begin=5, end=9)])
    with pytest.raises(WebhooksError, match="recreated"):
        read_all(reader)


def test_a_deleted_topic_is_an_error(real_kafka: Kafka, reader_of: Open) -> None:
    """The reader does not wait for it."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"1"])
    reader = reader_of(real_kafka.settings())
    (span,) = reader.spans([(topic, 0)], 0, None)
    admin = AdminClient({"bootstrap.servers": real_kafka.servers, **QUIET})
    admin.delete_topics([topic])[topic].result(60)
    # The broker may still serve the record for a moment; the span lacks another record in either case.
    reader.start([span._replace(end=span.end + 1)])
    with pytest.raises(WebhooksError, match=f"{topic} is gone"):
        read_all(reader)


def test_a_new_leader_is_waited_for(kafka: Kafka, reader_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a partition's leader changes, brokers refuse to report its offsets for a moment."""
    topic = topic_of(kafka)
    kafka.write(topic, [b"1"])
    reader = reader_of(kafka.settings())
    refusals = iter([KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE])
    real = reader._consumer

    def offsets_for_times(asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        for code in refusals:
            raise KafkaException(KafkaError(code))
        return real.offsets_for_times(asked, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_consumer", SimpleNamespace(offsets_for_times=offsets_for_times))
        assert reader.spans([(topic, 0)], 0, None) == [(topic, 0, 0, 1)]
    assert next(refusals, None) is None


def test_patterns_find_topics_except_the_dead_letters(real_kafka: Kafka, reader_of: Open) -> None:
    """They match as in a worker's subscription. A named topic that does not exist is reported."""
    prefix = unique("orders")
    dead = f"{prefix}-dead"
    for name in (f"{prefix}-b", f"{prefix}-a", dead):
        real_kafka.topic(name)
    reader = reader_of(real_kafka.settings(dead_letters=dead))
    with capture_logs() as logs:
        places = reader.partitions([f"^{prefix}-.*", f"{prefix}-a", f"{prefix}-c"])
    assert places == [(f"{prefix}-a", 0), (f"{prefix}-b", 0)]
    assert [line["topic"] for line in logs] == [f"{prefix}-c"]
    assert reader.spans([], 0, None) == []


def test_records_are_read_as_by_a_worker(real_kafka: Kafka, reader_of: Open) -> None:
    """Headers too. Headers that the binding cannot return make the record undecodable, but reading goes on."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"{}", None], headers=[("event-type", b"a"), ("b", None)])
    produce_with_header_name(real_kafka.servers, topic, b"\xff")
    reader = reader_of(real_kafka.settings())
    reader.start(reader.spans([(topic, 0)], 0, None))
    first, empty, poison = read_all(reader)
    assert (first.headers, empty.value) == ([("event-type", b"a"), ("b", None)], None)
    assert decode(first).type == "a"
    assert refusal(decode, poison).reason == "bad_headers"


@pytest.mark.parametrize("stall", [0.0, 1.0], ids=["read at once", "with reports of several reads queued"])
def test_an_unreadable_batch_is_skipped_record_by_record(kafka: Kafka, reader_of: Open, stall: float) -> None:
    """Reading ends. Each record of the batch is undecodable, at its offset, and no record behind it is lost."""
    topic = topic_of(kafka)
    kafka.write(topic, [b"0"])
    write_bomb(kafka.servers, topic, [BOMB, b"2"])
    kafka.write(topic, [b"3"] * 10)
    reader = reader_of(kafka.settings(**SMALL_READS))
    (span,) = reader.spans([(topic, 0)], 0, None)
    reader.start([span])
    assert values(read_until(reader, bool)) == [b"0"]
    time.sleep(stall)
    records = read_all(reader)
    assert [record.offset for record in records] == list(range(1, 13))
    assert values(records) == [None, None, *[b"3"] * 10]
    for refused in (refusal(decode, record) for record in records[:2]):
        assert (refused.reason, "Decompression" in str(refused)) == ("unreadable", True)


def test_a_span_ends_within_an_unreadable_batch(kafka: Kafka, reader_of: Open) -> None:
    """The record before its end is given up."""
    topic = topic_of(kafka)
    write_bomb(kafka.servers, topic, [BOMB, b"1", b"2"])
    reader = reader_of(kafka.settings(**SMALL_READS))
    reader.start([Span(topic, 0, 1, 2)])
    assert [record.offset for record in read_all(reader)] == [1]
    assert reader.positions == {(topic, 0): 2}


def test_an_outage_of_the_broker_is_waited_for(real_kafka: Kafka, brokers: KafkaBroker, reader_of: Open) -> None:
    """It is reported once meanwhile. Reading goes on by itself, and no record comes twice."""
    topic = topic_of(real_kafka)
    write_at(real_kafka, topic, range(20_000))
    settings = real_kafka.settings(fetch_message_max_bytes="2000", reconnect_backoff_max_ms="500")
    reader = reader_of(settings)
    reader._consumer.list_topics(timeout=60)
    reader.start(reader.spans([(topic, 0)], 0, None))
    records = read_until(reader, lambda records: len(records) >= 50, 10)
    with capture_logs() as logs:
        brokers.kill()
        try:
            records += read_until(reader, lambda _: (reader.fault or "").startswith("no Kafka broker reachable"))
        finally:
            brokers.restart()
        records += read_all(reader, 1000)
        assert values(records) == [b"%g" % number for number in range(20_000)]
        read_until(reader, lambda _: reader.fault is None)  # librdkafka may report the outage behind the records
    told = [line["event"] for line in logs if "Kafka" in line["event"] and line["log_level"] != "debug"]
    there_and_back = ["no Kafka broker reachable", "connected to Kafka"]
    assert told in (there_and_back, 2 * there_and_back)  # a connection that breaks late is reported, too


def test_no_broker_at_the_start_is_an_error(reader_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading has not begun yet, so the reader does not wait."""
    monkeypatch.setattr("consumer.intake.log_reader._TIMEOUT", 0.5)
    reader = reader_of(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(KafkaUnavailable, match="KAFKA_BOOTSTRAP_SERVERS"):
        reader.partitions(["t"])
    with pytest.raises(KafkaUnavailable):
        reader.spans([("t", 0)], 0, None)


def test_a_reader_and_the_group_do_not_disturb_each_other(real_kafka: Kafka, reader_of: Open) -> None:
    """A deployment's settings for its group do not apply to a reader, and nothing is committed."""
    topic = topic_of(real_kafka)
    real_kafka.write(topic, [b"1", b"2"])
    settings = real_kafka.settings(
        group_protocol="consumer", group_instance_id="one", max_poll_interval_ms="10000", fetch_wait_max_ms="10"
    )
    member = Consumer({"bootstrap.servers": real_kafka.servers, "group.id": settings.group_id, **QUIET})
    member.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
    member.close()
    reader = reader_of(settings)
    reader.start(reader.spans([(topic, 0)], 0, None))
    assert values(read_all(reader)) == [b"1", b"2"]
    assert real_kafka.committed(settings.group_id, topic)[0] == 1
    with pytest.raises(SettingsError):
        LogReader(real_kafka.settings(fetch_wait_max_ms="x"))
