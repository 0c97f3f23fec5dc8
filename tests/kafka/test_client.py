"""Brokers that do not answer: from librdkafka's statistics, then with brokers that hang."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.errors import SettingsError
from consumer.kafka import client
from consumer.kafka.client import SILENT, Reachability
from consumer.ops.cluster import connected
from tests.kafka_broker import KafkaBroker
from tests.kafka_kit import Kafka, Member, until

Join = Callable[..., Member]
LEADER, COORDINATOR, OTHER = "10.0.0.1:9092/1", "GroupCoordinator", "10.0.0.2:9092/2"


class Statistics:
    """librdkafka's statistics of a leader, a coordinator and a broker that leads no partition of ours, each second."""

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


def test_a_leader_that_does_not_answer_is_named() -> None:
    """After twelve seconds, until it answers."""
    seen = Statistics()
    assert seen.pass_by(60, LEADER) is None
    assert seen.pass_by(int(SILENT) - 1) is None
    with capture_logs() as logs:
        assert seen.pass_by(1) == "the Kafka broker 10.0.0.1:9092 has not answered for 12 s"
        assert seen.pass_by(30) == "the Kafka broker 10.0.0.1:9092 has not answered for 42 s"
        assert seen.pass_by(1, LEADER) is None
    assert [entry["event"] for entry in logs] == ["a Kafka broker does not answer", "connected to Kafka"]


def test_a_broker_without_requests_is_no_fault() -> None:
    """Paused partitions are not fetched. A new request is not as old as the last answer."""
    seen = Statistics()
    seen.waiting[LEADER] = 0
    assert seen.pass_by(600) is None
    seen.waiting[LEADER] = 1
    assert seen.pass_by(2) is None


def test_a_broker_that_leads_no_partition_is_ignored() -> None:
    """Another one leads its former partitions, so no event waits for it."""
    seen = Statistics()
    seen.waiting[OTHER] = 1
    assert seen.pass_by(600, LEADER) is None


def test_a_coordinator_may_delay_the_answer_to_a_join() -> None:
    """It answers when all have joined. Heartbeats are answered at once."""
    seen = Statistics()
    seen.waiting[COORDINATOR] = 1
    seen.join_state = "wait-join"
    assert seen.pass_by(300, LEADER) is None
    seen.join_state = "steady"
    assert "has not answered" in str(seen.pass_by(int(SILENT) + 2, LEADER))


def test_a_fetch_may_be_configured_to_wait_for_long() -> None:
    """`fetch.wait.max.ms` is added to the limit."""
    seen = Statistics(**{"fetch.wait.max.ms": "30000"})
    assert seen.pass_by(int(SILENT) + 29) is None
    assert seen.pass_by(2) is not None


@pytest.mark.parametrize(("protocol", "paused"), [("classic", False), ("classic", True), ("consumer", False)])
def test_a_broker_that_hangs(
    one_node: KafkaBroker, join: Join, monkeypatch: pytest.MonkeyPatch, protocol: str, *, paused: bool
) -> None:
    """It is named although its connections stay open, even if nothing is fetched. Quiet topics alone are no fault."""
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


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ({"security.protocol": "SASL_SSL"}, "KAFKA_SASL_MECHANISMS is not set. For example: KAFKA_SASL_MECHANISMS="),
        (
            {"security.protocol": "ssl", "ssl.ca.location": "/no/ca.pem"},
            "KAFKA_SSL_CA_LOCATION: /no/ca.pem cannot be read: No such file or directory",
        ),
        (
            {"security.protocol": "ssl", "ssl.key.location": "/etc/hostname"},
            "KAFKA_SSL_KEY_LOCATION: /etc/hostname is not the PEM file that it should be",
        ),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanisms": "NO"},
            "Kafka's client refuses the settings: Failed to create admin client: Unsupported SASL mechanism: NO",
        ),
    ],
)
def test_settings_that_make_no_client_are_named(properties: dict[str, str], why: str) -> None:
    """The setting's own name is in the line, and what is wrong with it."""
    with pytest.raises(SettingsError) as caught:
        connected(KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties))
    assert str(caught.value).startswith(why)
