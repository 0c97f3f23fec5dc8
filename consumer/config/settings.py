"""All settings, in groups. `environment.py` reads them; a command loads the groups it needs.

A field's validation alias is its variable's name, and its description is in the table of docs/settings.md, which
`python -m consumer.config.settings` prints.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Self
from urllib.parse import quote

from pydantic import Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from consumer.config.group import FILE as FILE  # noqa: PLC0414 (known with the settings)
from consumer.config.group import Group, file_of
from consumer.config.plugin_types import AuthPlugins, DatabaseTokens, OAuthCallback
from consumer.config.process_settings import ApiSettings as ApiSettings  # noqa: PLC0414 (a group like those here)
from consumer.config.process_settings import LogSettings as LogSettings  # noqa: PLC0414 (the same)
from consumer.config.process_settings import OpsSettings as OpsSettings  # noqa: PLC0414 (the same)
from consumer.config.process_settings import TraceSettings as TraceSettings  # noqa: PLC0414 (the same)
from consumer.config.schema_settings import SchemaSettings as SchemaSettings  # noqa: PLC0414 (the same)
from consumer.config.types import (
    BootstrapServers,
    DatabaseUrl,
    Duration,
    FernetKeys,
    HostName,
    KafkaProperties,
    Networks,
    Proxy,
    SchemaName,
    SigningSecrets,
    TenantName,
    TopicName,
    Topics,
    Waits,
    default_text,
)
from consumer.config.types import (
    Network as Network,  # noqa: PLC0414 (the type of allow_networks, re-exported)
)

NO_ORIGIN = (
    "WEBHOOK_ORIGIN is not set: receivers are asked for permission in its name. "
    "Set it to a DNS name of this deployment, such as events.example.com"
)
FROM_FILES = ("API_TOKEN", "SCHEMA_REGISTRY_PASSWORD", "WEBHOOK_ENCRYPTION_KEY", "WEBHOOK_SECRET")


class GroupSettings(Group):
    """The consumer group; commands that do not contact Kafka need only this."""

    group_id: str = Field(
        default="webhooks",
        validation_alias="KAFKA_GROUP_ID",
        min_length=1,
        max_length=255,
        description="Consumer group; all workers of a deployment share it.",
        examples=["webhooks"],
    )


class KafkaSettings(GroupSettings):
    """The Kafka cluster, the consumer group, and the topics that the service writes."""

    bootstrap_servers: BootstrapServers = Field(
        validation_alias="KAFKA_BOOTSTRAP_SERVERS",
        description="Brokers, comma-separated.",
        examples=["kafka-1:9092,kafka-2:9092"],
    )
    dead_letter_topic: TopicName = Field(
        default="webhooks.dead-letters",
        validation_alias="KAFKA_DEAD_LETTER_TOPIC",
        description="Topic for records that cannot be decoded.",
        examples=["webhooks.dead-letters"],
    )
    operations_topic: TopicName = Field(
        default="webhooks.operations",
        validation_alias="KAFKA_OPERATIONS_TOPIC",
        description="Topic for operational events: a subscription disabled or recovered, a delivery exhausted.",
        examples=["webhooks.operations"],
    )
    attempts_topic: TopicName | None = Field(
        default=None,
        validation_alias="KAFKA_ATTEMPTS_TOPIC",
        description="Topic for the attempt history, a record for each attempt; none: no history.",
        examples=["webhooks.attempts"],
    )
    mappings_file: str | None = Field(
        default=None,
        validation_alias="KAFKA_MAPPINGS_FILE",
        description="File that says, by topic, where an event's type, id and body come from; read at the start.",
        examples=["/etc/kafka-webhooks/mappings.toml"],
    )
    oauth_callback: OAuthCallback | None = Field(
        default=None,
        validation_alias="KAFKA_OAUTH_CALLBACK",
        description="Function that gives tokens for SASL/OAUTHBEARER, such as those of Amazon MSK IAM: librdkafka's "
        "`oauth_cb`.",
        examples=["msk_tokens:token"],
    )
    tenant: TenantName = Field(
        default="tenant",
        validation_alias="WEBHOOK_TENANT",
        description="CloudEvents attribute, or header, that names an event's tenant.",
        examples=["tenant"],
    )
    properties: KafkaProperties = Field(
        default_factory=dict,
        validation_alias="KAFKA_*",
        repr=False,
        description="Any other `KAFKA_A_B` becomes the librdkafka property `a.b`.",
        examples=["KAFKA_SECURITY_PROTOCOL=SASL_SSL"],
    )

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if self.operations_topic == self.dead_letter_topic:
            raise ValueError(
                f"KAFKA_OPERATIONS_TOPIC and KAFKA_DEAD_LETTER_TOPIC are both {self.operations_topic}. "
                "Name two topics: operational events can be subscribed to, dead letters are never read"
            )
        others = {"KAFKA_DEAD_LETTER_TOPIC": self.dead_letter_topic, "KAFKA_OPERATIONS_TOPIC": self.operations_topic}
        for name, topic in others.items():
            if self.attempts_topic == topic:
                raise ValueError(
                    f"KAFKA_ATTEMPTS_TOPIC and {name} are both {topic}. "
                    "Name two topics: the attempt history may be lost and is never consumed"
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
        history = {self.attempts_topic: "attempts topic"} if self.attempts_topic else {}
        return {self.dead_letter_topic: "dead-letter topic", **history}


class TopicSettings(Group):
    """The topics that a worker consumes."""

    topics: Topics = Field(
        validation_alias="KAFKA_TOPICS",
        description="Topics, comma-separated; `^` starts a pattern.",
        examples=["orders,users", "^events[.].*"],
    )


class DatabaseSettings(Group):
    """The database of subscriptions and stored deliveries."""

    url: DatabaseUrl = Field(
        validation_alias="DATABASE_URL",
        description="SQLAlchemy URL of Oracle (production) or SQLite (embedded).",
        examples=["oracle+oracledb://user:password@host:1521/?service_name=FREEPDB1", "sqlite:///webhooks.db"],
    )
    db_schema: SchemaName | None = Field(
        default=None,
        validation_alias="DATABASE_SCHEMA",
        description="Owner of the tables, if it is not the service's account.",
        examples=["WEBHOOKS"],
    )
    password_file: str | None = Field(
        default=None,
        validation_alias="DATABASE_PASSWORD_FILE",
        description="File that holds the password, instead of the URL; read at each connect (Oracle).",
        examples=["/run/secrets/database-password"],
    )
    wallet_password: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_WALLET_PASSWORD",
        description="Password of the key in `ewallet.pem` (Oracle).",
        examples=["the-password-of-the-wallet"],
    )
    client_lib: str | None = Field(
        default=None,
        validation_alias="ORACLE_CLIENT_LIB",
        description="Directory of the Oracle client's libraries, which then connect: thick mode (Oracle).",
        examples=["/opt/oracle/instantclient_23_9"],
    )
    token_callback: DatabaseTokens | None = Field(
        default=None,
        validation_alias="DATABASE_TOKEN_CALLBACK",
        description="Function that gives access tokens in place of a password, as `module:function` (Oracle).",
        examples=["iam_tokens:token"],
    )
    encryption_key: FernetKeys | None = Field(
        default=None,
        validation_alias="WEBHOOK_ENCRYPTION_KEY",
        description="Fernet keys, newest first, space-separated; they encrypt the secrets in `webhook_secrets`.",
        examples=['"$(openssl rand -base64 32 | tr +/ -_)"'],
    )

    encryption_key_file: str | None = file_of("WEBHOOK_ENCRYPTION_KEY")

    @property
    def encryption_keys(self) -> str:
        """The Fernet keys, newest first, separated by spaces; empty if secrets are stored in the clear."""
        return self.encryption_key.get_secret_value() if self.encryption_key else ""


class SigningSettings(Group):
    """The secrets that sign deliveries; a receiver needs only this group."""

    secret: SigningSecrets = Field(
        validation_alias="WEBHOOK_SECRET",
        description="Signing secret of subscriptions without one of their own; several, at most five, are "
        "space-separated, newest first. `whsec_` + base64, or any string without quotation marks around it.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    secret_file: str | None = file_of("WEBHOOK_SECRET")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets as text, newest first; `parse_signing_key` parses each."""
        return tuple(self.secret.get_secret_value().split())


class RuleSettings(Group):
    """The rules for every subscription. Commands that write or list subscriptions need them; all have defaults."""

    require_own_secret: bool = Field(
        default=False,
        validation_alias="WEBHOOK_REQUIRE_OWN_SECRET",
        description="Each subscription needs a secret of its own; `WEBHOOK_SECRET` signs for none.",
        examples=["true"],
    )
    require_verification: bool = Field(
        default=False,
        validation_alias="WEBHOOK_REQUIRE_VERIFICATION",
        description="Nothing is sent to a URL that has not answered the validation request; it is stored until then.",
        examples=["true"],
    )
    origin: HostName | None = Field(
        default=None,
        validation_alias="WEBHOOK_ORIGIN",
        description="DNS name in whose name receivers are asked for permission (`WebHook-Request-Origin`).",
        examples=["events.example.com"],
    )
    allow_networks: Networks = Field(
        default=(),
        validation_alias="WEBHOOK_ALLOW_NETWORKS",
        description="Networks to allow besides public addresses, also over plain http.",
        examples=["10.0.0.0/8,127.0.0.0/8"],
    )
    allow_http: bool = Field(
        default=False,
        validation_alias="WEBHOOK_ALLOW_HTTP",
        description="Allow plain http to public addresses.",
        examples=["true"],
    )
    auth_plugins: AuthPlugins = Field(
        default=(),
        validation_alias="WEBHOOK_AUTH_PLUGINS",
        description="Plug-ins of requests that credentials may name: `name=module:class`, comma-separated.",
        examples=["sigv4=requests_aws4auth:AWS4Auth"],
    )
    proxy: Proxy = Field(
        default="",
        validation_alias="WEBHOOK_PROXY",
        repr=False,
        description="Send through this proxy, which then enforces the egress rule.",
        examples=["http://egress-proxy:3128"],
    )

    @model_validator(mode="after")
    def _verifiable(self) -> Self:
        if self.require_verification and self.origin is None:
            raise ValueError(f"WEBHOOK_REQUIRE_VERIFICATION needs it. {NO_ORIGIN}")
        return self


class DeliverySettings(RuleSettings, SigningSettings):
    """Settings of signing, sending and retries."""

    timeout: Duration = Field(
        default=15.0,
        validation_alias="WEBHOOK_TIMEOUT",
        gt=0,
        le=300,
        description="Time limit of a whole exchange.",
        examples=["15s"],
    )
    connect_timeout: Duration = Field(
        default=5.0,
        validation_alias="WEBHOOK_CONNECT_TIMEOUT",
        gt=0,
        le=300,
        description="Time limit of connecting, TLS included.",
        examples=["5s"],
    )
    max_in_flight: int = Field(
        default=1000,
        validation_alias="WEBHOOK_MAX_IN_FLIGHT",
        ge=1,
        le=50_000,
        description="Requests open at once in one worker.",
        examples=["1000"],
    )
    retry_schedule: Waits = Field(
        default=(5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0),
        validation_alias="WEBHOOK_RETRY_SCHEDULE",
        description="Waits between attempts; after the last one a delivery is exhausted.",
        examples=["5s,5m,30m,2h,5h,10h,14h,20h,24h"],
    )
    retry_jitter: float = Field(
        default=0.2,
        validation_alias="WEBHOOK_RETRY_JITTER",
        ge=0,
        le=1,
        description="Each wait is lengthened by a random fraction of up to this.",
        examples=["0.2"],
    )
    retry_in_memory: Duration = Field(
        default=10.0,
        validation_alias="WEBHOOK_RETRY_IN_MEMORY",
        ge=0,
        le=60,
        description="Waits up to this stay in memory; longer ones are stored in the database.",
        examples=["10s"],
    )
    disable_after: Duration = Field(
        default=432000.0,
        validation_alias="WEBHOOK_DISABLE_AFTER",
        ge=0,
        le=31_536_000,
        description="A subscription whose attempts have all failed for this long is disabled; 0: never.",
        examples=["5d"],
    )
    refused_after: Duration = Field(
        default=86400.0,
        validation_alias="WEBHOOK_REFUSED_AFTER",
        gt=0,
        le=432_000,  # a mark in the database says since when, and is kept for a week
        description="A delivery that the database has refused to store for this long goes to the dead-letter topic.",
        examples=["1d"],
    )
    subscription_cache: Duration = Field(
        default=1.0,
        validation_alias="WEBHOOK_SUBSCRIPTION_CACHE",
        ge=0,
        le=3600,
        description="How long a look-up of subscriptions is reused; a new subscription takes effect after this.",
        examples=["1s"],
    )
    drain: Duration = Field(
        default=20.0,
        validation_alias="WEBHOOK_DRAIN",
        ge=0,
        le=600,
        description="At SIGTERM, how long to wait for requests in flight.",
        examples=["20s"],
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


GROUPS: tuple[type[Group], ...] = (
    KafkaSettings,
    TopicSettings,
    SchemaSettings,
    DatabaseSettings,
    DeliverySettings,
    OpsSettings,
    TraceSettings,
    ApiSettings,
    LogSettings,
)


def variables(group: type[Group]) -> Iterator[tuple[str, FieldInfo]]:
    """A group's environment variables, each with its field."""
    for field in group.model_fields.values():
        yield str(field.validation_alias), field


@cache
def known_names() -> frozenset[str]:
    """The names of all settings."""
    return frozenset(name for group in GROUPS for name, _ in variables(group))


def table() -> str:
    """The settings as the Markdown table that docs/settings.md holds; a test compares them."""
    rows = [
        f"| `{name}` | {default_text(field)} | {field.description} |"
        for group in GROUPS
        for name, field in variables(group)
    ]
    return "\n".join(["| setting | default | what it does |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())  # noqa: T201 (its purpose)
