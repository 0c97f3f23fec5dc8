"""A topic deleted and recreated under its name: Kafka accepts the old offsets, but a member notices."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.intake.log_reader import LogReader
from consumer.intake.offsets import encode
from consumer.intake.positions import STEADY_AFTER, Committed, TopicIds, _valid, digest
from consumer.ops.cluster import connected
from tests.kafka_kit import QUIET, Kafka, Member, reading, unique, until

Join = Callable[..., Member]
OLD, NEW = [b"old %d" % number for number in range(10)], [b"new %d" % number for number in range(30)]


def commit(kafka: Kafka, settings: KafkaSettings, topic: str, offset: int, metadata: str = "") -> None:
    """Commit for the group, as a member before this one."""
    before = Consumer({"bootstrap.servers": kafka.servers, "group.id": settings.group_id, **QUIET})
    before.commit(offsets=[TopicPartition(topic, 0, offset, metadata=metadata)], asynchronous=False)
    before.close()


def made_anew(kafka: Kafka, topic: str) -> None:
    """Delete and recreate a topic. A client that knew the old topic must not write the new records."""
    admin = AdminClient({"bootstrap.servers": kafka.servers, **QUIET})
    admin.delete_topics([topic])[topic].result(60)

    def made() -> bool:
        try:
            kafka.topic(topic)
        except Exception:  # noqa: BLE001 (it is being deleted)
            return False
        return True

    until(made)


@pytest.mark.parametrize("reset", ["earliest", "latest"])
def test_a_running_member_reads_a_recreated_topic_from_its_first_record(
    real_kafka: Kafka, join: Join, monkeypatch: pytest.MonkeyPatch, reset: str
) -> None:
    """This holds even if the new log is longer than its position, so that Kafka reports no error.

    What it had not settled of the old one is counted, and where that one ended is known to its cursors.
    """
    monkeypatch.setattr("consumer.intake.positions._IDLE", 0.2)
    topic = real_kafka.topic()
    settings = real_kafka.settings(auto_offset_reset=reset)
    commit(real_kafka, settings, topic, 0)
    real_kafka.write(topic, OLD)
    member = join(settings, [topic], settle=False)
    until(lambda: member.values == OLD, member)
    member.settle = True
    (old,) = member.source.partitions.values()
    until(lambda: old.tracker.identity, member)
    member.source.pause()  # fetches nothing, as while the database is down
    made_anew(real_kafka, topic)
    Kafka(real_kafka.servers, real=True).write(topic, NEW)
    member.source.resume()
    with capture_logs() as logs:
        until(lambda: set(NEW) <= set(member.values), member)
    assert member.values[-len(NEW) :] == NEW
    assert (member.lost, old.owned) == ([old], False)
    (new,) = member.source.partitions.values()
    assert new.former_end >= len(OLD)  # the new log is longer, and was read before its id was known
    assert member.source.health.overtaken == len(OLD)
    assert [entry["reason"] for entry in logs if "reason" in entry] == ["its topic was deleted and made anew"]
    until(lambda: real_kafka.committed(settings.group_id, topic)[0] == len(NEW), member)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_an_offset_of_the_old_topic_does_not_count_in_the_new_one(real_kafka: Kafka, join: Join, protocol: str) -> None:
    """A member settles old records and commits them after the topic was recreated. The next one ignores that."""
    topic, settings, first = reading(real_kafka, join, OLD, settle=False, group_protocol=protocol)
    (partition,) = first.source.partitions.values()
    until(lambda: partition.tracker.identity, first)
    partition.tracker.settle(0)
    until(lambda: real_kafka.committed(settings.group_id, topic)[0] == 1, first)
    first.source.pause()
    made_anew(real_kafka, topic)
    until(lambda: real_kafka.committed(settings.group_id, topic)[0] < 0)  # Kafka forgets a deleted topic's, in time
    for record in first.records[1:]:
        partition.tracker.settle(record.offset)
    assert first.source.commit_now([partition])
    assert first.source.close()
    assert real_kafka.committed(settings.group_id, topic)[0] == len(OLD)
    Kafka(real_kafka.servers, real=True).write(topic, NEW)
    second = join(settings, [topic])
    until(lambda: len(second.records) >= len(NEW), second)
    assert second.values == NEW
    assert [each.former_end for each in second.source.partitions.values()] == [len(OLD)]
    until(lambda: real_kafka.committed(settings.group_id, topic)[0] == len(NEW), second)


@pytest.mark.parametrize("origin", ["another cluster", "unknown"])
def test_a_commit_copied_by_a_mirror_counts_only_with_its_offset(real_kafka: Kafka, join: Join, origin: str) -> None:
    """MirrorMaker 2 translates the offset and copies the metadata, whose settled offsets are other records here."""
    topic = real_kafka.topic()
    settings = real_kafka.settings()
    real_kafka.write(topic, OLD)
    identity = "A" * 21 + "Q" + digest("the old cluster") if origin == "another cluster" else None
    commit(real_kafka, settings, topic, 2, encode(3, [(4, 7)], identity))
    with capture_logs() as logs:
        member = join(settings, [topic])
        until(lambda: len(member.records) >= 8, member)
    assert member.values == OLD[2:]
    assert not [entry for entry in logs if "made anew" in entry["event"]]
    until(lambda: real_kafka.committed(settings.group_id, topic)[0] == len(OLD), member)


def test_a_single_answer_is_not_trusted() -> None:
    """A broker that lags behind the others returns the former id. It alone does not cause a second reading."""
    now = 0.0
    ids = TopicIds(KafkaSettings(bootstrap_servers="nowhere:9092"), lambda: now)
    steady = []
    for at, topic_id in ((0.0, "a"), (2.0, "a"), (3.0, "b"), (3.5, "b"), (4.0, "a"), (4.5, "b"), (5.5, "b")):
        now = at * STEADY_AFTER
        steady.append(ids.learn("topic", topic_id, "c")["topic"].steady)
    assert steady == [False, True, False, False, False, False, True]


@pytest.mark.parametrize("identity", ["", "A" * 21 + "Q" + digest("a cluster")])
def test_a_cluster_without_ids_is_an_answer(identity: str) -> None:
    """A position then counts as it was committed, and nothing waits for an id that will never come."""
    ids = TopicIds(KafkaSettings(bootstrap_servers="nowhere:9092"), lambda: 0.0)
    (answer,) = ids.learn("topic", "A" * 22, digest("a cluster")).values()
    metadata = encode(3, [(4, 7)], identity)
    position = TopicPartition("topic", 0, 3, metadata=metadata)
    assert _valid(position, answer) == Committed(3, metadata, None)


def test_clients_that_only_look_create_no_topic(real_kafka: Kafka) -> None:
    """A deleted topic stays deleted, whatever brokers and settings allow: made anew, it would have one partition."""
    settings, gone = real_kafka.settings(allow_auto_create_topics="true"), unique("gone")
    assert TopicIds(settings).ask({gone}) == {}
    admin, _ = connected(settings)
    admin.list_topics(gone, timeout=60)
    with LogReader(settings) as reader:
        assert reader.partitions_of(gone) == []
    later = real_kafka.topic()  # the brokers make it after all that was asked for before
    there = AdminClient({"bootstrap.servers": real_kafka.servers, **QUIET}).list_topics(timeout=60).topics
    assert (later in there, gone in there) == (True, False)


def test_a_cluster_without_topic_ids_delays_nothing(mock_kafka: str, join: Join) -> None:
    """Members read and close as usual. Offsets are committed without an id."""
    kafka = Kafka(mock_kafka, real=False)
    topic, settings, member = reading(kafka, join, OLD)
    until(lambda: kafka.committed(settings.group_id, topic)[0] == len(OLD), member)
    assert member.source.close()
    assert kafka.committed(settings.group_id, topic) == (len(OLD), "")
