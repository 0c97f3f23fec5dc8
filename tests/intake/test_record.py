"""A partition tells records removed by retention from offsets skipped by compaction."""

from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.intake.group_consumer import SourceHealth
from consumer.intake.record import (
    GAP_SECONDS,
    STEADY_SECONDS,
    AssignedPartition,
)
from tests.kafka_kit import Kafka

NOW = 1000.0


def partition(committed: int | None = 10, *, read: int = 0) -> AssignedPartition:
    """A partition with this committed offset, of which so many records were read."""
    each = AssignedPartition("t", 0)
    each.start(committed)
    for offset in range(read):
        each.tracker.track((committed or 0) + offset)
    return each


def test_records_below_the_begin_of_the_log_were_overtaken() -> None:
    """It was read up to 11, and the next record was 50, where the log now begins. They are reported once."""
    each = partition(read=1)
    each.skipped(50, NOW)
    assert each.overtaken(0, NOW) == 0  # an answer from before the gap
    assert not each.passed(49)
    assert each.overtaken(50, NOW + 1) == 39
    assert each.overtaken(50, NOW + 1) == 0
    assert each.overtaken(40, NOW + 1) == 0  # an answer from before, too
    assert (each.passed(49), each.passed(50)) == (True, False)


def test_no_offset_is_passed_before_it_is_read() -> None:
    """Else a stored delivery would overtake an unread record of its key. At the end of the log none is awaited."""
    each = AssignedPartition("t", 0)
    assert not any(map(each.passed, (0, 10, 200)))
    each.start(10)
    each.lag = 0  # it may be of an earlier assignment
    assert list(map(each.passed, (9, 10, 200))) == [True, False, False]
    each.tracker.track(10)
    assert list(map(each.passed, (10, 11))) == [True, False]
    each.reached(90, NOW)  # compaction has removed the records between
    assert list(map(each.passed, (89, 90, 200))) == [True, False, False]


def test_an_offset_beyond_a_steady_end_is_of_an_earlier_topic() -> None:
    """A new leader may expose a part of its log at first: a record that is still to come is not passed."""
    each = AssignedPartition("t", 0)
    each.start(100)
    each.reached(105, NOW)
    each.ends_at(105, NOW + 1)
    assert not each.passed(118)
    each.ends_at(120, NOW + STEADY_SECONDS)
    assert not each.passed(118)
    each.reached(120, NOW + STEADY_SECONDS)
    each.ends_at(120, NOW + 2 * STEADY_SECONDS)
    assert list(map(each.passed, (118, 119, 120, 200))) == [True] * 4


def test_records_removed_before_the_first_is_read_are_reported_once() -> None:
    """They are known once the first remaining record comes, or at the end of the log, if there is none."""
    each = partition()
    each.reached(50, NOW)
    assert each.overtaken(50, NOW + 1) == 40
    each = partition()
    assert each.overtaken(40, NOW) == 0
    each.skipped(40, NOW)
    each.tracker.track(40)
    assert [each.overtaken(40, NOW), each.overtaken(40, NOW)] == [30, 0]


@pytest.mark.parametrize(("committed", "begin"), [(10, 10), (10, 51), (None, 50)])
def test_a_gap_not_caused_by_retention_is_not_reported(committed: int | None, begin: int) -> None:
    """The log begins before the gap, or in the middle of the records read since, or the group is new."""
    each = partition(committed, read=0 if committed is None else 1)
    each.skipped(50, NOW)
    each.tracker.track(50)
    assert each.overtaken(begin, NOW) == 0


def test_a_gap_is_forgotten_after_a_while() -> None:
    """A log that ages behind the reader has not overtaken it. Of recent gaps the longest is kept, then the last."""
    each = partition(read=1)
    each.skipped(50, NOW)
    each.skipped(20, NOW)
    assert each.overtaken(5, NOW + GAP_SECONDS) == 0
    assert each.gap == (11, 50, NOW)
    each.skipped(50, NOW + 1)
    assert each.gap == (11, 50, NOW + 1)
    assert each.overtaken(5, NOW + GAP_SECONDS + 2) == 0
    assert each.overtaken(50, NOW + GAP_SECONDS + 2) == 0


def test_a_transaction_that_stays_open_is_a_fault() -> None:
    """Its records and all later ones wait, though no lag shows it. Transactions that follow each other are none."""
    clock = [NOW]
    health = SourceHealth(KafkaSettings(bootstrap_servers="b:1"), lambda: clock[0])
    each = partition()

    def told(stable: int, end: int, read_to: int) -> str | None:
        offsets = {"consumer_lag": 0, "lo_offset": 0, "ls_offset": stable, "hi_offset": end, "eof_offset": read_to}
        topics = {each.topic: {"partitions": {str(each.number): offsets}}}
        document = orjson.dumps({"topics": topics, "brokers": {}}).decode()
        clock[0] += 20
        health.statistics(document, {each.topic_partition: each}, cast("Consumer", None))
        return health.of_records

    assert [told(10, 12, 10), told(11, 14, 11), told(11, 15, 11)] == [None] * 3
    assert told(11, 16, 11) == "an open transaction has held back 5 records of t[0] for 40 s"
    assert each.held == (11, 5, NOW + 40)
    assert told(11, 16, -1001) is None, "paused: these offsets may be old"
    assert told(11, 16, 11) is None
    assert told(16, 16, 16) is None
    assert each.held is None
    assert told(-1001, 5, -1001) is None, "nothing is fetched yet"
    assert each.held is None


class Unaccepted:
    """A member that the group has not accepted."""

    def consumer_group_metadata(self) -> bytes:
        return b"CGMDv2:\xff\xff\xff\xffwebhooks\0id\0"


def statistics(age: float, state: str = "up") -> str:
    """A document of librdkafka, `age` seconds after the coordinator came to this state."""
    group: dict[str, Any] = {"state": state, "join_state": "init", "stateage": int(age * 1000)}
    return orjson.dumps(
        {
            "cgrp": group,
            "brokers": {"b": {"state": "UP", "waitresp_cnt": 0, "toppars": {}, "source": "learned"}},
            "topics": {},
        }
    ).decode()


def test_brokers_without_kip_848_are_named() -> None:
    """They never answer, and librdkafka reports no error: after 15 s, /readyz and the log say what to change."""
    health = SourceHealth(Kafka("b:1", real=False).settings(group_protocol="consumer"), lambda: 0.0)
    faults = []
    with capture_logs() as logs:
        for document in (statistics(2), statistics(60, "wait-coord"), statistics(14), statistics(16), statistics(17)):
            health.statistics(document, {}, cast("Consumer", Unaccepted()))
            faults.append(str(health.of_kafka))
    assert all(fault == "waiting for the group to assign partitions" for fault in faults[:3])
    advice = "set KAFKA_GROUP_PROTOCOL=classic: the other protocol needs Kafka 4.0 or newer"
    assert all(fault.endswith(f"if its brokers are older than Kafka 4.0, {advice}") for fault in faults[3:])
    assert [entry["advice"] for entry in logs if entry["log_level"] == "warning"] == [advice]
