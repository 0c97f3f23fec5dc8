"""Remedies when Kafka refuses this client, by the messages of librdkafka 2.16."""

import pytest
from confluent_kafka import KafkaError

from consumer.config.settings import KafkaSettings
from consumer.crypto.certificates import ca_file
from consumer.kafka.client import Reachability, Reported, explained, known_properties, remedy
from tests.docs.documentation import TEXTS

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
