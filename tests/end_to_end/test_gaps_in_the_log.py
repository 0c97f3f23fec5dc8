"""A cursor over offsets that hold no event: compacted, of transactions, or removed by retention."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.end_to_end.command_line import CommandLine
from tests.end_to_end.service_rig import Deployment, Worker
from tests.kafka_kit import QUIET, Kafka
from tests.waiting import eventually

TIDY_OFTEN = """
from consumer.worker import maintenance

maintenance.FIRST_TIDY = maintenance.TIDY_EVERY = 0.7
"""


def _body(number: int) -> bytes:
    return b'{"type": "a", "number": %d}' % number


def _got(deployment: Deployment) -> list[int]:
    """The events that the receiver has got, in their order."""
    return [json.loads(each.body)["number"] for each in list(deployment.receiver.at("/a"))]


def _records(deployment: Deployment, topic: str) -> list[dict[str, Any]]:
    """The committed records of partition 0 of a topic."""
    settings = {"bootstrap.servers": deployment.servers, "group.id": "held", "enable.partition.eof": True, **QUIET}
    consumer, found = Consumer(settings), list[dict[str, Any]]()
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    try:
        while True:
            for message in consumer.consume(100, 0.1):
                error = message.error()
                if error is None:
                    found.append(json.loads(message.value() or b""))
                elif error.code() == KafkaError._PARTITION_EOF:
                    return found
    finally:
        consumer.close()


def _held(deployment: Deployment) -> set[int]:
    """The events that Kafka has."""
    return {each["number"] for each in _records(deployment, deployment.topic)}


def _lost(deployment: Deployment) -> list[dict[str, Any]]:
    """What operational events told of lost ones."""
    told = _records(deployment, f"{deployment.group}.operations")
    return [each["data"] for each in told if each["type"].endswith("subscription.events_lost")]


def _paused(deployment: Deployment, command_line: CommandLine) -> tuple[Worker, str]:
    """A worker, and the id of a paused subscription that has got one event."""
    subscription = str(deployment.subscribe("a", "/a", ordering="key"))
    worker = deployment.start(KAFKA_OPERATIONS_TOPIC=f"{deployment.group}.operations")
    deployment.write(_body(0), key=b"first")
    deployment.flush()
    eventually(lambda: _got(deployment) == [0])
    assert command_line.run("subscriptions", "pause", subscription)[0] == 0
    eventually(lambda: _is_paused(deployment))
    return worker, subscription


def _is_paused(deployment: Deployment) -> bool:
    """The worker knows: an event of another partition has a cursor."""
    deployment.write(_body(1), partition=1)
    deployment.flush()
    return bool(_positions(deployment, 1))


def _positions(deployment: Deployment, partition: int = 0) -> list[tuple[object, ...]]:
    return deployment.sql("SELECT next_offset, end_offset FROM webhook_cursors WHERE partition_no = ?", partition)


def test_what_a_deleted_topic_owed_is_counted(deployment: Deployment, command_line: CommandLine) -> None:
    """Of a paused subscription, when the topic is made anew: each offset up to where the live stream had come."""
    deployment.alter("from consumer.intake import positions\n\npositions._IDLE = 0.2")
    worker, _ = _paused(deployment, command_line)
    for number in range(100, 150):
        deployment.write(_body(number), partition=number % 2)
    deployment.flush()
    eventually(lambda: not deployment.lag(), otherwise=deployment.committed)
    owed = sum(deployment.committed()[number] - int(str(_positions(deployment, number)[0][0])) for number in (0, 1))
    admin = AdminClient({"bootstrap.servers": deployment.servers, **QUIET})
    admin.delete_topics([deployment.topic])[deployment.topic].result(60)
    eventually(lambda: deployment.topic not in admin.list_topics(timeout=60).topics)
    Kafka(deployment.servers, real=True).topic(deployment.topic, partitions=4)
    eventually(lambda: worker.metric("webhooks_backlog_lost_total") >= owed, otherwise=lambda: worker.log[-2000:])
    assert worker.metric("webhooks_backlog_lost_total") == owed > 50
    assert {each["reason"] for each in _lost(deployment)} <= {"the topic was deleted and made anew"}
    worker.stop()


def test_offsets_without_a_record_are_no_loss(
    deployment: Deployment, command_line: CommandLine, real_kafka: Kafka
) -> None:
    """Behind compaction, markers and an aborted transaction, a cursor ends where the live stream is."""
    worker, subscription = _paused(deployment, command_line)
    for number in range(20, 40):
        deployment.write(_body(number), key=b"%d" % (number % 2))
    deployment.flush()
    producer = real_kafka.transactional()

    def transact(first: int, end: Callable[[float], None]) -> None:
        producer.begin_transaction()
        for number in range(first, first + 5):
            producer.produce(deployment.topic, _body(number), b"%d" % number, 0)
        producer.flush(20)
        end(20)

    transact(40, producer.commit_transaction)
    transact(50, producer.abort_transaction)
    eventually(lambda: deployment.committed()[0] == 26, otherwise=lambda: (deployment.committed(), worker.log[-2000:]))
    real_kafka.configure(
        deployment.topic, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001"
    )
    numbers = count(100)

    def is_compacted() -> bool:  # a segment may be cleaned once a record was appended behind it
        deployment.write(_body(next(numbers)), key=b"filler")
        deployment.flush()
        return 30 not in _held(deployment)

    eventually(is_compacted, every=0.5)
    transact(60, producer.abort_transaction)
    transact(70, producer.commit_transaction)  # its marker is the last offset
    eventually(lambda: deployment.lag() == 1, otherwise=lambda: (deployment.committed(), _positions(deployment)))
    assert command_line.run("subscriptions", "resume", subscription)[0] == 0
    eventually(lambda: 74 in _got(deployment), otherwise=lambda: (_got(deployment), _positions(deployment)))
    end = deployment.committed()[0]
    eventually(lambda: _positions(deployment) in ([], [(end, end)]), otherwise=lambda: (end, _positions(deployment)))
    got = _got(deployment)
    assert {38, 39, 40, 44, 70} <= {*got}
    assert _held(deployment) <= {*got}
    assert not {*got}.intersection([*range(20, 38), *range(50, 55), *range(60, 65)])
    assert worker.metric("webhooks_backlog_lost_total") == 0
    assert "gone from Kafka" not in worker.log
    worker.stop()


def test_events_that_retention_took_are_told_once(deployment: Deployment, command_line: CommandLine) -> None:
    """The log, a metric and an operational event name the offsets when it happens; a restart is silent.

    The events behind them come once the subscription is resumed.
    """
    deployment.alter(TIDY_OFTEN)
    worker, subscription = _paused(deployment, command_line)
    for number in range(2, 12):  # at offsets 1 to 10
        deployment.write(_body(number))
    deployment.flush()
    eventually(lambda: not deployment.lag(), otherwise=deployment.committed)
    eventually(lambda: _positions(deployment) == [(1, None)], otherwise=lambda: _positions(deployment))
    place = TopicPartition(deployment.topic, 0, 5)
    admin = AdminClient({"bootstrap.servers": deployment.servers, **QUIET})
    admin.delete_records([place])[place].result(20)
    eventually(lambda: worker.metric("webhooks_backlog_lost_total") == 4, otherwise=lambda: worker.log[-2000:])
    eventually(lambda: _positions(deployment) == [(5, None)], otherwise=lambda: _positions(deployment))
    assert command_line.run("subscriptions", "resume", subscription)[0] == 0
    eventually(lambda: 11 in _got(deployment), otherwise=lambda: (_got(deployment), worker.log[-2000:]))
    assert [number for number in _got(deployment) if number > 1] == list(range(6, 12))
    assert worker.metric("webhooks_backlog_lost_total") == 4
    eventually(lambda: _lost(deployment), otherwise=lambda: worker.log[-2000:])
    assert [(each["first_offset"], each["end_offset"]) for each in _lost(deployment)] == [(1, 5)]
    eventually(lambda: _positions(deployment) in ([], [(11, 11)]), otherwise=lambda: _positions(deployment))
    worker.stop()
    again = deployment.start()
    deployment.write(_body(12))
    deployment.flush()
    eventually(lambda: 12 in _got(deployment))
    assert again.metric("webhooks_backlog_lost_total") == 0
    assert (worker.log + again.log).count("gone from Kafka") == 1
    again.stop()
