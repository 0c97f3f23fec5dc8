"""All settings, in groups. `environment.py` reads them; a command loads the groups it needs.

`python -m consumer.config.settings` prints the table of docs/settings.md.
"""

from functools import cache
from itertools import combinations
from typing import NamedTuple, Self
from urllib.parse import quote

from pydantic import SecretStr, model_validator
from pydantic.fields import FieldInfo

from consumer.config.group import FILE as FILE  # noqa: PLC0414 (known with the settings)
from consumer.config.group import Group, secret_names, setting, variables
from consumer.config.process_settings import ApiSettings as ApiSettings  # noqa: PLC0414 (a group like those here)
from consumer.config.process_settings import LogSettings as LogSettings  # noqa: PLC0414 (the same)
from consumer.config.process_settings import OpsSettings as OpsSettings  # noqa: PLC0414 (the same)
from consumer.config.process_settings import SearchSettings as SearchSettings  # noqa: PLC0414 (the same)
from consumer.config.process_settings import TraceSettings as TraceSettings  # noqa: PLC0414 (the same)
from consumer.config.schema_settings import SchemaSettings as SchemaSettings  # noqa: PLC0414 (a group like those here)
from consumer.config.types import (
    AuthPlugins,
    BootstrapServers,
    DatabaseTokens,
    DatabaseUrl,
    Duration,
    FernetKeys,
    GroupId,
    HostName,
    KafkaProperties,
    Networks,
    OAuthCallback,
    Proxy,
    SchemaName,
    SigningSecrets,
    TenantName,
    TopicName,
    Topics,
    Waits,
)

NO_ORIGIN = (
    "WEBHOOK_ORIGIN is not set: receivers are asked for permission in its name. "
    "Set it to a DNS name of this deployment, such as events.example.com"
)


class ConsumerGroupSettings(Group):
    """The consumer group; commands that do not contact Kafka need only this."""

    group_id: GroupId = setting("KAFKA_GROUP_ID", "webhooks", "Consumer group; all workers of a deployment share it.")


class KafkaSettings(ConsumerGroupSettings):
    """The Kafka cluster, the consumer group, and the topics that the service writes."""

    bootstrap_servers: BootstrapServers = setting(
        "KAFKA_BOOTSTRAP_SERVERS", ..., "Brokers, comma-separated.", "kafka-1:9092,kafka-2:9092"
    )
    dead_letter_topic: TopicName = setting(
        "KAFKA_DEAD_LETTER_TOPIC", "webhooks.dead-letters", "Topic for records that cannot be decoded."
    )
    operations_topic: TopicName = setting(
        "KAFKA_OPERATIONS_TOPIC",
        "webhooks.operations",
        "Topic for operational events: a subscription disabled, paused or recovered, a delivery exhausted.",
    )
    attempts_topic: TopicName | None = setting(
        "KAFKA_ATTEMPTS_TOPIC",
        None,
        "Topic for the attempt history, a record for each attempt; none: no history.",
        "webhooks.attempts",
    )
    exhausted_topic: TopicName | None = setting(
        "KAFKA_EXHAUSTED_TOPIC",
        None,
        "Topic for the events of deliveries that were given up, a record for each delivery; none: the database alone "
        "has them.",
        "webhooks.exhausted",
    )
    keep_exhausted: Duration | None = setting(
        "WEBHOOK_KEEP_EXHAUSTED",
        None,
        "How long a delivery that was given up stays in the database once `KAFKA_EXHAUSTED_TOPIC` has it, a week "
        "at least; none: for ever.",
        "30d",
        ge=7 * 86_400,  # a younger row may be the only record that its delivery is settled: a partition may be held
    )
    mappings_file: str | None = setting(
        "KAFKA_MAPPINGS_FILE",
        None,
        "File that says, by topic, where an event's type, id and body come from; read at the start.",
        "/etc/kafka-webhooks/mappings.toml",
    )
    oauth_callback: OAuthCallback | None = setting(
        "KAFKA_OAUTH_CALLBACK",
        None,
        "Function that gives tokens for SASL/OAUTHBEARER, such as those of Amazon MSK IAM: librdkafka's `oauth_cb`.",
        "msk_tokens:token",
    )
    tenant: TenantName = setting(
        "WEBHOOK_TENANT", "tenant", "CloudEvents attribute, or header, that names an event's tenant."
    )
    properties: KafkaProperties = setting(
        "KAFKA_*",
        {},
        "Any other `KAFKA_A_B` becomes the librdkafka property `a.b`.",
        "KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        repr=False,
    )

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        topics = {
            "KAFKA_ATTEMPTS_TOPIC": self.attempts_topic,
            "KAFKA_EXHAUSTED_TOPIC": self.exhausted_topic,
            "KAFKA_OPERATIONS_TOPIC": self.operations_topic,
            "KAFKA_DEAD_LETTER_TOPIC": self.dead_letter_topic,
        }
        for (one, topic), (other, same) in combinations(topics.items(), 2):
            if topic is not None and topic == same:
                raise ValueError(
                    f"{one} and {other} are both {topic}. Name two topics: operational events can be subscribed to; "
                    "dead letters, the attempt history and events that were given up are never consumed"
                )
        return self

    @model_validator(mode="after")
    def _topic_precedes_purge(self) -> Self:
        if self.keep_exhausted is not None and self.exhausted_topic is None:
            raise ValueError(
                "WEBHOOK_KEEP_EXHAUSTED is set without KAFKA_EXHAUSTED_TOPIC: it deletes deliveries that were given "
                "up, and their rows would be the only copy. Set that too, or unset WEBHOOK_KEEP_EXHAUSTED"
            )
        return self

    @model_validator(mode="after")
    def _callback_is_used(self) -> Self:
        names = ("security.protocol", "sasl.mechanisms", "sasl.mechanism", "sasl.oauthbearer.method")
        protocol, one, other, method = (self.properties.get(name, "").upper() for name in names)
        used = protocol.startswith("SASL") and (one or other) == "OAUTHBEARER" and method in {"", "DEFAULT"}
        if self.oauth_callback is not None and not used:
            raise ValueError(
                "KAFKA_OAUTH_CALLBACK gives tokens, and these settings use none: set KAFKA_SECURITY_PROTOCOL=SASL_SSL "
                "and KAFKA_SASL_MECHANISMS=OAUTHBEARER, and leave KAFKA_SASL_OAUTHBEARER_METHOD out"
            )
        return self

    @property
    def event_source(self) -> str:
        """The CloudEvents source of the events that the service itself publishes."""
        return f"kafka-webhooks/{quote(self.group_id, safe='')}"

    @property
    def never_consumed(self) -> dict[str, str]:
        """The topics that are written and that no worker consumes, each with its kind."""
        others = {self.attempts_topic: "attempts topic", self.exhausted_topic: "exhausted topic"}
        named = {topic: kind for topic, kind in others.items() if topic is not None}
        return {self.dead_letter_topic: "dead-letter topic", **named}


class TopicSettings(Group):
    """The topics that a worker consumes."""

    topics: Topics = setting("KAFKA_TOPICS", ..., "Topics, comma-separated; `^` starts a pattern.", "orders,users")


class DatabaseSettings(Group):
    """The database of subscriptions and stored deliveries."""

    url: DatabaseUrl = setting(
        "DATABASE_URL",
        ...,
        "SQLAlchemy URL of Oracle (production) or SQLite (embedded).",
        "oracle+oracledb://user:password@host:1521/?service_name=FREEPDB1",
    )
    db_schema: SchemaName | None = setting(
        "DATABASE_SCHEMA", None, "Owner of the tables, if it is not the service's account.", "WEBHOOKS"
    )
    password_file: str | None = setting(
        "DATABASE_PASSWORD_FILE",
        None,
        "File that holds the password, instead of the URL; read at each connect (Oracle).",
        "/run/secrets/database-password",
    )
    wallet_password: SecretStr | None = setting(
        "DATABASE_WALLET_PASSWORD", None, "Password of the key in `ewallet.pem` (Oracle).", "the-password-of-the-wallet"
    )
    client_lib: str | None = setting(
        "ORACLE_CLIENT_LIB",
        None,
        "Directory of the Oracle client's libraries, which then connect: thick mode (Oracle).",
        "/opt/oracle/instantclient_23_9",
    )
    token_callback: DatabaseTokens | None = setting(
        "DATABASE_TOKEN_CALLBACK",
        None,
        "Function that gives access tokens in place of a password, as `module:function` (Oracle).",
        "iam_tokens:token",
    )
    encryption_key: FernetKeys | None = setting(
        "WEBHOOK_ENCRYPTION_KEY",
        None,
        "Fernet keys, newest first, space-separated; they encrypt the secrets in `webhook_secrets`.",
        '"$(openssl rand -base64 32 | tr +/ -_)"',
    )

    @property
    def encryption_keys(self) -> str:
        """The Fernet keys, newest first, separated by spaces; empty if secrets are stored in the clear."""
        return self.encryption_key.get_secret_value() if self.encryption_key else ""


class SigningSettings(Group):
    """The secrets that sign deliveries; a receiver needs only this group."""

    secret: SigningSecrets = setting(
        "WEBHOOK_SECRET",
        ...,
        "Signing secret of subscriptions without one of their own; several, at most five, are "
        "space-separated, newest first. `whsec_` + base64, or any string without quotation marks around it.",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets as text, newest first; `parse_signing_key` parses each."""
        return tuple(self.secret.get_secret_value().split())


class RuleSettings(Group):
    """The rules for every subscription. Commands that write or list subscriptions need them; all have defaults."""

    require_own_secret: bool = setting(
        "WEBHOOK_REQUIRE_OWN_SECRET",
        False,
        "Each subscription needs a secret of its own; `WEBHOOK_SECRET` signs for none.",
        "true",
    )
    require_verification: bool = setting(
        "WEBHOOK_REQUIRE_VERIFICATION",
        False,
        "Nothing is sent to a URL that has not answered the validation request; it is stored until then.",
        "true",
    )
    origin: HostName | None = setting(
        "WEBHOOK_ORIGIN",
        None,
        "DNS name in whose name receivers are asked for permission (`WebHook-Request-Origin`).",
        "events.example.com",
    )
    allow_networks: Networks = setting(
        "WEBHOOK_ALLOW_NETWORKS",
        "",
        "Networks to allow besides public addresses, also over plain http.",
        "10.0.0.0/8,127.0.0.0/8",
    )
    allow_http: bool = setting("WEBHOOK_ALLOW_HTTP", False, "Allow plain http to public addresses.", "true")
    auth_plugins: AuthPlugins = setting(
        "WEBHOOK_AUTH_PLUGINS",
        "",
        "Plug-ins of requests that credentials may name: `name=module:class`, comma-separated.",
        "sigv4=requests_aws4auth:AWS4Auth",
    )
    proxy: Proxy = setting(
        "WEBHOOK_PROXY",
        "",
        "Send through this proxy, which then enforces the egress rule.",
        "http://egress-proxy:3128",
        repr=False,
    )

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if self.require_verification and self.origin is None:
            raise ValueError(f"WEBHOOK_REQUIRE_VERIFICATION needs it. {NO_ORIGIN}")
        return self


class DeliverySettings(RuleSettings, SigningSettings):
    """Settings of signing, sending and retries."""

    timeout: Duration = setting("WEBHOOK_TIMEOUT", "15s", "Time limit of a whole exchange.", gt=0, le=300)
    connect_timeout: Duration = setting(
        "WEBHOOK_CONNECT_TIMEOUT", "5s", "Time limit of connecting, TLS included.", gt=0, le=300
    )
    max_in_flight: int = setting("WEBHOOK_MAX_IN_FLIGHT", 1000, "Requests open at once in one worker.", ge=1, le=50_000)
    retry_schedule: Waits = setting(
        "WEBHOOK_RETRY_SCHEDULE",
        "5s,5m,30m,2h,5h,10h,14h,20h,24h",
        "Waits between attempts; after the last one a delivery is exhausted.",
    )
    retry_jitter: float = setting(
        "WEBHOOK_RETRY_JITTER", 0.2, "Each wait is lengthened by a random fraction of up to this.", ge=0, le=1
    )
    retry_in_memory: Duration = setting(
        "WEBHOOK_RETRY_IN_MEMORY",
        "10s",
        "Waits up to this stay in memory; longer ones are stored in the database.",
        ge=0,
        le=60,
    )
    backlog_rows: int = setting(
        "WEBHOOK_BACKLOG_ROWS",
        1_000,
        "Most stored deliveries of a subscription in a partition; its later events wait in Kafka, and are read again "
        "once the receiver takes them.",
        ge=1,
    )
    pause_after: Duration = setting(
        "WEBHOOK_PAUSE_AFTER",
        "5d",
        "A subscription whose attempts have all failed for this long is paused; 0: never.",
        ge=0,
        le=31536000,
    )
    resume_probe: Duration = setting(
        "WEBHOOK_RESUME_PROBE",
        "1h",
        "How often a subscription that was paused for its failures gets one event, to see whether it works again; "
        "0: never.",
        ge=0,
        le=31536000,
    )
    refused_after: Duration = setting(
        "WEBHOOK_REFUSED_AFTER",
        "1d",
        "A delivery that the database has refused to store for this long goes to the dead-letter topic.",
        gt=0,
        le=432_000,  # a mark in the database says since when, and is kept for a week
    )
    subscription_cache: Duration = setting(
        "WEBHOOK_SUBSCRIPTION_CACHE",
        "1s",
        "How long a look-up of subscriptions is reused; a new subscription takes effect after this.",
        ge=0,
        le=3600,
    )
    drain: Duration = setting(
        "WEBHOOK_DRAIN", "20s", "At SIGTERM, how long to wait for requests in flight.", ge=0, le=600
    )


class WorkerSettings(NamedTuple):
    """All settings of a worker."""

    kafka: KafkaSettings
    topics: TopicSettings
    schemas: SchemaSettings
    database: DatabaseSettings
    delivery: DeliverySettings
    ops: OpsSettings
    traces: TraceSettings
    log: LogSettings


GROUPS: tuple[type[Group], ...] = (*WorkerSettings.__annotations__.values(), SearchSettings, ApiSettings)


@cache
def known_names() -> frozenset[str]:
    """The names of all settings, and those of the files of secrets."""
    names = {name for group in GROUPS for name, _ in variables(group)}
    return frozenset(names | {name + FILE for group in GROUPS for name in secret_names(group)})


def table() -> str:
    """The settings as the Markdown table that docs/settings.md holds; a test compares them."""
    rows = [
        f"| `{name}` | {_default(field)} | {field.description} |"
        for group in GROUPS
        for name, field in variables(group)
    ]
    return "\n".join(["| setting | default | what it does |", "| --- | --- | --- |", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"`{field.default}`" if field.default else "none"


if __name__ == "__main__":
    print(table())  # noqa: T201 (its purpose)
