"""A member of a group on a real Kafka: assignment, handover, and outages."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from confluent_kafka import Consumer, TopicPartition
from structlog.testing import capture_logs

from consumer.intake.record import AssignedPartition
from consumer.intake.source import Source
from tests.chaos.commit_log import CommitLog
from tests.kafka_broker import HAS_KIP_848, KafkaBroker
from tests.kafka_kit import Kafka, Member, reading, unique, until

Join = Callable[..., Member]
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@PROTOCOLS
def test_a_rebalance_hands_partitions_over(real_kafka: Kafka, join: Join, protocol: str) -> None:
    """A second member takes its share and starts at the first one's commit. No record comes twice or is lost."""
    topic = real_kafka.topic(partitions=4)
    settings = real_kafka.settings(group_protocol=protocol, heartbeat_interval_ms="300")
    for partition in range(4):
        real_kafka.write(topic, [b"a%d" % partition] * 50, partition=partition)
    first = join(settings, [topic])
    until(lambda: len(first.records) == 200, first)
    second = join(settings, [topic])
    until(lambda: len(first.source.partitions) == 2 == len(second.source.partitions), first, second)
    assert len(first.revoked) == 2
    assert first.lost == []
    assert all(not partition.owned for partition in first.revoked)
    for partition in range(4):
        real_kafka.write(topic, [b"b%d" % partition] * 50, partition=partition)
    until(lambda: len(first.records) + len(second.records) >= 400, first, second)
    assert second.source.close()
    until(lambda: len(first.source.partitions) == 4, first)
    seen = [record.id for record in first.records + second.records]
    assert len(seen) == len(set(seen)) == 400


@PROTOCOLS
def test_a_member_without_partitions_is_ready(real_kafka: Kafka, join: Join, protocol: str) -> None:
    """A deployment waits until its new workers are ready, also where it has more workers than partitions."""
    settings, topic = real_kafka.settings(group_protocol=protocol, heartbeat_interval_ms="300"), real_kafka.topic()
    first = join(settings, [topic])
    until(lambda: first.source.partitions and first.source.fault is None, first)
    second = join(settings, [topic])
    assert second.source.fault is not None
    until(lambda: second.source.fault is None, first, second)
    assert len(first.source.partitions) + len(second.source.partitions) == 1


@pytest.mark.skipif(HAS_KIP_848, reason="on an older Kafka alone: KAFKA_TEST_VERSION, or make kafka-versions")
def test_an_older_kafka_does_not_accept_a_member_with_kip_848(real_kafka: Kafka, join: Join) -> None:
    """The fault says what to set. A member of the classic protocol joins that group."""
    topic, settings = real_kafka.topic(), real_kafka.settings(group_protocol="consumer")
    member = join(settings, [topic])
    until(lambda: "set KAFKA_GROUP_PROTOCOL=classic" in str(member.source.fault), member)
    other = join(real_kafka.settings(group=settings.group_id), [topic])
    until(lambda: other.source.partitions and other.source.fault is None, other)


def test_a_missing_topic_is_a_fault_until_it_exists(real_kafka: Kafka, join: Join) -> None:
    """The log names it once, and /readyz too. It is consumed as soon as it exists."""
    topic = unique("later")
    with capture_logs() as logs:
        member = join(real_kafka.settings(topic_metadata_refresh_interval_ms="500"), [topic])
        until(lambda: topic in (member.source.fault or ""), member)
        for _ in range(20):
            member.turn()
    assert len([entry for entry in logs if entry["log_level"] == "warning"]) == 1
    real_kafka.topic(topic)
    real_kafka.write(topic, [b"1"])
    until(lambda: member.values == [b"1"], member)
    assert member.source.fault is None


@PROTOCOLS
def test_a_coordinator_that_freezes_during_a_rebalance_does_not_stop_the_loop(
    real_kafka: Kafka, brokers: KafkaBroker, join: Join, protocol: str
) -> None:
    """The last commit is given up and the loop goes on. The next owner reads the uncommitted records."""
    topic = real_kafka.topic(partitions=2)
    settings = real_kafka.settings(group_protocol=protocol, heartbeat_interval_ms="300")
    for number in range(2):
        real_kafka.write(topic, [b"%d" % number] * 10, partition=number)
    first = join(settings, [topic], settle=False)
    until(lambda: len(first.records) == 20, first)
    frozen: list[AssignedPartition] = []

    def freeze(leaving: list[AssignedPartition]) -> None:
        for record in first.records:
            record.partition.tracker.settle(record.offset)
        brokers.pause()
        frozen.extend(leaving)

    first.source._tell_revoked = freeze
    second = join(settings, [topic])
    try:
        with capture_logs() as logs:
            until(lambda: frozen, first, second)
    finally:
        brokers.resume()
    assert first.waits > 20
    assert [entry["reason"] for entry in logs if "reason" in entry] == ["the coordinator does not answer"]
    until(lambda: len(first.source.partitions) == 1 == len(second.source.partitions), first, second, timeout=120)
    (place,) = second.source.partitions

    def settled() -> bool:
        return real_kafka.committed(settings.group_id, *place)[0] == 10

    until(settled, first, second)


@PROTOCOLS
def test_an_assigned_partition_without_a_position_delays_no_other(
    real_kafka: Kafka, brokers: KafkaBroker, join: Join, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Kafka does not answer where it stands. This is reported, the loop turns, and its records come after that."""
    topic = real_kafka.topic()
    real_kafka.write(topic, [b"1", b"2"])
    assigned = Source._on_assign

    def freeze(source: Source, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            brokers.pause()
        assigned(source, consumer, partitions)

    monkeypatch.setattr(Source, "_on_assign", freeze)
    monkeypatch.setattr("consumer.intake.positions.COMMITTED_TIMEOUT", 0.5)
    member = join(real_kafka.settings(group_protocol=protocol), [topic])
    turns = count()

    def turned() -> bool:
        next(turns)
        return "Kafka does not report the committed offset" in (member.source.fault or "")

    try:
        until(turned, member)
        assert next(turns) > 5
        assert (len(member.assigned), member.source.opening, member.records) == (1, True, [])
    finally:
        brokers.resume()
    until(lambda: member.values == [b"1", b"2"], member)
    until(lambda: member.source.fault is None, member)
    assert not member.source.opening


@PROTOCOLS
def test_a_draining_member_lets_others_join_and_leave(real_kafka: Kafka, join: Join, protocol: str) -> None:
    """It takes no more records, gives up revoked partitions, and commits all settled records before it leaves."""
    topic = real_kafka.topic(partitions=4)
    settings = real_kafka.settings(group_protocol=protocol, heartbeat_interval_ms="300")
    for partition in range(4):
        real_kafka.write(topic, [b"a"] * 5, partition=partition)
    first = join(settings, [topic], settle=False)
    until(lambda: len(first.records) == 20, first)
    first.source.pause()
    second = join(settings, [topic])

    def drained() -> bool:
        first.source.serve()
        return len(first.source.partitions) == 2 == len(second.source.partitions)

    until(drained, second)
    for partition in range(4):
        real_kafka.write(topic, [b"b"] * 5, partition=partition)
    for record in first.records:
        record.partition.tracker.settle(record.offset)
    assert first.source.commit_now(first.source.partitions.values())
    for place in first.source.partitions:
        assert real_kafka.committed(settings.group_id, *place)[0] == 5
    assert len(first.records) == 20
    assert first.source.close()
    until(lambda: second.values.count(b"b") == 20, second)
    assert second.values.count(b"a") == 10


@PROTOCOLS
@pytest.mark.parametrize("rebalance", [False, True], ids=["stop", "rebalance"])
def test_offsets_do_not_go_back_when_the_coordinator_dies_during_a_last_commit(
    real_kafka: Kafka, brokers: KafkaBroker, join: Join, protocol: str, *, rebalance: bool
) -> None:
    """A round is then unanswered. When the coordinator is back, librdkafka sends it again, after any later one."""
    groups = []
    for _ in range(3):
        topic, settings, member = reading(real_kafka, join, [b"1", b"2"], settle=False, group_protocol=protocol)
        groups.append((member, CommitLog(real_kafka.servers, settings.group_id, topic)))
    members = [member for member, _ in groups]
    brokers.pause()
    for member in members:
        tracker = member.records[0].partition.tracker
        tracker.settle(0)
        member.source.commit()
        tracker.settle(1)
        member.source.rebalancing = rebalance
    brokers.kill()
    time.sleep(0.1)
    with ThreadPoolExecutor() as threads:
        for member in members:
            threads.submit(member.source.commit_now, member.source.partitions.values())
        brokers.restart()
    for member in members:
        member.source.rebalancing = False
        member.source.resume()
    commits: list[list[int | None]] = [[] for _ in groups]

    def read() -> bool:
        for seen, (_, log) in zip(commits, groups, strict=True):
            seen += [commit.offset for commit in log.read(0.05)]
        return all(2 in seen for seen in commits)

    until(read, *members)
    time.sleep(1.5)
    read()
    for _, log in groups:
        log.close()
    assert [seen for seen in commits if 1 in seen[seen.index(2) :]] == []


def test_a_log_without_a_leader_delays_no_other(three_nodes: KafkaBroker, join: Join) -> None:
    """The others are read. It is read when it has a leader again."""
    kafka = Kafka(three_nodes.bootstrap, real=True)
    topic = kafka.topic_on([[1], [3], [2]])
    for number in range(3):
        kafka.write(topic, [b"%d" % number] * 3, partition=number)
    three_nodes.kill(3)
    try:
        member = join(kafka.settings(), [topic])
        until(lambda: len(member.records) == 6, member, timeout=120)
    finally:
        three_nodes.restart(3)
    until(lambda: (len(member.records), member.source.fault) == (9, None), member, timeout=120)
