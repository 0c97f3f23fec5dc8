"""Whether a member is ready, by librdkafka's statistics."""

from typing import Any, cast

import orjson
from confluent_kafka import Consumer
from structlog.testing import capture_logs

from consumer.intake.source_health import SourceHealth
from tests.kafka_kit import Kafka


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
