"""Settings: reading, refusing invalid values, and the errors shown to users."""

import re
import sys
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.config import settings, slips, types
from consumer.config.environment import environment, load, load_worker
from consumer.config.slips import Slip
from consumer.config.types import REFUSED_KAFKA_PROPERTIES, final_statuses, seconds, waits
from consumer.database.engine import create_engine, place_of
from consumer.errors import SettingsError
from consumer.kafka.client import known_properties

LEAST = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "KAFKA_TOPICS": "orders, users",
    "DATABASE_URL": "sqlite:///webhooks.db",
    "WEBHOOK_SECRET": "newest whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}


def refusal(group: type[Any], **values: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(group, {**LEAST, **values})
    return str(caught.value)


def test_four_settings_are_enough() -> None:
    """All but four settings have defaults. The log's level may be in small letters."""
    worker = load_worker({**LEAST, "LOG_LEVEL": "debug"})
    assert worker.log.log_level == "DEBUG"
    assert worker.topics.topics == ("orders", "users")
    assert worker.delivery.secrets == ("newest", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert worker.delivery.retry_schedule[:2] == (5, 300)
    assert worker.kafka.group_id == "webhooks"
    assert worker.kafka.properties == {}


@pytest.mark.parametrize("name", LEAST)
def test_a_missing_setting_is_named_with_an_example(name: str) -> None:
    """For each of the four, if it is missing, one line has its name, its purpose and a valid value."""
    with pytest.raises(SettingsError) as caught:
        load_worker({other: value for other, value in LEAST.items() if other != name})
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name} is not set.")
    assert f"For example: {name}=" in line


@pytest.mark.parametrize(
    ("group", "name", "value", "says"),
    [
        (settings.DeliverySettings, "WEBHOOK_TIMEOUT", "soon", "'soon' is not a duration; write 10s, 5m, 250ms or"),
        (settings.DeliverySettings, "WEBHOOK_TIMEOUT", "1h", "'1h' is too large; the most is 5m."),
        (settings.DeliverySettings, "WEBHOOK_TIMEOUT", "0", "'0' is too small; it must be more than 0s."),
        (settings.DeliverySettings, "WEBHOOK_PAUSE_AFTER", "9999d", "'9999d' is too large; the most is 365d."),
        (settings.DeliverySettings, "WEBHOOK_RETRY_SCHEDULE", "5s,31d", "31d is not a wait between attempts"),
        (settings.DeliverySettings, "WEBHOOK_MAX_IN_FLIGHT", "many", "'many' is not a whole number"),
        (settings.DeliverySettings, "WEBHOOK_MAX_IN_FLIGHT", "0", "'0' is too small; the least is 1"),
        (settings.DeliverySettings, "WEBHOOK_RETRY_JITTER", "x", "'x' is not a number"),
        (settings.DeliverySettings, "WEBHOOK_ALLOW_HTTP", "perhaps", "'perhaps' is neither true nor false"),
        (settings.RuleSettings, "WEBHOOK_ORIGIN", "a..example", "'a..example' is not a DNS name"),
        (settings.RuleSettings, "WEBHOOK_ORIGIN", ".".join(["a" * 63] * 4), "is not a DNS name"),
        (settings.KafkaSettings, "KAFKA_DEAD_LETTER_TOPIC", "dead letters", "'dead letters' is not a topic name"),
        (settings.KafkaSettings, "KAFKA_OPERATIONS_TOPIC", "operations\n", "is not a topic name"),
        (settings.KafkaSettings, "KAFKA_GROUP_ID", "g" * 256, "is too long; at most 255 characters"),
        (settings.KafkaSettings, "KAFKA_GROUP_ID", " ", "' ' begins or ends with a blank; leave it out"),
        (settings.KafkaSettings, "KAFKA_GROUP_ID", " g", "' g' begins or ends with a blank; leave it out"),
        (settings.KafkaSettings, "WEBHOOK_TENANT", "ä", "'ä' is not a name of an attribute"),
        (settings.DatabaseSettings, "DATABASE_SCHEMA", "1;", "'1;' is not a schema"),
        (settings.LogSettings, "LOG_LEVEL", "loud", "'loud' is not one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        (settings.KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS", "us:x@hidden@kafka:9092", ""),
        (settings.KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS", "kafka-1:9092,localhost:hidden", ""),
        (settings.KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS", "kafka:65536", ""),
        (settings.KafkaSettings, "KAFKA_BOOTSTRAP_SERVERS", "a:1,http://kafka:9092", "number 2 begins with a protocol"),
        (settings.TopicSettings, "KAFKA_TOPICS", "orders;users", ""),
        (settings.TopicSettings, "KAFKA_TOPICS", "a,^users[", "'^users[' is not a regular expression: unterminated"),
        (settings.DatabaseSettings, "DATABASE_URL", "mysql://user:hidden@host/db", ""),
        (settings.DatabaseSettings, "DATABASE_URL", "oracle+oracledb://us:x@hidden@db:1521/?service_name=s", ""),
        (settings.DatabaseSettings, "DATABASE_URL", "oracle+oracledb://us:x@/hidden@db:1521/?service_name=s", ""),
        (settings.DatabaseSettings, "DATABASE_URL", "oracle+oracledb://us:x@a:hidden@db:1521/?service_name=s", ""),
        (settings.DatabaseSettings, "DATABASE_URL", "oracle+oracledb://us@hidden@db:1521/?service_name=s", ""),
        (settings.DatabaseSettings, "DATABASE_URL", "sqlite://us:x@hidden@db/file", ""),
        (settings.DatabaseSettings, "WEBHOOK_ENCRYPTION_KEY", "hidden", ""),
        (settings.DeliverySettings, "WEBHOOK_SECRET", "  ", ""),
        (settings.DeliverySettings, "WEBHOOK_SECRET", "good whsec_hidden", ""),
        (settings.DeliverySettings, "WEBHOOK_SECRET", "hidden 2 3 4 5 6", ""),
        (settings.DeliverySettings, "WEBHOOK_ALLOW_NETWORKS", "10.0.0.300", ""),
        (settings.DeliverySettings, "WEBHOOK_PROXY", "egress-proxy:3128", ""),
        (settings.DeliverySettings, "WEBHOOK_PROXY", "http://us:hidden@proxy:port", ""),
        (settings.DeliverySettings, "WEBHOOK_PROXY", "http://us:hidden@pröxy:1", ""),
        (settings.DeliverySettings, "WEBHOOK_PROXY", "http://us:hid%00den@proxy:1", ""),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_URL", "registry:8081", ""),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_URL", "http://good,https://us:hidden@registry", ""),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_URL", "https://us:12#hidden@registry", ""),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_TOKEN_URL", "https://us:hidden@id/token", "_CLIENT_SECRET"),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_TOKEN_URL", "http://hidden.example/token", "https://"),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_BEARER_TOKEN", "hidden\nx: y", "visible ASCII"),
        (settings.SchemaSettings, "SCHEMA_REGISTRY_LOGICAL_CLUSTER", "lsrc\nx: y", "visible ASCII"),
        (settings.TraceSettings, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://us:x@hidden@collector:4318", ""),
        (settings.TraceSettings, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://us:12/hidden@collector:4318", ""),
        (settings.ApiSettings, "API_TOKEN", "two words", ""),
    ],
)
def test_an_invalid_value_is_reported_with_a_valid_one(group: type[Any], name: str, value: str, says: str) -> None:
    """One line in plain words names the setting and shows a valid value; it never repeats a possible secret."""
    line = refusal(group, **{name: value})
    assert (line.startswith(f"{name}: "), says in line, "\n" in line) == (True, True, False)
    assert f"For example: {name}=" in line
    assert not re.search("input should|string should|unable to|hidden", line, re.IGNORECASE)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("WEBHOOK_TIMEOUTS", "WEBHOOK_TIMEOUT"),
        ("WEBHOOK_ALOW_NETWORKS", "WEBHOOK_ALLOW_NETWORKS"),
        ("WEBHOOK_COLOUR", None),
        ("WEBHOOK_DISABLE_AFTER", "WEBHOOK_PAUSE_AFTER"),  # it was renamed
        ("WEBHOOKS_SECRET", "WEBHOOK_SECRET"),
        ("DATABASE_URI", "DATABASE_URL"),
    ],
)
def test_a_misspelt_setting_is_reported(name: str, nearest: str | None) -> None:
    """The error names the most similar setting and never the value; it appears beside errors for missing settings."""
    assert slips.of_settings({**LEAST, name: "hidden"}) == [Slip(name, nearest)]
    with pytest.raises(SettingsError) as caught:
        load_worker({name: "hidden"})
    line = str(caught.value).splitlines()[-1]
    assert line.startswith(f"{name} is ignored: there is no such setting")
    assert line.endswith(f"Did you mean {nearest}?") or nearest is None
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "APP_PORT", "DATABASE_NAME", "KAFKA_TEST_NODES", "KAFKA_SASL_USERNAME"),
        *("API_SERVICE_HOST", "WEBHOOK_SERVICE_HOST", "WEBHOOK_SERVICE_PORT_HTTP"),
        *("WEBHOOK_PORT", "WEBHOOK_PORT_8080_TCP_ADDR", *LEAST),
    ],
)
def test_variables_of_other_programs_are_not_reported(name: str) -> None:
    """Variables of other programs, of librdkafka and those that Kubernetes sets for services are not reported."""
    assert slips.of_settings([name]) == []


def test_an_unknown_property_is_reported() -> None:
    """A property unknown to librdkafka is reported, unless Kubernetes set it, or it is a misspelt setting."""
    _, unknown = known_properties({"securty.protocol": "hidden", "topic": "x", "port.9092.tcp": "x"})
    (slip,) = slips.of_properties(unknown)
    assert str(slip) == "KAFKA_SECURTY_PROTOCOL is ignored: librdkafka has no property securty.protocol"


def test_all_errors_are_reported_at_once() -> None:
    """One start reports every invalid setting of all groups."""
    with pytest.raises(SettingsError) as caught:
        load_worker({"WEBHOOK_TIMEOUT": "soon", "OPS_PORT": "x", "KAFKA_GROUP_ID": "g"})
    named = [line.split()[0].rstrip(":") for line in str(caught.value).splitlines()]
    assert named == [
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_TOPICS",
        "DATABASE_URL",
        "WEBHOOK_SECRET",
        "WEBHOOK_TIMEOUT",
        "OPS_PORT",
    ]


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("oracle+oracledb://us:hid%40den@db:1521/?service_name=s", "oracle+oracledb://db:1521/"),
        ("oracle+oracledb://us:hid/den?x&y:z@[::1]:1521/?service_name=s", "oracle+oracledb://[::1]:1521/"),
        ("oracle+oracledb://us%3Ahidden@db/?service_name=s", "oracle+oracledb://db/"),
        ("oracle+oracledb://u@h/?service_name=s&ssl_server_cert_dn=E=a@b", "oracle+oracledb://h/"),
        ("sqlite:////data/a@b@c.db", "sqlite:////data/a%40b%40c.db"),
    ],
)
def test_a_message_shows_nothing_before_the_host_of_the_database(url: str, place: str) -> None:
    """A valid URL is accepted however its password looks, and messages have neither user nor password."""
    shown = place_of(create_engine(load(settings.DatabaseSettings, {"DATABASE_URL": url})))
    assert shown.startswith(place)
    assert "hid" not in shown
    assert "us" not in shown


@pytest.mark.parametrize("servers", ["kafka", "a:1, b:65535,", "SASL_SSL://a.b-c_d:9093/", "[::1]:9092", "::1"])
def test_brokers_as_librdkafka_takes_them(servers: str) -> None:
    """A broker may have a protocol, a port, or neither, and be an IPv6 address."""
    assert load(settings.KafkaSettings, {"KAFKA_BOOTSTRAP_SERVERS": servers}).bootstrap_servers == servers


def test_a_user_in_the_url_of_the_token_server_is_refused() -> None:
    """Librdkafka logs this URL, so it must not hold a password."""
    name = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
    line = refusal(settings.KafkaSettings, **{name: "https://us:hidden@tokens/"})
    assert line.startswith(f"{name} holds a user or a password; set KAFKA_SASL_OAUTHBEARER_CLIENT_ID")
    assert "hidden" not in line


@pytest.mark.parametrize(
    "url",
    ["", "http://proxy", "https://proxy.example:3128/", "http://us:p@ss%40/:word@[::1]:1080", "http://10.0.0.1:1"],
)
def test_valid_proxies_are_accepted(url: str) -> None:
    """URLs are accepted with and without port and user, and with delimiters in the password."""
    assert load(settings.DeliverySettings, {**LEAST, "WEBHOOK_PROXY": url}).proxy == url


@pytest.mark.parametrize("group", settings.GROUPS)
def test_every_example_is_valid(group: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example in an error is accepted, with what it needs."""
    for name in ("msk_tokens", "iam_tokens"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(token=len))
    oauth = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISMS": "OAUTHBEARER"}
    least = {**LEAST, **oauth, "WEBHOOK_ORIGIN": "events.example.com", "KAFKA_EXHAUSTED_TOPIC": "given-up"}
    for field in group.model_fields.values():
        for example in field.examples:
            text = "n0Mz9GHkqQWzMRzIm3RVqP2PgrlC0zCaMXDPWuTZ8kU=" if example.startswith('"$(') else example
            if field.validation_alias == "KAFKA_*":
                name, _, text = example.partition("=")
                load(group, {**LEAST, name: text})
            else:
                load(group, {**least, field.validation_alias: text})


@pytest.mark.parametrize("name", REFUSED_KAFKA_PROPERTIES)
def test_properties_that_break_the_guarantee_are_refused(name: str) -> None:
    """A property that would commit offsets too early, or that another setting sets, is refused with the reason."""
    variable = "KAFKA_" + name.upper().replace(".", "_")
    assert refusal(settings.KafkaSettings, **{variable: "1"}).startswith(f"{variable} cannot be set: ")


def test_verification_needs_an_origin() -> None:
    """Without WEBHOOK_ORIGIN the rule would stop every subscription for good."""
    line = refusal(settings.RuleSettings, WEBHOOK_REQUIRE_VERIFICATION="true")
    assert line.startswith("WEBHOOK_REQUIRE_VERIFICATION needs it. WEBHOOK_ORIGIN is not set: ")
    assert load(settings.RuleSettings, {"WEBHOOK_ORIGIN": "Events.Example.com"}).origin == "events.example.com"


def test_other_kafka_variables_become_properties() -> None:
    """`KAFKA_A_B` is the librdkafka property `a.b`, unless it is empty, a setting of ours or for the tests."""
    values = {**LEAST, "KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_X": "", "KAFKA_TEST_NODES": "3", "OTHER": "1"}
    kafka = load(settings.KafkaSettings, {name: value for name, value in values.items() if value})
    assert kafka.properties == {"security.protocol": "SSL"}


def test_topics_that_are_written_differ() -> None:
    """Operational events may be consumed, dead letters and attempts never. The attempt history is off unless named."""
    names = ["KAFKA_ATTEMPTS_TOPIC", "KAFKA_EXHAUSTED_TOPIC", "KAFKA_OPERATIONS_TOPIC", "KAFKA_DEAD_LETTER_TOPIC"]
    for one, other in combinations(names, 2):
        line = refusal(settings.KafkaSettings, **{one: "same", other: "same"})
        assert line.startswith(f"{one} and {other} are both same.")
    assert load(settings.KafkaSettings, LEAST).attempts_topic is None
    assert load(settings.KafkaSettings, {**LEAST, names[0]: "a", names[1]: "b"}).never_consumed.keys() == {
        *("a", "b", "webhooks.dead-letters"),
    }


def test_rows_are_deleted_only_where_the_topic_keeps_the_events() -> None:
    """Without KAFKA_EXHAUSTED_TOPIC they are the only copy; a week is the least."""
    assert "the only copy" in refusal(settings.KafkaSettings, WEBHOOK_KEEP_EXHAUSTED="30d")
    named = {"KAFKA_EXHAUSTED_TOPIC": "b"}
    assert load(settings.KafkaSettings, {**LEAST, **named, "WEBHOOK_KEEP_EXHAUSTED": "7d"}).keep_exhausted == 604800
    assert "WEBHOOK_KEEP_EXHAUSTED" in refusal(settings.KafkaSettings, **named, WEBHOOK_KEEP_EXHAUSTED="6d")


def test_no_secret_is_in_a_representation() -> None:
    """The repr of settings, which a log might contain, shows no password, key or token."""
    values = {
        **LEAST,
        "DATABASE_URL": "oracle+oracledb://u:hidden@h/?service_name=s",
        "WEBHOOK_SECRET": "hidden",
        "KAFKA_SASL_PASSWORD": "hidden",
        "WEBHOOK_PROXY": "http://user:hidden@proxy:1",
        "SCHEMA_REGISTRY_PASSWORD": "hidden",
        "SCHEMA_REGISTRY_BEARER_TOKEN": "hidden",
        "SCHEMA_REGISTRY_CLIENT_SECRET": "hidden",
        "SCHEMA_REGISTRY_KEY_PASSWORD": "hidden",
        "API_TOKEN": "hidden",
    }
    shown = repr(load_worker(values)) + repr(load(settings.ApiSettings, values))
    assert "hidden" not in shown


def test_a_registry_needs_user_and_password_or_neither() -> None:
    """One without the other is an error; without a registry neither is checked."""
    registry = {"SCHEMA_REGISTRY_URL": "https://one:8081, http://two:8081/ccompat"}
    assert load(settings.SchemaSettings, registry).url == registry["SCHEMA_REGISTRY_URL"]
    for there, missing in (("USER", "PASSWORD"), ("PASSWORD", "USER")):
        line = refusal(settings.SchemaSettings, **registry, **{f"SCHEMA_REGISTRY_{there}": "hidden"})
        assert line.startswith(f"SCHEMA_REGISTRY_{there} is set without SCHEMA_REGISTRY_{missing}.")
        assert load(settings.SchemaSettings, {f"SCHEMA_REGISTRY_{there}": "x"}).url is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("USER PASSWORD BEARER_TOKEN", "SCHEMA_REGISTRY_USER and SCHEMA_REGISTRY_BEARER_TOKEN are set, .* Unset"),
        ("BEARER_TOKEN TOKEN_URL CLIENT_ID CLIENT_SECRET", "SCHEMA_REGISTRY_BEARER_TOKEN and .*_TOKEN_URL are set, "),
        ("TOKEN_URL CLIENT_ID", "SCHEMA_REGISTRY_CLIENT_ID is set without SCHEMA_REGISTRY_CLIENT_SECRET. Set both"),
        ("BEARER_TOKEN SCOPE", "SCHEMA_REGISTRY_SCOPE is set without SCHEMA_REGISTRY_TOKEN_URL. "),
        ("USER PASSWORD IDENTITY_POOL_ID", ".*_POOL_ID is set without SCHEMA_REGISTRY_BEARER_TOKEN or .*_TOKEN_URL. "),
        ("KEY_FILE", "SCHEMA_REGISTRY_KEY_FILE is set without SCHEMA_REGISTRY_CERTIFICATE_FILE. "),
    ],
)
def test_credentials_of_a_registry_fit_together(given: str, says: str) -> None:
    """One line names those that contradict each other, or the one that is missing. None shows a secret."""
    values = {f"SCHEMA_REGISTRY_{name}": "https://hidden/" for name in ("URL", *given.split())}
    line = refusal(settings.SchemaSettings, **values)
    assert re.match(says, line)
    assert "hidden" not in line


def test_an_api_that_can_be_reached_from_outside_needs_a_token() -> None:
    """Without API_TOKEN the API binds to loopback; another API_HOST is refused, and the error names the setting."""
    for address in ("0.0.0.0", "::", "192.168.1.5", "host.example"):  # noqa: S104 (what is refused)
        assert refusal(settings.ApiSettings, API_HOST=address).startswith("API_TOKEN is not set")
    assert load(settings.ApiSettings, {}).bind_host == "127.0.0.1"
    assert load(settings.ApiSettings, {"API_HOST": "::1"}).bind_host == "::1"
    assert load(settings.ApiSettings, {"API_HOST": "localhost"}).bind_host == "localhost"
    assert load(settings.ApiSettings, {"API_TOKEN": "t"}).bind_host == "0.0.0.0"  # noqa: S104 (the token guards it)


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `.env` file supplies only variables missing in the environment; an empty value counts as missing.

    A file that is not UTF-8 is an error of the settings.
    """
    file = tmp_path / ".env"
    file.write_text("WEBHOOK_SECRET=file\nKAFKA_TOPICS=file\nDATABASE_URL=\n")
    monkeypatch.setenv("WEBHOOK_SECRET", "process")
    values = environment(str(file))
    assert (values["WEBHOOK_SECRET"], values["KAFKA_TOPICS"], "DATABASE_URL" in values) == ("process", "file", False)
    file.write_bytes(b"WEBHOOK_SECRET=\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        environment(str(file))


SECRETS: dict[str, type[Any]] = {
    "API_TOKEN": settings.ApiSettings,
    "DATABASE_URL": settings.DatabaseSettings,
    "DATABASE_WALLET_PASSWORD": settings.DatabaseSettings,
    "SCHEMA_REGISTRY_PASSWORD": settings.SchemaSettings,
    "SCHEMA_REGISTRY_BEARER_TOKEN": settings.SchemaSettings,
    "SCHEMA_REGISTRY_CLIENT_SECRET": settings.SchemaSettings,
    "SCHEMA_REGISTRY_KEY_PASSWORD": settings.SchemaSettings,
    "WEBHOOK_ENCRYPTION_KEY": settings.DatabaseSettings,
    "WEBHOOK_SECRET": settings.SigningSettings,
}
KEY = "n0Mz9GHkqQWzMRzIm3RVqP2PgrlC0zCaMXDPWuTZ8kU="


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_may_be_in_a_file(tmp_path: Path, name: str) -> None:
    """The setting's value is the file's content without the final line break, and without a byte order mark."""
    value = LEAST["DATABASE_URL"] if name == "DATABASE_URL" else KEY
    (tmp_path / "secret").write_bytes(f"\ufeff{value}\r\n".encode())
    rest = {other: value for other, value in LEAST.items() if other != name}
    found = load(SECRETS[name], {**rest, name + "_FILE": str(tmp_path / "secret")})
    assert found == load(SECRETS[name], {**rest, name: value})


def test_an_unusable_file_is_named(tmp_path: Path) -> None:
    """One line names the setting and the file; no error contains the file's content."""
    name, file = "WEBHOOK_SECRET", tmp_path / "secret"
    rest = {other: value for other, value in LEAST.items() if other != name}

    def line(**values: str) -> str:
        with pytest.raises(SettingsError) as caught:
            load(SECRETS[name], {**rest, name + "_FILE": str(file), **values})
        return str(caught.value)

    assert line() == f"{name}_FILE: {file} cannot be read: No such file or directory"
    file.write_bytes(b"hidden\xff")
    assert line() == f"{name}_FILE: {file} cannot be read: it is not UTF-8"
    file.write_text("\n")
    assert line() == f"{name}_FILE: {file} is empty"
    file.write_text("hidden whsec_hidden\n")
    assert line().startswith(f"{name}: ")
    assert "hidden" not in line()
    file.write_text(KEY)
    assert line(**{name: KEY}) == f"{name}_FILE: {name} is set too. Unset one of them"


@pytest.mark.parametrize("value", ['"whsec_Zm9v"', "'hidden'", "\ufeffhidden", "new KEY=whsec_Zm9v"])
def test_a_signing_secret_with_text_around_it_is_refused(value: str) -> None:
    """As `docker --env-file` leaves quotation marks: each secret would silently be another key."""
    with pytest.raises(SettingsError, match=r"^WEBHOOK_SECRET: .*(write it without|remove)") as caught:
        load(settings.SigningSettings, {"WEBHOOK_SECRET": value})
    assert "hidden" not in str(caught.value)
    assert "Zm9v" not in str(caught.value)


def test_a_missing_file_hides_no_other_error(tmp_path: Path) -> None:
    """Its line stands beside those of the group's other settings."""
    values = {"WEBHOOK_SECRET_FILE": str(tmp_path / "none"), "WEBHOOK_TIMEOUT": "soon"}
    with pytest.raises(SettingsError) as caught:
        load(settings.DeliverySettings, values)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "WEBHOOK_SECRET_FILE",
        "WEBHOOK_TIMEOUT",
    ]


@pytest.mark.parametrize("text", ["9999-12-31T23:59-12:00", "9999-12-31T23:59:59.999999", "0001-01-01T00:00+14:00"])
def test_a_time_is_one_that_can_be_shown(text: str) -> None:
    """Its offset from UTC, or a float's rounding, would put it outside the years that a datetime can have."""
    found = datetime.fromtimestamp(types.moment(text, 0.0), UTC)
    assert found.year in {1970, 9999}


@given(st.integers(0, 10**9), st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]))
def test_durations_have_units(number: int, unit: tuple[str, float]) -> None:
    """A number with a unit is that many of the unit; a bare number is seconds."""
    name, size = unit
    assert seconds(f"{number}{name}") == number * size
    assert seconds(f" {number} ") == seconds(number) == number


@given(st.text())
def test_invalid_durations_are_refused(text: str) -> None:
    """Any text is a duration of 0 or more seconds, or a ValueError."""
    try:
        result = seconds(text)
    except ValueError:
        return
    assert 0 <= result < float("inf")


@given(st.lists(st.tuples(st.integers(1, 700), st.sampled_from("smh")), max_size=9))
def test_waits_are_durations(parts: list[tuple[int, str]]) -> None:
    """A schedule gives its waits in seconds, in order; an empty one gives none."""
    text = ", ".join(f"{number}{unit}" for number, unit in parts)
    assert waits(text) == tuple(number * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


@pytest.mark.parametrize("text", ["0s", "5s,0", "31d", "5s;5m", "5s 5m", "-1", "nan", "inf"])
def test_invalid_schedules_are_refused(text: str) -> None:
    """A wait must be more than zero and at most 30 days."""
    with pytest.raises(ValueError, match=r"is not a duration; write 10s|is not a wait between attempts; each is"):
        waits(text)


@given(st.sets(st.integers(300, 599)))
def test_final_statuses_are_the_listed_ones(codes: set[int]) -> None:
    """Any code from 300 to 599 may be listed."""
    assert final_statuses(" , ".join(map(str, codes))) == codes


@pytest.mark.parametrize("name", ["3xx", "4xx", "5xx", "4XX"])
def test_a_class_leaves_out_statuses_that_ask_for_a_retry(name: str) -> None:
    """A class means its hundred statuses without 408, 409, 425 and 429, which count if listed."""
    hundred = range(100 * int(name[0]), 100 * int(name[0]) + 100)
    assert final_statuses(name) == {*hundred} - {408, 409, 425, 429}
    assert final_statuses(f"{name},429") == {*hundred, 429} - {408, 409, 425}


@pytest.mark.parametrize(
    "text", ["200", "2xx", "400,204", "100", "600", "6xx", "4x", "40x", "xxx", "4000", "4xx 5xx", "²00", "4xX"]
)
def test_invalid_final_statuses_are_refused(text: str) -> None:
    """A 2xx is a success, and anything that is not a status is a mistake."""
    with pytest.raises(ValueError, match="is neither a status from 300 to 599 nor a class"):
        final_statuses(text)
