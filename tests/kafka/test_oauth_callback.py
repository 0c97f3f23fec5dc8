"""KAFKA_OAUTH_CALLBACK: a function of the operator gives tokens."""

import time

import pytest
from structlog.testing import capture_logs

from consumer.config.environment import load
from consumer.config.settings import KafkaSettings
from consumer.config.slips import variable_of
from consumer.errors import KafkaUnavailable, SettingsError
from consumer.kafka.client import client_properties

TOKEN = ("token", 2e9, "me", {"x": "y"})
OAUTH = {"security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER"}


def test_a_callback_is_asked_before_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first answer goes to the client, which would wait for ten seconds for a failing one."""
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    asked: list[str | None] = []

    def token_of(config: str | None) -> tuple[object, ...]:
        asked.append(config)
        return TOKEN

    properties = {**OAUTH, "sasl.oauthbearer.config": "for-it"}
    kafka = KafkaSettings(bootstrap_servers="b:1", oauth_callback=token_of, properties=properties)
    made = client_properties(kafka)
    assert made.keys() == {*properties, "oauth_cb"}
    assert asked == ["for-it"]
    assert made["oauth_cb"]("for-it") == TOKEN
    assert asked == ["for-it"]
    assert made["oauth_cb"]("for-it") == TOKEN
    assert asked == ["for-it", "for-it"]


@pytest.mark.parametrize(
    "answer", [None, "token", ("token",), ("token", "2e9"), (b"token", 2e9), ("token", 2e12), ("token", 1.8e9)]
)
def test_a_callback_that_gives_no_token_is_named(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    """An end in milliseconds, or one that is over, is no end."""
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    kafka = KafkaSettings(bootstrap_servers="b:1", oauth_callback=lambda _: answer, properties=OAUTH)  # type: ignore[arg-type, return-value]  # a mistake
    with pytest.raises(KafkaUnavailable, match=r"^no token for Kafka from KAFKA_OAUTH_CALLBACK: it must return"):
        client_properties(kafka)


def test_a_callback_that_raises_is_named() -> None:
    """The exception's text may hold a secret, and is not shown."""

    def token_of(_config: str | None) -> tuple[str, float]:
        raise LookupError("secret-123")

    kafka = KafkaSettings(bootstrap_servers="b:1", oauth_callback=token_of, properties=OAUTH)
    with capture_logs() as logs, pytest.raises(KafkaUnavailable, match=r"it failed \(LookupError\)"):
        client_properties(kafka)
    assert "secret-123" not in str(logs)


@pytest.mark.parametrize(
    ("value", "properties", "said"),
    [
        ("signer", OAUTH, "is not written module:function"),
        ("no.such:token", OAUTH, "No module named 'no'; install it where this process runs"),
        ("json:no_such", OAUTH, "the module json has no no_such"),
        ("json:__name__", OAUTH, "json:__name__ is neither a class nor a function"),
        ("json:loads", {}, "set KAFKA_SECURITY_PROTOCOL=SASL_SSL and KAFKA_SASL_MECHANISMS=OAUTHBEARER"),
        ("json:loads", {**OAUTH, "sasl.oauthbearer.method": "oidc"}, "leave KAFKA_SASL_OAUTHBEARER_METHOD out"),
    ],
)
def test_a_callback_that_cannot_be_used(value: str, properties: dict[str, str], said: str) -> None:
    """It is reported at the start, as a wrong setting. Without a mechanism that uses it, no client would start."""
    values = {"KAFKA_BOOTSTRAP_SERVERS": "b:1", "KAFKA_OAUTH_CALLBACK": value}
    values |= {variable_of(name): text for name, text in properties.items()}
    with pytest.raises(SettingsError, match=f"KAFKA_OAUTH_CALLBACK.*{said}"):
        load(KafkaSettings, values)
