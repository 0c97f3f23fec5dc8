"""The source: tests on the mock cluster and on a real Kafka, then tests that need a real one."""

import json
import time
from collections import Counter
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumer.errors import FatalKafkaError, SettingsError
from consumer.intake.decode import decode
from consumer.intake.group_consumer import SourceHealth
from consumer.intake.record import AssignedPartition, batch
from tests.intake.raw_producer import BOMB, SMALL_READS, write_bomb
from tests.kafka_kit import QUIET, Kafka, Member, reading, until
from tests.records import refusal

Join = Callable[..., Member]


def test_records_arrive_as_they_were_written(kafka: Kafka, join: Join) -> None:
    """Value, key, headers and place are unchanged, the earliest record comes first, and null is not empty."""
    topic = kafka.topic()
    kafka.write(topic, [b"{}", None, b""], headers=[("a", b"1"), ("b", None), ("a", b"")])
    member = join(kafka.settings(), [topic])
    until(lambda: member.values == [b"{}", None, b""], member)
    first = member.records[0]
    assert (first.key, first.headers) == (b"key", [("a", b"1"), ("b", None), ("a", b"")])
    assert first.id[:3] == (topic, 0, 0)
    assert abs(first.timestamp / 1000 - time.time()) < 60


def test_no_record_is_awaited_below_the_end_that_was_read(real_kafka: Kafka, join: Join) -> None:
    """Stored deliveries in order wait for earlier records. A new group that begins at the end never reads these."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"1", b"2", b"3"])
    member = join(real_kafka.settings(auto_offset_reset="latest"), [topic])
    until(lambda: member.assigned and member.assigned[0].passed(2), member)
    assert not member.records
    assert member.source.fault is None


def test_only_settled_records_are_committed(real_kafka: Kafka, join: Join) -> None:
    """A restart sends exactly the unsettled records again, whatever their order."""
    topic, settings, first = reading(real_kafka, join, [b"x"] * 20, settle=False)
    for record in first.records:
        if record.offset not in (3, 4, 11):
            record.partition.tracker.settle(record.offset)
    assert first.source.commit_now(first.source.partitions.values())
    assert first.source.close()
    assert real_kafka.committed(settings.group_id, topic)[0] == 3

    second = join(settings, [topic])
    real_kafka.write(topic, [b"new"])
    until(lambda: b"new" in second.values, second)
    assert [record.offset for record in second.records] == [3, 4, 11, 20]
    until(lambda: second.source.commits.total, second)
    assert real_kafka.committed(settings.group_id, topic)[0] == 21


def test_librdkafka_requests_no_position_itself(real_kafka: Kafka, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its request is lost with the coordinator, it never starts the partition and does not report it."""
    told: list[str] = []
    monkeypatch.setattr(SourceHealth, "statistics", lambda _, document, *_more: told.append(document))
    topic = real_kafka.topic(partitions=2)
    settings = real_kafka.settings(statistics_interval_ms="100")
    real_kafka.write(topic, [b"1"])
    member = join(settings, [topic])
    until(lambda: member.values and told and requests(told[-1])["OffsetCommit"], member)
    assert requests(told[-1])["OffsetFetch"] == 0


def requests(statistics: str) -> Counter[str]:
    """The number of requests of each kind that librdkafka has sent."""
    return sum((Counter(broker["req"]) for broker in json.loads(statistics)["brokers"].values()), Counter())


def test_a_pause_stops_fetching_and_not_polling(kafka: Kafka, join: Join) -> None:
    """Partitions assigned meanwhile are paused too. An unpaused member shows that a fetch has had its time."""
    topic = kafka.topic()
    kafka.write(topic, [b"1"])
    member = join(kafka.settings(), [topic])
    member.source.pause()
    until(lambda: member.assigned, member)
    other = join(kafka.settings(), [topic])
    for number in (1, 2):
        until(lambda: len(other.records) == number, member, other)  # noqa: B023 (called here)
        assert len(member.records) == number - 1
        member.source.resume()
        until(lambda: len(member.records) == number, member)  # noqa: B023 (called here)
        member.source.pause()
        kafka.write(topic, [b"2"])


def test_an_exception_in_a_callback_is_raised_by_the_next_poll(kafka: Kafka, join: Join) -> None:
    """Raised inside librdkafka's poll, it would lose the batch being fetched. It is kept until the next poll."""
    topic = kafka.topic()
    kafka.write(topic, [b"%d" % number for number in range(100)])
    member = join(kafka.settings(), [topic])

    def fail(_partitions: object) -> None:
        raise RuntimeError("a bug in the worker")

    member.source._tell_assigned = fail
    with pytest.raises(RuntimeError, match="a bug in the worker"):
        until(lambda: False, member)
    until(lambda: len(member.records) == 100, member)


def test_topics_written_by_workers_are_not_consumed_by_name(mock_kafka: str) -> None:
    """Otherwise dead letters and the attempt history would feed themselves."""
    kafka = Kafka(mock_kafka, real=False)
    with pytest.raises(SettingsError, match="dead-letter topic"):
        Member(kafka.settings(dead_letters="dead"), ["orders", "dead"])
    with pytest.raises(SettingsError, match="attempts topic"):
        Member(kafka.settings().model_copy(update={"attempts_topic": "history"}), ["orders", "history"])


def test_a_pattern_that_librdkafka_alone_refuses_is_told_as_one(mock_kafka: str) -> None:
    """Python takes it, and so do the settings: the line names the setting and the language of its patterns."""
    with pytest.raises(SettingsError, match=r"^KAFKA_TOPICS: .* POSIX extended regular expressions"):
        Member(Kafka(mock_kafka, real=False).settings(), ["^orders-(?:eu|us)"])


@pytest.mark.parametrize(("name", "value"), [("session_timeout_ms", "soon"), ("partition_assignment_strategy", "best")])
def test_a_property_that_librdkafka_refuses_is_named(mock_kafka: str, name: str, value: str) -> None:
    """The error names the variable, before any connection is opened."""
    kafka = Kafka(mock_kafka, real=False)
    with pytest.raises(SettingsError, match=f"KAFKA_{name.upper()}|{name.replace('_', '.')}"):
        Member(kafka.settings(**{name: value}), ["orders"])


@pytest.mark.parametrize(
    "properties",
    [
        {"group_protocol": "consumer", "max_poll_interval_ms": "8000"},
        {"group_protocol": "consumer", "group_remote_assignor": "uniform", "group_instance_id": "one"},
        {"session_timeout_ms": "6000", "heartbeat_interval_ms": "300", "partition_assignment_strategy": "range"},
    ],
)
def test_properties_of_a_member_apply_to_the_member_only(
    mock_kafka: str, join: Join, properties: dict[str, str]
) -> None:
    """The client that requests positions is no member, and librdkafka would refuse some of them for it."""
    kafka = Kafka(mock_kafka, real=False)
    join(kafka.settings(**properties), [kafka.topic()])


def test_unknown_properties_are_ignored_with_a_warning_each(mock_kafka: str, join: Join) -> None:
    """KAFKA_PORT_9092_TCP and the like, which Kubernetes sets for a service called kafka, cause no warning."""
    kafka = Kafka(mock_kafka, real=False)
    planted = {"port_9092_tcp": "tcp://10.0.0.1:9092", "service_host": "10.0.0.1", "port": "x"}
    slips = {"logger": "x", "compresion_type": "x"}
    with capture_logs() as logs:
        join(kafka.settings(**planted, **slips, compression_type="gzip"), [kafka.topic()])
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["variable"] for entry in warnings] == ["KAFKA_COMPRESION_TYPE", "KAFKA_LOGGER"]


def test_a_missing_broker_is_a_fault_without_a_flood_of_messages(join: Join, capfd: pytest.CaptureFixture[str]) -> None:
    """There is one line in the log, a reason in /readyz, no raw text on stderr and no exception."""
    kafka = Kafka("127.0.0.1:9", real=False)
    with capture_logs() as logs:
        member = join(kafka.settings(), ["orders"])
        assert "not yet connected" in (member.source.fault or "")
        until(lambda: "no Kafka broker reachable" in (member.source.fault or ""), member)
        for _ in range(20):
            member.turn()
    assert "refused" in (member.source.fault or "")
    assert len([entry for entry in logs if entry["log_level"] != "debug"]) == 1
    assert capfd.readouterr().err == ""


def test_a_lost_partition_is_not_committed(mock_kafka: str, join: Join) -> None:
    """Another member already owns it, and the broker would accept commits of both. A revoked one is committed.

    One that leaves before it was opened is not waited for any more.
    """
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    for partition in (0, 1):
        kafka.write(topic, [b"1"], partition=partition)
    settings = kafka.settings()
    member = join(settings, [topic], settle=False)
    source = member.source
    until(lambda: member.assigned, member)
    source._on_lost(source._consumer, [TopicPartition(topic, 3)])
    until(lambda: len(member.records) == 2 and not source.opening, member)
    for record in member.records:
        record.partition.tracker.settle(record.offset)
    source._on_lost(source._consumer, [TopicPartition(topic, 0)])
    source._on_revoke(source._consumer, [TopicPartition(topic, 1)])
    assert ([each.number for each in member.lost], [each.number for each in member.revoked]) == ([3, 0], [1])
    assert kafka.committed(settings.group_id, topic, 0)[0] < 0
    assert kafka.committed(settings.group_id, topic, 1)[0] == 1


def test_a_rebalance_goes_on_when_a_topic_is_found_to_be_made_anew(mock_kafka: str, join: Join) -> None:
    """The drain of a revoked partition turns the loop, which may bring that answer, also about this partition.

    Replacing it there would end the rebalance for `poll`, or keep a partition that is never opened nor revoked.
    """
    kafka = Kafka(mock_kafka, real=False)
    topic = kafka.topic()
    for number in (0, 1):
        kafka.write(topic, [b"1"], partition=number)
    member = join(kafka.settings(group_protocol="consumer"), [topic])  # joins sooner
    until(lambda: len(member.records) == 2, member)
    source = member.source
    kept, given_up = (source.partitions[topic, number] for number in (0, 1))
    kept.tracker.identity = given_up.tracker.identity = "old"
    rebalancing = []

    def drain(_revoked: list[AssignedPartition]) -> None:
        for each in (kept, given_up):
            source._on_identity(each, "new")
        source._on_lost(source._consumer, [])
        rebalancing.append(source.rebalancing)

    source._tell_revoked = drain
    source._on_revoke(source._consumer, [TopicPartition(topic, 1)])
    assert (rebalancing, source.rebalancing, source.opening) == ([True], False, False)
    assert (member.lost, kept.owned, given_up.owned) == ([], True, False)
    assert source.partitions.keys() == {(topic, 0), (topic, 2), (topic, 3)}
    source._on_identity(kept, "new")
    assert member.lost == [kept]
    assert source.partitions[topic, 0].owned


@pytest.mark.parametrize("by_message", [False, True])
def test_a_fatal_error_ends_the_consumer(mock_kafka: str, join: Join, *, by_message: bool) -> None:
    """Each poll raises it, so that the process ends with it. As a message it has the code _FATAL, and not the flag."""
    kafka = Kafka(mock_kafka, real=False)
    member = join(kafka.settings(), [kafka.topic()])
    if by_message:
        member.source._reported.error(None, KafkaError(KafkaError._FATAL, "used twice"))
    else:
        member.source.health.error(KafkaError(KafkaError.FENCED_INSTANCE_ID, "used twice", fatal=True))
    for _ in range(2):
        with pytest.raises(FatalKafkaError, match="used twice"):
            member.turn()
    assert "used twice" in (member.source.fault or "")


def test_a_topics_fault_ends_when_its_last_partition_has_left(mock_kafka: str, join: Join) -> None:
    """Otherwise /readyz would blame this member for ever: no record of the topic arrives here any more."""
    # With KIP-848, a member of the mock cluster joins sooner.
    topic, _, member = reading(Kafka(mock_kafka, real=False), join, [b"0"], group_protocol="consumer")
    source = member.source
    source._reported.error(topic, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    source._on_revoke(source._consumer, [TopicPartition(topic, number) for number in (0, 1)])
    assert (source.fault or "").startswith(f"{topic}: ")
    source._on_lost(source._consumer, [TopicPartition(topic, 2)])
    source._on_revoke(source._consumer, [TopicPartition(topic, 3)])
    assert source.fault is None


def test_a_topics_fault_ends_when_its_next_record_arrives(mock_kafka: str, join: Join) -> None:
    """The fault of another topic stays."""
    kafka = Kafka(mock_kafka, real=False)
    topic, _, member = reading(kafka, join, [b"0"], group_protocol="consumer")
    for each in (topic, "another"):
        member.source._reported.error(each, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert f"{topic}: " in (member.source.fault or "")
    kafka.write(topic, [b"1"])
    until(lambda: member.values == [b"0", b"1"], member)
    assert (member.source.fault or "").startswith("another: ")
    assert topic not in (member.source.fault or "")


def test_a_log_that_begins_again_is_a_new_partition(kafka: Kafka, join: Join) -> None:
    """Old records that are still open cannot settle new ones of the same offset. The mark starts over."""
    topic, _, member = reading(kafka, join, [b"1", b"2"], settle=False, group_protocol="consumer")
    old = member.records[0].partition
    member.source._consumer.seek(TopicPartition(topic, 0, 0))
    until(lambda: len(member.records) == 4, member)
    new = member.records[2].partition
    assert (new is not old, old.owned, new.owned) == (True, False, True)
    assert member.lost == [old]
    assert member.assigned[-1] is new
    old.tracker.settle(0)
    assert new.tracker.low_water_mark == 0


def test_records_of_the_old_log_are_dropped_with_it(kafka: Kafka, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those in the batch that shows it. Unsettled ones below are read again, since they may still exist."""
    read: list[Message] = []

    def and_back(consumer: Consumer, limit: int, timeout: float) -> list[Message]:
        messages = batch(consumer, limit, timeout)
        records = [message for message in messages if message.error() is None]
        went_back = read[1:2] if records and len(read) == 2 else []
        read.extend(records)
        return messages + went_back

    monkeypatch.setattr("consumer.intake.source.batch", and_back)
    topic, _, member = reading(kafka, join, [b"0", b"1"], settle=False, group_protocol="consumer")
    kafka.write(topic, [b"2"])
    until(lambda: len(member.records) >= 5, member)
    assert [record.offset for record in member.records] == [0, 1, 0, 1, 2]
    assert len(member.lost) == 1


def test_retention_that_overtook_the_group_is_reported(real_kafka: Kafka, join: Join) -> None:
    """A log line and a counter have the number. It is not ready for a minute, and reads the remaining records."""
    topic, settings, first = reading(real_kafka, join, [b"%d" % number for number in range(10)], settle=False)
    for record in first.records[:2]:
        record.partition.tracker.settle(record.offset)
    assert first.source.commit_now(first.source.partitions.values())
    assert first.source.close()
    admin = AdminClient({"bootstrap.servers": real_kafka.servers, **QUIET})
    for answer in admin.delete_records([TopicPartition(topic, 0, 7)]).values():
        answer.result(60)

    with capture_logs() as logs:
        second = join(settings, [topic])
        until(lambda: len(second.records) == 3, second)
        until(lambda: second.source.health.overtaken, second)
    assert second.values == [b"7", b"8", b"9"]
    assert second.source.health.overtaken == 5
    assert "retention removed 5 records" in (second.source.fault or "")
    assert [entry["records"] for entry in logs if entry["log_level"] == "error"] == [5]


def test_a_first_start_is_reported(real_kafka: Kafka, join: Join) -> None:
    """An operator who points a new group at an old topic sees the number of records that it will send."""
    with capture_logs() as logs:
        topic, _, member = reading(real_kafka, join, [b"x"] * 30)
        until(lambda: any("records_to_send" in entry for entry in logs), member)
    (entry,) = [entry for entry in logs if "records_to_send" in entry]
    assert (entry["records_to_send"], entry["partitions"]) == (30, [f"{topic}[0]"])
    until(lambda: {partition.lag for partition in member.source.partitions.values()} == {0}, member)


def test_an_unreadable_batch_is_skipped_record_by_record(real_kafka: Kafka, join: Join) -> None:
    """Each of its records is reported at its offset, and later ones are read. librdkafka itself retries for ever.

    It reports an error for each read. Errors that have queued up while the loop stood still give up no later record.
    """
    topic, settings, member = reading(real_kafka, join, [b"0", b"1"], settle=False, **SMALL_READS)
    write_bomb(real_kafka.servers, topic, [b"2", BOMB, b"4"])
    real_kafka.write(topic, [b"5", b"6"])
    time.sleep(1.5)
    until(lambda: len(member.records) == 7, member)
    assert [record.offset for record in member.records] == list(range(7))
    assert [record.value for record in member.records] == [b"0", b"1", None, None, None, b"5", b"6"]
    for refused in (refusal(decode, record) for record in member.records[2:5]):
        assert (refused.reason, "Decompression" in str(refused)) == ("unreadable", True)
    for record in member.records:
        if record.offset != 3:
            record.partition.tracker.settle(record.offset)
    assert member.source.commit_now(list(member.source.partitions.values()))
    assert real_kafka.committed(settings.group_id, topic)[0] == 3
    member.source.close()
    again = join(settings, [topic])
    until(lambda: again.records, again)
    assert [(record.offset, record.value) for record in again.records] == [(3, None)]


def test_aborted_transactions_are_not_delivered(real_kafka: Kafka, join: Join) -> None:
    """Their markers, which are offsets without a record, do not hold the mark."""
    topic = real_kafka.topic()
    producer = real_kafka.transactional()
    for value, commit in ((b"no", False), (b"yes", True)):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(10)
        (producer.commit_transaction if commit else producer.abort_transaction)(10)
    settings = real_kafka.settings()
    member = join(settings, [topic])
    until(lambda: member.values == [b"yes"], member)
    until(lambda: member.source.commits.total, member)
    assert real_kafka.committed(settings.group_id, topic)[0] == 3


def test_records_behind_an_open_transaction_are_reported(
    real_kafka: Kafka, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no lag, since the log cannot be read further. /readyz says so, until the transaction has ended."""
    monkeypatch.setattr("consumer.intake.group_consumer.HELD_FOR", 0.1)
    topic = real_kafka.topic()
    producer = real_kafka.transactional()
    producer.begin_transaction()
    producer.produce(topic, b"1", partition=0)
    producer.flush(10)
    real_kafka.write(topic, [b"2"])
    member = join(real_kafka.settings(), [topic])
    until(lambda: "transaction has held back 2 records of" in (member.source.fault or ""), member)
    (partition,) = member.assigned
    assert (partition.lag, partition.held and partition.held[:2]) == (0, (0, 2))
    producer.commit_transaction(10)
    until(lambda: member.values == [b"1", b"2"] and member.source.fault is None, member)
