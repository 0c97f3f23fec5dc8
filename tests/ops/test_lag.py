"""The group's lag, on the mock cluster and on a real Kafka."""

import pytest
from confluent_kafka import Consumer, TopicPartition

from consumer.errors import KafkaUnavailable
from consumer.ops.cluster import Lag, group_lag
from tests.kafka_kit import Kafka


def test_the_lag_counts_uncommitted_records(kafka: Kafka) -> None:
    """It is counted for each partition of the consumed topics; without a commit it is the whole log."""
    topic, other = kafka.topic(partitions=2), kafka.topic()
    members = {"group_protocol": "consumer", "session_timeout_ms": "6000", "max_poll_interval_ms": "10000"}
    settings = kafka.settings(**members)  # none of these is for a client that does not join
    kafka.write(topic, [b"{}"] * 5)
    kafka.write(topic, [b"{}"] * 3, partition=1)
    kafka.write(other, [b"{}"])
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": settings.group_id, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    found = {each.partition: each for each in group_lag(settings, [topic]) if each.partition < 2}
    assert {each.topic for each in found.values()} == {topic}
    assert (found[0].committed, found[0].first, found[0].end, found[0].records) == (2, 0, 5, 3)
    assert (found[1].committed, found[1].first, found[1].end, found[1].records) == (None, 0, 3, 3)
    assert [each.overtaken for each in found.values()] == [0, 0]


def test_a_group_that_begins_at_the_end_has_no_lag(kafka: Kafka) -> None:
    """Without a commit, auto.offset.reset decides where it begins."""
    topic = kafka.topic()
    kafka.write(topic, [b"{}"] * 5)
    (first, *_) = group_lag(kafka.settings(auto_offset_reset="latest"), [topic])
    assert (first.committed, first.end, first.records) == (None, 5, 0)


def test_a_topic_made_anew_has_no_negative_lag() -> None:
    """Until a worker has committed there, the group's offset is one of the earlier topic."""
    assert Lag("t", 0, committed=1000, first=0, end=10, start=1000).records == 0


def test_topics_that_do_not_exist_have_no_lag(kafka: Kafka) -> None:
    """A pattern may match no topic yet."""
    assert group_lag(kafka.settings(), ["^nobody-has-this-.*"]) == []


def test_an_unreachable_kafka_is_named() -> None:
    """The error also names the settings that may be wrong."""
    with pytest.raises(KafkaUnavailable, match="are KAFKA_BOOTSTRAP_SERVERS and KAFKA_SECURITY_PROTOCOL right"):
        group_lag(Kafka("127.0.0.1:1", real=False).settings(), ["t"])
