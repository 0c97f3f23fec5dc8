"""Sizes of records. A partition tells records removed by retention from offsets skipped by compaction."""

from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.intake.record import BAD_HEADERS, GAP_SECONDS, Headers, Partition, Record, Unreadable
from consumer.intake.source_health import SourceHealth
from tests.kafka_kit import Kafka

NOW = 1000.0


def partition(committed: int | None = 10, begin: int | None = 0, end: int = 100) -> Partition:
    """A partition with this committed offset and this begin and end of its log. None: Kafka has not answered yet."""
    each = Partition("t", 0)
    each.start(committed)
    if begin is not None:
        each.reaches(begin, end, NOW)
    return each


@pytest.mark.parametrize(
    ("key", "value", "headers", "size"),
    [
        (None, None, None, 0),
        (b"key", b"value", BAD_HEADERS, 8),
        (b"key", b"value", [("a", b"1234"), ("bc", None)], 8 + 7 + 2 * 100),
    ],
)
def test_the_size_of_a_record_is_all_that_it_holds(
    key: bytes | None, value: bytes | None, headers: Headers | Unreadable | None, size: int
) -> None:
    """A header takes memory besides its name and value: a mebibyte of empty ones takes more than a large value."""
    assert Record(partition(), 0, 0, key, value, headers).size == size


def test_records_below_the_begin_of_the_log_were_overtaken() -> None:
    """It was read up to 10, and the next record was 50, where the log now begins. They are reported once."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(0, NOW) == 0  # an answer from before the gap
    assert each.overtaken(50, NOW + 1) == 40
    assert each.overtaken(50, NOW + 1) == 0
    each.reaches(40, 100, NOW)  # an answer from before, too
    assert (each.passed(49), each.passed(50)) == (True, False)
    assert partition(begin=40).passed(39)


@pytest.mark.parametrize("end", [100, None])
def test_a_lag_of_0_does_not_show_that_a_record_was_read(end: int | None) -> None:
    """It may be of an earlier assignment. A stored delivery would then overtake an unread record of its key."""
    each = partition(begin=None if end is None else 0)
    each.lag = 0
    assert [each.passed(offset) for offset in (9, 10, 99)] == [True, False, False]
    assert each.passed(100) is (end is not None)


def test_no_offset_is_passed_before_the_position_is_known() -> None:
    """Then offsets below the commit and beyond the log's end are passed. The others are once they are read."""
    each = Partition("t", 0)
    assert not any(map(each.passed, (0, 10, 200)))
    each.start(10)
    assert list(map(each.passed, (9, 10, 200))) == [True, False, False]
    each.reaches(0, 100, NOW)
    assert list(map(each.passed, (9, 10, 99, 100))) == [True, False, False, True]
    each.tracker.track(10)
    assert list(map(each.passed, (10, 11))) == [True, False]
    each.read_to = 90  # compaction has removed the records between
    assert list(map(each.passed, (89, 90))) == [True, False]


@pytest.mark.parametrize("read", [False, True])
def test_records_removed_before_the_position_is_known_are_reported_once(*, read: bool) -> None:
    """The first remaining record may come before or after the answer, and either may report them."""
    each = partition(begin=None)
    if read:
        each.skipped(40, NOW)
        each.tracker.track(40)
    assert each.reaches(40, 100, NOW) == 30
    if not read:
        each.skipped(40, NOW)
        each.tracker.track(40)
    assert each.overtaken(40, NOW) == 0
    assert each.reaches(40, 100, NOW) == 0
    each = partition(begin=None)
    each.skipped(40, NOW)
    each.tracker.track(40)
    assert each.overtaken(40, NOW) == 30
    assert each.reaches(40, 100, NOW) == 0


def test_a_gap_not_caused_by_retention_is_not_reported() -> None:
    """The log begins before the gap, or in the middle of the records read since."""
    each = partition()
    each.skipped(50, NOW)
    assert each.overtaken(10, NOW) == 0
    assert each.overtaken(51, NOW) == 0


@pytest.mark.parametrize(
    ("committed", "begin", "lost"),
    [(10, 40, 10), (None, 40, 10), (10, None, 40), (0, None, 50), (10, 60, 0), (None, None, 0)],
)
def test_records_gone_at_the_assignment_are_not_reported_again(
    committed: int | None, begin: int | None, lost: int
) -> None:
    """They were reported at the assignment, if they were known. If nothing is known, nothing is reported."""
    each = partition(committed, begin)
    each.skipped(50, NOW)
    assert each.overtaken(50, NOW) == lost


def test_a_gap_is_forgotten_after_a_while() -> None:
    """A log that ages behind the reader has not overtaken it. Of recent gaps the longest is kept, then the last."""
    each = partition()
    each.skipped(50, NOW)
    each.skipped(20, NOW)
    assert each.overtaken(5, NOW + GAP_SECONDS) == 0
    assert each.gap == (10, 50, NOW)
    each.skipped(50, NOW + 1)
    assert each.gap == (10, 50, NOW + 1)
    assert each.overtaken(5, NOW + GAP_SECONDS + 2) == 0
    assert each.overtaken(50, NOW + GAP_SECONDS + 2) == 0


def test_a_transaction_that_stays_open_is_a_fault() -> None:
    """Its records and all later ones wait, though no lag shows it. Transactions that follow each other are none."""
    clock = [NOW]
    health = SourceHealth(KafkaSettings(bootstrap_servers="b:1"), 0, lambda: clock[0])
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
    health = SourceHealth(Kafka("b:1", real=False).settings(group_protocol="consumer"), 0, lambda: 0.0)
    faults = []
    with capture_logs() as logs:
        for document in (statistics(2), statistics(60, "wait-coord"), statistics(14), statistics(16), statistics(17)):
            health.statistics(document, {}, cast("Consumer", Unaccepted()))
            faults.append(str(health.of_kafka))
    assert all(fault == "waiting for the group to assign partitions" for fault in faults[:3])
    advice = "set KAFKA_GROUP_PROTOCOL=classic: the other protocol needs Kafka 4.0 or newer"
    assert all(fault.endswith(f"if its brokers are older than Kafka 4.0, {advice}") for fault in faults[3:])
    assert [entry["advice"] for entry in logs if entry["log_level"] == "warning"] == [advice]
