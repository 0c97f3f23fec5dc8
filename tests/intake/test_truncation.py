"""A log truncated at an unclean election, with new records at old offsets: none of these counts as settled."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka_broker import ZOOKEEPER, KafkaBroker
from tests.kafka_kit import QUIET, Kafka, Member, until

Join = Callable[..., Member]
FIRST, LATE = 2, 3  # the log's nodes: one has all of it, the other lacks its end
pytestmark = pytest.mark.skipif(ZOOKEEPER, reason="KAFKA-13091: 2.8 acknowledges late when one of two replicas is dead")
OLD, NEW = [b"old %d" % number for number in range(10)], [b"new %d" % number for number in range(5, 12)]


def truncate(cluster: KafkaBroker, kafka: Kafka, topic: str, between: Callable[[], None]) -> None:
    """Write five records to both nodes and five to one, which dies after `between`. The other takes new ones."""
    kafka.write(topic, OLD[:5])
    cluster.kill(LATE)
    kafka.write(topic, OLD[5:])
    between()
    cluster.kill(FIRST)
    cluster.restart(LATE, wait=False)
    until(lambda: leads(kafka, topic) == LATE, timeout=120)
    Kafka(kafka.servers, real=True).write(topic, NEW)


def leads(kafka: Kafka, topic: str) -> int | None:
    admin = AdminClient({"bootstrap.servers": kafka.servers, **QUIET})
    try:
        leader: int = admin.list_topics(topic, timeout=2).topics[topic].partitions[0].leader
    except (KafkaException, KeyError):
        return None
    return leader


def test_a_restart_reads_new_records_at_the_offsets_of_settled_ones(three_nodes: KafkaBroker, join: Join) -> None:
    """Neither a commit beyond the truncation nor the settled offsets in its metadata hide a new record."""
    kafka = Kafka(three_nodes.bootstrap, real=True)
    topic = kafka.topic_on([[FIRST, LATE]], unclean_leader_election_enable="true")
    settings = kafka.settings()

    def settle() -> None:
        member = join(settings, [topic], settle=False)
        until(lambda: len(member.records) == len(OLD), member, timeout=120)
        for record in member.records:
            if record.offset not in (2, 5, 6, 8, 9):
                record.partition.tracker.settle(record.offset)
        assert member.source.commit_now(member.source.partitions.values())
        assert member.source.close()

    try:
        truncate(three_nodes, kafka, topic, settle)
        second = join(settings, [topic])
        until(lambda: NEW[-1] in second.values, second, timeout=120)
        assert second.values == [b"old 2", *NEW]
        until(lambda: kafka.committed(settings.group_id, topic)[0] == 12, second)
    finally:
        three_nodes.restart(FIRST)


@pytest.mark.parametrize("unsettled", [None, 3])
def test_a_running_worker_reads_new_records_at_the_offsets_of_settled_ones(
    three_nodes: KafkaBroker, join: Join, unsettled: int | None
) -> None:
    """Its tracker is of the old log. It reads the new end from the start, and unsettled records before it."""
    kafka = Kafka(three_nodes.bootstrap, real=True)
    topic = kafka.topic_on([[FIRST, LATE]], unclean_leader_election_enable="true")
    settings = kafka.settings(session_timeout_ms="45000")
    member = join(settings, [topic], settle=False)

    def settle() -> None:
        until(lambda: len(member.records) == len(OLD), member, timeout=120)
        for record in member.records:
            if record.offset != unsettled:
                record.partition.tracker.settle(record.offset)
        until(lambda: kafka.committed(settings.group_id, topic)[0] == (unsettled or len(OLD)), member)
        member.settle = True

    try:
        truncate(three_nodes, kafka, topic, settle)
        until(lambda: NEW[-1] in member.values, member, timeout=120)
        assert member.values[len(OLD) :] == ([] if unsettled is None else OLD[unsettled:5]) + NEW
        until(lambda: kafka.committed(settings.group_id, topic)[0] == 12, member)
    finally:
        three_nodes.restart(FIRST)
