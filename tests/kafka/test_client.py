"""Whether brokers answer: from what librdkafka says each second, then with brokers that hang."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.kafka import client
from consumer.kafka.client import SILENT, Reachability
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import Kafka, Member, until

Join = Callable[..., Member]
LEADER, COORDINATOR, OTHER = "10.0.0.1:9092/1", "GroupCoordinator", "10.0.0.2:9092/2"


class Statistics:
    """What librdkafka says each second of a leader, a coordinator and a broker that leads nothing here."""

    def __init__(self, **properties: str) -> None:
        self.now = 1000.0
        settings = KafkaSettings(bootstrap_servers="10.0.0.1:9092", properties=properties)
        self.reachability = Reachability(settings, lambda: self.now)
        self.join_state = "steady"
        self.waiting = {LEADER: 1, COORDINATOR: 0, OTHER: 0}
        self.answers = {LEADER: 5, COORDINATOR: 5, OTHER: 5}

    def pass_by(self, seconds: int, *answering: str) -> str | None:
        for _ in range(seconds):
            self.now += 1
            for name in answering:
                self.answers[name] += 1
            self.reachability.statistics(
                {"cgrp": {"state": "up", "join_state": self.join_state}, "brokers": self.brokers()}
            )
        return self.reachability.fault

    def brokers(self) -> dict[str, Any]:
        return {
            name: {
                "state": "UP",
                "nodename": name.partition("/")[0] if name != COORDINATOR else "10.0.0.1:9092",
                "source": "logical" if name == COORDINATOR else "learned",
                "waitresp_cnt": self.waiting[name],
                "rx": self.answers[name],
                "toppars": {"t-0": {}} if name == LEADER else {},
            }
            for name in self.waiting
        }


def test_a_leader_that_owes_an_answer_for_long_is_named() -> None:
    """After twelve seconds, and no more once one has come."""
    seen = Statistics()
    assert seen.pass_by(60, LEADER) is None
    assert seen.pass_by(int(SILENT) - 1) is None
    with capture_logs() as logs:
        assert seen.pass_by(1) == "the Kafka broker 10.0.0.1:9092 has not answered for 12 s"
        assert seen.pass_by(30) == "the Kafka broker 10.0.0.1:9092 has not answered for 42 s"
        assert seen.pass_by(1, LEADER) is None
    assert [entry["event"] for entry in logs] == ["a Kafka broker does not answer", "connected to Kafka"]


def test_who_is_asked_nothing_owes_nothing() -> None:
    """Partitions that are paused are not fetched; and a question just asked is not as old as the last answer."""
    seen = Statistics()
    seen.waiting[LEADER] = 0
    assert seen.pass_by(600) is None
    seen.waiting[LEADER] = 1
    assert seen.pass_by(2) is None


def test_a_broker_that_leads_nothing_here_is_let_be() -> None:
    """Another takes over what it led: no event waits for it."""
    seen = Statistics()
    seen.waiting[OTHER] = 1
    assert seen.pass_by(600, LEADER) is None


def test_a_coordinator_may_let_a_member_wait_that_joins() -> None:
    """It answers when all have joined. Heartbeats it answers at once."""
    seen = Statistics()
    seen.waiting[COORDINATOR] = 1
    seen.join_state = "wait-join"
    assert seen.pass_by(300, LEADER) is None
    seen.join_state = "steady"
    assert "has not answered" in str(seen.pass_by(int(SILENT) + 2, LEADER))


def test_a_fetch_may_be_told_to_wait_for_long() -> None:
    """By `fetch.wait.max.ms`, for so much longer."""
    seen = Statistics(**{"fetch.wait.max.ms": "30000"})
    assert seen.pass_by(int(SILENT) + 29) is None
    assert seen.pass_by(2) is not None


@pytest.mark.parametrize(("protocol", "paused"), [("classic", False), ("classic", True), ("consumer", False)])
def test_a_broker_that_hangs(
    one_node: KafkaBroker, join: Join, monkeypatch: pytest.MonkeyPatch, protocol: str, *, paused: bool
) -> None:
    """It is named though its connections stay, also where nothing is fetched; quiet topics alone are no fault."""
    monkeypatch.setattr(client, "SILENT", 3.0)
    kafka = Kafka(one_node.bootstrap, real=True)
    member = join(kafka.settings(group_protocol=protocol), [kafka.topic()])
    until(lambda: member.assigned and member.source.fault is None, member)
    if paused:
        member.source.pause()
    for _ in range(100):  # five seconds
        member.turn()
        assert member.source.fault is None
    one_node.pause()
    try:
        until(lambda: f"{one_node.bootstrap} has not answered for" in str(member.source.fault), member)
    finally:
        one_node.resume()
    until(lambda: member.source.fault is None, member)
