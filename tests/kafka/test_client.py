"""Brokers that do not answer, or that refuse this client, by the messages of librdkafka 2.16."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from consumer.config.settings import KafkaSettings
from consumer.crypto.certificates import ca_file
from consumer.errors import SettingsError
from consumer.kafka import client
from consumer.kafka.client import SILENT, Reachability, Reported, explained, known_properties, remedy
from consumer.ops.cluster import connected
from tests.docs.documentation import TEXTS
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


def test_a_broker_without_requests_or_partitions_is_no_fault() -> None:
    """Paused partitions are not fetched. A new request is not as old as the last answer.

    No event waits for a broker that leads none of the partitions: another one leads its former ones.
    """
    seen = Statistics()
    seen.waiting[LEADER], seen.waiting[OTHER] = 0, 1
    assert seen.pass_by(600) is None
    seen.waiting[LEADER] = 1
    assert seen.pass_by(2) is None
    assert seen.pass_by(600, LEADER) is None
    patient = Statistics(**{"fetch.wait.max.ms": "30000"})  # is added to the limit
    assert patient.pass_by(int(SILENT) + 29) is None
    assert patient.pass_by(2) is not None


def test_a_coordinator_may_delay_the_answer_to_a_join() -> None:
    """It answers when all have joined. Heartbeats are answered at once."""
    seen = Statistics()
    seen.waiting[COORDINATOR] = 1
    seen.join_state = "wait-join"
    assert seen.pass_by(300, LEADER) is None
    seen.join_state = "steady"
    assert "has not answered" in str(seen.pass_by(int(SILENT) + 2, LEADER))


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
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM"},
            "KAFKA_SASL_MECHANISM: Kafka's client has no mechanism 'SCRAM'; set PLAIN, SCRAM-SHA-256, ",
        ),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanisms": "GSSAPI"},
            "KAFKA_SASL_MECHANISMS: Kafka's client has no mechanism 'GSSAPI'; set PLAIN, SCRAM-SHA-256, ",
        ),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanisms": "PLAIN"},
            "PLAIN needs a user and a password; set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
        ),
        (
            {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "u"},
            "PLAIN needs a user and a password; set KAFKA_SASL_PASSWORD",
        ),
        (
            {"security.protocol": "TLS"},
            'KAFKA_SECURITY_PROTOCOL: Invalid value "TLS" for configuration property "security.protocol"; set PLAIN',
        ),
        (
            {"socket.timeout.ms": "1"},
            'KAFKA_SOCKET_TIMEOUT_MS: Configuration property "socket.timeout.ms" value 1 is outside allowed range',
        ),
    ],
)
def test_settings_that_make_no_client_are_named(properties: dict[str, str], why: str) -> None:
    """The setting's own name is in the line, and what is wrong with it."""
    with pytest.raises(SettingsError) as caught:
        connected(KafkaSettings(bootstrap_servers="127.0.0.1:1", properties=properties))
    assert str(caught.value).startswith(why)


# Refusals.

AUTHENTICATION, TRANSPORT, TLS = KafkaError._AUTHENTICATION, KafkaError._TRANSPORT, KafkaError._SSL
TOKEN = "Failed to acquire SASL OAUTHBEARER token: "
TEXTS_OF = [  # code, text, start of the remedy
    (AUTHENTICATION, "SASL authentication error: Authentication failed: Invalid username", "check KAFKA_SASL_USERNAME"),
    (AUTHENTICATION, f"{TOKEN}error adding trust anchors from file: /etc/pki/tls/certs/x.crt", "set KAFKA_HTTPS_CA"),
    (AUTHENTICATION, f"{TOKEN}SSL certificate OpenSSL verify result: unable to get local", "set KAFKA_HTTPS_CA"),
    (AUTHENTICATION, f"{TOKEN}OAuth callback raised exception", "the log says why KAFKA_OAUTH_CALLBACK gave no token"),
    (AUTHENTICATION, f'{TOKEN}{{"error": "invalid_client"}}', "check KAFKA_SASL_OAUTHBEARER_CLIENT_ID"),
    (AUTHENTICATION, 'SASL authentication error: {"status":"invalid_token"}', "the brokers do not accept its tokens"),
    (AUTHENTICATION, "mechanism handshake failed: Broker: Unsupported SASL mechanism: ", "set KAFKA_SASL_MECHANISMS"),
    (TLS, "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker", "set KAFKA_SSL_CA"),
    (TRANSPORT, "error:0A000086:SSL routines::certificate verify failed (after 5ms)", "set KAFKA_SSL_CA_LOCATION"),
    (TRANSPORT, "ssl/tls alert bad certificate: SSL alert number 42", "check KAFKA_SSL_CERTIFICATE_LOCATION"),
    (
        KafkaError._FATAL,
        "Fatal error: ConsumerGroupHeartbeat fatal error: Broker: API version not supported",
        "set KAFKA_GROUP_PROTOCOL=classic",
    ),
    (TRANSPORT, "SSL connection closed: connecting to a PLAINTEXT broker listener?", "check KAFKA_SECURITY_PROTOCOL"),
]


@pytest.mark.parametrize(("code", "text", "change"), TEXTS_OF)
def test_a_refusal_has_a_remedy(code: int, text: str, change: str) -> None:
    """The documentation lists it, word for word."""
    advice = remedy(KafkaError(code, text))
    assert advice is not None
    assert advice.startswith(change)
    assert explained(KafkaError(code, text)) == f"{text}; {advice}"
    assert f"`{advice}`" in TEXTS["docs/kafka-security.md"]


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(TRANSPORT, "Connect to ipv4#127.0.0.1:1 failed: Connection refused"),
        # Brokers refuse to authenticate twice within a second; the client connects again.
        KafkaError(AUTHENTICATION, "mechanism handshake failed: Broker: Request not valid in current SASL state"),
        KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED),  # no topic named
    ],
)
def test_other_errors_are_shown_unchanged(error: KafkaError) -> None:
    """They need no change of credentials."""
    assert remedy(error) is None
    assert explained(error) == error.str()


def test_a_missing_right_names_its_topic_or_group() -> None:
    """The broker's message names none."""
    topic, group = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED
    assert remedy(KafkaError(topic), topic="orders") == "allow this service's user Read on the topic orders"
    assert remedy(KafkaError(group), group="webhooks") == "allow this service's user Read on the group webhooks"
    fatal = KafkaError(KafkaError._FATAL, "Fatal error: Broker: Group authorization failed")
    assert remedy(fatal, group="webhooks") == "allow this service's user Read on the group webhooks"


def test_a_lost_connection_does_not_hide_the_refusal() -> None:
    """The refusal stays in /readyz until a broker answers."""
    reachability = Reachability(KafkaSettings(bootstrap_servers="b:1"))
    reachability.error(KafkaError(AUTHENTICATION, "SASL authentication error"))
    reachability.error(KafkaError(TRANSPORT, "Disconnected"))
    refused = "(SASL authentication error; check KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD)"
    assert reachability.fault == f"not yet connected to Kafka at b:1 {refused}"
    reachability.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert reachability.fault == f"no Kafka broker reachable at b:1 {refused}"
    reachability.up()
    reachability.error(KafkaError(TRANSPORT, "Disconnected"))
    assert reachability.fault is None
    assert reachability.detail == "Disconnected"


def test_one_document_from_before_an_answer_is_no_outage() -> None:
    """Statistics are queued: after a broker has answered, one that knows none is old. Two of them are an outage."""
    reachability = Reachability(KafkaSettings(bootstrap_servers="b:1"))
    document: dict[str, dict[str, object]] = {"brokers": {}}
    reachability.statistics(document)
    reachability.coordinated()
    reachability.statistics(document)
    assert reachability.fault is None
    reachability.statistics(document)
    assert reachability.fault == "no Kafka broker reachable at b:1"


def test_a_group_that_answers_again_clears_the_fault() -> None:
    """Even if the member kept its partitions and none was assigned."""
    reported = Reported("webhooks")
    group = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "FindCoordinator: Group authorization failed")
    reported.error(None, group)
    for state, join_state in (("query-coord", "steady"), ("up", "wait-join")):
        reported.statistics({"cgrp": {"state": state, "join_state": join_state}})
        assert reported.fault == f"{group.str()}; allow this service's user Read on the group webhooks"
    reported.statistics({"cgrp": {"state": "up", "join_state": "steady"}})
    assert reported.fault is None


def test_a_token_server_is_verified_with_the_receivers_authorities() -> None:
    """Librdkafka's default is a file that Debian does not have. A configured file or text takes precedence."""
    oidc = {"sasl.oauthbearer.method": "OIDC"}
    assert known_properties(oidc)[0] == {**oidc, "https.ca.location": ca_file()}
    named = {**oidc, "https.ca.location": "/etc/hostname"}
    assert known_properties(named)[0] == named
    assert known_properties({"client.id": "a"})[0] == {"client.id": "a"}
