"""Positions of partitions are requested until Kafka answers. A missing answer for one does not delay the others."""

from collections.abc import Callable

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # the admin package does not export it to type checkers

from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import QUIET, Kafka, Member, unique, until

Join = Callable[..., Member]


def test_a_log_without_a_leader_delays_no_other(three_nodes: KafkaBroker, join: Join) -> None:
    """The others are read and their ends are known. Its own end is known when it has a leader again."""
    kafka = Kafka(three_nodes.bootstrap, real=True)
    topic = unique("positions")
    admin = AdminClient({"bootstrap.servers": kafka.servers, **QUIET})
    config = {"min.insync.replicas": "1"}
    new = NewTopic(topic, 3, replica_assignment=[[1], [3], [2]], config=config)
    admin.create_topics([new])[topic].result(60)
    for number in range(3):
        kafka.write(topic, [b"%d" % number] * 3, partition=number)
    three_nodes.kill(3)
    try:
        member = join(kafka.settings(), [topic])
        until(lambda: len(member.records) == 6, member, timeout=120)
        ends = [member.source.partitions[topic, number] for number in range(3)]
        until(lambda: [each.end for each in ends] == [3, None, 3], member, timeout=120)
        until(lambda: f"Kafka does not report the ends of the log of {topic}[1]" in (member.source.fault or ""), member)
        assert not ends[1].passed(100)
    finally:
        three_nodes.restart(3)
    until(lambda: (len(member.records), ends[1].end, member.source.fault) == (9, 3, None), member, timeout=120)
    assert ends[1].passed(100)
